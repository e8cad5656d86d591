import numpy as np
import pytest

from qompose.envs.gym import TaskVectorEnv
from qompose.envs.lanes import Lanes
from qompose.tasks import make_task
from qompose.tasks.kinematics import solve_angles
from qompose.tasks.reaching import MIDDLE, TARGET_HIGH, TARGET_LOW
from qompose.tasks.scenes.sawyer import NEUTRAL
from qompose.types import QomposeError


def hand_at(*offset, target=None):
    readings = {"joint_angles": np.array(NEUTRAL), "hand": np.array(offset), "held": np.array(0.0)}
    return readings if target is None else {**readings, "target": np.array(target)}


def test_reward_is_as_written_for_a_distance_in_metres():
    task = make_task("SawyerReach", target_x=0.6, target_y=0.0, target_z=0.3)
    total, terms = task.reward(hand_at(9.0, 9.0, 9.0), np.full(7, 0.5), hand_at(0.0, 0.06, 0.08))
    assert terms["distance"] == pytest.approx(-0.1) and terms["action"] == pytest.approx(-1e-3 * 7 * 0.25)
    assert terms["precision"] == pytest.approx(-0.1 * np.log(0.01 + 1e-5))
    assert total == pytest.approx(sum(terms.values()))
    best, _ = task.reward(hand_at(0, 0, 0), np.zeros(7), hand_at(0.0, 0.0, 0.0))
    assert best == pytest.approx(1.151, abs=1e-3)


def test_random_target_is_the_one_that_is_observed():
    task = make_task("SawyerReachRandom")
    readings = hand_at(0.1, 0.0, 0.0, target=[0.1, 0.0, 0.005])
    assert task.solved(readings) and task.metrics(readings)["distance"] == pytest.approx(0.005)
    lanes = Lanes(task, 3)
    lanes.begin(np.ones(3, bool), seed=0)
    targets = np.array([data.qpos[7:] for data in lanes.datas])
    np.testing.assert_allclose(lanes.observe()[:, 20:] / 8.0, targets - MIDDLE, atol=1e-6)
    for _ in range(20):
        lanes.advance(np.ones((3, 7)))
    np.testing.assert_allclose([data.qpos[7:] for data in lanes.datas], targets, atol=1e-9)  # it stays
    assert (targets > TARGET_LOW).all() and (targets < TARGET_HIGH).all()


def test_every_target_is_within_reach():
    corners = np.array(np.meshgrid(*zip(TARGET_LOW, TARGET_HIGH, strict=True))).reshape(3, -1).T
    down = np.broadcast_to(np.diag([1.0, -1.0, -1.0])[[1, 0, 2]] * [[-1], [1], [1]], (8, 3, 3))
    _, reached = solve_angles(corners, down, np.array(NEUTRAL), (0.0, 0.0, 0.0), 60)
    assert reached.all()  # even with the gripper pointing down, which is not asked for


def test_success_is_ten_steps_within_a_centimetre():
    task = make_task("SawyerReach", target_x=0.6, target_y=0.0, target_z=0.3)
    near, far = hand_at(0.0, 0.0, 0.009), hand_at(0.0, 0.0, 0.011)
    for readings in (near, far):
        readings |= {"force": np.zeros(3), "touches_tower": np.array(False)}
    memory, seen = task.begin_memory(np.zeros(7)), []
    for readings in [near] * 10 + [far] + [near] * 10:
        memory, judged = task.remember(memory, readings)
        seen.append(bool(task.success(judged)))
    assert seen == [False] * 9 + [True] + [False] * 10 + [True]


def test_episode_is_cut_where_the_hand_leaves_the_workspace_or_a_joint_its_range():
    task = make_task("SawyerReach")
    assert not task.truncated(hand_at(0.1, 0.1, 0.1))
    assert task.truncated(hand_at(0.4, 0.0, 0.0)) and task.truncated(hand_at(0.0, 0.0, -0.3))
    near_limit = hand_at(0.0, 0.0, 0.0)
    near_limit["joint_angles"] = np.array([0.0, 2.24, 0.0, 2.0, 0.0, 0.5, 3.3])
    assert task.truncated(near_limit) and not task.terminated(near_limit)
    env = TaskVectorEnv("SawyerReach", 2)
    env.reset(seed=0)
    pull = np.zeros((2, 7))
    pull[:, 0] = 1.0
    cut = [env.step(pull)[3] for _ in range(90)]
    assert np.any(cut, axis=0).all()  # long before the time limit, which is 100


@pytest.mark.parametrize("option", [{"target_x": 0.3}, {"target_z": float("nan")}])
def test_targets_out_of_reach_are_refused(option):
    with pytest.raises(QomposeError, match="is out of reach: give 0"):
        make_task("SawyerReach", **option)
