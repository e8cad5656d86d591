import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import qompose
from qompose.envs import register
from qompose.tasks import TASKS

register()


def test_every_task_has_an_id_and_registering_twice_changes_nothing():
    before = {name: gymnasium.spec(f"{name}-v0") for name in TASKS}
    register()
    assert all(gymnasium.spec(f"{name}-v0") is spec for name, spec in before.items())


def test_registering_imports_no_simulator():
    code = (
        "import sys, types; m = sys.modules['qompose'] = types.ModuleType('qompose');"
        f"m.__path__ = {list(qompose.__path__)!r}; import qompose.envs; qompose.envs.register();"
        "print({'mujoco', 'jax'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_make_passes_options_and_cuts_episodes_at_the_horizon():
    env = gymnasium.make("PushTo-v0", goal_x=0.5)
    assert env.unwrapped.task.options()["goal_x"] == 0.5
    env.reset(seed=0)
    ends = [env.step(np.zeros(3))[3] for _ in range(300)]
    assert ends == [False] * 299 + [True]


def test_make_vec_uses_the_lock_step_environment():
    env = gymnasium.make_vec("PushTo-v0", num_envs=8, goal_y=-0.5)
    assert type(env).__name__ == "TaskVectorEnv" and env.num_envs == 8
    assert env.reset(seed=0)[0].shape == (8, 12)


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_max_episode_steps_is_respected(mode):
    env = gymnasium.make_vec("MultiGoal-v0", num_envs=2, vectorization_mode=mode)
    env.reset(seed=0)
    ends = [env.step(np.zeros((2, 2), np.float32))[3].all() for _ in range(30)]
    assert ends == [False] * 29 + [True]
