"""Sawyer's hand goes to a point: the reaching of Section V-C and Fig. 4."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any

from qompose.tasks.sawyer import (
    ACTION_WEIGHT,
    ARM_NAMES,
    FORCE_SCALE,
    MEMORY_SIZE,
    POSITION_SCALE,
    SPEED_SCALE,
    SawyerTask,
    near_joint_limits,
    outside,
    read_arm,
)
from qompose.tasks.scenes.sawyer import HAND_SITE, NEUTRAL, reach_scene
from qompose.tasks.task import Array, Readings
from qompose.types import QomposeError

JOINT_SPREAD = 0.1  # rad: joints start within this of the neutral pose
MIDDLE = (0.6, 0.0, 0.3)  # m: positions of the hand and of targets are observed from here
TARGET_LOW, TARGET_HIGH = (0.45, -0.3, 0.15), (0.75, 0.3, 0.5)  # m: where targets may be
REACH_LOW, REACH_HIGH = (-0.4, -0.6, -0.25), (0.35, 0.6, 0.55)  # m from there: beyond, an episode is cut
SOLVED_DISTANCE, SOLVED_STEPS = 0.01, 10  # m, and for so many steps


class ReachTask(SawyerTask):
    """Bring the hand to a point and keep it there.

    r = −10 e² − 0.1 ln(e² + 10⁻⁵) − 10⁻³ ‖a‖², e being the distance from hand to target in metres, after the step.
    Solved: e < 10 mm for the last ten steps.
    """

    horizon = 100

    def begin_memory(self, u: Array) -> Array:
        """Return zeros: nothing disturbs these tasks."""
        xp = u.__array_namespace__()
        return xp.zeros((*u.shape[:-1], MEMORY_SIZE), dtype=u.dtype)

    def read(self, data: Any) -> dict[str, Array]:
        """Return the readings of the arm, and those of hand and target (*batch, 3), in metres from (0.6, 0, 0.3)."""
        xp = data.qpos.__array_namespace__()
        readings = read_arm(data, HAND_SITE)
        middle = xp.asarray(MIDDLE, dtype=data.qpos.dtype)
        touches = xp.zeros(data.qpos.shape[:-1], dtype=bool)  # there is no tower
        hand = data.site_xpos[..., HAND_SITE, :] - middle
        return {**readings, "hand": hand, **self.read_target(data), "touches_tower": touches}

    @abstractmethod
    def read_target(self, data: Any) -> dict[str, Array]:
        """Return the target if it is observed."""

    @abstractmethod
    def target_of(self, readings: Readings) -> Array:
        """Return the target (3,) or (*batch, 3), in metres from (0.6, 0, 0.3)."""

    def observe(self, readings: Readings) -> Array:
        """Return angles, velocities / 2, hand × 8, force / 8, and target × 8 if it is observed, side by side."""
        parts = [
            readings["joint_angles"],
            SPEED_SCALE * readings["joint_velocities"],
            POSITION_SCALE * readings["hand"],
            FORCE_SCALE * readings["force"],
        ]
        if "target" in readings:
            parts.append(POSITION_SCALE * readings["target"])
        return parts[0].__array_namespace__().concat(parts, axis=-1)

    def recall(self, observation: Array) -> dict[str, Array]:
        """Return the readings that were observed, each (*batch, 7) or (*batch, 3)."""
        readings = {
            "joint_angles": observation[..., :7],
            "joint_velocities": observation[..., 7:14] / SPEED_SCALE,
            "hand": observation[..., 14:17] / POSITION_SCALE,
            "force": observation[..., 17:20] / FORCE_SCALE,
        }
        if self.observation_size > 20:
            readings["target"] = observation[..., 20:23] / POSITION_SCALE
        return readings

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return −10 e² − 0.1 ln(e² + 10⁻⁵) − 10⁻³ ‖a‖², each term by name."""
        xp = action.__array_namespace__()
        squared = self._squared_error(after)
        terms = {
            "action": -ACTION_WEIGHT * (action * action).sum(axis=-1),
            "distance": -10.0 * squared,
            "precision": -0.1 * xp.log(squared + 1e-5),
        }
        return sum(terms.values()), terms

    def solved(self, readings: Readings) -> Array:
        """Return whether the hand is within 10 mm of the target (*batch,)."""
        return self._squared_error(readings) < SOLVED_DISTANCE**2

    def success(self, readings: Readings) -> Array:
        """Return whether the hand has been within 10 mm of the target for ten steps (*batch,)."""
        return readings["held"] >= SOLVED_STEPS

    def truncated(self, readings: Readings) -> Array:
        """Return whether the hand has left the workspace or a joint is near its limit (*batch,)."""
        return outside(readings["hand"], REACH_LOW, REACH_HIGH) | near_joint_limits(readings["joint_angles"])

    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return the distance from hand to target, in metres."""
        return {"distance": self._squared_error(readings) ** 0.5}

    def _squared_error(self, readings: Readings) -> Array:
        error = readings["hand"] - self.target_of(readings)
        return (error * error).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class SawyerReach(ReachTask):
    """Bring the hand to one point, the same in every episode.

    The position of the hand is observed from a fixed point, not from the target, so that skills with different targets
    observe the same and can be composed.
    """

    target_x: float = 0.6
    target_y: float = -0.1
    target_z: float = 0.35

    observation_names = (
        *ARM_NAMES,
        *(f"{name}_{axis}" for name in ("hand", "force") for axis in "xyz"),
    )
    reset_uniforms = 7

    def __post_init__(self) -> None:
        """Refuse a target that is out of reach."""
        for axis, low, high in zip("xyz", TARGET_LOW, TARGET_HIGH, strict=True):
            target = getattr(self, f"target_{axis}")
            if not low <= target <= high:  # written so that NaN is refused
                raise QomposeError(f"{self.name}: target_{axis}={target} is out of reach: give {low} to {high}")

    def scene(self) -> str:
        """Return the MJCF of the arm and a marker at the target."""
        return reach_scene((self.target_x, self.target_y, self.target_z))

    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel), each (*batch, 7): at rest, joints within 0.1 rad of the neutral pose."""
        angles = _near_neutral(u)
        return angles, u.__array_namespace__().zeros_like(angles)

    def read_target(self, data: Any) -> dict[str, Array]:
        """Return nothing: the target is always the same."""
        return {}

    def target_of(self, readings: Readings) -> Array:
        """Return the target (3,), in metres from (0.6, 0, 0.3)."""
        hand = readings["hand"]
        offset = [getattr(self, f"target_{axis}") - middle for axis, middle in zip("xyz", MIDDLE, strict=True)]
        return hand.__array_namespace__().asarray(offset, dtype=hand.dtype)


