"""A scripted policy for each of Sawyer's tasks: the proof that observations and actions suffice to solve it.

Each is an impedance controller, renewed at 20 Hz as any policy here, and a function of the observation alone: the force
that a spring and a damper exert on the hand is turned into torques, τ = Jᵀ w.
"""

from __future__ import annotations

import numpy as np

from qompose.tasks.kinematics import locate_hand
from qompose.tasks.reaching import MIDDLE, ReachTask
from qompose.tasks.sawyer import torque_limits
from qompose.tasks.scenes.sawyer import BRICK_MOUNT, NEUTRAL, TOWER_HALF, TOWER_OFFSET
from qompose.tasks.stacking import BrickTask, SawyerAvoid
from qompose.tasks.starts import GOAL_ANGLES
from qompose.tasks.task import Readings, Task
from qompose.types import Policy, QomposeError

REACH_STIFFNESS, STIFFNESS, TURN_STIFFNESS = 150.0, 600.0, 24.0  # N/m, N/m, Nm/rad
DAMPING, TURN_DAMPING = 12.0, 0.15  # Ns/m, Nms/rad; the joints have their own besides
POSTURE_STIFFNESS, POSTURE_DAMPING = 2.0, 0.3  # Nm/rad, Nms/rad, where they move nothing else
REACH_FORCE = 28.0  # N
MOST_FORCE = 12.0  # N in one direction; what the joints cannot hold is clipped
HOVER = 0.03  # m above the goal until the brick is aligned
ALIGNED = 0.0008  # m aside
FUNNEL = 8.0  # m up for each metre aside
PRESS = 0.012  # m below where the brick is: with the stiffness, the force of the press
CLEAR = 0.035  # m over the tower
WIDTH = 0.045  # m: half of what a turned brick and the gripper need beside the tower


def make_expert(task: Task) -> Policy:
    """Return the scripted policy of a task: observations (lanes, obs) to actions (lanes, act).

    Raises QomposeError for a task that has none.
    """
    if isinstance(task, ReachTask):
        return lambda observations, step: _reach(task, task.recall(np.asarray(observations, np.float64)))
    if isinstance(task, BrickTask):
        return lambda observations, step: _bring(task, task.recall(np.asarray(observations, np.float64)))
    raise QomposeError(f"{task.name} has no scripted expert: only Sawyer's tasks have")


def _reach(task: ReachTask, readings: Readings) -> np.ndarray:
    position, _, columns = locate_hand(readings["joint_angles"])
    columns = columns[..., :3, :]
    error = task.target_of(readings) + MIDDLE - position
    speed = _times(columns, readings["joint_velocities"])
    force = _limit(REACH_STIFFNESS * error, REACH_FORCE) - DAMPING * speed
    return _torques(readings, columns, force, np.array(NEUTRAL))


def _bring(task: BrickTask, readings: Readings) -> np.ndarray:
    brick, turn = readings["brick"], readings["turn"]
    _, _, columns = locate_hand(readings["joint_angles"], BRICK_MOUNT)
    speed = _times(columns, readings["joint_velocities"])
    above = np.broadcast_to([0.0, 0.0, HOVER], brick.shape)
    waypoint = above if isinstance(task, SawyerAvoid) else _stack_waypoint(readings)
    if task.tower:
        waypoint = _over_tower(brick, waypoint)
    force = _limit(STIFFNESS * (waypoint - brick), MOST_FORCE) - DAMPING * speed[..., :3]
    moment = -TURN_STIFFNESS * turn - TURN_DAMPING * speed[..., 3:]
    return _torques(readings, columns, np.concatenate([force, moment], axis=-1), np.array(GOAL_ANGLES))


def _stack_waypoint(readings: Readings) -> np.ndarray:
    """Where the brick should go (*batch, 3): over the goal, lower the better it is aligned, and then into the studs."""
    brick = readings["brick"]
    aside = np.linalg.norm(brick[..., :2], axis=-1)
    height = np.clip(FUNNEL * (aside - ALIGNED), 0.0, HOVER)
    # Aside and low: first up, else the brick on the table would be in the way.
    height = np.where(aside > 0.01, HOVER, height)
    height = np.where(aside < ALIGNED, brick[..., 2] - PRESS, height)
    blocked = (aside > 0.01) & (brick[..., 2] < HOVER / 2)
    target = np.zeros_like(brick)
    target[..., :2] = np.where(blocked[..., None], brick[..., :2], 0.0)
    target[..., 2] = height
    return target


def _over_tower(brick: np.ndarray, waypoint: np.ndarray) -> np.ndarray:
    """Behind the tower go up; beside it or over it stay high until the brick has passed."""
    top = TOWER_OFFSET[2] + TOWER_HALF[2] + CLEAR
    passed = brick[..., 1] > TOWER_OFFSET[1] + TOWER_HALF[1] + WIDTH
    low = brick[..., 2] < top - 0.015
    ahead = ~passed & low
    target = waypoint.copy()
    target[..., 2] = np.where(passed, waypoint[..., 2], top)
    target[..., :2] = np.where(ahead[..., None], brick[..., :2], waypoint[..., :2])
    return target


def _torques(readings: Readings, columns: np.ndarray, wrench: np.ndarray, posture: np.ndarray) -> np.ndarray:
    """Actions (*batch, 7) that exert a wrench, and keep a posture as far as that does not disturb it."""
    rows = np.matrix_transpose(columns)
    torques = _times(rows, wrench)
    angles, velocities = readings["joint_angles"], readings["joint_velocities"]
    keep = POSTURE_STIFFNESS * (posture - angles) - POSTURE_DAMPING * velocities
    square = columns @ rows + 1e-4 * np.eye(columns.shape[-2])
    torques += keep - _times(rows, np.linalg.solve(square, (columns @ keep[..., None]))[..., 0])
    return np.clip(torques / torque_limits(), -1.0, 1.0)


def _limit(vector: np.ndarray, most: float) -> np.ndarray:
    return vector * np.minimum(1.0, most / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9))


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return (matrix @ vector[..., None])[..., 0]
