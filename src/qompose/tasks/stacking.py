"""Sawyer holds a brick: stack it on another, avoid a tower, do both (Section V-C, Figs. 5 and 6)."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar

from qompose.tasks.kinematics import displace
from qompose.tasks.sawyer import (
    ACTION_WEIGHT,
    ARM_NAMES,
    CHANCE,
    ELAPSED,
    FORCE_SCALE,
    MEMORY_SIZE,
    POSITION_SCALE,
    SPEED_SCALE,
    SawyerTask,
    near_joint_limits,
    outside,
    read_arm,
    read_rotation,
)
from qompose.tasks.scenes.sawyer import BRICK_BODY, BRICK_SITE, BRICK_WIDTH, GOAL, TOWER_HALF, TOWER_OFFSET, stack_scene
from qompose.tasks.starts import BANK_SIZE, forced_bank, start_bank
from qompose.tasks.task import PEAKS, Array, Readings
from qompose.types import QomposeError

ROTATION_SCALE = 4.0  # a power of two, as the scales of all that is observed
# Five points of the brick by which its pose is judged, in metres. Their lever is longer than the brick: with its own
# corners alone a brick that leans on the studs by 20 degrees would be almost as good as one that is in place.
POINTS = ((0.04, 0.0, 0.0), (-0.04, 0.0, 0.0), (0.0, 0.04, 0.0), (0.0, -0.04, 0.0), (0.0, 0.0, 0.08))
HALF = BRICK_WIDTH / 2
CORNERS = ((HALF, HALF, 0.0), (HALF, -HALF, 0.0), (-HALF, HALF, 0.0), (-HALF, -HALF, 0.0))
PRESS_LIMIT, PRESS_WIDTH = 10.0, 0.004  # N and m: pressing pays only where the brick is aligned
LEAD_INS = (1.0, 1.5, 2.0)  # mm
SEATED_HEIGHT, SEATED_ASIDE, SEATED_STEPS = 0.001, 0.001, 4  # m, m, and for so many steps
NEAR = 0.05  # m from the goal: what `SawyerAvoid` asks for
# Spheres (height in the brick's frame, radius), in metres, around brick, gripper and wrist.
SPHERES = ((0.0096, 0.0246), (0.055, 0.0336), (0.085, 0.0336), (0.115, 0.0336), (0.145, 0.0336), (0.180, 0.055))
TOWER_MARGIN = 0.06  # m: nearer than this costs
OFFSET_LOW, OFFSET_HIGH = (-0.30, -0.52, -0.1), (0.30, 0.32, 0.45)  # m from the goal: beyond, an episode is cut
PUSH_STEPS = (30, 40)  # a push lasts from 1.5 s to 2 s
FORCED_STEP = 80  # the arm is put elsewhere after 4 s


class BrickTask(SawyerTask):
    """What the tasks with a brick in the hand share. They observe the same, so that their skills can be composed.

    The goal of the brick is the top of the one on the table; offsets are from there. Yaw matters: of the four ways in
    which a square brick fits, the one that the hand starts near to is meant.
    """

    horizon = 160
    observation_names = (
        *ARM_NAMES,
        *(f"brick_{axis}" for axis in "xyz"),
        *(f"turn_{axis}" for axis in "xyz"),
        *(f"force_{axis}" for axis in "xyz"),
    )
    reset_uniforms = 5

    tower: ClassVar[bool]  # stands in the scene
    starts: ClassVar[str]
    lead_in: float
    push: float
    forced: float

    def scene(self) -> str:
        """Return the MJCF of the arm with a brick in its hand, the brick on the table, and the tower or not."""
        return stack_scene(self.lead_in / 1000.0, self.tower)

    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel), each (*batch, 7): at rest in one of 4096 poses where nothing touches."""
        angles = _look_up(start_bank(self.starts, self.tower), u[..., 0])
        return angles, u.__array_namespace__().zeros_like(angles)

    def begin_memory(self, u: Array) -> Array:
        """Return zeros, and the numbers that decide where a disturbance leads."""
        xp = u.__array_namespace__()
        return xp.concat([xp.zeros((*u.shape[:-1], MEMORY_SIZE - 4), dtype=u.dtype), u[..., 1:]], axis=-1)

    def disturb(self, data: Any, memory: Array) -> None:
        """Push the brick with `push` N from 1.5 s to 2 s; after 4 s put the arm elsewhere, by up to `forced` rad."""
        step, chance = int(memory[ELAPSED]) - 1, memory[CHANCE]
        if self.push > 0.0:
            xp = chance.__array_namespace__()
            height, heading = 2.0 * chance[0] - 1.0, 2.0 * xp.pi * chance[1]
            aside = (1.0 - height**2) ** 0.5
            force = [self.push * x for x in (aside * xp.cos(heading), aside * xp.sin(heading), height)]
            pushed = PUSH_STEPS[0] <= step < PUSH_STEPS[1]
            data.xfrc_applied[BRICK_BODY, :3] = force if pushed else 0.0
        if self.forced > 0.0 and step == FORCED_STEP:
            data.qpos[:], data.qvel[:] = _look_up(forced_bank(self.forced, self.tower), chance[2]), 0.0

    def read(self, data: Any) -> dict[str, Array]:
        """Return the readings of the arm, the brick's offset (m) and turn (rad) from its goal, and the contacts."""
        xp = data.qpos.__array_namespace__()
        touched = data.sensordata > 0.0
        # An arm that bumps into the tower is off it again within a few milliseconds.
        tower = data.sensor_peaks[..., 4] > 0.0 if self.tower else xp.zeros(data.qpos.shape[:-1], dtype=bool)
        readings = {
            **read_arm(data, BRICK_SITE),
            "brick": data.site_xpos[..., BRICK_SITE, :] - xp.asarray(GOAL, dtype=data.site_xpos.dtype),
            "turn": read_rotation(data, BRICK_SITE),
            "touches_tower": tower,
        }
        return {**readings, **_judge_pose(readings, touched[..., :4])}

    def observe(self, readings: Readings) -> Array:
        """Return angles, velocities / 2, offset × 8, turn × 4 and force / 8 side by side (*batch, 23)."""
        parts = [
            readings["joint_angles"],
            SPEED_SCALE * readings["joint_velocities"],
            POSITION_SCALE * readings["brick"],
            ROTATION_SCALE * readings["turn"],
            FORCE_SCALE * readings["force"],
        ]
        return parts[0].__array_namespace__().concat(parts, axis=-1)

    def recall(self, observation: Array) -> dict[str, Array]:
        """Return the readings that were observed; contacts were not."""
        return {
            "joint_angles": observation[..., :7],
            "joint_velocities": observation[..., 7:14] / SPEED_SCALE,
            "brick": observation[..., 14:17] / POSITION_SCALE,
            "turn": observation[..., 17:20] / ROTATION_SCALE,
            "force": observation[..., 20:23] / FORCE_SCALE,
        }

    @abstractmethod
    def pose_terms(self, after: Readings) -> dict[str, Array]:
        """Return the terms of the reward that the state after the step decides."""

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return −10⁻³ ‖a‖² and the terms of the task, each by name."""
        terms = {"action": -ACTION_WEIGHT * (action * action).sum(axis=-1), **self.pose_terms(after)}
        return sum(terms.values()), terms

    def truncated(self, readings: Readings) -> Array:
        """Return whether the brick has left the workspace or a joint is near its limit (*batch,).

        Never under a disturbance: then finding back is what counts.
        """
        left = outside(readings["brick"], OFFSET_LOW, OFFSET_HIGH) | near_joint_limits(readings["joint_angles"])
        return left & (self.push == 0.0 and self.forced == 0.0)

    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return how far off the brick is (m, rad), the studs in contact, and whether the tower was ever touched."""
        brick, turn = readings["brick"], readings["turn"]
        return {
            "distance": (brick * brick).sum(axis=-1) ** 0.5,
            "aside": readings["aside"],
            "height": readings["height"],
            "turn": (turn * turn).sum(axis=-1) ** 0.5,
            "studs": readings["studs"],
            "seated": readings["seated"],
            "collided": readings["collided"] > 0.0,
        }


