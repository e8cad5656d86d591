"""Properties of tasks: resets, observations, rewards, and where Sawyer's hand is."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qompose.tasks import make_task
from qompose.tasks.kinematics import cross, displace, locate_hand, rotation_vector, solve_wrench
from qompose.tasks.pusher import CORNER, CORNER_RADIUS, GOALS, JOINT_SPREAD, PUCK_X, PUCK_Y
from qompose.tasks.scenes.sawyer import LINKS
from qompose.tasks.task import relabel
from qompose.types import Transition

SEEDS = st.integers(0, 2**32 - 1)
PUSHERS = st.sampled_from([*GOALS])
LIMITS = np.array([link.limits for link in LINKS])


def uniforms(seed, task, lanes=4):
    """Numbers in [0, 1), often at the very ends."""
    rng = np.random.default_rng(seed)
    u = rng.random((lanes, task.reset_uniforms)).astype(np.float32)
    ends, last = rng.random(u.shape), np.nextafter(np.float32(1.0), np.float32(0.0))
    return np.where(ends < 0.1, np.float32(0.0), np.where(ends > 0.9, last, u))


def rotation(seed, most=3.0):
    """A random rotation by at most so many rad: its axis times angle, and its matrix by Rodrigues' formula."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis, angle = axis / np.linalg.norm(axis), rng.uniform(0.0, most)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return axis * angle, np.eye(3) + math.sin(angle) * k + (1.0 - math.cos(angle)) * k @ k


@given(SEEDS, PUSHERS)
def test_every_puck_starts_before_the_arm_and_out_of_the_corner(seed, name):
    task = make_task(name)
    qpos, qvel = task.reset(uniforms(seed, task))
    assert (np.abs(qpos[:, :3]) <= JOINT_SPREAD).all() and not qvel.any()
    x, y = qpos[:, 3], qpos[:, 4]
    assert ((PUCK_X[0] <= x) & (x <= PUCK_X[1]) & (PUCK_Y[0] <= y) & (y <= PUCK_Y[1])).all()
    assert (np.hypot(x - CORNER[0], y - CORNER[1]) >= CORNER_RADIUS - 1e-6).all()


@given(SEEDS)
def test_a_lane_starts_as_its_own_numbers_say_whatever_the_others_are(seed):
    for name in ("PushLeft", "MultiGoal", "SawyerReach"):
        task = make_task(name)
        u = uniforms(seed, task)
        together, alone = task.reset(u), task.reset(u[1:2])
        np.testing.assert_array_equal(together[0][1:2], alone[0])
        np.testing.assert_array_equal(together[1][1:2], alone[1])


@given(SEEDS, PUSHERS)
def test_what_the_pusher_observes_is_recalled_to_the_last_bit(seed, name):
    task = make_task(name)
    observation = np.random.default_rng(seed).normal(size=(3, task.observation_size)).astype(np.float32)
    np.testing.assert_array_equal(task.observe(task.recall(observation)), observation)


@given(SEEDS)
def test_the_reward_of_a_corner_is_half_of_those_of_its_lines(seed):
    rng = np.random.default_rng(seed)
    state, action = rng.normal(size=(2, 12)), rng.uniform(-1.0, 1.0, (2, 3))
    tasks = [make_task(name) for name in ("PushLeft", "PushBottom", "PushBottomLeft")]
    left, bottom, corner = (t.reward(t.recall(state), action, t.recall(state))[0] for t in tasks)
    np.testing.assert_allclose(corner, 0.5 * (left + bottom), rtol=1e-9)


@given(SEEDS, st.floats(-2.0, 2.0))
def test_a_reward_is_the_sum_of_its_terms_and_falls_with_the_distance_to_the_goal(seed, goal):
    task, rng = make_task("PushTo", goal_x=goal), np.random.default_rng(seed)
    state, action = rng.normal(size=(5, 12)), np.zeros((5, 3))
    readings = task.recall(state)
    total, terms = task.reward(readings, action, readings)
    np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-9)
    distance = task.metrics(readings)["distance"]
    assert (np.diff(total[np.argsort(distance)]) <= 1e-12).all()


