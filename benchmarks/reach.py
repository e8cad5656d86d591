"""How near the corner (-1, -1) the pusher can hold the puck, from the kinematics and joint limits of the model.

    python -m benchmarks.reach

The puck can lie in the fork, touching the bar, or be pushed by the outer side of a prong. Writes results/reach.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.machine import write_results
from qompose.tasks import make_task
from qompose.view.console import print_table

CORNER = np.array([-1.0, -1.0])
CONTACT = 0.14  # m: radius of the puck and of the fork's bars
PRONG_OFFSET, PRONG_LENGTH = 0.2, 0.2  # m
STEPS = 121


def tip_and_heading(limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the fork (n, 2) and directions of the last link (n,) over a grid of all joint angles."""
    axes = [np.linspace(low, high, STEPS) for low, high in limits]
    first, second, third = (angle.ravel() for angle in np.meshgrid(*axes, indexing="ij"))
    one = first + 0.785
    two = one + second - 0.785
    three = two + third - 1.57
    x = 0.4 * (np.cos(one) + np.cos(two) + np.cos(three))
    y = 0.4 * (np.sin(one) + np.sin(two) + np.sin(three))
    return np.stack([x, y], axis=-1), three


def nearest(tip: np.ndarray, heading: np.ndarray, along: float, aside: float) -> float:
    """Least distance (m) from the corner to a puck that stands `along` and `aside` of the fork's middle."""
    forward = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
    return float(np.min(np.linalg.norm(tip + along * forward + aside * left - CORNER, axis=-1)))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    limits = np.asarray(make_task("PushBottomLeft").model().jnt_range[:3])
    tip, heading = tip_and_heading(limits)
    free = tip_and_heading(np.array([[-np.pi, np.pi]] * 3))
    rows: list[dict[str, Any]] = [
        {"where": "in the fork, touching the bar", "metres": nearest(tip, heading, CONTACT, 0.0)},
        {"where": "the same without joint limits", "metres": nearest(*free, CONTACT, 0.0)},
    ]
    for along in np.linspace(0.0, PRONG_LENGTH, 5):
        metres = min(nearest(tip, heading, along, side * (PRONG_OFFSET + CONTACT)) for side in (-1, 1))
        rows.append({"where": f"outside a prong, {along:.2f} m from the bar", "metres": metres})
    print_table(
        "least distance from the corner (-1, -1) to a puck at rest against the fork",
        ("puck", "metres"), [(row["where"], f"{row['metres']:.3f}") for row in rows],
    )  # fmt: skip
    write_results("reach", {"rows": rows, "joint_limits": limits.tolist()}, command="python -m benchmarks.reach")


if __name__ == "__main__":
    main()
