"""Sawyer under torque control: what reaching and stacking share (Section V-C)."""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Any

import numpy as np

from qompose.tasks.kinematics import jacobian, rotation_vector, solve_wrench
from qompose.tasks.scenes.sawyer import LINKS
from qompose.tasks.task import Array, Readings, Task

ARM_NAMES = tuple(f"right_j{i}_{what}" for what in ("angle", "velocity") for i in range(7))
JOINT_MARGIN = 0.05  # rad: an episode is cut this near the limit of a joint

# Powers of two, so that what was observed is recalled to the last bit.
SPEED_SCALE, POSITION_SCALE, FORCE_SCALE = 0.5, 8.0, 0.125
MOST_FORCE = 16.0  # N: readings are clipped here
FORCE_SMOOTHING = 0.5  # weight of the newest estimate, one each 50 ms
ACTION_WEIGHT = 1e-3

# What a lane remembers: the smoothed force, how long the task has been solved, whether the tower was ever touched, the
# steps since the start, and numbers in [0, 1) that decide about disturbances.
FORCE, HELD, COLLIDED, ELAPSED, CHANCE = slice(0, 3), 3, 4, 5, slice(6, 10)
MEMORY_SIZE = 10


class SawyerTask(Task):
    """What the tasks of the arm share: torques on seven joints at 20 Hz, added to the arm's own gravity compensation.

    Forces at the hand are estimated as the robot does it, from the torques of its motors less those of friction:
    J Jᵀ w = J (τ − D q̇), smoothed over about 0.1 s. In free motion the estimate is off by several newtons.
    """

    substeps = 25
    control_period = 0.05
    action_size = 7
    terminates = False
    truncates = True
    memory_size = MEMORY_SIZE
    data_fields = ("qpos", "qvel", "ctrl", "xanchor", "xaxis", "site_xpos", "site_xmat", "sensordata")

    @abstractmethod
    def solved(self, readings: Readings) -> Array:
        """Return whether all is as it should be in this state (*batch,); `success` asks for how long it has been."""

    def terminated(self, readings: Readings) -> Array:
        """Return false everywhere: neither success nor collision ends an episode."""
        angles = readings["joint_angles"]
        return angles.__array_namespace__().zeros(angles.shape[:-1], dtype=bool)

    def remember(self, memory: Array, readings: Readings) -> tuple[Array, dict[str, Array]]:
        """Smooth the force; count the steps for which the task is solved; keep in mind a touch of the tower."""
        xp = memory.__array_namespace__()
        newest = readings["force"]
        # No torque acts before the first step, so that the estimate at the start is zero.
        force = memory[..., FORCE] + FORCE_SMOOTHING * (newest - memory[..., FORCE])
        held = xp.where(self.solved(readings), memory[..., HELD] + 1.0, 0.0)
        collided = xp.maximum(memory[..., COLLIDED], readings["touches_tower"].astype(memory.dtype))
        elapsed = memory[..., ELAPSED] + 1.0
        counts = xp.stack([held, collided, elapsed], axis=-1)
        memory = xp.concat([force.astype(memory.dtype), counts, memory[..., CHANCE]], axis=-1)
        return memory, {**readings, "force": force, "held": held, "collided": collided}


def read_arm(data: Any, site: int) -> dict[str, Array]:
    """Return joint angles (rad) and velocities (rad/s), each (*batch, 7), and the force (*batch, 3) at a site, in N."""
    xp = data.qpos.__array_namespace__()
    angles, velocities = data.qpos[..., :7], data.qvel[..., :7]
    limits, damping = (xp.asarray(values, dtype=angles.dtype) for values in (torque_limits(), _damping()))
    torques = data.ctrl * limits - damping * velocities
    columns = jacobian(data.site_xpos[..., site, :], data.xanchor[..., :7, :], data.xaxis[..., :7, :])
    force = xp.clip(solve_wrench(columns, torques)[..., :3], -MOST_FORCE, MOST_FORCE)
    return {"joint_angles": angles, "joint_velocities": velocities, "force": force}


def read_rotation(data: Any, site: int) -> Array:
    """Return the rotation vector (*batch, 3) of a site in the frame of the base, in rad."""
    xp = data.site_xpos.__array_namespace__()
    return rotation_vector(xp.reshape(data.site_xmat, (*data.site_xpos.shape, 3))[..., site, :, :])


def near_joint_limits(joint_angles: Array) -> Array:
    """Return whether any joint is within 0.05 rad of its limit (*batch,)."""
    xp = joint_angles.__array_namespace__()
    low, high = xp.asarray([link.limits for link in LINKS], dtype=joint_angles.dtype).T
    return ((joint_angles < low + JOINT_MARGIN) | (joint_angles > high - JOINT_MARGIN)).any(axis=-1)


def outside(position: Array, low: tuple[float, ...], high: tuple[float, ...]) -> Array:
    """Return whether a position (*batch, 3) is outside a box (*batch,)."""
    xp = position.__array_namespace__()
    below = position < xp.asarray(low, dtype=position.dtype)
    above = position > xp.asarray(high, dtype=position.dtype)
    return (below | above).any(axis=-1)


@functools.cache
def torque_limits() -> np.ndarray:
    """Return the torques (7,) of an action of 1, in Nm."""
    return np.array([link.torque for link in LINKS])


@functools.cache
def _damping() -> np.ndarray:
    return np.array([link.damping for link in LINKS])
