import mujoco
import numpy as np
import pytest

from qompose.tasks.kinematics import solve_angles
from qompose.tasks.scenes.sawyer import (
    BRICK_BODY,
    BRICK_MOUNT,
    BRICK_SITE,
    GOAL,
    HAND_SITE,
    LINKS,
    NEUTRAL,
    TOWER_HALF,
    TOWER_OFFSET,
    reach_scene,
    stack_scene,
)
from qompose.tasks.starts import GOAL_ANGLES, MOUNT

SCENES = {
    "reach": reach_scene((0.6, -0.1, 0.35)),
    "reach random": reach_scene(None),
    "stack": stack_scene(0.0015, tower=False),
    "tower": stack_scene(0.0015, tower=True),
}
RECORDED = (0.763331, 0.415979, -1.728629, 1.482985, -1.135621, -1.674347, -0.496337)
# What all of MuJoCo, MJX and MuJoCo Warp can collide.
COLLIDED_BY_ALL = {
    frozenset(pair)
    for pair in (
        ("plane", "box"), ("plane", "capsule"), ("box",), ("box", "capsule"), ("capsule",), ("capsule", "sphere"),
    )
}  # fmt: skip


@pytest.fixture(scope="module", params=SCENES)
def model(request):
    return mujoco.MjModel.from_xml_string(SCENES[request.param])


def posed(model, angles):
    data = mujoco.MjData(model)
    data.qpos[:7] = angles
    mujoco.mj_forward(model, data)
    return data


def quaternion(data, site):
    result = np.zeros(4)
    mujoco.mju_mat2Quat(result, data.site_xmat[site])
    return result * np.sign(result[1])


def test_hand_is_where_a_robot_recorded_it(model):
    data = posed(model, RECORDED)
    np.testing.assert_allclose(data.site_xpos[HAND_SITE], [0.450628753, 0.161615832, 0.217447307], atol=2.5e-3)
    expected = [0.001943721, 0.704020579, 0.710172717, 0.002441014]
    np.testing.assert_allclose(quaternion(data, HAND_SITE), expected, atol=1e-4)


def test_neutral_pose_and_its_weight_are_those_of_the_urdf(model):
    data = posed(model, NEUTRAL)
    np.testing.assert_allclose(data.site_xpos[HAND_SITE], [0.449598, 0.1603, 0.215754], atol=1e-6)
    np.testing.assert_allclose(quaternion(data, HAND_SITE), [0.000279, 0.707099, 0.707115, 0.000279], atol=1e-6)


def test_gravity_is_compensated_and_would_fit_the_limits_of_the_robot(model):
    data, rng, worst = mujoco.MjData(model), np.random.default_rng(0), np.zeros(7)
    ranges = model.jnt_range[:7]
    for _ in range(300):
        data.qpos[:7] = rng.uniform(*ranges.T)
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(data.qfrc_gravcomp[:7], data.qfrc_bias[:7], atol=1e-9)
        worst = np.maximum(worst, np.abs(data.qfrc_bias[:7]))
    assert (worst < [1e-9, 80, 40, 40, 9, 9, 9]).all() and worst[1] > 30  # measured without a gripper: 40 Nm


def test_without_torque_the_arm_stays_where_it_is(model):
    data = posed(model, NEUTRAL)
    mujoco.mj_step(model, data, nstep=500)
    np.testing.assert_allclose(data.qpos[:7], NEUTRAL, atol=1e-9)


def test_moving_mass_is_that_of_the_robot_with_what_it_holds(model):
    links = [f"right_{link.name}" for link in LINKS]
    mass = sum(float(model.body(name).mass[0]) for name in (*links, "head"))
    assert mass == pytest.approx(18.666, abs=1e-3)
    assert model.body("right_hand").mass[0] == pytest.approx(0.3)


def test_only_named_pairs_that_every_simulator_collides_touch(model):
    assert not model.geom_contype.any() and not model.geom_conaffinity.any()
    names = {int(getattr(mujoco.mjtGeom, f"mjGEOM_{n.upper()}")): n for n in ("plane", "sphere", "capsule", "box")}
    kinds = {
        frozenset(names[int(model.geom_type[geom])] for geom in pair)
        for pair in zip(model.pair_geom1, model.pair_geom2, strict=True)
    }
    assert kinds <= COLLIDED_BY_ALL


def test_number_of_pairs_is_small():
    counts = {name: mujoco.MjModel.from_xml_string(scene).npair for name, scene in SCENES.items()}
    assert counts == {"reach": 18, "reach random": 18, "stack": 72, "tower": 78}


def test_nothing_touches_in_the_neutral_pose(model):
    assert posed(model, NEUTRAL).ncon == 0


def test_sites_stand_where_readings_look(model):
    assert model.site("hand").id == HAND_SITE
    if model.nsensordata:
        assert model.site("brick").id == BRICK_SITE and model.body("brick").id == BRICK_BODY
        assert [model.sensor(i).name for i in range(4)] == [f"stud{i}" for i in range(4)]


def test_outer_capsules_touch_the_walls_where_real_studs_do():
    for lead_in in (0.001, 0.0015, 0.002):
        model = mujoco.MjModel.from_xml_string(stack_scene(lead_in, tower=False))
        data = posed(model, NEUTRAL)
        for stud in range(4):
            outer, inner = (model.geom(f"stud{stud}_{name}") for name in ("outer", "inner"))
            assert outer.size[0] == inner.size[0] == lead_in
            centres = np.abs(data.geom_xpos[[outer.id, inner.id], 0] - GOAL[0])
            assert centres[0] + lead_in == pytest.approx(0.0127) and centres[1] - lead_in == pytest.approx(0.0033)
            top = data.geom_xpos[outer.id, 2] + outer.size[1] + lead_in
            assert top - GOAL[2] == pytest.approx(0.0045)


def test_tower_of_six_bricks_stands_on_the_table_between_start_and_goal():
    model = mujoco.MjModel.from_xml_string(SCENES["tower"])
    tower = model.body("tower").pos
    np.testing.assert_allclose(tower, np.add(GOAL, TOWER_OFFSET))
    np.testing.assert_allclose(tower, [0.55, 0.0403, 0.05 + 0.0576], atol=1e-9)
    np.testing.assert_allclose(model.geom("tower").size, TOWER_HALF)


@pytest.mark.parametrize(("name", "seated"), [("reach", False), ("stack", False), ("stack", True), ("tower", True)])
@pytest.mark.parametrize("steps", [6_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_torques_at_four_times_the_limit_break_nothing(name, seated, steps):
    model = mujoco.MjModel.from_xml_string(SCENES[name])
    model.actuator_gear[:, 0] *= 4.0
    start, _ = solve_angles(np.add(GOAL, (0.0, 0.0, 2e-4))[None], MOUNT[None], np.array(GOAL_ANGLES), BRICK_MOUNT)
    data, rng, deepest = posed(model, start[0] if seated else NEUTRAL), np.random.default_rng(0), 0.0
    for step in range(steps):
        if seated and step % 1000 == 0:  # once more out of the studs
            data.qpos[:], data.qvel[:] = start[0], 0.0
        if step % 25 == 0:
            data.ctrl[:] = rng.uniform(-1, 1, 7)
        mujoco.mj_step(model, data)
        deepest = min(deepest, data.contact.dist.min(initial=0.0))
    assert np.isfinite(data.qpos).all() and not data.warning.number.any()
    assert np.abs(data.qvel).max() < 10.0
    assert deepest > -0.003
