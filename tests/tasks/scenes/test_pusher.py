import mujoco
import numpy as np
import pytest

from qompose.tasks.pusher import Pusher
from qompose.tasks.scenes.pusher import FORK_SITE, PUCK_SITE, pusher_scene


@pytest.fixture
def model():
    return mujoco.MjModel.from_xml_string(pusher_scene((-1.0, None)))


def test_sites_stand_where_readings_look(model):
    assert (model.site("fork").id, model.site("puck").id) == (FORK_SITE, PUCK_SITE)


def test_puck_has_a_real_mass(model):
    assert model.body("puck").mass[0] == pytest.approx(0.04)
    assert not model.dof_armature[3:].any()


def test_divergence_is_not_silently_reset(model):
    assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_AUTORESET


def test_arm_touches_neither_itself_nor_its_base_at_reset(model):
    data, puck, touching = mujoco.MjData(model), model.geom("puck").id, 0
    for u in np.random.default_rng(0).random((200, Pusher.reset_uniforms)):
        data.qpos[:], data.qvel[:] = Pusher("PushTo", goal_x=0.0).reset(u)
        mujoco.mj_forward(model, data)
        assert all(puck in contact.geom for contact in data.contact)
        touching += data.ncon > 0
    assert touching < 0.2 * 200  # measured 0.08: prongs reach 4 cm into where the puck may start, as in the original


def test_goal_marker_shows_a_strip_for_a_line_and_a_disc_for_a_point(model):
    line = model.geom("goal")
    assert line.type[0] == mujoco.mjtGeom.mjGEOM_BOX and line.size[1] > 10 * line.size[0]
    point = mujoco.MjModel.from_xml_string(pusher_scene((0.5, -0.25)))
    assert point.geom("goal").type[0] == mujoco.mjtGeom.mjGEOM_CYLINDER
    np.testing.assert_allclose(point.body("goal").pos[:2], [0.5, -0.25])


def test_the_goal_changes_nothing_but_the_marker(model):
    other = mujoco.MjModel.from_xml_string(pusher_scene((0.5, -0.25)))
    ends = []
    for scene in (model, other):
        data = mujoco.MjData(scene)
        data.qpos[3:], data.ctrl[:] = [0.6, -0.5], [-1.0, -0.5, 0.3]
        mujoco.mj_step(scene, data, nstep=300)
        ends.append(data.qpos.copy())
    assert np.array_equal(*ends)


def test_large_pictures_fit_the_frame_buffer(model):
    assert model.vis.global_.offwidth >= 640 and model.vis.global_.offheight >= 640


def test_spheres_for_upright_cylinders_change_no_push_by_a_millimetre(model):
    spheres = mujoco.MjModel.from_xml_string(pusher_scene((-1.0, None), spheres=True))
    rng, pushed = np.random.default_rng(0), 0
    for u in rng.random((10, Pusher.reset_uniforms)):
        start, _ = Pusher("PushTo", goal_x=0.0).reset(u)
        datas = [mujoco.MjData(model), mujoco.MjData(spheres)]
        for data in datas:
            data.qpos[:] = start
        for action in np.repeat(rng.uniform(-1.0, 1.0, (30, 3)), 10, axis=0):
            for scene, data in zip((model, spheres), datas, strict=True):
                data.ctrl[:] = action
                mujoco.mj_step(scene, data, nstep=5)
            assert np.abs(datas[0].qpos - datas[1].qpos).max() < 1e-3
        pushed += np.abs(datas[0].qpos - start)[3:].max() > 0.1
    assert pushed >= 3
