"""The compiled loop: from the same transitions it learns what the ordinary loop learns, and runs do not meet."""

import dataclasses
import functools
import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.log import Record, Sizes
from qompose.replay import pack
from qompose.tasks import make_task
from qompose.tasks.multigoal import HALF_WIDTH, MultiGoal
from qompose.training import learner
from qompose.training.learner import Learner, Training
from qompose.training.online import explore
from qompose.types import QomposeError, Transition

RIGHT, TOP = ({"goals": [goal]} for goal in (0, 2))


class Kinematic(eqx.Module):
    """Simulated data of a point that moves by twice its action within a control step."""

    qpos: jax.Array
    qvel: jax.Array
    qacc_warmstart: jax.Array
    ctrl: jax.Array

    def replace(self, **fields):
        return Kinematic(**{**vars(self), **fields})


@dataclasses.dataclass
class FakeModel:
    """How far a unit of control moves, and what `Batch` looks at."""

    reach: float = 2.0 / MultiGoal.substeps
    ls_iterations: int = 50
    opt: Any = None

    def replace(self, **fields):
        return dataclasses.replace(self, **fields)


class FakeMJX:
    """In place of MJX, whose programs take half a minute each to compile: the loop is what is tested here."""

    @staticmethod
    def put_model(model, impl):
        return FakeModel(opt=FakeModel())

    @staticmethod
    def make_data(model, impl):
        return Kinematic(*(jnp.zeros(2) for _ in range(4)))

    @staticmethod
    def kinematics(model, data):
        return data

    @staticmethod
    def step(model, data):
        return data.replace(qpos=jnp.clip(data.qpos + model.reach * data.ctrl, -HALF_WIDTH, HALF_WIDTH))


@pytest.fixture
def fused(monkeypatch):
    """The module on the fake simulator."""
    pytest.importorskip("mujoco.mjx")
    batch = importlib.import_module("qompose.envs.batch")
    monkeypatch.setattr(batch, "mjx", FakeMJX)
    with jax.debug_key_reuse(False):  # it takes the keys of a vmapped scan for used
        yield importlib.import_module("qompose.training.fused")


traced = []


@dataclasses.dataclass(frozen=True)
class Counted(NAF):
    """Tells when it is traced."""

    def update(self, state, batch, *, key):
        traced.append("update")
        return super().update(state, batch, key=key)

    def policy(self, state, observation, *, key):
        traced.append("policy")
        return super().policy(state, observation, key=key)


# The other agents take longer to compile.
AGENTS = {"naf": Counted(hidden=(16,), batch_size=8), "ddpg": DDPG(hidden=(16,), batch_size=8)}
# 51 rounds of 4 lanes, the first 10 of them warm-up, evaluated after 30, 60, ... steps and at the end.
SHORT = Training(
    total_steps=202, warmup_steps=37, updates_per_step=1, num_envs=4, eval_freq=100, eval_episodes=3, episode_steps=7
)
ROUNDS, WARM = 51, 10


@pytest.fixture(scope="module")
def train(tiny_agent):
    """Train an agent on some cases, once for all tests of this module."""

    @functools.cache
    def run(name, *cases):
        from qompose.training.fused import Case, train_fused

        agent = AGENTS.get(name, dataclasses.replace(tiny_agent, planned_updates=None))
        options = {"right": RIGHT, "top": TOP}
        stretches = []

        def note(stretch):
            stretches.append((stretch, len(traced)))

        every = [Case("MultiGoal", seed, options[goal]) for goal, seed in cases]
        return agent, train_fused(every, agent, SHORT, on_stretch=note), stretches

    return run


ALL = (("right", 0), ("top", 0), ("right", 1))


def rounds_of(trained):
    """Transitions (rounds, lanes, ...) in the order in which they were stored."""
    return Transition(*(np.reshape(part, (ROUNDS, 4, *part.shape[1:])) for part in trained.transitions))