@dataclasses.dataclass(frozen=True)
class SawyerReachRandom(ReachTask):
    """Bring the hand to a point that is another one in each episode and is observed."""

    observation_names = (
        *ARM_NAMES,
        *(f"{name}_{axis}" for name in ("hand", "force", "target") for axis in "xyz"),
    )
    reset_uniforms = 10

    def scene(self) -> str:
        """Return the MJCF of the arm and a target on three slides."""
        return reach_scene(None)

    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel), each (*batch, 10): the arm near its neutral pose, the target anywhere in its box."""
        xp = u.__array_namespace__()
        low, high = (xp.asarray(corner, dtype=u.dtype) for corner in (TARGET_LOW, TARGET_HIGH))
        qpos = xp.concat([_near_neutral(u[..., :7]), low + (high - low) * u[..., 7:]], axis=-1)
        return qpos, xp.zeros_like(qpos)

    def read_target(self, data: Any) -> dict[str, Array]:
        """Return the target (*batch, 3), in metres from (0.6, 0, 0.3)."""
        qpos = data.qpos
        return {"target": qpos[..., 7:10] - qpos.__array_namespace__().asarray(MIDDLE, dtype=qpos.dtype)}

    def target_of(self, readings: Readings) -> Array:
        """Return the target (*batch, 3), in metres from (0.6, 0, 0.3)."""
        return readings["target"]


def _near_neutral(u: Array) -> Array:
    xp = u.__array_namespace__()
    return xp.asarray(NEUTRAL, dtype=u.dtype) + (2.0 * u[..., :7] - 1.0) * JOINT_SPREAD
