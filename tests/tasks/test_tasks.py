import json
import math
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import qompose
from qompose.envs.gym import TaskEnv
from qompose.tasks import TASKS, make_task
from qompose.tasks.task import PEAKS, relabel
from qompose.types import QomposeError, Transition

OPTIONS = {"PushTo": {"goal_x": 0.5, "goal_y": -0.25}}
NAMES = list(TASKS)
# Tasks with the same physics and another reward.
OTHERS = {name: ("PushTo", {"goal_x": -2.0}) for name in NAMES if name.startswith("Push")} | {
    "MultiGoal": ("MultiGoal", {"goals": [1]}),
    "Peaks": ("Peaks", {"peaks": [[x, y, 9.0] for x in (-4, 0, 4) for y in (-4, 0, 4)]}),
    "SawyerReach": ("SawyerReach", {"target_x": 0.75, "target_y": 0.3}),
}


def random_readings(task, seed, batch=(4, 5)):
    """Readings of random states: what `read` makes of data with two leading axes."""
    rng, model = np.random.default_rng(seed), task.model()
    data, rows = mujoco.MjData(model), {name: [] for name in task.data_fields}
    for _ in range(math.prod(batch)):
        data.qpos[:], data.qvel[:] = rng.uniform(-1.5, 1.5, model.nq), rng.uniform(-1.5, 1.5, model.nv)
        data.ctrl[:], data.sensordata[:] = rng.uniform(-1, 1, model.nu), rng.integers(0, 2, model.nsensordata)
        mujoco.mj_kinematics(model, data)
        for name, found in rows.items():
            found.append(getattr(data, "sensordata" if name == PEAKS else name).copy())
    fields = {name: np.array(found, np.float32).reshape(*batch, *found[0].shape) for name, found in rows.items()}
    readings = task.read(SimpleNamespace(**fields))
    if task.memory_size:
        memory = task.begin_memory(rng.random((*batch, task.reset_uniforms)).astype(np.float32))
        _, readings = task.remember(memory, readings)
    return readings


def to_jax(readings):
    return {name: jnp.asarray(value) for name, value in readings.items()}


