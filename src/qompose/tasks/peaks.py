"""A point on hilly ground: skills that agree or quarrel as their peaks say, for whoever studies composition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from qompose.tasks.multigoal import HALF_WIDTH, PointTask
from qompose.tasks.scenes.multigoal import multigoal_scene
from qompose.tasks.task import Array, Readings
from qompose.types import QomposeError

WIDTH = 1.0  # m: standard deviation of a peak
ACTION_WEIGHT = 0.05
GOOD = 0.8  # success: as high as this share of the highest peak


@dataclasses.dataclass(frozen=True)
class Peaks(PointTask):
    """Climb the highest peak that is worth the way, and stay; the point starts anywhere.

    r = Σ_k h_k exp(−|x − x_k|²/2) − 0.05 ‖a‖², lengths in metres, x after the step. Nothing ends the episode. Rewards
    are linear in the heights: the sum Σ w_i r_i of such tasks, Σ w_i = 1, is the task of all their peaks, each height
    times its w_i. So a composition can be compared with a skill that was trained on the composed task itself.
    """

    # Peaks as (x, y, height); a height may be negative: a pit.
    peaks: Sequence[Any] = ((0.0, -3.0, 0.8), (0.0, 4.0, 1.0))

    start_spread = HALF_WIDTH
    terminates = False

    def __post_init__(self) -> None:
        """Refuse peaks that are no triples of numbers or lie outside the walls."""
        object.__setattr__(self, "peaks", tuple(_peak(peak) for peak in self.peaks))
        if max((height for _, _, height in self.peaks), default=0.0) <= 0.0:
            raise QomposeError("Peaks has no peak above 0: give at least one")

    def scene(self) -> str:
        """Return the MJCF of the point and its peaks."""
        return multigoal_scene(tuple((x, y) for x, y, _ in self.peaks), WIDTH, HALF_WIDTH)

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return Σ h exp(−d²/2) − 0.05 ‖a‖², each term by name."""
        terms = {"height": self._height(after), "action": -ACTION_WEIGHT * (action * action).sum(axis=-1)}
        return sum(terms.values()), terms

    def success(self, readings: Readings) -> Array:
        """Return whether the point stands as high as 0.8 times the highest peak (*batch,)."""
        return self._height(readings) >= GOOD * max(height for _, _, height in self.peaks)

    def terminated(self, readings: Readings) -> Array:
        """Return false everywhere: an episode runs for its 30 steps."""
        position = readings["position"]
        return position.__array_namespace__().zeros(position.shape[:-1], dtype=bool)

    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return how far the highest peak is, how high the point stands, and where."""
        position = readings["position"]
        x, y, _ = max(self.peaks, key=lambda peak: peak[2])
        return {
            "distance": ((position[..., 0] - x) ** 2 + (position[..., 1] - y) ** 2) ** 0.5,
            "height": self._height(readings),
            "x": position[..., 0],
            "y": position[..., 1],
        }

    def _height(self, readings: Readings) -> Array:
        x, y = readings["position"][..., 0], readings["position"][..., 1]
        xp = x.__array_namespace__()
        return sum(
            height * xp.exp(-0.5 * ((x - peak_x) ** 2 + (y - peak_y) ** 2) / WIDTH**2)
            for peak_x, peak_y, height in self.peaks
        )


def _peak(peak: Any) -> tuple[float, float, float]:
    try:
        x, y, height = (float(number) for number in peak)
    except (TypeError, ValueError):
        raise QomposeError(f"Peaks: peak {peak!r} is no triple (x, y, height)") from None
    if not (math.isfinite(x + y + height) and max(abs(x), abs(y)) <= HALF_WIDTH and abs(height) <= 1e3):
        raise QomposeError(f"Peaks: peak {peak!r} lies outside the walls at 7 m, or is higher than 1000")
    return x, y, height
