from types import SimpleNamespace

import numpy as np
import pytest

from qompose.envs.lanes import Lanes
from qompose.tasks import make_task
from qompose.tasks.kinematics import jacobian, locate_hand, solve_angles
from qompose.tasks.sawyer import read_arm, torque_limits
from qompose.tasks.scenes.sawyer import BRICK_MOUNT, BRICK_SITE, GOAL
from qompose.tasks.starts import GOAL_ANGLES, MOUNT

NAMES = ("SawyerReach", "SawyerReachRandom", "SawyerStack", "SawyerAvoid", "SawyerStackAvoid")


def held_at(offset, task=None):
    """One lane with the upright brick at an offset (m) from its goal."""
    angles, reached = solve_angles(np.array([GOAL]) + offset, MOUNT[None], np.array(GOAL_ANGLES), BRICK_MOUNT)
    assert reached.all()
    lanes = Lanes(task or make_task("SawyerStack"), 1)
    lanes.begin(np.ones(1, bool), seed=0)
    lanes.datas[0].qpos[:] = angles[0]
    return lanes


def press(lanes, newtons, steps):
    """Hold the torques of a vertical force, downwards if positive."""
    for _ in range(steps):
        _, _, jacobian = locate_hand(lanes.datas[0].qpos.copy(), BRICK_MOUNT)
        lanes.advance((jacobian[2] * -newtons / torque_limits())[None])
    return lanes.readings


def test_force_is_that_of_a_steady_press():
    lanes = held_at((0.0, 0.0, 0.004))
    readings = press(lanes, 5.0, 60)
    np.testing.assert_allclose(readings["force"][0], [0.0, 0.0, -5.0], atol=0.02)


def test_force_at_the_start_is_zero_and_follows_within_a_few_steps():
    lanes = held_at((0.0, 0.0, 0.1))
    assert not lanes.readings["force"].any()
    task, memory = lanes.task, lanes.task.begin_memory(np.zeros(5))
    readings = {name: value[0] for name, value in lanes.readings.items()} | {"force": np.array([0.0, 0.0, -8.0])}
    seen = []
    for _ in range(4):
        memory, judged = task.remember(memory, readings)
        seen.append(judged["force"][2])
    assert seen == [-4.0, -6.0, -7.0, -7.5]


def test_torque_limits_leave_the_published_press_at_the_goal():
    angles, _ = solve_angles(np.array([GOAL]), MOUNT[None], np.array(GOAL_ANGLES), BRICK_MOUNT)
    _, _, jacobian = locate_hand(angles[0], BRICK_MOUNT)
    most = (torque_limits() / np.maximum(np.abs(jacobian[2]), 1e-9)).min()
    assert most == pytest.approx(7.5, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_sawyer_acts_with_seven_torques_at_20_hz(name):
    task = make_task(name)
    assert task.action_size == 7 and task.control_period == 0.05
    np.testing.assert_allclose(task.model().actuator_gear[:, 0], [4, 3.5, 3, 2.5, 2, 1.5, 1])
    assert task.horizon == (100 if "Reach" in name else 160)


def test_tasks_with_a_brick_observe_the_same():
    names = {make_task(name).observation_names for name in NAMES[2:]}
    assert len(names) == 1 and len(names.pop()) == 23


def test_the_force_is_what_the_motors_do_beyond_their_friction():
    rng, count = np.random.default_rng(0), 5
    lanes = held_at((0.0, 0.0, 0.1))
    names = ("xanchor", "xaxis", "site_xpos")
    place = {name: np.repeat(getattr(lanes.datas[0], name)[None], count, axis=0) for name in names}
    site = BRICK_SITE
    columns = jacobian(place["site_xpos"][:, site], place["xanchor"][:, :7], place["xaxis"][:, :7])
    force, torque = rng.uniform(-15.0, 15.0, (count, 3)), rng.uniform(-2.0, 2.0, (count, 3))
    wrench, velocities = np.concatenate([force, torque], axis=1), rng.uniform(-1.0, 1.0, (count, 7))
    damping = lanes.model.dof_damping[:7]
    assert (damping > 0.0).all()
    motors = np.einsum("nwj,nw->nj", columns, wrench) + damping * velocities
    data = SimpleNamespace(qpos=np.zeros((count, 7)), qvel=velocities, ctrl=motors / torque_limits(), **place)
    np.testing.assert_allclose(read_arm(data, site)["force"], force, atol=0.05)
