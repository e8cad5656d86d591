"""Where episodes with a brick in Sawyer's hand begin: a bank of poses that the arm can take and where nothing touches.

Each bank is made once in a process, from a fixed seed, when its first episode begins: inverse kinematics of about five
thousand poses at once and as many collision checks, one or two seconds. A reset then only looks one up.
"""

from __future__ import annotations

import functools

import numpy as np

from qompose.tasks.kinematics import solve_angles
from qompose.tasks.scenes.sawyer import BRICK_HEIGHT, BRICK_MOUNT, BRICK_WIDTH, GOAL, stack_scene
from qompose.tasks.task import compile_scene

BANK_SIZE = 4096  # a power of two: a uniform in float32 finds every one of them
GOAL_ANGLES = (-0.02, -1.02, 0.03, 1.89, -0.02, 0.70, 3.34)  # rad: the brick is close to the goal, upright
MOUNT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # from the frame of the brick to right_hand

YAW, TILT = 0.3, 0.15  # rad: at most
ASIDE, ABOVE = (0.10, 0.25), (0.03, 0.20)  # m from the goal
HOVER_ASIDE, HOVER_ABOVE = 0.03, (0.005, 0.03)
LOW_ASIDE = (1.05 * BRICK_WIDTH, 0.08)  # beside the brick on the table, where only going up helps
LOW_ABOVE = (0.002 - BRICK_HEIGHT, 0.01)
HOVERING, LOW = 0.2, 0.1  # shares
BEHIND, BEHIND_SPREAD = (0.0, -0.24, 0.03), 0.02  # m from the goal: the tower stands in between

X_REACH, Y_REACH = (-0.25, 0.25), (-0.45, 0.27)  # m from the goal: well inside the workspace


@functools.cache
def start_bank(name: str, tower: bool) -> np.ndarray:
    """Return joint angles (4096, 7): `around` the goal, `behind` the tower, or `both` in equal parts."""
    rng = np.random.default_rng(0)
    accepted = np.zeros((0, 7))
    while len(accepted) < BANK_SIZE:
        offsets, turns = _draw_poses(name, rng, BANK_SIZE // 2)
        angles, reached = solve_angles(np.array(GOAL) + offsets, turns @ MOUNT, np.array(GOAL_ANGLES), BRICK_MOUNT, 12)
        accepted = np.concatenate([accepted, _keep_free(angles[reached], tower)])
    return accepted[:BANK_SIZE]


@functools.cache
def forced_bank(spread: float, tower: bool) -> np.ndarray:
    """Return joint angles (4096, 7) within `spread` rad of those at the goal, where nothing touches."""
    rng = np.random.default_rng(1)
    accepted = np.zeros((0, 7))
    while len(accepted) < BANK_SIZE:
        angles = np.array(GOAL_ANGLES) + rng.uniform(-spread, spread, (BANK_SIZE, 7))
        accepted = np.concatenate([accepted, _keep_free(angles, tower)])
    return accepted[:BANK_SIZE]


def _draw_poses(name: str, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the brick from the goal (n, 3) in metres, and its rotations (n, 3, 3)."""
    offsets = _draw_around(rng, count)
    behind = np.array(BEHIND) + rng.uniform(-BEHIND_SPREAD, BEHIND_SPREAD, (count, 3))
    share = {"around": 0.0, "behind": 1.0, "both": 0.5}[name]
    offsets = np.where(rng.random((count, 1)) < share, behind, offsets)
    inside = (offsets[:, 0] > X_REACH[0]) & (offsets[:, 0] < X_REACH[1])
    inside &= (offsets[:, 1] > Y_REACH[0]) & (offsets[:, 1] < Y_REACH[1])
    offsets = offsets[inside]
    return offsets, _draw_turns(rng, len(offsets))


def _draw_around(rng: np.random.Generator, count: int) -> np.ndarray:
    kind, heading = rng.random((count, 1)), rng.uniform(0.0, 2.0 * np.pi, count)
    far, hover, low = (
        np.stack([aside * np.cos(heading), aside * np.sin(heading), above], axis=-1)
        for aside, above in (
            (rng.uniform(*ASIDE, count), rng.uniform(*ABOVE, count)),
            (rng.uniform(0.0, HOVER_ASIDE, count), rng.uniform(*HOVER_ABOVE, count)),
            (rng.uniform(*LOW_ASIDE, count), rng.uniform(*LOW_ABOVE, count)),
        )
    )
    return np.where(kind < HOVERING, hover, np.where(kind < HOVERING + LOW, low, far))


def _draw_turns(rng: np.random.Generator, count: int) -> np.ndarray:
    yaw, tilt, about = rng.uniform(-YAW, YAW, count), rng.uniform(-TILT, TILT, count), rng.uniform(0, np.pi, count)
    zero, one = np.zeros(count), np.ones(count)

    def turn_z(angle: np.ndarray) -> np.ndarray:
        cosine, sine = np.cos(angle), np.sin(angle)
        return np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)

    cosine, sine = np.cos(tilt), np.sin(tilt)
    turn_x = np.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=-1).reshape(-1, 3, 3)
    return turn_z(yaw) @ turn_z(about) @ turn_x @ turn_z(-about)


def _keep_free(angles: np.ndarray, tower: bool) -> np.ndarray:
    """Those joint angles where nothing touches, whatever the lead-in of the studs."""
    import mujoco  # here, so that naming tasks needs no simulator

    model = compile_scene(stack_scene(0.002, tower))
    data, free = mujoco.MjData(model), []
    for row in angles:
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        free.append(data.ncon == 0)
    return angles[np.array(free, bool)]
