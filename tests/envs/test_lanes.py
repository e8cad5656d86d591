import mujoco
import numpy as np
import pytest

from qompose.envs.lanes import LIMIT, Lanes
from qompose.tasks import make_task
from qompose.tasks.sawyer import ELAPSED
from qompose.tasks.task import PEAKS


@pytest.fixture
def lanes():
    lanes = Lanes(make_task("PushLeft"), 4)
    lanes.begin(np.ones(4, bool), seed=0)
    return lanes


def test_positions_agree_with_joints_after_a_step(lanes):
    lanes.advance(np.ones((4, 3)))
    qpos = np.array([data.qpos for data in lanes.datas])
    angles = np.cumsum(np.array([0.785, -0.785, -1.57]) + qpos[:, :3], axis=1)
    np.testing.assert_allclose(lanes.readings["fork"][:, 0], 0.4 * np.cos(angles).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(lanes.readings["puck"][:, :2], qpos[:, 3:], atol=1e-12)


def test_readings_of_the_past_do_not_change(lanes):
    before = lanes.readings["joint_angles"]
    copy = before.copy()
    lanes.advance(np.ones((4, 3)))
    assert np.array_equal(before, copy) and not np.array_equal(before, lanes.readings["joint_angles"])


def test_first_lane_shifts_the_randomness(lanes):
    shifted = Lanes(make_task("PushLeft"), 2, first_lane=2)
    shifted.begin(np.ones(2, bool), seed=0)
    assert np.array_equal(shifted.observe(), lanes.observe()[2:])


@pytest.mark.parametrize("field", ["qpos", "qvel"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e11])
def test_every_kind_of_divergence_is_seen_in_its_lane_only(lanes, field, value):
    getattr(lanes.datas[2], field)[0] = value
    _, _, diverged = lanes.advance(np.zeros((4, 3)))
    assert diverged.tolist() == [False, False, True, False]


def test_divergence_that_hides_within_a_control_step_is_seen(lanes):
    lanes.datas[2].qpos[4] = -50.0  # out of the arm's way
    lanes.datas[2].qvel[3] = 1.5 * LIMIT  # the puck's damping halves it within one control step
    _, _, diverged = lanes.advance(np.zeros((4, 3)))
    assert np.abs(lanes.datas[2].qpos).max() < LIMIT and np.abs(lanes.datas[2].qvel).max() < LIMIT
    assert diverged.tolist() == [False, False, True, False]


def test_memory_begins_anew_with_each_episode_and_counts_its_steps():
    lanes = Lanes(make_task("SawyerReach"), 2)
    lanes.begin(np.ones(2, bool), seed=0)
    for _ in range(3):
        lanes.advance(np.ones((2, 7)))
    assert lanes._memory[:, ELAPSED].tolist() == [4, 4]
    other = lanes._memory[1].copy()
    lanes.begin(np.array([True, False]))
    assert lanes._memory[0, ELAPSED] == 1 and np.array_equal(lanes._memory[1], other)
    assert not lanes.readings["force"][0].any() and lanes.readings["force"][1].any()


def test_peaks_are_the_highest_readings_of_every_simulator_step():
    lanes = Lanes(make_task("SawyerStackAvoid"), 2)
    lanes.begin(np.ones(2, bool), seed=3)
    assert not lanes._fields[PEAKS].any()
    data, task, seen = mujoco.MjData(lanes.model), lanes.task, 0
    for _ in range(20):
        mujoco.mj_setState(lanes.model, data, lanes.get_state()["physics"][1], mujoco.mjtState.mjSTATE_INTEGRATION)
        lanes.advance(np.tile(np.eye(7)[0], (2, 1)))  # the hand swings into the tower
        data.ctrl[:] = np.eye(7)[0]
        readings = []
        for _ in range(task.substeps):
            mujoco.mj_step(lanes.model, data)
            readings.append(data.sensordata.copy())
        assert np.array_equal(lanes._fields[PEAKS][1], np.max(readings, axis=0))
        assert np.array_equal(lanes._fields["sensordata"][1], readings[-1])
        seen += bool(lanes._fields[PEAKS][1].any())
    assert seen
    lanes.begin(np.array([False, True]))
    assert not lanes._fields[PEAKS][1].any() and lanes._fields[PEAKS][0].any()
