import itertools

import mujoco
import numpy as np
import pytest

from qompose.tasks import make_task
from qompose.tasks.pusher import GOALS, Pusher
from qompose.types import QomposeError


def puck_at(x, y):
    readings = {name: np.zeros(3) for name in ("joint_angles", "joint_velocities", "fork")}
    return {**readings, "puck": np.array([x, y, 0.0])}


def started(task, seed, data=None):
    data = data or mujoco.MjData(task.model())
    mujoco.mj_resetData(task.model(), data)
    data.qpos[:], data.qvel[:] = task.reset(np.random.default_rng(seed).random(task.reset_uniforms))
    mujoco.mj_forward(task.model(), data)
    return data


def test_reward_of_a_line_is_the_distance_along_one_axis():
    task, action = make_task("PushLeft"), np.array([1.0, 0.0, -0.5])
    total, terms = task.reward(puck_at(9.0, 9.0), action, puck_at(0.25, -0.6))
    assert terms["goal"] == pytest.approx(-1.25)
    assert terms["action"] == pytest.approx(-0.125)
    assert total == pytest.approx(-1.375)


def test_reward_of_a_corner_is_the_mean_of_its_two_lines():
    after, action = puck_at(0.3, -0.5), np.array([0.2, -0.4, 0.6])
    left, _ = make_task("PushLeft").reward(after, action, after)
    bottom, _ = make_task("PushBottom").reward(after, action, after)
    corner, _ = make_task("PushBottomLeft").reward(after, action, after)
    assert corner == pytest.approx((left + bottom) / 2)


def test_euclidean_corner_reward_is_an_option():
    task = make_task("PushBottomLeft", corner_reward="euclidean")
    total, _ = task.reward(puck_at(0, 0), np.zeros(3), puck_at(-0.7, -0.6))
    assert total == pytest.approx(-0.5)


def test_arm_term_is_off_by_default_and_weighted_when_on():
    after = puck_at(0.3, -0.4)
    _, terms = make_task("PushLeft").reward(after, np.zeros(3), after)
    assert set(terms) == {"action", "goal"}
    _, terms = make_task("PushLeft", arm_weight=0.1).reward(after, np.zeros(3), after)
    assert terms["arm"] == pytest.approx(-0.05)


def test_distance_is_euclidean_over_the_constrained_coordinates_and_decides_success():
    corner, left = make_task("PushBottomLeft"), make_task("PushLeft")
    assert corner.metrics(puck_at(-0.7, -0.6))["distance"] == pytest.approx(0.5)
    assert left.metrics(puck_at(-0.95, 0.6))["distance"] == pytest.approx(0.05)
    assert left.success(puck_at(-0.95, 0.6)) and not corner.success(puck_at(-0.95, 0.6))
    assert corner.success(puck_at(-0.95, -0.95)) and not corner.success(puck_at(-0.92, -0.92))
    assert corner.metrics(puck_at(-0.7, -0.6))["puck_y"] == -0.6


def test_starts_keep_to_their_ranges_and_away_from_the_corner():
    u = np.random.default_rng(0).random((20_000, Pusher.reset_uniforms))
    qpos, qvel = make_task("PushLeft").reset(u)
    joints, puck = qpos[:, :3], qpos[:, 3:]
    assert np.abs(joints).max() <= 0.1 and np.abs(joints).max() > 0.0999
    low, high = puck.min(axis=0), puck.max(axis=0)
    assert (low >= [0.3, -1.0]).all() and (high <= [1.0, -0.4]).all()
    np.testing.assert_allclose([low, high], [[0.3, -1.0], [1.0, -0.4]], atol=0.005)
    assert np.linalg.norm(puck - [1.0, -1.0], axis=1).min() >= 0.45
    assert not qvel.any()


