import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from qompose.tasks.kinematics import displace, locate_hand, rotation_vector, solve_angles, solve_wrench
from qompose.tasks.scenes.sawyer import BRICK_MOUNT, BRICK_SITE, NEUTRAL, stack_scene


def random_angles(count, seed=0):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (count, 7))


def rotation(vector):
    quaternion, matrix = np.zeros(4), np.zeros(9)
    angle = np.linalg.norm(vector)
    mujoco.mju_axisAngle2Quat(quaternion, vector / max(angle, 1e-12), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def test_hand_and_jacobian_are_those_of_the_simulator():
    model = mujoco.MjModel.from_xml_string(stack_scene(0.0015, tower=False))
    data, angles = mujoco.MjData(model), random_angles(5)
    positions, rotations, jacobians = locate_hand(angles, BRICK_MOUNT)
    for row, position, turn, jacobian in zip(angles, positions, rotations, jacobians, strict=True):
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        linear, angular = np.zeros((3, 7)), np.zeros((3, 7))
        mujoco.mj_jacSite(model, data, linear, angular, BRICK_SITE)
        np.testing.assert_allclose(position, data.site_xpos[BRICK_SITE], atol=1e-12)
        np.testing.assert_allclose(turn[:, 2], -data.site_xmat[BRICK_SITE].reshape(3, 3)[:, 2], atol=1e-7)
        np.testing.assert_allclose(jacobian, np.concatenate([linear, angular]), atol=1e-12)


def test_jacobian_at_neutral_is_the_published_one():
    _, _, jacobian = locate_hand(np.array(NEUTRAL))
    expected = [
        [-0.1603, -0.1012, 0.0298, -0.4711, 0.1147, -0.1345, 0.0],
        [0.4496, 0.0, 0.3794, 0.0, 0.0726, 0.0, 0.0],
        [0.0, -0.3686, -0.0123, -0.2162, 0.0736, -0.0001, 0.0],
    ]
    np.testing.assert_allclose(jacobian[:3], expected, atol=1e-4)


def test_kinematics_of_numpy_and_jax_agree():
    angles = random_angles(6).astype(np.float32)
    for ours, theirs in zip(locate_hand(angles), jax.jit(locate_hand)(jnp.asarray(angles)), strict=True):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=2e-6)


def test_wrench_is_recovered_from_the_torques_that_hold_it():
    wrenches = np.random.default_rng(1).normal(size=(8, 6))
    _, _, jacobian = locate_hand(np.array(NEUTRAL) + 0.2 * random_angles(8))
    torques = (np.matrix_transpose(jacobian) @ wrenches[..., None])[..., 0]
    np.testing.assert_allclose(solve_wrench(jacobian, torques), wrenches, rtol=1e-2, atol=1e-3)


def test_rotation_vector_inverts_axis_and_angle():
    vectors = np.random.default_rng(2).normal(size=(20, 3)) * np.geomspace(1e-9, 1.0, 20)[:, None]
    rotations = np.stack([rotation(vector) for vector in vectors])
    np.testing.assert_allclose(rotation_vector(rotations), vectors, atol=1e-9, rtol=1e-9)
    assert not rotation_vector(np.eye(3)).any()


def test_displacement_is_that_of_the_rotated_point():
    points = np.random.default_rng(3).normal(size=(4, 3))
    for size in (0.0, 1e-6, 1e-3, 0.3, 2.0):
        vector = size * np.array([0.6, 0.0, -0.8])
        np.testing.assert_allclose(displace(vector, points), points @ rotation(vector).T - points, atol=1e-9)


def test_small_displacements_keep_their_digits_in_single_precision():
    vector, point = np.array([1e-4, 0.0, 0.0], np.float32), np.array([[0.0, 0.04, 0.0]], np.float32)
    np.testing.assert_allclose(displace(vector, point)[0, 2], 4e-6, rtol=1e-6)


def test_angles_are_found_for_poses_within_reach_and_only_for_those():
    angles = np.array(NEUTRAL) + 0.2 * random_angles(200)
    positions, rotations, _ = locate_hand(angles, BRICK_MOUNT)
    positions[0] = [3.0, 0.0, 0.0]
    found, reached = solve_angles(positions, rotations, np.array(NEUTRAL), BRICK_MOUNT)
    assert not reached[0] and reached[1:].mean() > 0.97
    again, _, _ = locate_hand(found, BRICK_MOUNT)
    np.testing.assert_allclose(again[reached], positions[reached], atol=1e-4)
