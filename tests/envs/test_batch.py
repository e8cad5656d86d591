"""Simulation in a batch: the same starts, motion, rewards and ends as on C MuJoCo."""

import copy
import functools
import importlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from qompose.envs.lanes import Lanes
from qompose.tasks import make_task
from qompose.tasks.task import compile_scene
from qompose.types import QomposeError

LANES, STEPS = 4, 12  # of the point
# The first run with Warp compiles its kernels: minutes, on a CPU.
SIMULATORS = ["jax", pytest.param("warp", marks=pytest.mark.slow)]


@pytest.fixture
def batch(relaxed_jax):
    """The module, where MJX is installed; MJX mixes dtypes and ranks."""
    pytest.importorskip("mujoco.mjx")
    return importlib.import_module("qompose.envs.batch")


@pytest.fixture(params=SIMULATORS)
def simulator(request, batch):
    """Each implementation that is installed."""
    if request.param == "warp":
        pytest.importorskip("warp")
    return request.param


@functools.cache
def programs(name, episode_steps, simulator="jax", lanes=LANES):
    """`begin` and `step` over lanes, compiled once for all tests of a task, and the list that counts compilations."""
    from qompose.envs.batch import Batch

    simulated = Batch(make_task(name), episode_steps=episode_steps, simulator=simulator, lanes=lanes)
    traces = []

    @jax.jit
    def step(lane, action, u):
        traces.append(1)
        return jax.vmap(simulated.step)(lane, action, u)

    return jax.jit(jax.vmap(simulated.begin)), step, traces


def uniforms(task, count):
    """What the first episodes of seed 3 on C MuJoCo are drawn from, (count, reset_uniforms)."""
    keys = [np.random.SeedSequence(3, spawn_key=(lane, 0)) for lane in range(count)]
    return np.stack([np.random.default_rng(key).random(task.reset_uniforms) for key in keys]).astype(np.float32)


def side_by_side(name, actions, episode_steps=None, simulator="jax"):
    """Yield C's lanes and MJX's, from the same starts under actions (steps, lanes, act). C does not reset."""
    task, count = make_task(name), actions.shape[1]
    lanes, u = Lanes(task, count), uniforms(task, count)
    lanes.begin(np.ones(count, bool), 3)
    begin, step, traces = programs(name, episode_steps, simulator, count)
    lane = begin(u)
    yield lanes.observe(), None, lane.observation, None
    for action in actions:
        lane, outcome = step(lane, action.astype(np.float32), u)
        rewards, terminated, _ = lanes.advance(action)
        yield lanes.observe(), (rewards, terminated), lane, outcome
    assert len(traces) == 1


