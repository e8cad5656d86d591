import mujoco
import numpy as np
import pytest

from benchmarks import scenes
from qompose.tasks import make_task
from qompose.types import QomposeError
from qompose.view.meshes import BODIES, dress
from qompose.view.stage import open_stage

# All that the dynamics depend on, and nothing that is for the eye.
DYNAMICS = (
    "body_mass", "body_inertia", "body_ipos", "body_iquat", "body_pos", "body_quat", "jnt_range", "dof_armature",
    "dof_damping", "actuator_gear", "opt",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for link in BODIES:
        (tmp_path / f"{link}.stl").write_bytes(scenes.stl(scenes.FACES))
    return tmp_path


def test_every_link_wears_its_mesh_in_its_own_frame_and_touches_nothing(folder):
    model = dress(make_task("SawyerStack"), folder)
    for link, (body, primitives) in BODIES.items():
        geom = model.geom(f"mesh_{link}")
        assert model.body(geom.bodyid.item()).name == (body or "world")
        assert geom.contype.item() == geom.conaffinity.item() == 0
        assert all(model.geom(name).rgba[3] == 0.0 for name in primitives)


def test_what_is_worn_changes_no_bit_of_the_dynamics(folder):
    task = make_task("SawyerStack")
    bare, dressed = task.model(), dress(task, folder)
    states = []
    for model in (bare, dressed):
        data = mujoco.MjData(model)
        qpos, _ = task.reset(np.full(task.reset_uniforms, 0.3, np.float32))
        data.qpos[:], data.ctrl[:] = qpos, np.linspace(-1.0, 1.0, 7)
        mujoco.mj_step(model, data, 200)
        states.append(np.concatenate([data.qpos, data.qvel, data.sensordata]).tobytes())
    assert states[0] == states[1]
    assert all(np.array_equal(getattr(bare, name), getattr(dressed, name)) for name in DYNAMICS[:-1])


def test_a_link_without_a_mesh_keeps_its_shape(tmp_path):
    (tmp_path / "l3.obj").write_bytes(scenes.obj())
    task = make_task("SawyerReach")
    bare, dressed = task.model(), dress(task, str(tmp_path))
    assert dressed.ngeom == bare.ngeom + 1 and dressed.geom("l3").rgba[3] == 0.0
    assert np.array_equal(dressed.geom("l2").rgba, bare.geom("l2").rgba)


@pytest.mark.parametrize(("env", "message"), [("PushLeft", "has no Sawyer"), ("Pendulum-v1", "is no task of Sawyer")])
def test_other_tasks_wear_nothing(folder, env, message):
    with pytest.raises(QomposeError, match=f"^{env} {message}"):
        open_stage(env, {}, 64, meshes=folder)


def test_a_folder_without_meshes_says_what_should_be_there(tmp_path):
    with pytest.raises(QomposeError, match=r"has no mesh; put base\.stl, l0\.stl to l6\.stl or head\.stl there"):
        dress(make_task("SawyerStack"), tmp_path)


def test_a_film_shows_the_meshes(folder):
    pictures = []
    for meshes in (None, folder):
        stage = open_stage("SawyerReach", {}, 64, meshes=meshes)
        if not stage.renderer.startswith("mujoco"):
            stage.close()
            pytest.skip("OpenGL does not work here")
        pictures.append(np.asarray(stage.picture(stage.lockstep.reset(0)[0])).astype(int))
        stage.close()
    assert np.abs(pictures[0] - pictures[1]).max() > 30
