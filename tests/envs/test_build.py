import time

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from qompose.envs.build import build_vector_env, check_spaces
from qompose.envs.gym import TaskVectorEnv
from qompose.envs.lockstep import Lockstep
from qompose.types import QomposeError

BOX = Box(-1, 1, (2,))


@pytest.mark.parametrize("env_id", ["PushLeft", "PushLeft-v0", "qompose:PushLeft-v0"])
def test_tasks_go_by_name_and_by_id(env_id):
    env = build_vector_env(env_id, 3)
    assert isinstance(env, TaskVectorEnv) and env.task.name == "PushLeft" and env.num_envs == 3


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gymnasium:Pendulum-v1"])
def test_foreign_environments_go_by_id_and_by_module(env_id):
    lanes = Lockstep.make(env_id, 2, {"g": 9.0})
    assert (lanes.observation_size, lanes.action_size, lanes.horizon) == (3, 1, 200)
    assert lanes.task is None and lanes.control_period is None and lanes.observation_names == ("o0", "o1", "o2")
    assert lanes.env.envs[0].unwrapped.g == 9.0


@pytest.mark.parametrize(("env_id", "horizon"), [("MultiGoal", 30), ("Pendulum-v1", 200)])
def test_episodes_can_be_cut_short_and_the_cut_is_no_end(env_id, horizon):
    lanes = Lockstep.make(env_id, 2, episode_steps=7)
    lanes.reset(seed=0)
    steps = [lanes.step(np.zeros((2, lanes.action_size))) for _ in range(16)]
    ended = [(episode["length"], float(step.terminated.max())) for step in steps for episode in step.episodes]
    assert ended == [(7, 0.0)] * 4
    assert (lanes.task.horizon if lanes.task else lanes.horizon) == horizon  # the length that counts is as it was


@pytest.mark.parametrize(("env_id", "length"), [("MultiGoal", 300), ("Pendulum-v1", 200)])
def test_episodes_of_tasks_can_be_longer_and_those_of_others_cannot(env_id, length):
    lanes = Lockstep.make(env_id, 1, episode_steps=300)
    lanes.reset(seed=0)
    steps = [lanes.step(np.zeros((1, lanes.action_size))) for _ in range(300)]
    assert [episode["length"] for step in steps for episode in step.episodes] == [length]


def test_lanes_that_step_themselves_are_not_cut():
    gymnasium.register("BuildOwnLanes-v0", vector_entry_point=lambda num_envs: TaskVectorEnv("MultiGoal", num_envs))
    assert build_vector_env("BuildOwnLanes-v0", 2).num_envs == 2
    with pytest.raises(QomposeError, match=r"BuildOwnLanes-v0 steps its lanes by itself, .*; leave episode_steps out"):
        build_vector_env("BuildOwnLanes-v0", 2, episode_steps=7)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("PushLefft", "there is no environment 'PushLefft': did you mean PushLeft"),
        ("Pendulun-v1", "did you mean Pendulum-v1"),
        ("Qwxyz-v0", "there is no environment 'Qwxyz-v0': the tasks are PushLeft, "),
        ("no_such_module:Env-v0", "the module 'no_such_module' cannot be imported"),
        ("..:Env-v0", "the module '..' cannot be imported"),
        ("CartPole-v1", "CartPole-v1: its actions are Discrete, only Box"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(env_id, message):
    with pytest.raises(QomposeError, match=message) as caught:
        build_vector_env(env_id, 2)
    assert "\n" not in str(caught.value)


class Broken(gymnasium.Env):
    observation_space = action_space = BOX

    def __init__(self):
        raise RuntimeError("no robot\nis there")


gymnasium.register("BuildBroken-v0", Broken)


def test_an_environment_that_fails_when_it_is_made_is_refused_in_one_line():
    with pytest.raises(QomposeError, match=r"^BuildBroken-v0 cannot be made: RuntimeError: no robot is there$"):
        build_vector_env("BuildBroken-v0", 2)


@pytest.mark.parametrize(("text", "reason"), [("1 / 0", "ZeroDivisionError"), ("def (", "SyntaxError")])
def test_a_module_that_fails_when_it_is_imported_is_refused_in_one_line(tmp_path, monkeypatch, text, reason):
    (tmp_path / "qompose_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(QomposeError, match=f"the module 'qompose_broken' cannot be imported: {reason}") as caught:
        build_vector_env("qompose_broken:Env-v0", 2)
    assert "\n" not in str(caught.value)


def test_options_that_an_environment_does_not_take_are_refused_in_one_line():
    with pytest.raises(QomposeError, match=r"Pendulum-v1 cannot be made: .*gravity") as caught:
        build_vector_env("Pendulum-v1", 2, {"gravity": 9.0})
    assert "\n" not in str(caught.value)
    with pytest.raises(QomposeError, match="PushLeft has no option 'gravity'"):
        build_vector_env("PushLeft", 2, {"gravity": 9.0})


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Dict({"a": BOX}), BOX, "observations are Dict"),
        (Box(0, 1, (4, 4, 3)), BOX, r"observations have shape \(4, 4, 3\)"),
        (BOX, Discrete(3), "actions are Discrete"),
        (BOX, Box(-1, 1, (2, 2)), r"actions have shape \(2, 2\)"),
        (BOX, Box(-1, np.inf, (2,)), "actions are unbounded"),
        (BOX, Box(0, 5, (2,), np.int32), "actions are int32"),
        (BOX, Box(np.array([0, 1.0]), np.array([1, 1.0]), dtype=np.float64), "equal"),
    ],
)
def test_spaces_other_than_bounded_vectors_are_refused(observation, action, message):
    env = gymnasium.vector.VectorEnv()
    env.single_observation_space, env.single_action_space = observation, action
    with pytest.raises(QomposeError, match=message):
        check_spaces("Some-v0", env)


def test_an_environment_that_hangs_while_it_is_made_is_one_line():
    gymnasium.register(id="QomposeTestHang-v0", entry_point=lambda: time.sleep(30))
    try:
        with pytest.raises(QomposeError, match=r"QomposeTestHang-v0 cannot be made: TimeoutError: no answer in 0\.1 s"):
            Lockstep.make("QomposeTestHang-v0", 2, patience=0.1)
    finally:
        gymnasium.registry.pop("QomposeTestHang-v0")


def test_a_module_that_hangs_while_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "qompose_test_hang.py").write_text("import time\ntime.sleep(30)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(QomposeError, match=r"'qompose_test_hang' cannot be imported: TimeoutError: no answer"):
        build_vector_env("qompose_test_hang:Some-v0", 2, patience=0.1)