def held_actions(steps, lanes, size, scale=1.0):
    """Uniform ones within [-scale, scale], each held for ten steps: (steps, lanes, size)."""
    rng = np.random.default_rng(0)
    return scale * np.repeat(rng.uniform(-1.0, 1.0, (-(-steps // 10), lanes, size)), 10, axis=0)[:steps]


def test_the_point_moves_and_is_paid_as_on_c_mujoco_to_1e_4(simulator):
    actions = held_actions(STEPS - 1, LANES, 2, 0.3)
    (start, _, simulated_start, _), *side = side_by_side("MultiGoal", actions, STEPS, simulator)
    assert np.allclose(start, simulated_start, atol=1e-6)
    for observed, (rewards, terminated), _, outcome in side:
        assert np.allclose(observed, outcome.next_observation, atol=1e-4)
        assert np.allclose(rewards, outcome.reward, atol=1e-4)
        assert (np.asarray(outcome.terminated) == terminated).all()
    assert (np.abs(observed - start).max(axis=-1) > 0.5).all()
    total = np.sum([rewards for _, (rewards, _), _, _ in side], axis=0)
    assert np.allclose(outcome.metrics["return"], total, atol=1e-3)


def test_the_true_last_observation_survives_the_reset_and_a_time_limit_does_not_terminate(batch):
    *_, (_, _, lane, outcome) = side_by_side("MultiGoal", np.full((STEPS, LANES, 2), 0.1), STEPS)
    assert np.asarray(outcome.truncated).all() and not np.asarray(outcome.terminated).any()
    assert (np.asarray(outcome.next_observation) > 1.0).all()  # twelve steps of 0.1 from within 0.1 of the middle
    assert (np.asarray(outcome.metrics["length"]) == STEPS).all()
    assert (np.abs(lane.observation) <= 0.1).all()
    assert not np.asarray(lane.elapsed).any() and not np.asarray(lane.total).any()


def test_a_goal_terminates_and_does_not_truncate(batch):
    ended = np.zeros(LANES, bool)
    for _, _, _, outcome in side_by_side("MultiGoal", np.tile([1.0, 0.0], (5, LANES, 1)), STEPS):
        if outcome is not None:
            ended |= np.asarray(outcome.terminated)
            assert (np.asarray(outcome.metrics["success"]) == np.asarray(outcome.terminated)).all()
            assert not np.asarray(outcome.truncated).any()
    assert ended.all()


def test_a_lane_that_diverges_keeps_its_state_and_begins_anew_alone(simulator):
    begin, step, _ = programs("MultiGoal", STEPS, simulator)
    u = uniforms(make_task("MultiGoal"), LANES)
    lane = begin(u)
    broken = eqx.tree_at(lambda x: x.qvel, lane, lane.qvel.at[1].set(jnp.nan))
    following, outcome = step(broken, np.full((LANES, 2), 0.1, np.float32), u)
    only = np.arange(LANES) == 1
    assert (np.asarray(outcome.diverged) == only).all() and (np.asarray(outcome.truncated) == only).all()
    assert not np.asarray(outcome.terminated).any()
    assert np.array_equal(outcome.next_observation[1], lane.observation[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((following, outcome)))
    assert (np.asarray(following.elapsed) == ~only).all()


def test_a_task_that_needs_more_is_refused(batch):
    with pytest.raises(QomposeError, match="SawyerReach needs more than a batch"):
        batch.Batch(make_task("SawyerReach"))


@pytest.mark.parametrize(
    ("installed", "lanes", "message"),
    [
        (False, 4, "MuJoCo Warp is not installed: pip install 'mujoco-mjx\\[warp\\]'"),
        (True, None, "Warp needs to know how many lanes there will be: give lanes"),
    ],
)
def test_what_warp_lacks_is_said_in_one_line(batch, monkeypatch, installed, lanes, message):
    monkeypatch.setattr(batch, "WARP_INSTALLED", installed)
    with pytest.raises(QomposeError, match=message):
        batch.Batch(make_task("MultiGoal"), simulator="warp", lanes=lanes)


@pytest.mark.parametrize(
    ("installed", "backend", "known", "chosen"),
    [
        (True, "gpu", {"cpu": None, "cuda": None}, "warp"),
        (False, "gpu", {"cpu": None, "cuda": None}, "jax"),
        (True, "gpu", {"cpu": None, "rocm": None}, "jax"),
        (True, "cpu", {"cpu": None}, "jax"),
    ],
)
def test_warp_is_chosen_where_it_is_installed_on_a_cuda_gpu(batch, monkeypatch, installed, backend, known, chosen):
    monkeypatch.setattr(batch, "WARP_INSTALLED", installed)
    monkeypatch.setattr(batch.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(batch, "backends", lambda: known)
    assert batch.choose_simulator() == chosen
    assert batch.Batch(make_task("MultiGoal")).simulator == "jax"  # of how many lanes, it was not told


@pytest.mark.slow
def test_a_lane_for_whose_contacts_warp_has_no_room_counts_as_diverged(batch):
    pytest.importorskip("warp")
    task = make_task("PushLeft")
    simulated, u = batch.Batch(task, simulator="warp", lanes=16), uniforms(task, 16)
    lane, idle = jax.vmap(simulated.begin)(u), np.zeros((16, 3), np.float32)
    touching = eqx.tree_at(lambda x: x.qpos, lane, lane.qpos.at[:, 3:].set(lane.readings["fork"][:, :2]))
    assert not np.asarray(jax.jit(jax.vmap(simulated.step))(touching, idle, u)[1].diverged).any()
    scene = copy.copy(compile_scene(task.batched_scene()))
    assert scene.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # Warp's scene was a copy
    scene.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    simulated._data = batch.mjx.make_data(scene, impl="warp", naconmax=1, njmax=38)
    assert np.asarray(jax.jit(jax.vmap(simulated.step))(touching, idle, u)[1].diverged).all()


def test_without_mjx_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.mjx", None)
    monkeypatch.delattr(mujoco, "mjx", raising=False)
    monkeypatch.delitem(sys.modules, "qompose.envs.batch", raising=False)
    with pytest.raises(QomposeError) as refusal:
        importlib.import_module("qompose.envs.batch")
    advice = "pip install mujoco-mjx, or for a GPU '.[gpu]' in the source tree"
    assert str(refusal.value) == f"a batch needs MJX: {advice}"


@pytest.mark.slow
def test_each_step_of_the_pusher_from_the_same_state_is_that_of_c_mujoco(simulator):
    """States along 16 of C's trajectories. By rounding a touch may begin a simulator step earlier or later."""
    task, actions = make_task("PushLeft"), held_actions(300, 16, 3)
    lanes, u = Lanes(task, 16), uniforms(task, 16)
    lanes.begin(np.ones(16, bool), 3)
    begin, step, traces = programs("PushLeft", None, simulator, 16)
    lane, touched, differences = begin(u), 0, []
    for action in actions:
        state = [np.stack([getattr(data, name) for data in lanes.datas]) for name in ("qpos", "qvel", "qacc_warmstart")]
        same = eqx.tree_at(lambda x: (x.qpos, x.qvel, x.warmstart), lane, [part.astype(np.float32) for part in state])
        _, outcome = step(same, action.astype(np.float32), u)
        rewards, _, _ = lanes.advance(action)
        differences.append(np.abs(lanes.observe() - outcome.next_observation))
        assert np.allclose(rewards, outcome.reward, rtol=0.0, atol=1e-3)
        touched += sum(data.ncon > 0 for data in lanes.datas)
    places = np.delete(differences, [3, 4, 5], axis=-1).max(axis=-1)  # angles (rad), fork and puck (m)
    velocities = np.asarray(differences)[..., 3:6].max(axis=-1)  # rad/s
    assert places.max() < 1e-3
    assert np.quantile(places, 0.99) < 1e-5 and np.quantile(velocities, 0.99) < 1e-3
    assert touched > 100 and len(traces) == 1


@pytest.mark.slow
def test_pucks_are_pushed_to_where_c_mujoco_pushes_them_to_a_millimetre_over_300_steps(simulator):
    """All 16 pucks. Of the arms two may stray: a blow of the fork on the base multiplies rounding a hundredfold."""
    (start, _, simulated_start, _), *side = side_by_side("PushLeft", held_actions(300, 16, 3), None, simulator)
    assert np.allclose(start, simulated_start, atol=1e-6)
    differences = []
    for observed, (rewards, _), _, outcome in side:
        differences.append(np.abs(observed - outcome.next_observation))
        assert np.allclose(rewards, outcome.reward, rtol=0.0, atol=1e-3)
    worst = np.max(differences, axis=0)
    assert (worst[:, 9:] < 1e-3).all()
    assert (worst[:, [0, 1, 2, 6, 7, 8]].max(axis=-1) < 1e-3).sum() >= 14
    assert (np.abs(observed - start)[:, 9:11].max(axis=-1) > 0.1).sum() >= 4  # the arms have pushed


@pytest.mark.slow
def test_eight_steps_of_the_line_search_give_what_fifty_give(batch, monkeypatch):
    """One step of the simulator from the states of 32 episodes, most of them in contact at some time."""
    task, rng = make_task("PushLeft"), np.random.default_rng(0)
    u, actions = uniforms(task, 32), rng.uniform(-1.0, 1.0, (12, 32, 3)).repeat(10, axis=0).astype(np.float32)
    steps = {}
    for search in (8, 50):
        monkeypatch.setattr(batch, "LINE_SEARCH", search)
        simulated = batch.Batch(task, simulator="jax")
        assert simulated._model.opt.ls_iterations == search
        steps[search] = jax.jit(jax.vmap(simulated.step))
    lane, apart, touched = jax.vmap(simulated.begin)(u), [], 0
    for action in actions:
        ends = [step(lane, action, u)[0] for step in steps.values()]
        apart.append([np.abs(a - b).max() for a, b in zip(*((end.qpos, end.qvel) for end in ends), strict=True)])
        touched += int(np.sum(np.abs(ends[0].qvel[:, 3:]).max(axis=1) > 0.1))  # the puck moves
        lane = ends[0]
    assert touched > 100 and np.max(apart) < 1e-4
