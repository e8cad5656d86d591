"""Where Sawyer's hand is and how it moves, from the joint angles alone; NumPy and JAX alike."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from qompose.tasks.scenes.sawyer import HAND_POSITION, HAND_YAW, LINKS

Array = Any


def _rotate_z(rotation: Array, angle: Array) -> Array:
    """Turn frames (*batch, 3, 3) about their own z by angles (*batch,) in rad."""
    xp = angle.__array_namespace__()
    cosine, sine = xp.cos(angle)[..., None], xp.sin(angle)[..., None]
    x, y = rotation[..., :, 0], rotation[..., :, 1]
    return xp.stack([cosine * x + sine * y, cosine * y - sine * x, rotation[..., :, 2]], axis=-1)


@functools.cache
def _fixed_frames() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Position (3,) and rotation (3, 3) of each joint in the link before it."""
    frames = []
    for link in LINKS:
        roll, pitch, yaw = link.rpy
        about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
        about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
        about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        frames.append((np.array(link.position), about_z @ about_y @ about_x))
    return tuple(frames)


def locate_hand(joint_angles: Array, tool: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple[Array, Array, Array]:
    """Return position (*batch, 3), rotation (*batch, 3, 3) and Jacobian (*batch, 6, 7) of a point of the hand.

    `joint_angles` (*batch, 7) in rad; `tool` is the point in the frame `right_hand`, in metres. The Jacobian has the
    three rows of the velocity first, then those of the angular velocity; all are in the frame of the base.
    """
    xp = joint_angles.__array_namespace__()
    dtype = joint_angles.dtype
    rotation = xp.broadcast_to(xp.eye(3, dtype=dtype), (*joint_angles.shape[:-1], 3, 3))
    position = xp.zeros((*joint_angles.shape[:-1], 3), dtype=dtype)
    anchors, axes = [], []
    for joint, (offset, turn) in enumerate(_fixed_frames()):
        position = position + rotation @ xp.asarray(offset, dtype=dtype)
        rotation = rotation @ xp.asarray(turn, dtype=dtype)
        anchors.append(position)
        axes.append(rotation[..., :, 2])
        rotation = _rotate_z(rotation, joint_angles[..., joint])
    position = position + rotation @ xp.asarray(HAND_POSITION, dtype=dtype)
    rotation = _rotate_z(rotation, xp.full(joint_angles.shape[:-1], HAND_YAW, dtype=dtype))
    position = position + rotation @ xp.asarray(tool, dtype=dtype)
    return position, rotation, jacobian(position, xp.stack(anchors, axis=-2), xp.stack(axes, axis=-2))


def cross(first: Array, second: Array) -> Array:
    """Return first × second (*batch, 3), about three times as fast as NumPy's own, which checks and moves axes."""
    (a, b, c), (x, y, z) = ([vector[..., i] for i in range(3)] for vector in (first, second))
    return first.__array_namespace__().stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)


def jacobian(point: Array, anchors: Array, axes: Array) -> Array:
    """Return the Jacobian (*batch, 6, joints) of a point (*batch, 3) moved by hinges (*batch, joints, 3)."""
    xp = point.__array_namespace__()
    columns = xp.concat([cross(axes, point[..., None, :] - anchors), axes], axis=-1)
    return xp.matrix_transpose(columns)


def solve_wrench(jacobian: Array, torques: Array) -> Array:
    """Return the force and moment (*batch, 6) that torques (*batch, joints) exert: least squares of Jᵀ w = τ.

    A millionth is added to the diagonal of J Jᵀ, so that a stretched arm gives large figures rather than an error.
    """
    xp = torques.__array_namespace__()
    square = jacobian @ xp.matrix_transpose(jacobian)
    square = square + 1e-6 * xp.eye(6, dtype=torques.dtype)
    return xp.linalg.solve(square, jacobian @ torques[..., None])[..., 0]


def rotation_vector(rotation: Array) -> Array:
    """Return axis times angle (*batch, 3), in rad, of rotations (*batch, 3, 3) by less than half a turn."""
    xp = rotation.__array_namespace__()
    twice = [rotation[..., i, j] - rotation[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))]
    sine_axis = 0.5 * xp.stack(twice, axis=-1)
    sine = (sine_axis * sine_axis).sum(axis=-1) ** 0.5
    cosine = 0.5 * (rotation[..., 0, 0] + rotation[..., 1, 1] + rotation[..., 2, 2] - 1.0)
    small = sine < 1e-6
    ratio = xp.where(small, xp.ones_like(sine), xp.atan2(sine, cosine) / xp.where(small, xp.ones_like(sine), sine))
    return sine_axis * ratio[..., None]


def displace(vector: Array, points: Array) -> Array:
    """Return by how much rotations with vectors (*batch, 3) move points (points, 3): (*batch, points, 3).

    (R − 1) c = (sin θ / θ) v × c + ((1 − cos θ) / θ²) v × (v × c) (Rodrigues), exact to rounding for small θ, where
    R c − c would not be.
    """
    xp = vector.__array_namespace__()
    square = (vector * vector).sum(axis=-1)[..., None, None]
    small = square < 1e-8
    safe = xp.where(small, xp.ones_like(square), square)
    angle = safe**0.5
    first = xp.where(small, 1.0 - square / 6.0, xp.sin(angle) / angle)
    second = xp.where(small, 0.5 - square / 24.0, (1.0 - xp.cos(angle)) / safe)
    vector, points = xp.broadcast_arrays(vector[..., None, :], points)
    once = cross(vector, points)
    return first * once + second * cross(vector, once)


def solve_angles(
    positions: np.ndarray, rotations: np.ndarray, start: np.ndarray, tool: tuple[float, float, float], steps: int = 25
) -> tuple[np.ndarray, np.ndarray]:
    """Return joint angles (n, 7) that bring the tool to poses (n, 3) and (n, 3, 3), and where that was possible (n,).

    Damped least squares from `start`, with a pull towards it in the free direction; an answer counts within 0.1 mm,
    0.1 mrad and the joints' limits.
    """
    limits = np.array([link.limits for link in LINKS])
    angles = np.broadcast_to(start, (len(positions), 7)).copy()
    error = np.zeros((len(positions), 6))
    for step in range(steps + 1):
        position, rotation, columns = locate_hand(angles, tool)
        error[:, :3] = positions - position
        error[:, 3:] = rotation_vector(rotations @ np.matrix_transpose(rotation))
        if step == steps:
            break
        rows = np.matrix_transpose(columns)
        inverse = rows @ np.linalg.inv(columns @ rows + 1e-6 * np.eye(6))
        pull = 0.3 * (start - angles)
        moves = inverse @ (error - (columns @ pull[..., None])[..., 0])[..., None]
        angles = np.clip(angles + np.clip(moves[..., 0] + pull, -0.3, 0.3), limits[:, 0], limits[:, 1])
    return angles, np.abs(error).max(axis=-1) < 1e-4
