"""Fig. 2: where the puck ends under two skills and under their composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qompose.paper.study import ALGORITHMS, CORNERS, Case, Study, made_by, positions
from qompose.training.session import skill_name
from qompose.view.console import print_table
from qompose.view.pictures import draw_final_positions

CORNER = "PushBottomLeft"
GOAL = np.array([-1.0, -1.0])  # m
COLOURS = ("tab:blue", "tab:orange", "tab:green")


def reproduce(study: Study) -> dict[str, Any]:
    """Train left and bottom, compose them; write fig2.json and a picture for each algorithm; return what is in it."""
    study.open()
    cases = {(algorithm, seed): _group(algorithm, seed) for seed in range(study.seeds) for algorithm in ALGORITHMS}
    records = study.measure("fig2", [case for group in cases.values() for case in group])
    rows, pictures = [], []
    for algorithm in ALGORITHMS:
        groups = [[positions(records[case]) for case in cases[algorithm, seed]] for seed in range(study.seeds)]
        rows.append({"algorithm": algorithm, "seeds": [_summarise(*group) for group in groups]})
        path = study.folder / f"fig2_{algorithm}.png"
        _draw(path, algorithm, groups[0])
        pictures.append(str(path))
    result = {"rows": rows, "goal": GOAL.tolist(), "episodes": len(groups[0][0])}
    path = study.write("fig2", result, made_by(records.values()))
    return {**result, "pictures": pictures, "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """Means over the seeds, one row for each algorithm."""
    header = (
        "", "spread\nleft y", "spread\nbottom x", "composed\nends", "average of\nthe two", "mean end\nto goal",
        "average\nto goal",
    )  # fmt: skip
    rows = []
    for row in result["rows"]:
        mean = {name: np.mean([seed[name] for seed in row["seeds"]], axis=0) for name in row["seeds"][0]}
        rows.append((
            row["algorithm"], f"{mean['spread_of_left']:.3f}", f"{mean['spread_of_bottom']:.3f}",
            "{:.2f}, {:.2f}".format(*mean["composed"]), "{:.2f}, {:.2f}".format(*mean["average"]),
            f"{mean['composed_to_goal']:.3f}", f"{mean['average_to_goal']:.3f}",
        ))  # fmt: skip
    seeds = len(result["rows"][0]["seeds"])
    print_table(f"final positions of the puck (m), {result['episodes']} episodes, {seeds} seed(s)", header, rows)
    print("spread: standard deviation over the episodes, along the free coordinate")
    print("in the paper the composed policy reaches the goal and does not average")


def _group(algorithm: str, seed: int) -> list[Case]:
    constituents = [Case(algorithm, task, seed) for task in CORNERS[CORNER]]
    return [*constituents, Case(algorithm, CORNER, seed, merged=True)]


def _summarise(left: np.ndarray, bottom: np.ndarray, composed: np.ndarray) -> dict[str, Any]:
    """The figures of one seed from final positions (episodes, 2) of left, bottom and their composition."""
    average, mean = (left.mean(axis=0) + bottom.mean(axis=0)) / 2, composed.mean(axis=0)
    return {
        "spread_of_left": float(left[:, 1].std()), "spread_of_bottom": float(bottom[:, 0].std()),
        "spread_of_composed": composed.std(axis=0).tolist(), "left": left.mean(axis=0).tolist(),
        "bottom": bottom.mean(axis=0).tolist(), "composed": mean.tolist(), "average": average.tolist(),
        "composed_to_goal": float(np.linalg.norm(mean - GOAL)),
        "average_to_goal": float(np.linalg.norm(average - GOAL)),
        "composed_to_average": float(np.linalg.norm(mean - average)),
    }  # fmt: skip


def _draw(path: Any, algorithm: str, group: Sequence[np.ndarray]) -> None:
    names = [*map(skill_name, CORNERS[CORNER]), f"{skill_name(CORNER)} (composed)"]
    draw_final_positions(
        path, list(zip(names, group, COLOURS, strict=True)),
        title=f"{algorithm}: where the puck ends, seed 0", goals=[(GOAL[0], None), (None, GOAL[1])],
    )  # fmt: skip
