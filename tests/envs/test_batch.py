"""Simulation in a batch: the same starts, motion, rewards and ends as on C MuJoCo."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.envs.batch import Batch
from qompose.envs.lanes import Lanes
from qompose.tasks import make_task
from qompose.types import QomposeError

LANES = 4


@pytest.fixture(autouse=True)
def relaxed(relaxed_jax):
    """MJX mixes dtypes and ranks."""


def side_by_side(names, actions, episode_steps=None):
    """Both simulators from the same starts under actions (steps, lanes, act); yield both. C does not reset."""
    tasks = [make_task(name) for name in names]
    batch, lanes = Batch(tasks, episode_steps), Lanes(tasks[0], LANES)
    lanes.begin(np.ones(LANES, bool), 3)
    keys = [np.random.SeedSequence(3, spawn_key=(lane, 0)) for lane in range(LANES)]
    u = jnp.asarray(np.stack([np.random.default_rng(key).random(batch.reset_uniforms) for key in keys]), jnp.float32)
    traces = []

    @jax.jit
    def step(*arguments):
        traces.append(1)
        return jax.vmap(batch.step, in_axes=(0, 0, 0, None))(*arguments)

    lane = jax.vmap(batch.begin)(u)
    yield lanes.observe(), None, lane.observation, None
    for action in actions:
        lane, outcome = step(lane, jnp.asarray(action, jnp.float32), u, jnp.asarray(0))
        rewards, terminated, _ = lanes.advance(action)
        yield lanes.observe(), (rewards, terminated), lane, outcome
    assert len(traces) == 1


def held_actions(steps, size, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * np.repeat(rng.uniform(-1.0, 1.0, (-(-steps // 10), LANES, size)), 10, axis=0)[:steps]


def test_the_point_moves_and_is_paid_as_on_c_mujoco_to_1e_4():
    side = list(side_by_side(["MultiGoal"], held_actions(29, 2, scale=0.05)))
    assert np.allclose(side[0][0], side[0][2], atol=1e-6)
    for observed, (rewards, terminated), _, outcome in side[1:]:
        assert np.allclose(observed, outcome.next_observation, atol=1e-4)
        assert np.allclose(rewards, outcome.reward, atol=1e-4)
        assert (np.asarray(outcome.terminated) == terminated).all()


def test_the_true_last_observation_survives_the_reset_and_a_time_limit_does_not_terminate():
    *_, (_, _, lane, outcome) = side_by_side(["MultiGoal"], np.full((3, LANES, 2), 0.2), episode_steps=3)
    assert np.asarray(outcome.truncated).all() and not np.asarray(outcome.terminated).any()
    assert (np.asarray(outcome.next_observation) > 0.4).all()  # three steps of 0.2 from within 0.1 of the middle
    assert (np.abs(lane.observation) <= 0.1).all() and not np.asarray(lane.elapsed).any()
    assert (np.asarray(outcome.metrics["length"]) == 3).all()


def test_a_goal_terminates_and_does_not_truncate():
    side = list(side_by_side(["MultiGoal"], np.tile([1.0, 0.0], (5, LANES, 1))))
    outcome = side[-1][3] if np.asarray(side[-1][3].terminated).any() else side[-2][3]
    assert np.asarray(outcome.terminated).any() and not np.asarray(outcome.truncated).any()
    assert (np.asarray(outcome.metrics["success"]) == np.asarray(outcome.terminated)).all()


def test_a_lane_that_diverges_keeps_its_state_and_says_so():
    batch = Batch([make_task("MultiGoal")])
    lane = batch.begin(jnp.full(2, 0.5))
    broken = jax.tree.map(lambda x: x, lane)
    broken = type(lane)(**{**vars(broken), "qvel": jnp.full(2, jnp.nan)})
    following, outcome = jax.jit(batch.step)(broken, jnp.zeros(2), jnp.full(2, 0.5), jnp.asarray(0))
    assert bool(outcome.diverged) and bool(outcome.truncated) and not bool(outcome.terminated)
    assert np.isfinite(np.asarray(outcome.next_observation)).all() and np.isfinite(np.asarray(following.qvel)).all()


def test_tasks_of_other_physics_are_refused():
    with pytest.raises(QomposeError, match="differ in more than their rewards"):
        Batch([make_task("PushLeft"), make_task("MultiGoal")])
    with pytest.raises(QomposeError, match="differ in more than their rewards"):
        Batch([make_task("PushLeft"), make_task("PushTo", goal_x=0.0, avoid_corner=False)])


def test_without_mjx_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['mujoco.mjx'] = None\n"
        "from qompose.envs.batch import Batch\nfrom qompose.tasks import make_task\n"
        "try: Batch([make_task('MultiGoal')])\nexcept ValueError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "this needs MJX; install it with: pip install 'qompose[gpu]'\n"


@pytest.mark.slow
def test_the_pusher_moves_and_is_paid_as_on_c_mujoco_to_a_millimetre_over_300_steps():
    start = None
    for step, (observed, c, lane, outcome) in enumerate(side_by_side(["PushLeft", "PushBottom"], held_actions(300, 3))):
        if outcome is None:
            start = observed
            assert np.allclose(observed, lane, atol=1e-6)
            continue
        places = [0, 1, 2, 6, 7, 9, 10]  # angles, fork, puck
        assert np.allclose(observed[:, places], outcome.next_observation[:, places], atol=1e-3), step
        assert np.allclose(c[0], outcome.reward, atol=1e-3)
    assert (np.abs(observed - start)[:, 9:11].max(axis=-1) > 0.05).sum() >= 2  # the arm has pushed