@pytest.mark.parametrize("name", NAMES)
def test_resets_of_numpy_and_jax_are_identical(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    u = np.random.default_rng(1).random((50, task.reset_uniforms)).astype(np.float32)
    for of_numpy, of_jax in zip(task.reset(u), task.reset(jnp.asarray(u)), strict=True):
        assert of_numpy.dtype == np.float32
        assert np.array_equal(of_numpy, np.asarray(of_jax))


@pytest.mark.parametrize("name", NAMES)
def test_reset_of_a_batch_is_the_reset_of_each(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    u = np.random.default_rng(2).random((6, task.reset_uniforms))
    qpos, qvel = task.reset(u)
    for i in range(6):
        one_qpos, one_qvel = task.reset(u[i])
        assert np.array_equal(one_qpos, qpos[i]) and np.array_equal(one_qvel, qvel[i])


@pytest.mark.parametrize("name", NAMES)
def test_rewards_of_numpy_and_jax_agree(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    before, after = random_readings(task, 3), random_readings(task, 4)
    action = np.random.default_rng(5).uniform(-1, 1, (4, 5, task.action_size)).astype(np.float32)
    of_numpy, _ = task.reward(before, action, after)
    of_jax, _ = jax.jit(task.reward)(to_jax(before), jnp.asarray(action), to_jax(after))
    assert of_numpy.shape == (4, 5) and of_numpy.dtype == np.float32
    np.testing.assert_allclose(of_numpy, np.asarray(of_jax), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_everything_after_read_agrees_between_numpy_and_jax(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    readings = random_readings(task, 6)
    assert task.observe(readings).shape == (4, 5, task.observation_size)
    np.testing.assert_array_equal(task.observe(readings), np.asarray(task.observe(to_jax(readings))))
    for judge in (task.success, task.terminated):
        assert judge(readings).dtype == bool and judge(readings).shape == (4, 5)
        np.testing.assert_array_equal(judge(readings), np.asarray(judge(to_jax(readings))))
    of_jax = task.metrics(to_jax(readings))
    for metric, value in task.metrics(readings).items():
        np.testing.assert_allclose(value, np.asarray(of_jax[metric]), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_recalled_readings_are_those_that_were_observed(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    readings = random_readings(task, 8)
    recalled = task.recall(task.observe(readings))
    assert recalled.keys() <= readings.keys()
    for reading, value in recalled.items():
        np.testing.assert_array_equal(value, readings[reading])


@pytest.mark.parametrize("name", NAMES)
def test_rewards_from_stored_transitions_are_those_of_the_environment(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    other = make_task(OTHERS[name][0], **OTHERS[name][1]) if name in OTHERS else task
    stored, expected, rng = [], [], np.random.default_rng(9)
    mine, theirs = TaskEnv(task), TaskEnv(other)
    for episode in range(2):
        observation, _ = mine.reset(seed=episode)
        theirs.reset(seed=episode)
        for _ in range(30):  # the same physics, so that both environments stay side by side
            action = rng.uniform(-1, 1, task.action_size).astype(np.float32)
            following, reward, terminated, _, _ = mine.step(action)
            _, other_reward, other_terminated, _, _ = theirs.step(action)
            stored.append((observation, action, other_reward, following, other_terminated))
            expected.append((reward, terminated))
            observation = following
    columns = (np.array(column, np.float32) for column in zip(*stored, strict=True))
    again = relabel(task, Transition(*columns))
    rewards, ends = (np.array(column, np.float32) for column in zip(*expected, strict=True))
    assert again.reward.dtype == again.terminated.dtype == np.float32
    np.testing.assert_allclose(again.reward, rewards, atol=2e-6)
    np.testing.assert_array_equal(again.terminated, ends)
    if other is not task:
        assert np.abs(np.array([row[2] for row in stored]) - rewards).max() > 0.1  # they were others before


@pytest.mark.parametrize("name", NAMES)
def test_options_make_the_same_task_again(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    assert make_task(f"{name}-v0", **task.options()) == task
    assert "name" not in task.options()


@pytest.mark.parametrize("name", NAMES)
def test_model_and_sizes_agree(name):
    task = make_task(name, **OPTIONS.get(name, {}))
    model = task.model()
    assert model is task.model()
    assert model.nu == task.action_size
    assert np.allclose(model.actuator_ctrlrange, [-1, 1])
    assert np.isclose(model.opt.timestep * task.substeps, task.control_period)


def test_unknown_task_names_the_nearest_and_lists_all():
    with pytest.raises(QomposeError, match="did you mean PushLeft") as caught:
        make_task("PushLefft")
    assert all(name in str(caught.value) for name in NAMES)
    assert "\n" not in str(caught.value)


def test_unknown_option_is_refused_with_the_options_there_are():
    with pytest.raises(QomposeError, match="no option 'goal': its options are goal_x, goal_y"):
        make_task("PushTo", goal=1.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("PushLeft", {"arm_weight": "heavy"}, "^PushLeft: arm_weight='heavy': give a number$"),
        ("PushLeft", {"arm_weight": None}, "arm_weight=None: give a number"),
        ("PushLeft", {"avoid_corner": "maybe"}, "avoid_corner='maybe': give true or false"),
        ("PushLeft", {"corner_reward": 3}, "corner_reward=3: give a word"),
        ("PushTo", {"goal_x": [1.0]}, r"goal_x=\[1.0\]: give a number"),
        ("MultiGoal", {"goals": 3}, "^MultiGoal: goals=3: give a list$"),
        ("MultiGoal", {"goals": {"x": 1}}, "give a list"),
    ],
)
def test_option_of_the_wrong_kind_is_refused(name, options, message):
    with pytest.raises(QomposeError, match=message):
        make_task(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_checked(name):
    options = make_task(name, **OPTIONS.get(name, {})).options()
    for option in options:
        with pytest.raises(QomposeError, match=f"^{name}: {option}=<object object at .*: give "):
            make_task(name, **{**options, option: object()})


def test_numbers_of_numpy_are_options_like_others():
    task = make_task("PushTo", goal_x=np.float32(0.5), goal_y=np.float64(-1))
    assert task.options()["goal_x"] == 0.5 and json.dumps(task.options())
    assert make_task("MultiGoal", goals=[np.int64(0), np.int64(1)]) == make_task("MultiGoal", goals=[0, 1])


def test_naming_tasks_imports_no_simulator_and_no_jax():
    # The package's own top level is left out: it may import more.
    code = (
        "import sys, types; package = sys.modules['qompose'] = types.ModuleType('qompose');"
        f"package.__path__ = {list(qompose.__path__)!r}; import qompose.tasks as t; t.make_task('PushLeft');"
        "print({'mujoco', 'jax', 'gymnasium'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