def test_starts_near_the_corner_return_when_asked_for():
    u = np.random.default_rng(0).random((2_000, Pusher.reset_uniforms))
    qpos, _ = make_task("PushLeft", avoid_corner=False).reset(u)
    near = (np.linalg.norm(qpos[:, 3:] - [1.0, -1.0], axis=1) < 0.45).mean()
    assert near == pytest.approx(np.pi * 0.45**2 / 4 / 0.42, abs=0.04)  # the share of the rectangle


def test_first_accepted_candidate_is_taken():
    u = np.full(Pusher.reset_uniforms, 0.5)
    u[3:19], u[19:] = 0.99, 0.01  # every candidate in the corner ...
    u[3 + 4], u[19 + 4] = 0.0, 1.0  # ... but the fifth
    u[3 + 9], u[19 + 9] = 0.1, 0.9
    qpos, _ = make_task("PushLeft").reset(u)
    np.testing.assert_allclose(qpos[3:], [0.3, -0.4])


def test_observation_is_what_its_names_say():
    task = make_task("PushLeft")
    data = started(task, 3)
    data.qvel[:] = [0.1, 0.2, 0.3, 7.0, 7.0]
    observed = dict(zip(task.observation_names, task.observe(task.read(data)), strict=True))
    angles = np.cumsum(np.array([0.785, -0.785, -1.57]) + data.qpos[:3])  # absolute angles of the links
    assert observed["joint2_angle"] == data.qpos[1] and observed["joint3_velocity"] == 0.3
    assert observed["fork_x"] == pytest.approx(0.4 * np.cos(angles).sum())
    assert observed["fork_y"] == pytest.approx(0.4 * np.sin(angles).sum())
    assert (observed["puck_x"], observed["puck_y"]) == pytest.approx(tuple(data.qpos[3:]))
    assert 7.0 not in observed.values()  # the puck's velocity is not observed


def test_constant_torques_sweep_the_puck_away_without_passing_through_it():
    task, model = make_task("PushLeft"), make_task("PushLeft").model()
    data, puck, moved, deepest = mujoco.MjData(model), model.geom("puck").id, [], 0.0
    for seed, torque in itertools.product(range(3), itertools.product((-1, 0, 1), repeat=3)):
        if started(task, seed, data).ncon:
            continue
        start, data.ctrl[:] = data.qpos[3:].copy(), torque
        for _ in range(200):  # two seconds
            mujoco.mj_step(model, data)
            touching = (data.contact.geom == puck).any(axis=1)
            deepest = min(deepest, data.contact.dist[touching].min(initial=0.0))
        moved.append(np.linalg.norm(data.qpos[3:] - start))
    swept = [distance for distance in moved if distance > 0.2]
    assert len(swept) >= 0.15 * len(moved)  # measured: 0.29
    assert max(swept) > 1.0 and max(swept) < 1.6  # measured: 1.3 m
    assert deepest > -0.02  # measured: 11 mm; an arm that passes through goes as deep as the puck's radius, 100 mm


@pytest.mark.parametrize(("goal_x", "goal_y"), [(float("nan"), None), (None, float("inf")), (2.1, 0.0), (0.0, -2.001)])
def test_goals_that_cannot_be_reached_are_refused(goal_x, goal_y):
    with pytest.raises(QomposeError, match="cannot be reached: give a number from -2 to 2"):
        make_task("PushTo", goal_x=goal_x, goal_y=goal_y)


def test_pushing_to_nowhere_is_refused():
    with pytest.raises(QomposeError, match="PushTo has no goal: give goal_x, goal_y or both"):
        make_task("PushTo")


def test_named_goals_are_fixed():
    assert {name: make_task(name).options()["goal_x"] for name in GOALS} == {
        name: goal[0] for name, goal in GOALS.items()
    }
    with pytest.raises(QomposeError, match="goal fixed"):
        make_task("PushLeft", goal_x=-0.5)


@pytest.mark.parametrize("option", [{"corner_reward": "squared"}, {"arm_weight": -1.0}, {"arm_weight": float("nan")}])
def test_senseless_options_are_refused(option):
    with pytest.raises(QomposeError, match=next(iter(option))):
        make_task("PushLeft", **option)
