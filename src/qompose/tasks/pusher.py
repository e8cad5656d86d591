"""The planar pusher: a torque-driven arm pushes a puck to a line or to a point (Section V-B)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from qompose.tasks.scenes.pusher import FORK_SITE, PUCK_SITE, pusher_scene
from qompose.tasks.task import Array, Readings, Task
from qompose.types import QomposeError

GOALS: dict[str, tuple[float | None, float | None]] = {
    "PushLeft": (-1.0, None),
    "PushMiddle": (0.0, None),
    "PushRight": (1.0, None),
    "PushBottom": (None, -1.0),
    "PushBottomLeft": (-1.0, -1.0),
    "PushBottomMiddle": (0.0, -1.0),
    "PushBottomRight": (1.0, -1.0),
}

OBSERVED = ("joint_angles", "joint_velocities", "fork", "puck")
ACTION_WEIGHT = 0.1
SUCCESS_DISTANCE = 0.1  # m
JOINT_SPREAD = 0.1  # rad: joints start within this of the rest pose
PUCK_X, PUCK_Y = (0.3, 1.0), (-1.0, -0.4)  # m: where the puck starts
CORNER, CORNER_RADIUS = (1.0, -1.0), 0.45  # m: where it does not start, see `Pusher.avoid_corner`
CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class Pusher(Task):
    """Push the puck to x = goal_x, to y = goal_y, or to the point (goal_x, goal_y), in metres.

    r = −0.1 ‖a‖² − d, where d is |x − goal_x| or |y − goal_y|, and ½ (|dx| + |dy|) for a point: the composed reward
    of eq 5, so that a corner trained directly maximises what a composition of two lines does.

    Differs: the reward is that of the state *after* the step; the original evaluates it on the state before.
    """

    goal_x: float | None = None
    goal_y: float | None = None
    corner_reward: str = "composed"  # or "euclidean": the corner reward of the original
    arm_weight: float = 0.0  # weight of the distance from fork to puck; 0 in the original
    # Draw the puck again while it is within 0.45 m of (1, -1). The original does so to match the paper's results.
    avoid_corner: bool = True

    horizon = 300
    training_horizon = 150  # at rest on its goal the puck teaches little
    substeps = 5
    control_period = 0.05
    action_size = 3
    observation_names = (
        *("joint1_angle", "joint2_angle", "joint3_angle"),
        *("joint1_velocity", "joint2_velocity", "joint3_velocity"),
        *("fork_x", "fork_y", "fork_z"),
        *("puck_x", "puck_y", "puck_z"),
    )
    terminates = False
    reset_uniforms = 3 + 2 * CANDIDATES

    def __post_init__(self) -> None:
        """Refuse a goal or an option that makes no sense."""
        if self.goal_x is None and self.goal_y is None:
            raise QomposeError(f"{self.name} has no goal: give goal_x, goal_y or both")
        for axis, goal in (("goal_x", self.goal_x), ("goal_y", self.goal_y)):
            if goal is not None and not (isinstance(goal, (int, float)) and -2.0 <= goal <= 2.0):
                raise QomposeError(f"{self.name}: {axis}={goal!r} cannot be reached: give a number from -2 to 2")
        fixed = GOALS.get(self.name)
        if fixed is not None and fixed != (self.goal_x, self.goal_y):
            raise QomposeError(f"{self.name} has its goal fixed at {fixed}: use PushTo for another one")
        if self.corner_reward not in ("composed", "euclidean"):
            raise QomposeError(f"{self.name}: corner_reward={self.corner_reward!r}: give 'composed' or 'euclidean'")
        if not (math.isfinite(self.arm_weight) and self.arm_weight >= 0.0):
            raise QomposeError(f"{self.name}: arm_weight={self.arm_weight}: give a number of at least 0")

    def scene(self) -> str:
        """Return the MJCF of the arm, the puck and a marker at the goal."""
        return pusher_scene((self.goal_x, self.goal_y))

    def batched_scene(self) -> str:
        """Return the same with spheres for the upright cylinders, which MJX would collide by a coarse search."""
        return pusher_scene((self.goal_x, self.goal_y), spheres=True)

    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel), each (*batch, 5): joints within 0.1 rad of rest, the puck in front of the arm.

        The puck is the first accepted of 16 candidates; all 16 fall into the corner once in five million resets,
        and then the first stands.
        """
        xp = u.__array_namespace__()
        joints = (2.0 * u[..., :3] - 1.0) * JOINT_SPREAD
        x = PUCK_X[0] + (PUCK_X[1] - PUCK_X[0]) * u[..., 3 : 3 + CANDIDATES]
        y = PUCK_Y[0] + (PUCK_Y[1] - PUCK_Y[0]) * u[..., 3 + CANDIDATES :]
        if self.avoid_corner:
            accepted = (x - CORNER[0]) ** 2 + (y - CORNER[1]) ** 2 >= CORNER_RADIUS**2
            first = xp.argmax(accepted, axis=-1)[..., None]
            x, y = xp.take_along_axis(x, first, axis=-1), xp.take_along_axis(y, first, axis=-1)
        qpos = xp.concat([joints, x[..., :1], y[..., :1]], axis=-1)
        return qpos, xp.zeros_like(qpos)

    def read(self, data: Any) -> dict[str, Array]:
        """Return joint angles (rad) and velocities (rad/s), and the positions of fork and puck (m), each (*batch, 3).

        The position of the fork is that of the middle of its bar.
        """
        return {
            "joint_angles": data.qpos[..., :3],
            "joint_velocities": data.qvel[..., :3],
            "fork": data.site_xpos[..., FORK_SITE, :],
            "puck": data.site_xpos[..., PUCK_SITE, :],
        }

    def observe(self, readings: Readings) -> Array:
        """Return the four readings side by side (*batch, 12). The velocity of the puck is not observed."""
        parts = [readings[name] for name in OBSERVED]
        return parts[0].__array_namespace__().concat(parts, axis=-1)

    def recall(self, observation: Array) -> dict[str, Array]:
        """Return the four readings, each (*batch, 3), that lie side by side in an observation (*batch, 12)."""
        return {name: observation[..., 3 * index : 3 * index + 3] for index, name in enumerate(OBSERVED)}

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return −0.1 ‖a‖² − d(after), and −w ‖fork − puck‖ if the arm is to be guided."""
        offsets = self._offsets(after)
        if len(offsets) == 2 and self.corner_reward == "euclidean":
            goal = -self._distance(after)
        else:
            goal = -sum(abs(offset) for offset in offsets) / len(offsets)
        terms = {"action": -ACTION_WEIGHT * (action * action).sum(axis=-1), "goal": goal}
        if self.arm_weight > 0.0:
            gap = after["fork"] - after["puck"]
            terms["arm"] = -self.arm_weight * (gap * gap).sum(axis=-1) ** 0.5
        return sum(terms.values()), terms

    def success(self, readings: Readings) -> Array:
        """Return whether the puck is within 0.1 m of the goal (*batch,)."""
        return self._distance(readings) <= SUCCESS_DISTANCE

    def terminated(self, readings: Readings) -> Array:
        """Return false everywhere: an episode runs for its 300 steps."""
        puck = readings["puck"]
        return puck.__array_namespace__().zeros(puck.shape[:-1], dtype=bool)

    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return the Euclidean distance over the constrained coordinates and where the puck is, in metres."""
        puck = readings["puck"]
        return {"distance": self._distance(readings), "puck_x": puck[..., 0], "puck_y": puck[..., 1]}

    def _offsets(self, readings: Readings) -> list[Array]:
        puck, goals = readings["puck"], (self.goal_x, self.goal_y)
        return [puck[..., axis] - goal for axis, goal in enumerate(goals) if goal is not None]

    def _distance(self, readings: Readings) -> Array:
        offsets = self._offsets(readings)
        if len(offsets) == 1:
            return abs(offsets[0])
        return sum(offset * offset for offset in offsets) ** 0.5


PUSHERS: dict[str, functools.partial[Pusher]] = {
    name: functools.partial(Pusher, name, goal_x=x, goal_y=y) for name, (x, y) in GOALS.items()
} | {"PushTo": functools.partial(Pusher, "PushTo")}