@dataclasses.dataclass(frozen=True)
class SawyerStack(BrickTask):
    """Stack the brick that the hand holds on the one on the table. There is no tower.

    r = −10 d² − 0.15 ln(d² + 10⁻⁶) + 0.02 min(F, 10) exp(−d²/(4 mm)²) − 10⁻³ ‖a‖², after the step: d² (m²) is the mean
    square distance of five points of the brick from where they belong, F ≥ 0 the downward force in N.
    Solved: all four studs in contact, no corner of the brick higher than 1 mm and its middle no more than 1 mm aside,
    for 0.2 s.
    """

    lead_in: float = 1.5  # mm, radius of the studs' tops: a brick that is about this far aside still slides in
    push: float = 0.0  # N on the brick from 1.5 s to 2 s, in a direction of its own in each episode
    forced: float = 0.0  # rad by which the arm is put elsewhere after 4 s

    tower = False
    starts = "around"

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _check_options(self)

    def pose_terms(self, after: Readings) -> dict[str, Array]:
        """Return −10 d², −0.15 ln(d² + 10⁻⁶) and the reward of pressing."""
        return stack_terms(after)

    def solved(self, readings: Readings) -> Array:
        """Return whether the brick is in place in this state (*batch,)."""
        return readings["seated"]

    def success(self, readings: Readings) -> Array:
        """Return whether the brick has been in place for 0.2 s (*batch,)."""
        return readings["held"] >= SEATED_STEPS


