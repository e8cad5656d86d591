import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.envs.lockstep import Lockstep
from qompose.replay import init_replay, pack
from qompose.run import Run, name_leaves, read_metrics
from qompose.training import learner, online
from qompose.training.learner import calibrate, learn, store
from qompose.training.online import Loop, Training, choose, explore, follow, train_online
from qompose.training.session import train
from qompose.types import QomposeError, Transition

GOAL = {"goals": [0]}


def digest(trained):
    """A hash of every bit that a training leaves behind."""
    total = hashlib.sha256()
    arrays = name_leaves(trained.state) | trained.transitions._asdict()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def figures_of(directory):
    """What was logged, apart from the clock's figures."""
    return [{name: value for name, value in line.items() if name != "time/fps"} for line in read_metrics(directory)]


def start(directory, agent, training, resume=False):
    config = json.loads(json.dumps({"agent": asdict(agent), "training": asdict(training)}))
    return Run(directory, config, resume=resume, events=False)


def make_env(env="MultiGoal", options=GOAL, lanes=4):
    return Lockstep.make(env, lanes, options if env == "MultiGoal" else {})


@pytest.fixture(params=["sql", "ddpg", "naf"])
def each_agent(request, tiny_agent):
    return {"sql": tiny_agent, "ddpg": DDPG(hidden=(16,)), "naf": NAF(hidden=(16,))}[request.param]


@pytest.fixture(scope="module")
def uninterrupted(tiny_agent, tiny_training, tmp_path_factory):
    """A training from beginning to end: what it left, and its run."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    return train_online(
        make_env(), tiny_agent, tiny_training, run=start(directory, tiny_agent, tiny_training)
    ), directory


# ------------------------------------------------------------------------------------------------- reproducibility


def count_traces():
    return np.array([function._cache_size() for function in (choose, follow, store, calibrate, learn)])


def test_a_training_compiles_its_functions_once(each_agent, tiny_training, tmp_path, compiled):
    options = replace(tiny_training, eval_freq=150, eval_episodes=3)

    def run(options, name):
        directory = start(tmp_path / name, each_agent, options)
        return train_online(make_env(), each_agent, options, evaluation_env=make_env(lanes=3), run=directory)

    before = count_traces()
    first = run(options, "a")
    once = count_traces()
    assert (once - before <= 1).all() and (once >= 1).all()
    compiled.clear()
    again = run(replace(options, seed=1), "b")
    assert len(first.evaluations) == 4 and not compiled
    interrupt_and_resume(each_agent, tiny_training, tmp_path / "c")
    assert np.array_equal(count_traces(), once)
    assert digest(first) != digest(again)  # the seed matters


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[1])
import jax
jax.config.update("jax_platforms", "cpu")
from qompose.agents.sql import SQL
from qompose.training.online import Training, train_online
from test_online import digest, make_env
agent, training = json.loads(sys.argv[2])
print(digest(train_online(make_env(), SQL(**{**agent, "hidden": tuple(agent["hidden"])}), Training(**training))))
"""