@given(SEEDS)
def test_relabelled_experience_has_the_new_rewards_and_nothing_else_is_new(seed):
    rng, task, other = np.random.default_rng(seed), make_task("PushLeft"), make_task("PushBottom")
    shapes = ((6, 12), (6, 3), (6,), (6, 12), (6,))
    data = Transition(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    first, second = relabel(task, data), relabel(other, data)
    for name in ("observation", "action", "next_observation"):
        np.testing.assert_array_equal(getattr(second, name), getattr(data, name))
    np.testing.assert_array_equal(relabel(task, second).reward, first.reward)
    assert not np.array_equal(first.reward, second.reward) and first.reward.dtype == np.float32


@given(SEEDS)
def test_a_point_at_a_goal_is_done_and_anywhere_else_is_not(seed):
    task, rng = make_task("MultiGoal"), np.random.default_rng(seed)
    position = rng.uniform(-7.0, 7.0, (8, 2))
    readings = task.recall(position)
    near = np.min([np.hypot(*(position - goal).T) for goal in task.goals], axis=0)
    np.testing.assert_allclose(task.metrics(readings)["distance"], near, rtol=1e-9)
    np.testing.assert_array_equal(task.terminated(readings), near < 1.0)


@given(SEEDS)
def test_the_frame_of_the_hand_is_a_rotation_whatever_the_angles(seed):
    angles = np.random.default_rng(seed).uniform(LIMITS[:, 0], LIMITS[:, 1], (3, 7))
    position, frame, _ = locate_hand(angles)
    np.testing.assert_allclose(frame @ np.swapaxes(frame, -1, -2), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(frame), 1.0, rtol=1e-9)
    assert (np.linalg.norm(position, axis=-1) < 1.5).all()  # the arm is no longer


@given(SEEDS)
def test_the_jacobian_is_the_derivative_of_where_the_hand_is(seed):
    rng = np.random.default_rng(seed)
    angles, tool = rng.uniform(LIMITS[:, 0], LIMITS[:, 1]), (0.01, -0.02, 0.1)
    _, frame, jacobian = locate_hand(angles, tool)
    step = 1e-6
    for joint in range(7):
        moved = angles + step * np.eye(7)[joint]
        back = angles - step * np.eye(7)[joint]
        (ahead, turned, _), (behind, before, _) = locate_hand(moved, tool), locate_hand(back, tool)
        np.testing.assert_allclose((ahead - behind) / (2 * step), jacobian[:3, joint], atol=1e-7)
        spin = (turned - before) / (2 * step) @ frame.T
        np.testing.assert_allclose([spin[2, 1], spin[0, 2], spin[1, 0]], jacobian[3:, joint], atol=1e-7)


@given(SEEDS)
def test_the_hand_reaches_no_further_by_turning_its_last_joint(seed):
    angles = np.random.default_rng(seed).uniform(LIMITS[:, 0], LIMITS[:, 1])
    turned = angles.copy()
    turned[6] = 0.0
    np.testing.assert_allclose(locate_hand(turned)[0], locate_hand(angles)[0], atol=1e-9)


@given(SEEDS)
def test_a_wrench_is_found_again_from_its_torques_where_the_arm_is_not_stretched(seed):
    rng = np.random.default_rng(seed)
    angles, wrench = rng.uniform(LIMITS[:, 0], LIMITS[:, 1]), rng.normal(size=6)
    _, _, jacobian = locate_hand(angles)
    found = solve_wrench(jacobian, jacobian.T @ wrench)
    smallest = np.linalg.svd(jacobian, compute_uv=False)[-1]
    error = 1e-6 / (smallest**2 + 1e-6) * np.linalg.norm(wrench)  # what the millionth on the diagonal costs
    assert np.linalg.norm(found - wrench) <= 1.01 * error + 1e-9


@given(SEEDS)
def test_a_rotation_vector_is_axis_times_angle_and_turns_with_the_frame(seed):
    vector, turn = rotation(seed)
    np.testing.assert_allclose(rotation_vector(turn), vector, atol=1e-6)
    _, other = rotation(seed + 1)
    np.testing.assert_allclose(rotation_vector(other @ turn @ other.T), other @ vector, atol=1e-6)


@given(SEEDS, st.sampled_from([1e-9, 1e-4, 0.1, 3.0]))
def test_a_displacement_is_what_the_rotation_makes_of_the_points(seed, most):
    vector, turn = rotation(seed, most)
    points = np.random.default_rng(seed + 1).normal(size=(4, 3))
    found = displace(vector[None], points)[0]
    np.testing.assert_allclose(found, points @ (turn - np.eye(3)).T, rtol=1e-6, atol=1e-12 + 1e-9 * most)


@given(SEEDS)
def test_a_cross_product_is_normal_to_both_and_changes_sign_with_their_order(seed):
    first, second = np.random.default_rng(seed).normal(size=(2, 5, 3))
    found = cross(first, second)
    np.testing.assert_allclose((found * first).sum(axis=-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(found, -cross(second, first))
    area = (first**2).sum(axis=-1) * (second**2).sum(axis=-1) - (first * second).sum(axis=-1) ** 2
    np.testing.assert_allclose((found**2).sum(axis=-1), area, rtol=1e-9)
