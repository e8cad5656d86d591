"""Points on a plane; one that may go to any of several goals: the test bed of whether a sampler covers every mode."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from qompose.tasks.scenes.multigoal import multigoal_scene
from qompose.tasks.task import Array, Readings, Task
from qompose.types import QomposeError

GOALS = ((5.0, 0.0), (-5.0, 0.0), (0.0, 5.0), (0.0, -5.0))
HALF_WIDTH = 7.0  # m: walls
GOAL_RADIUS = 1.0  # m
DISTANCE_WEIGHT, ACTION_WEIGHT, BONUS = 0.1, 3.0, 1.0


class PointTask(Task):
    """A point on a plane between walls that moves by its action, up to 1 m along each axis, once a second."""

    start_spread: ClassVar[float]  # m: the point starts within this of the middle along each axis

    horizon = 30
    substeps = 10
    control_period = 1.0
    action_size = 2
    observation_names = ("x", "y")
    reset_uniforms = 2
    data_fields = ("qpos",)

    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel), each (*batch, 2): at rest, evenly within `start_spread` of the middle."""
        qpos = (2.0 * u - 1.0) * self.start_spread
        return qpos, u.__array_namespace__().zeros_like(qpos)

    def read(self, data: Any) -> dict[str, Array]:
        """Return the position (*batch, 2) in metres."""
        return {"position": data.qpos[..., :2]}

    def observe(self, readings: Readings) -> Array:
        """Return the position (*batch, 2)."""
        return readings["position"]

    def recall(self, observation: Array) -> dict[str, Array]:
        """Return the position (*batch, 2), which is all that is observed."""
        return {"position": observation}


@dataclasses.dataclass(frozen=True)
class MultiGoal(PointTask):
    """Go to the nearest goal, whichever it is, without hurry (Haarnoja et al. 2017, section 5.1).

    r = −0.1 d² − 3 ‖a‖² + [d < 1], where d is the distance to the nearest goal; the episode ends there. All goals
    are worth the same from the middle, so the best stochastic policy starts towards each of them equally often.

    Differs: a tenth of the usual weights, so that temperatures near 1 make sense; the reward is that of the state
    after the step; the start is uniform, not Gaussian; the point is a simulated body that follows its action within
    a hundredth of a second, not an integrator.
    """

    # A subset of the four goals by index, or points of one's own: two skills of different goals can be composed.
    goals: Sequence[Any] = GOALS

    start_spread = 0.1
    terminates = True

    def __post_init__(self) -> None:
        """Turn indices into points; refuse goals that do not exist or lie outside the walls."""
        object.__setattr__(self, "goals", tuple(_point(goal) for goal in self.goals))
        if not self.goals:
            raise QomposeError("MultiGoal has no goal: give at least one")

    def scene(self) -> str:
        """Return the MJCF of the point and its goals."""
        return multigoal_scene(tuple(self.goals), GOAL_RADIUS, HALF_WIDTH)

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return −0.1 d² − 3 ‖a‖² + [d < 1], each term by name."""
        squared = self._squared_distances(after).min(axis=-1)
        terms = {
            "action": -ACTION_WEIGHT * (action * action).sum(axis=-1),
            "distance": -DISTANCE_WEIGHT * squared,
            "bonus": BONUS * (squared < GOAL_RADIUS**2).astype(squared.dtype),
        }
        return sum(terms.values()), terms

    def success(self, readings: Readings) -> Array:
        """Return whether the point is within 1 m of a goal (*batch,)."""
        return self._squared_distances(readings).min(axis=-1) < GOAL_RADIUS**2

    def terminated(self, readings: Readings) -> Array:
        """Return whether the point is at a goal (*batch,)."""
        return self.success(readings)

    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return the distance to the nearest goal, which goal that is, and where the point is."""
        squared, position = self._squared_distances(readings), readings["position"]
        return {
            "distance": squared.min(axis=-1) ** 0.5,
            "goal": squared.argmin(axis=-1),
            "x": position[..., 0],
            "y": position[..., 1],
        }

    def _squared_distances(self, readings: Readings) -> Array:
        x, y = readings["position"][..., 0], readings["position"][..., 1]
        distances = [(x - goal_x) ** 2 + (y - goal_y) ** 2 for goal_x, goal_y in self.goals]
        return x.__array_namespace__().stack(distances, axis=-1)


def _point(goal: Any) -> tuple[float, float]:
    if isinstance(goal, int) and 0 <= goal < len(GOALS):
        return GOALS[goal]
    try:
        x, y = (float(coordinate) for coordinate in goal)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise QomposeError(f"MultiGoal: goal {goal!r} is neither an index from 0 to 3 nor a point (x, y)") from None
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) <= HALF_WIDTH):
        raise QomposeError(f"MultiGoal: goal {goal!r} lies outside the walls at 7 m")
    return x, y