def test_equal_seeds_give_equal_bits_in_two_processes(uninterrupted, tiny_agent, tiny_training):
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__)]
    settings = json.dumps([asdict(tiny_agent), asdict(tiny_training)])
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([*command, settings], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(uninterrupted[0]), done.stderr


class Stop(Exception):
    pass


def interrupt_and_resume(agent, training, directory, env="MultiGoal", at=400):
    """A training that dies right after it has logged step `at`, and is resumed from the checkpoint before."""

    def stop(progress):
        if progress.step >= at:
            raise Stop

    with pytest.raises(Stop):
        train_online(make_env(env), agent, training, run=start(directory, agent, training), on_progress=stop)
    run, notices = start(directory, agent, training, resume=True), []
    trained = train_online(make_env(env), agent, training, run=run, resume=True, on_notice=notices.append)
    assert notices == []
    return trained


def test_a_killed_and_resumed_training_ends_with_the_same_bits(uninterrupted, tiny_agent, tiny_training, tmp_path):
    resumed = interrupt_and_resume(tiny_agent, tiny_training, tmp_path / "run")
    expected, directory = uninterrupted
    assert digest(resumed) == digest(expected)
    assert figures_of(tmp_path / "run") == figures_of(directory) and len(figures_of(directory)) == 3
    assert (resumed.steps, resumed.episodes, resumed.diverged) == (expected.steps, expected.episodes, expected.diverged)


def test_a_training_killed_during_warm_up_resumes_with_the_same_bits(
    uninterrupted, tiny_agent, tiny_training, tmp_path
):
    early = replace(tiny_training, save_freq=100, log_freq=40)
    resumed = interrupt_and_resume(tiny_agent, early, tmp_path / "run", at=160)
    assert digest(resumed) == digest(uninterrupted[0])


@pytest.mark.slow  # compiles everything for the shapes of another task, twice the time of all that is above
def test_a_killed_and_resumed_pusher_ends_with_the_same_bits(tiny_agent, tiny_training, tmp_path):
    expected = train_online(make_env("PushLeft"), tiny_agent, tiny_training)
    resumed = interrupt_and_resume(tiny_agent, tiny_training, tmp_path / "run", env="PushLeft")
    assert digest(resumed) == digest(expected)


# ------------------------------------------------------------------------------------------------------ interruption


@pytest.fixture
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(env, at, times=1):
    """Let the user press Ctrl-C while the environment steps for the `at`-th time, before the step is done."""
    count, step = 0, env.env.step

    def interrupted(actions):
        nonlocal count
        count += 1
        for _ in range(times if count == at else 0):
            signal.raise_signal(signal.SIGINT)
        return step(actions)

    env.env.step = interrupted
    return env


def test_ctrl_c_finishes_the_round_and_saves_it(uninterrupted, tiny_agent, tiny_training, tmp_path, usual_handler):
    run = start(tmp_path / "run", tiny_agent, tiny_training)
    with pytest.raises(
        QomposeError, match=r"^interrupted at step 348; the same command with --resume goes on \(step 348 is saved\)$"
    ):
        train_online(press(make_env(), 87), tiny_agent, tiny_training, run=run)
    assert run.load()[0] == 348
    run = start(tmp_path / "run", tiny_agent, tiny_training, resume=True)
    resumed = train_online(make_env(), tiny_agent, tiny_training, run=run, resume=True)
    assert digest(resumed) == digest(uninterrupted[0])
    assert figures_of(tmp_path / "run") == figures_of(uninterrupted[1])


def test_an_impatient_ctrl_c_leaves_the_last_whole_checkpoint(tiny_agent, tiny_training, tmp_path, usual_handler):
    run = start(tmp_path / "run", tiny_agent, tiny_training)
    with pytest.raises(QomposeError, match=r"^interrupted at step \d+; the same command with --resume goes on$"):
        train_online(press(make_env(), 87, times=2), tiny_agent, tiny_training, run=run)
    assert run.load()[0] == 200


def test_ctrl_c_without_a_run_says_nothing_of_resuming(tiny_agent, tiny_training, usual_handler):
    with pytest.raises(QomposeError, match=r"^interrupted at step 40$"):
        train_online(press(make_env(), 10), tiny_agent, tiny_training)


def test_resuming_without_a_checkpoint_starts_with_a_notice(uninterrupted, tiny_agent, tiny_training, tmp_path):
    notices = []
    run = start(tmp_path / "run", tiny_agent, tiny_training, resume=True)
    trained = train_online(make_env(), tiny_agent, tiny_training, run=run, resume=True, on_notice=notices.append)
    assert notices == [f"{tmp_path / 'run'} has no checkpoint to resume from; starting from the beginning"]
    assert digest(trained) == digest(uninterrupted[0])


def test_resuming_a_finished_training_changes_nothing(uninterrupted, tiny_agent, tiny_training):
    expected, directory = uninterrupted
    run = start(directory, tiny_agent, tiny_training, resume=True)
    again = train_online(make_env(), tiny_agent, tiny_training, run=run, resume=True)
    assert digest(again) == digest(expected) and again.episodes == expected.episodes
    assert 0.0 < again.seconds <= expected.seconds  # of the training, not of the resumption


# -------------------------------------------------------------------------------------------- foreign environments


def train_foreign(env, agent, training, directory):
    settings = {"agent": agent, "training": training, "output_dir": directory, "track": False}

    def stop(progress):
        if progress.step >= 400:
            raise Stop

    with pytest.raises(Stop):
        train(env, on_progress=stop, **settings)
    notices = []
    skill = train(env, resume=True, on_notice=notices.append, **settings)
    assert notices == [f"resumed at step 400; {env} cannot restore its state, so new episodes start"]
    assert skill.provenance["steps"] == 600 and skill.task == {"id": env, "options": {}}
    # What is not known of a foreign environment is left open.
    assert skill.observation["names"] is None and skill.control_period is None
    return skill


def test_a_foreign_environment_trains_by_id_and_resumes_with_a_notice(walk_id, tiny_agent, tiny_training, tmp_path):
    skill = train_foreign(walk_id, tiny_agent, tiny_training, tmp_path / "run")
    assert skill.action["high"] == [1.0, 1.0] and skill.terminates


@pytest.mark.slow  # compiles everything for the shapes of one more environment
def test_pendulum_trains_by_id_and_resumes_with_a_notice(tiny_agent, tiny_training, tmp_path):
    skill = train_foreign("Pendulum-v1", tiny_agent, tiny_training, tmp_path / "run")
    assert skill.action["high"] == [2.0] and skill.horizon == 200 and not skill.terminates
    angle = np.arctan2(skill.replay.observation[:, 1], skill.replay.observation[:, 0])
    torque = 2.0 * skill.replay.action[:, 0]  # stored in [-1, 1], acted in [-2, 2]
    cost = angle**2 + 0.1 * skill.replay.observation[:, 2] ** 2 + 0.001 * torque**2
    assert np.allclose(skill.replay.reward, -cost, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # compiles everything for the shapes of one more environment
def test_mountain_car_trains_by_id_and_resumes_with_a_notice(tiny_agent, tiny_training, tmp_path):
    skill = train_foreign("MountainCarContinuous-v0", tiny_agent, tiny_training, tmp_path / "run")
    assert skill.action["high"] == [1.0] and skill.horizon == 999


def true_steps(transitions):
    """The transitions of `Walk` by start: (lane + 10 episode, step)."""
    return Counter(zip(*transitions.observation.T.tolist(), strict=True))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_only_true_transitions_enter_the_replay(make_walk, tiny_agent, tiny_training, mode, compiled):
    trained = train_online(make_walk(mode), tiny_agent, tiny_training)
    compiled.clear()
    train_online(make_walk(mode), tiny_agent, replace(tiny_training, seed=1))
    assert not compiled  # however many lanes were only reset in a step
    batch = trained.transitions
    place, elapsed = batch.observation.T
    next_place, next_elapsed = batch.next_observation.T
    assert np.array_equal(next_place, place) and np.array_equal(next_elapsed, elapsed + 1)
    # An episode that was cut by its time limit goes on in value; one that reached its end does not.
    ends = ((place // 10) % 3 == 0) & (next_elapsed == 3)
    assert np.array_equal(batch.terminated, ends.astype(np.float32)) and ends.any()
    assert np.allclose(batch.reward, batch.action[:, 0])
    steps = true_steps(batch)
    assert max(steps.values()) == 1  # each once
    # What is missing are the steps that only reset a lane, and less than a round that waits to be complete.
    resets = trained.episodes if mode is AutoresetMode.NEXT_STEP else 0
    assert 0 <= 600 - resets - len(batch.reward) <= 4 + 3


def test_metrics_that_are_not_finite_are_left_out(make_walk, tiny_agent, tiny_training, tmp_path):
    run = start(tmp_path / "run", tiny_agent, tiny_training)
    train_online(make_walk(), tiny_agent, tiny_training, run=run)
    last = read_metrics(tmp_path / "run")[-1]
    assert last["rollout/bad"] == 1.0 and last["rollout/good"] == 2.0
    assert run.load()[0] == 600


# ------------------------------------------------------------------------------------------------------------ faults


def raise_broken_pipe(observation, reward):
    raise BrokenPipeError("the simulator is gone")


def cancel(observation, reward):
    raise asyncio.CancelledError("the loop has gone")


BROKEN = {
    "NaN in an observation": (
        lambda o, r: (np.float32([np.nan, 0]), r),
        r"^Walk-v0, lane 0, step 121: the observation",
    ),
    "infinite reward": (lambda o, r: (o, np.inf), r"^Walk-v0, lane 0, step 121: the reward is not finite: inf$"),
    "reward that leaves float32": (lambda o, r: (o, -1e30), r"lane 0, step 121: the reward is beyond 1e\+15: -1e\+30$"),
    "observation that leaves float32": (lambda o, r: (np.float32([1e20, 0]), r), "the observation is beyond 1e"),
    "wrong shape": (lambda o, r: (np.zeros(3, np.float32), r), r"^Walk-v0, step 121: step failed with ValueError: "),
    "wrong type": (lambda o, r: (o, "much"), r"^Walk-v0, step 121: step failed with "),
    "nothing": (lambda o, r: None, r"^Walk-v0, step 121: step failed with TypeError: "),
    "exit": (lambda o, r: sys.exit(3), r"^Walk-v0, step 121: step failed with SystemExit: 3$"),
    "death of a server": (raise_broken_pipe, r"^Walk-v0, step 121: step failed with BrokenPipeError: "),
    "cancelled": (cancel, r"^Walk-v0, step 121: step failed with CancelledError: the loop has gone$"),
    "hang": (
        lambda o, r: time.sleep(60),
        r"^Walk-v0, step 121: step failed with TimeoutError: no answer in 1 s \(env_timeout\)$",
    ),
    "exception": (lambda o, r: 1 / 0, r"^Walk-v0, step 121: step failed with ZeroDivisionError: division by zero$"),
}


@pytest.mark.parametrize(("fault", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_environment_stops_in_one_line_and_a_checkpoint_remains(
    make_walk, tiny_agent, tiny_training, tmp_path, fault, message
):
    env = make_walk(AutoresetMode.SAME_STEP, fault=fault, fault_step=121)
    env.patience = 1.0
    with pytest.raises(QomposeError, match=message) as caught:
        train_online(env, tiny_agent, tiny_training, run=start(tmp_path / "run", tiny_agent, tiny_training))
    assert "\n" not in str(caught.value)
    step, arrays, _ = start(tmp_path / "run", tiny_agent, tiny_training, resume=True).load()
    assert step == 480 and all(np.isfinite(array).all() for array in arrays.values())  # all that came before it
    assert len(arrays["replay/rows"]) == 480
    # A mended environment goes on from there.
    run, notices = start(tmp_path / "run", tiny_agent, tiny_training, resume=True), []
    train_online(make_walk(), tiny_agent, tiny_training, run=run, resume=True, on_notice=notices.append)
    assert notices == ["resumed at step 480; Walk-v0 cannot restore its state, so new episodes start"]


@pytest.mark.parametrize("fault", [fault for fault, _ in BROKEN.values()], ids=BROKEN)
def test_nothing_of_a_broken_step_is_stored(make_walk, each_agent, tiny_training, fault):
    loop = Loop(make_walk(AutoresetMode.SAME_STEP, fault=fault, fault_step=31), each_agent, tiny_training)
    loop.env.patience = 0.2
    with pytest.raises(QomposeError):
        while True:
            loop.advance()
    assert loop.step == 120 and len(loop.learner.experience().reward) == 120 and len(loop.learner.pending) == 0
    assert all(np.isfinite(part).all() for part in loop.learner.experience())
    assert loop.whole  # as the environment starts anew in any case


# Faults that nobody can tell from an environment that is like that.
LYING = {
    "slow": lambda o, r: (time.sleep(0.002), (o, r))[1],
    "out of the declared box": lambda o, r: (o * np.float32(1e9), r),
    "silent reset": lambda o, r: (np.zeros_like(o), r),
    "repeated frame": lambda o, r: (np.float32([3.0, 2.0]), r),
    "wrong end of an episode": lambda o, r: (o, r, True),
}


@pytest.mark.parametrize("fault", LYING.values(), ids=LYING)
def test_a_lie_within_the_limits_is_stored_as_it_was_told_and_parameters_stay_finite(
    make_walk, each_agent, tiny_training, fault
):
    loop = Loop(make_walk(AutoresetMode.SAME_STEP, fault=fault, fault_step=31), each_agent, tiny_training)
    while loop.step < 400:
        loop.advance()
    loop.learner.judge()
    told = loop.learner.experience()
    assert len(told.reward) == 400 and loop.learner.updates > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loop.learner.state) if leaf.dtype == np.float32)
    if fault is LYING["out of the declared box"]:
        assert np.abs(told.next_observation).max() > 1e9
    if fault is LYING["wrong end of an episode"]:
        assert told.terminated[-200:].all()


# -------------------------------------------------------------------------------------------------------- divergence

POISONS = {
    **{f"{value} as {field}": (field, value)
       for field in Transition._fields for value in (np.nan, np.inf)},
    "minus infinity as reward": ("reward", -np.inf),
    "a reward whose square is infinite": ("reward", 1e30),
    "a reward that float32 cannot tell apart": ("reward", 1e20),
    "a critic that has blown up": ("critic", 1e25),
}  # fmt: skip


@pytest.mark.parametrize("algo", ["sql", "ddpg", "naf"])
def test_a_round_that_diverges_gives_back_the_state_from_before_it(tiny_agent, algo):
    small = {"hidden": (16,), "batch_size": 8}
    agent = {"sql": tiny_agent, "ddpg": DDPG(**small), "naf": NAF(**small)}[algo]
    rng = np.random.default_rng(0)
    shapes = Transition((4, 2), (4, 2), (4,), (4, 2), (4,))
    good = Transition(*(rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes))
    good = good._replace(terminated=np.zeros(4, np.float32))

    def run(new, blow=1.0):
        state = learner.init(agent, 2, 2, learner.stream(0, learner.INIT))
        state = eqx.tree_at(lambda s: s.critic.network.weight_out, state, replace_fn=lambda w: w * blow)
        before = {name: array.copy() for name, array in name_leaves(state).items()}
        replay = init_replay(604, 2, 2)
        form, packed, rows = learner.Form.of(state), learner.pack(state), np.asarray(pack(new))
        root, step = learner.stream(0, learner.LEARN), np.uint32(7)
        packed, figures, _ = learn(agent, 4, form, packed, replay, rows, root, step)
        after = name_leaves(form.unpack(packed))
        same = all(np.array_equal(before[name], after[name]) for name in before)
        return bool(figures["rejected"]), same, after

    rejected, same, after = run(good)
    assert not rejected and not same and after["updates"] == 4
    for label, (field, value) in POISONS.items():
        if field == "critic":
            rejected, same, after = run(good, np.float32(value))
        else:
            rejected, same, after = run(good._replace(**{field: np.full_like(getattr(good, field), value)}))
        assert rejected and same and after["updates"] == 0, label


def spoil(monkeypatch, steps):
    """Let rewards that no environment could give reach the updates of some rounds."""
    real = learner.learn

    def spoiled(agent, updates, form, packed, replay, rows, root, step):
        bad = rows.copy()
        if int(step) in steps:
            bad[:, replay.observation_size + replay.action_size] = np.inf
        return real(agent, updates, form, packed, replay, bad, root, step)

    monkeypatch.setattr(learner, "learn", spoiled)


def test_a_training_that_diverges_again_and_again_stops_in_one_line_with_its_last_good_state(
    make_walk, tiny_agent, tiny_training, tmp_path, monkeypatch
):
    spoil(monkeypatch, range(400, 600))
    run = start(tmp_path / "run", tiny_agent, tiny_training)
    with pytest.raises(
        QomposeError,
        match=r"^training diverged: train/critic_loss.* not finite or too large at step \d+, 3 times in a row, each "
        r"taken back; lower --learning-rate or raise --temperature$",
    ):
        train_online(make_walk(AutoresetMode.SAME_STEP), tiny_agent, tiny_training, run=run)
    step, arrays, facts = start(tmp_path / "run", tiny_agent, tiny_training, resume=True).load()
    assert 400 < step < 440 and facts["rollbacks"] >= 3
    assert all(np.isfinite(array).all() for name, array in arrays.items() if name.startswith("agent/"))


def test_a_training_that_diverges_every_other_round_stops_too(make_walk, tiny_agent, tiny_training):
    judged = Loop(make_walk(AutoresetMode.SAME_STEP), tiny_agent, tiny_training).learner
    with pytest.raises(QomposeError, match=r"critic_loss not finite or too large at step 0, 20 times, each taken back"):
        for rejected in [True, False] * 30:
            judged.latest = {"critic_loss": np.float32(np.inf), "rejected": np.array(rejected)}
            judged.judge()
    assert judged.rollbacks == 20


def test_rounds_that_were_taken_back_are_counted_reported_and_survived(
    make_walk, tiny_agent, tiny_training, tmp_path, monkeypatch
):
    real = learner.learn

    def once(*arguments):
        packed, figures, replay = real(*arguments)
        return packed, figures | {"rejected": jnp.array(int(arguments[-1]) in (300, 304, 400))}, replay

    monkeypatch.setattr(learner, "learn", once)
    trained = train_online(
        make_walk(AutoresetMode.SAME_STEP),
        tiny_agent,
        tiny_training,
        run=start(tmp_path / "run", tiny_agent, tiny_training),
    )
    assert trained.steps == 600
    assert [line.get("train/rollbacks") for line in read_metrics(tmp_path / "run")] == [None, 3.0, 3.0]


# --------------------------------------------------------------------------------------------------- the loop's rules


def test_a_small_replay_keeps_the_latest_transitions(make_walk, tiny_agent, tiny_training):
    # All warm-up, so that nothing need be compiled for this capacity but the insertion.
    options = replace(tiny_training, warmup_steps=599, replay_size=98)
    loop = Loop(make_walk(AutoresetMode.SAME_STEP), tiny_agent, options)
    assert loop.learner.replay.capacity == 100  # whole rounds
    every = []
    for _ in range(130):
        loop.advance()
        every.append(loop.learner.experience())
    assert loop.learner.stored == 520 and len(every[-1].reward) == 100
    assert len(every[10].reward) == 44  # not yet full: no row that was never written
    latest = {key for batch in every[-25:] for key in true_steps(batch)} - set(true_steps(every[-26]))
    assert set(true_steps(every[-1])) == latest and max(true_steps(every[-1]).values()) == 1


@pytest.mark.slow  # compiles everything for another capacity
def test_a_replay_that_wraps_while_learning_trains_to_the_end(make_walk, tiny_agent, tiny_training):
    trained = train_online(make_walk(), tiny_agent, replace(tiny_training, replay_size=100))
    assert trained.steps == 600 and len(trained.transitions.reward) == 100
    assert all(np.isfinite(array).all() for array in name_leaves(trained.state).values())


def test_warm_up_acts_uniformly_and_differently_in_every_lane(make_walk, tiny_agent, tiny_training):
    loop = Loop(make_walk(AutoresetMode.SAME_STEP), tiny_agent, replace(tiny_training, warmup_steps=599))
    for _ in range(100):
        loop.advance()
    actions = loop.learner.experience().action
    assert len(np.unique(actions)) == actions.size == 800
    counts, _ = np.histogram(actions, bins=4, range=(-1.0, 1.0))
    assert (np.abs(counts - 200) < 62).all()  # five standard deviations


def test_evaluations_keep_their_own_rhythm(make_walk, tiny_agent, tiny_training, tmp_path, monkeypatch):
    monkeypatch.setattr(online, "_evaluate", lambda loop, env: {"eval/mean_reward": float(loop.step)})
    options = replace(tiny_training, eval_freq=120, log_freq=600)
    run = start(tmp_path / "run", tiny_agent, options)
    trained = train_online(make_walk(), tiny_agent, options, evaluation_env=make_walk(), run=run)
    expected = [{"step": step, "eval/mean_reward": float(step)} for step in (120, 240, 360, 480, 600)]
    assert trained.evaluations == expected
    again = start(tmp_path / "run", tiny_agent, options, resume=True)
    resumed = train_online(make_walk(), tiny_agent, options, evaluation_env=make_walk(), run=again, resume=True)
    assert resumed.evaluations == expected


def test_an_evaluation_that_was_interrupted_is_made_up(make_walk, tiny_agent, tiny_training, tmp_path, monkeypatch):
    options, stops = replace(tiny_training, eval_freq=120, log_freq=600), {240, 600}

    def judge(loop, env):
        if loop.step in stops:
            stops.remove(loop.step)
            raise KeyboardInterrupt
        return {"eval/mean_reward": float(loop.step)}

    monkeypatch.setattr(online, "_evaluate", judge)
    for step in (240, 600):
        run = start(tmp_path / "run", tiny_agent, options, resume=step > 240)
        with pytest.raises(QomposeError, match=f"interrupted at step {step}"):
            train_online(make_walk(), tiny_agent, options, evaluation_env=make_walk(), run=run, resume=step > 240)
    for _ in range(2):  # the second time there is nothing left to do
        again = start(tmp_path / "run", tiny_agent, options, resume=True)
        resumed = train_online(make_walk(), tiny_agent, options, evaluation_env=make_walk(), run=again, resume=True)
        assert [found["step"] for found in resumed.evaluations] == [120, 240, 360, 480, 600]
        assert [line["step"] for line in read_metrics(tmp_path / "run")] == [120, 240, 360, 480, 600]


def test_evaluating_does_not_change_the_training(uninterrupted, tiny_agent, tiny_training, tmp_path):
    options = replace(tiny_training, eval_freq=300, eval_episodes=3)
    run = start(tmp_path / "run", tiny_agent, options)
    trained = train_online(make_env(), tiny_agent, options, evaluation_env=make_env(), run=run)
    assert digest(trained) == digest(uninterrupted[0])
    assert [evaluation["step"] for evaluation in trained.evaluations] == [300, 600]
    names = {"eval/mean_reward", "eval/mean_ep_length", "eval/success_rate", "eval/distance"}
    assert names <= trained.evaluations[0].keys()


def test_figures_have_the_names_people_know(uninterrupted):
    expected, directory = uninterrupted
    lines = read_metrics(directory)
    assert [line["step"] for line in lines] == [200, 400, 600]
    names = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "rollout/distance", "time/fps"}
    assert names | {"time/episodes"} <= lines[0].keys() and "train/critic_loss" in lines[-1].keys() - lines[0].keys()
    assert lines[-1]["time/episodes"] == expected.episodes and 1.0 <= lines[-1]["rollout/ep_len_mean"] <= 30.0


class Dice:
    """An agent without networks: it explores at random, its policy stands still, its state is what it was given."""

    batch_size = 4

    def act(self, state, observation, *, key):
        return jax.random.uniform(key, (2,), minval=0.5, maxval=1.0)

    def policy(self, state, observation, *, key):
        return jnp.zeros(2)

    def update(self, state, batch, *, key):
        state = jnp.concatenate([state[1:], jnp.stack([jnp.mean(batch.reward), jax.random.uniform(key)])[None]])
        return state, {"critic_loss": jnp.zeros(())}


DICE = Dice()


def test_an_evaluation_follows_the_policy_and_does_not_explore(make_walk, tiny_training):
    loop = Loop.__new__(Loop)
    loop.agent, loop.options = DICE, replace(tiny_training, eval_episodes=4)
    loop.learner = SimpleNamespace(state=jnp.zeros((), jnp.int32))
    assert online._evaluate(loop, make_walk())["eval/mean_reward"] == 0.0  # the reward is the first action


def test_every_lane_and_every_round_draws_its_own_actions():
    root, observations = learner.stream(0, learner.EXPLORE), jnp.zeros((8, 2))
    rounds = [np.asarray(explore(DICE, jnp.zeros(()), observations, root, jnp.uint32(step))) for step in (8, 16)]
    assert len(np.unique(np.concatenate(rounds))) == 2 * 8 * 2


def test_every_update_of_every_round_draws_its_own_batch_and_key():
    root, rewards = learner.stream(0, learner.LEARN), jax.random.normal(jax.random.key(0), (64,))
    new = Transition(jnp.zeros((64, 2)), jnp.zeros((64, 2)), rewards, jnp.zeros((64, 2)), jnp.zeros(64))
    given, rows, form = [], pack(new), learner.Form.of(jnp.zeros((4, 2)))
    for step in (8, 16):
        packed = learner.pack(jnp.zeros((4, 2)))
        packed, _, _ = learn(DICE, 4, form, packed, init_replay(64, 2, 2), rows, root, np.uint32(step))
        given.append(np.asarray(form.unpack(packed)))
    means, draws = np.concatenate(given).T
    assert len(np.unique(means)) == len(np.unique(draws)) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_steps": 0}, "total_steps is 0; it must be at least 1"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"log_freq": 0}, "log_freq is 0"),
        ({"replay_size": -1}, "replay_size is -1"),
        ({"updates_per_step": 0}, "updates_per_step is 0"),
        ({"save_freq": -1}, "save_freq is -1; it must not be negative"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"seed": 2**32}, "seed is 4294967296; it must be at most 4294967295"),
        ({"eval_freq": 100, "eval_episodes": 0}, "eval_episodes is 0; give at least 1"),
        ({"warmup_steps": 600}, "warmup_steps is 600, so 600 steps leave nothing to learn; lower it"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(tiny_training, change, message):
    with pytest.raises(QomposeError, match=message):
        replace(tiny_training, **change)


def test_the_largest_seed_works_and_differs_from_the_smallest(make_walk, tiny_agent, tiny_training):
    first, last = (
        Loop(make_walk(), tiny_agent, replace(tiny_training, seed=seed)) for seed in (0, learner.LARGEST_SEED)
    )
    weights = [loop.learner.state.critic.network.weight_out for loop in (first, last)]
    assert not np.array_equal(*weights)


def test_a_replay_beyond_the_memory_is_refused_in_one_line(make_walk, tiny_agent):
    huge = Training(total_steps=10**13, replay_size=10**13, num_envs=4)
    with pytest.raises(QomposeError, match=r"there is no memory for 10000000000000 transitions; lower --replay-size"):
        Loop(make_walk(), tiny_agent, huge)