@pytest.mark.parametrize("name", ["naf", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sql", "ddpg"))])
def test_the_ordinary_learner_learns_the_same_from_the_same_transitions(fused, train, name):
    agent, (_, trained, _), _ = train(name, *ALL)
    agent = fused.plan_updates(agent, SHORT)
    ordinary = Learner(agent, SHORT, Sizes(4, 2, 2))  # of seed 0
    rows = pack(rounds_of(trained))
    for index, new in enumerate(rows):
        ordinary.take(Record(4 * (index + 1), 0, 0, np.asarray(new)))
        ordinary.judge()
    assert ordinary.updates == int(trained.state.updates) == 4 * (ROUNDS - WARM)
    expected, found = jax.tree.leaves(ordinary.state), jax.tree.leaves(trained.state)
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4)
    begun = learner.init(agent, 2, 2, learner.stream(0, learner.INIT))
    moved = [np.abs(np.asarray(a) - b).max() for a, b in zip(jax.tree.leaves(begun), found, strict=True)]
    assert max(moved) > 0.05  # far more than the tolerance


def test_the_first_round_after_the_warm_up_acts_by_the_policy_on_fixed_scales(fused, train):
    agent, (trained, *_), _ = train("naf", *ALL)
    agent = fused.plan_updates(agent, SHORT)
    rounds = rounds_of(trained)
    ordinary = Learner(agent, SHORT, Sizes(4, 2, 2))
    for index, new in enumerate(pack(rounds)[:WARM]):
        ordinary.take(Record(4 * (index + 1), 0, 0, np.asarray(new)))
    assert ordinary.calibrated
    root = learner.stream(0, learner.EXPLORE)
    expected = explore(agent, ordinary.state, jnp.asarray(rounds.observation[WARM]), root, jnp.uint32(4 * WARM))
    assert np.allclose(expected, rounds.action[WARM], atol=1e-5)
    warm = rounds.action[:WARM].ravel()
    assert (np.abs(warm) <= 1.0).all() and 0.4 < warm.std() < 0.75 and abs(warm.mean()) < 0.3  # uniform: 0.58


def test_what_is_stored_is_what_happened(fused, train):
    """Rewards and ends of each run's own task, true last observations, and a new start after every end."""
    _, runs, _ = train("naf", *ALL)
    for goal, trained in zip((RIGHT, TOP, RIGHT), runs, strict=True):
        task, rounds = make_task("MultiGoal", **goal), rounds_of(trained)
        after = {"position": rounds.next_observation}
        assert np.allclose(task.reward({}, rounds.action, after)[0], rounds.reward, atol=1e-4)
        assert (task.terminated(after) == (rounds.terminated == 1.0)).all()
        moved = np.clip(rounds.observation + 2.0 * rounds.action, -HALF_WIDTH, HALF_WIDTH)
        assert np.allclose(moved, rounds.next_observation, atol=1e-5)
        elapsed, ends = np.zeros(4, int), 0
        for k in range(ROUNDS - 1):
            elapsed += 1
            done = (elapsed == 7) | (rounds.terminated[k] == 1.0)
            ends += done.sum()
            goes_on = np.allclose(rounds.next_observation[k][~done], rounds.observation[k + 1][~done])
            assert goes_on and (np.abs(rounds.observation[k + 1][done]) <= 0.1).all()
            elapsed[done] = 0
        assert ends >= 4 * 6 and trained.episodes == ends + ((elapsed == 6) | (rounds.terminated[-1] == 1.0)).sum()
        assert (trained.steps, trained.diverged) == (4 * ROUNDS, 0)
    assert any((rounds_of(trained).terminated == 1.0).any() for trained in runs)


@pytest.mark.parametrize("name", ["naf", pytest.param("sql", marks=pytest.mark.slow)])
def test_a_run_among_others_is_the_run_alone(fused, train, name):
    _, together, _ = train(name, *ALL)
    _, (alone,), _ = train(name, ("top", 0))
    for one, other in zip(jax.tree.leaves(together[1].state), jax.tree.leaves(alone.state), strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4)
    assert np.allclose(together[1].transitions.observation, alone.transitions.observation, atol=1e-4)
    assert together[1].evaluations[0] == pytest.approx(alone.evaluations[0], rel=1e-3)
    # Its seed and its task make it what it is.
    weights = [np.asarray(run.state.critic.network.weight_out) for run in together]
    assert not np.allclose(weights[1], weights[0], atol=1e-3) and not np.allclose(weights[2], weights[0], atol=1e-3)


def test_evaluations_are_of_whole_first_episodes_at_the_promised_steps(fused, train):
    _, runs, stretches = train("naf", *ALL)
    stretches, _ = zip(*stretches, strict=True)
    assert [stretch.step for stretch in stretches] == [100, 200, 204]
    assert [stretch.updates for stretch in stretches] == [3 * 4 * n for n in (25 - WARM, 25, 1)]
    assert [stretch.steps for stretch in stretches] == [3 * 4 * n for n in (25, 25, 1)]
    assert stretches[0].compiling > 0.0 == stretches[1].compiling
    for index, run in enumerate(runs):
        assert [line["step"] for line in run.evaluations] == [100, 200, 204]
        assert [{**s.figures[index], "step": s.step} for s in stretches] == run.evaluations
        for line in run.evaluations:
            # 30 steps and not the 7 of the training, unless all episodes end sooner, at the goal.
            assert line["eval/mean_ep_length"] == 30.0 or line["eval/success_rate"] > 0.0


def test_nothing_is_traced_after_the_first_compilation(fused, train):
    _, _, stretches = train("naf", *ALL)
    counts = [count for _, count in stretches]
    assert counts == [counts[0]] * 3 and set(traced) == {"update", "policy"}


@pytest.mark.slow
def test_a_full_replay_keeps_the_last_transitions(fused):
    options = dataclasses.replace(SHORT, replay_size=60, eval_freq=0)
    cases = [fused.Case("MultiGoal", seed, RIGHT) for seed in (0, 1)]
    prepared = fused.prepare(cases, AGENTS["naf"], options)
    runs = fused.run(prepared)
    with pytest.raises(QomposeError, match="this training was run already; prepare another one"):
        fused.run(prepared)
    for run in runs:
        assert len(run.transitions.reward) == 60
        # The ring's oldest round lies behind its newest: 51 rounds went into 15 places.
        parts = (np.reshape(part, (15, 4, *part.shape[1:])) for part in run.transitions)
        rounds = Transition(*(np.roll(part, -(ROUNDS % 15), axis=0) for part in parts))
        goes_on = np.isclose(rounds.next_observation[:-1], rounds.observation[1:]).all(axis=-1)
        assert goes_on.mean() > 0.7 and not np.allclose(run.transitions.reward[:4], 0.0)


def test_a_diverged_lane_leaves_a_copy_of_another_lanes_transition(fused):
    from qompose.envs.batch import Lane, Outcome

    @jax.vmap
    def of_lanes(place, reward, diverged):
        zero, count, row = jnp.zeros(()), jnp.zeros((), jnp.int32), place[None]
        lane = Lane(count, row, row, row, {}, row, count, zero)
        return lane, Outcome(reward, row + 3.0, ~diverged, diverged, diverged, {})

    lanes, outcome = of_lanes(jnp.arange(1.0, 4.0), jnp.arange(7.0, 10.0), jnp.asarray([True, False, False]))
    new = fused._transitions(lanes, 0.1 * lanes.observation, outcome)
    assert np.allclose(new.reward, [8.0, 8.0, 9.0]) and np.allclose(new.observation[:, 0], [2.0, 2.0, 3.0])
    assert np.allclose(new.action[:, 0], [0.2, 0.2, 0.3]) and np.allclose(new.terminated, 1.0)


def test_a_run_that_diverges_again_and_again_is_named(fused):
    cases = [fused.Case("MultiGoal", seed) for seed in (3, 4)]
    fused._refuse_divergence(np.array([2, learner.MOST_ROLLBACKS - 1]), cases)
    with pytest.raises(QomposeError, match=r"^training diverged: MultiGoal, seed 4: 20 rounds of updates .*rate$"):
        fused._refuse_divergence(np.array([2, learner.MOST_ROLLBACKS]), cases)


@pytest.mark.parametrize("simulator", ["jax", "warp"])
def test_with_warp_nothing_is_begun_while_another_program_is_compiled(fused, monkeypatch, simulator):
    busy, most = [], []

    class Stage:
        """Stands in for `Fused`: what is done is to stay busy."""

        def __init__(self, *_):
            self.batch = SimpleNamespace(simulator=simulator)

        def begin(self, *_):
            return self.stay_busy("begin")

        def trace(self, _):
            return []

        def compile(self, _):
            self.stay_busy("compile")

        def stay_busy(self, what):
            busy.append(what)
            time.sleep(0.05)
            most.append(len(busy))
            busy.remove(what)

    monkeypatch.setattr(fused, "Fused", Stage)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda seed: fused.prepare([fused.Case("MultiGoal", seed)], AGENTS["naf"], SHORT), range(3)))
    assert len(most) == 6 and (max(most) == 1) == (simulator == "warp")