@dataclasses.dataclass(frozen=True)
class SawyerAvoid(BrickTask):
    """Bring the brick near its goal around a tower, without what it takes to stack it. The tower stands in the scene.

    r = −10 d² − clip(1 − s / 60 mm, 0, 1)² − [s < 0] − 10⁻³ ‖a‖², after the step: s is the least signed distance of
    spheres around brick, gripper and wrist from the tower. They enclose these bodies, so that s > 0 excludes contact.
    Half of the episodes start behind the tower. Solved: within 50 mm of the goal, the tower never touched.
    """

    lead_in: float = 1.5  # mm
    push: float = 0.0  # N
    forced: float = 0.0  # rad

    tower = True
    data_fields = (*BrickTask.data_fields, PEAKS)
    starts = "both"

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _check_options(self)

    def pose_terms(self, after: Readings) -> dict[str, Array]:
        """Return −10 d² and the costs of being near the tower and of touching it."""
        return avoid_terms(after)

    def solved(self, readings: Readings) -> Array:
        """Return whether the brick is within 50 mm of its goal (*batch,)."""
        return (readings["brick"] * readings["brick"]).sum(axis=-1) < NEAR**2

    def success(self, readings: Readings) -> Array:
        """Return whether the brick is within 50 mm of its goal and the tower was never touched (*batch,)."""
        return (readings["held"] > 0.0) & (readings["collided"] == 0.0)


@dataclasses.dataclass(frozen=True)
class SawyerStackAvoid(BrickTask):
    """Stack the brick without touching the tower, which stands in between: every episode starts behind it.

    The reward is the mean of those of SawyerStack and SawyerAvoid (eq 5). Solved: stacked as there, the tower never
    touched.
    """

    lead_in: float = 1.5  # mm
    push: float = 0.0  # N
    forced: float = 0.0  # rad

    tower = True
    data_fields = (*BrickTask.data_fields, PEAKS)
    starts = "behind"

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _check_options(self)

    def pose_terms(self, after: Readings) -> dict[str, Array]:
        """Return half of the terms of stacking and half of those of avoiding."""
        stack, avoid = stack_terms(after), avoid_terms(after)
        return {
            "distance": 0.5 * (stack["distance"] + avoid["distance"]),
            "precision": 0.5 * stack["precision"],
            "press": 0.5 * stack["press"],
            "clearance": 0.5 * avoid["clearance"],
            "collision": 0.5 * avoid["collision"],
        }

    def solved(self, readings: Readings) -> Array:
        """Return whether the brick is in place in this state (*batch,)."""
        return readings["seated"]

    def success(self, readings: Readings) -> Array:
        """Return whether the brick has been in place for 0.2 s and the tower was never touched (*batch,)."""
        return (readings["held"] >= SEATED_STEPS) & (readings["collided"] == 0.0)