def test_a_run_becomes_an_ordinary_skill(fused, train, tmp_path):
    from qompose.shipped import load

    agent, (_, trained, _), _ = train("naf", *ALL)
    case = fused.Case("MultiGoal", 1, TOP)
    fused.fused_skill(case, agent, SHORT, trained).save(tmp_path / "top")
    skill = load(tmp_path / "top")
    assert skill.act(np.zeros(2)).shape == (2,) and np.array_equal(skill.replay.reward, trained.transitions.reward)
    assert skill.algorithm == "naf" and skill.task == {"id": "MultiGoal", "options": TOP}
    assert skill.provenance["seed"] == 1 and skill.provenance["steps"] == 4 * ROUNDS
    assert skill.provenance["results"]["distance"] == pytest.approx(trained.evaluations[-1]["eval/distance"])


def test_nothing_to_train_and_tasks_that_move_differently_are_refused(fused):
    with pytest.raises(QomposeError, match="at least one case"):
        fused.train_fused([], AGENTS["ddpg"], SHORT)
    unlike = [fused.Case("PushLeft", 0), fused.Case("PushTo", 0, {"goal_x": 0.5, "avoid_corner": False})]
    with pytest.raises(QomposeError, match="PushLeft and PushTo differ in more than their rewards"):
        fused.train_fused(unlike, AGENTS["ddpg"], SHORT)


@pytest.mark.slow
def test_the_pusher_on_mjx_goes_through_the_loop(relaxed_jax):
    """Two lines from one seed: they move alike until the first update, and their goals are their own."""
    pytest.importorskip("mujoco.mjx")
    from qompose.training.fused import Case, train_fused

    options = Training(total_steps=24, warmup_steps=16, updates_per_step=1, num_envs=2, eval_freq=24, eval_episodes=2)
    runs = train_fused([Case("PushLeft", 0), Case("PushBottom", 0)], AGENTS["ddpg"], options)
    left, bottom = (run.transitions for run in runs)
    assert np.allclose(left.observation[:16], bottom.observation[:16], atol=1e-6)
    for name, data in (("PushLeft", left), ("PushBottom", bottom)):
        task = make_task(name)
        assert np.allclose(task.reward({}, data.action, task.recall(data.next_observation))[0], data.reward, atol=1e-5)
    assert not np.allclose(left.reward, bottom.reward, atol=1e-2)
    assert all(run.evaluations[-1]["eval/mean_ep_length"] == 300.0 for run in runs)
    assert [int(run.state.updates) for run in runs] == [8, 8]