def stack_terms(readings: Readings) -> dict[str, Array]:
    """Return −10 d², −0.15 ln(d² + 10⁻⁶) and 0.02 min(F, 10) exp(−d²/(4 mm)²), each (*batch,)."""
    xp = readings["brick"].__array_namespace__()
    squared = _squared_distance(readings)
    press = xp.clip(-readings["force"][..., 2], 0.0, PRESS_LIMIT)
    return {
        "distance": -10.0 * squared,
        "precision": -0.15 * xp.log(squared + 1e-6),
        "press": 0.02 * press * xp.exp(-squared / PRESS_WIDTH**2),
    }


def avoid_terms(readings: Readings) -> dict[str, Array]:
    """Return −10 d², −clip(1 − s / 60 mm, 0, 1)² and −[s < 0], each (*batch,)."""
    xp = readings["brick"].__array_namespace__()
    distance = tower_distance(readings)
    nearness = xp.clip(1.0 - distance / TOWER_MARGIN, 0.0, 1.0)
    return {
        "distance": -10.0 * _squared_distance(readings),
        "clearance": -(nearness**2),
        "collision": -(distance < 0.0).astype(distance.dtype),
    }


def tower_distance(readings: Readings) -> Array:
    """Return the least signed distance (*batch,), in m, of brick, gripper and wrist (as spheres) from the tower."""
    brick = readings["brick"]
    xp = brick.__array_namespace__()
    centres = xp.asarray([(0.0, 0.0, height) for height, _ in SPHERES], dtype=brick.dtype)
    radii = xp.asarray([radius for _, radius in SPHERES], dtype=brick.dtype)
    places = _places(readings, centres) - xp.asarray(TOWER_OFFSET, dtype=brick.dtype)
    beyond = abs(places) - xp.asarray(TOWER_HALF, dtype=brick.dtype)
    outwards = xp.maximum(beyond, 0.0)
    distances = (outwards * outwards).sum(axis=-1) ** 0.5 + xp.minimum(beyond.max(axis=-1), 0.0)
    return (distances - radii).min(axis=-1)


def _judge_pose(readings: Readings, touches_studs: Array) -> dict[str, Array]:
    """How high the highest corner is and how far aside the middle (m), the studs in contact, and whether all is well.

    Contacts alone or height alone would not do: a brick that sits one row aside has both.
    """
    brick = readings["brick"]
    corners = brick.__array_namespace__().asarray(CORNERS, dtype=brick.dtype)
    height = _places(readings, corners)[..., 2].max(axis=-1)
    aside = (brick[..., :2] ** 2).sum(axis=-1) ** 0.5
    seated = touches_studs.all(axis=-1) & (height < SEATED_HEIGHT) & (aside < SEATED_ASIDE)
    return {"height": height, "aside": aside, "studs": touches_studs.sum(axis=-1), "seated": seated}


def _places(readings: Readings, points: Array) -> Array:
    """Points of the brick (points, 3) as offsets from its goal (*batch, points, 3)."""
    return readings["brick"][..., None, :] + points + displace(readings["turn"], points)


def _squared_distance(readings: Readings) -> Array:
    brick = readings["brick"]
    points = brick.__array_namespace__().asarray(POINTS, dtype=brick.dtype)
    errors = brick[..., None, :] + displace(readings["turn"], points)
    return (errors * errors).sum(axis=-1).mean(axis=-1)


def _look_up(bank: Any, u: Array) -> Array:
    xp = u.__array_namespace__()
    return xp.asarray(bank, dtype=u.dtype)[(u * BANK_SIZE).astype(xp.int32)]


def _check_options(task: BrickTask) -> None:
    if task.lead_in not in LEAD_INS:
        raise QomposeError(f"{task.name}: lead_in={task.lead_in}: give 1.0, 1.5 or 2.0 (mm)")
    if not 0.0 <= task.push <= 50.0:  # written so that NaN is refused
        raise QomposeError(f"{task.name}: push={task.push}: give 0 to 50 (N)")
    if not (task.forced == 0.0 or 0.05 <= task.forced <= 1.0):  # nearer to the goal the brick touches everywhere
        raise QomposeError(f"{task.name}: forced={task.forced}: give 0, or 0.05 to 1 (rad)")
