"""Table I: the final distance of the puck to its goal, for skills that were trained and skills that were composed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qompose.paper.study import ALGORITHMS, Case, Study, made_by, positions
from qompose.training.session import skill_name
from qompose.view.charts import draw_comparison
from qompose.view.console import print_table

# The rows: (task, merged) -> mean and standard deviation in metres, in the order of ALGORITHMS.
TABLE_I = {
    ("PushLeft", False): ((0.13, 0.06), (0.20, 0.01), (0.06, 0.01)),
    ("PushMiddle", False): ((0.07, 0.08), (0.05, 0.03), (0.02, 0.00)),
    ("PushRight", False): ((0.10, 0.08), (0.10, 0.07), (0.09, 0.06)),
    ("PushBottom", False): ((0.08, 0.07), (0.04, 0.02), (0.17, 0.08)),
    ("PushBottomLeft", False): ((0.11, 0.11), (0.24, 0.01), (0.17, 0.01)),
    ("PushBottomLeft", True): ((0.11, 0.05), (0.19, 0.10), (0.16, 0.00)),
    ("PushBottomMiddle", False): ((0.12, 0.09), (0.14, 0.03), (0.34, 0.08)),
    ("PushBottomMiddle", True): ((0.09, 0.09), (0.12, 0.02), (0.02, 0.01)),
    ("PushBottomRight", False): ((0.18, 0.17), (0.14, 0.06), (0.15, 0.06)),
    ("PushBottomRight", True): ((0.15, 0.14), (0.09, 0.10), (0.43, 0.21)),
}


def paper_figure(algorithm: str, task: str, merged: bool) -> tuple[float, float]:
    """Mean and standard deviation in the paper's Table I (m)."""
    return TABLE_I[task, merged][ALGORITHMS.index(algorithm)]


def reproduce(study: Study) -> dict[str, Any]:
    """Train, compose and evaluate everything; write table1.json and a picture; return what is in the file."""
    study.open()
    cases = [
        Case(algorithm, task, seed, merged)
        for seed in range(study.seeds) for algorithm in ALGORITHMS for task, merged in TABLE_I
    ]  # fmt: skip
    records = study.measure("table1", cases)
    rows = [
        _summarise([records[Case(algorithm, task, seed, merged)] for seed in range(study.seeds)], mode)
        for algorithm in ALGORITHMS for task, merged in TABLE_I
        for mode in ("sample", "best") if mode == "sample" or algorithm == "sql"
    ]  # fmt: skip
    picture = study.folder / "table1_distances.png"
    _draw(picture, rows, study.seeds)
    result = {"rows": rows, "episodes": len(records[cases[0]]["sample"]["distance"])}
    path = study.write("table1", result, made_by(records.values()))
    return {**result, "picture": str(picture), "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """One table for each algorithm, beside the paper's figures."""
    for algorithm in ALGORITHMS:
        rows = [row for row in result["rows"] if row["algorithm"] == algorithm and row["mode"] == "sample"]
        seeds = len(rows[0]["seeds"])
        title = f"{algorithm}: final distance to the goal (m), {result['episodes']} episodes, {seeds} seed(s)"
        print_table(title, ("push", "mean ± epis. ± seeds", "median", "puck ends", "the paper"), [
            (
                _label(row), _spreads(row), f"{row['median']:.3f}", "{:.2f}, {:.2f}".format(*row["puck"]),
                "{:.2f} ± {:.2f}".format(*row["paper"]),
            )
            for row in rows
        ])  # fmt: skip
    print("± over the episodes of a seed, and over the means of the seeds")


def _summarise(records: Sequence[dict[str, Any]], mode: str) -> dict[str, Any]:
    """The figures of one entry of the table, over its seeds. Standard deviations are of the seeds or episodes met."""
    first = records[0]
    distances = np.array([record[mode]["distance"] for record in records])  # (seeds, episodes)
    means = distances.mean(axis=1)
    ends = np.array([positions(record, mode).mean(axis=0) for record in records])
    return {
        "task": first["task"], "merged": first["merged"], "algorithm": first["algorithm"], "mode": mode,
        "seeds": means.tolist(), "mean": float(means.mean()),
        "std_over_episodes": float(distances.std(axis=1).mean()),
        "std_over_seeds": float(means.std(ddof=1)) if len(means) > 1 else None,
        "median": float(np.median(distances)), "medians": np.median(distances, axis=1).tolist(),
        "puck": ends.mean(axis=0).tolist(), "puck_of_seeds": ends.tolist(),
        "training_seconds": [record.get("seconds") for record in records],  # none where nothing was trained
        "paper": paper_figure(first["algorithm"], first["task"], first["merged"]),
    }  # fmt: skip


def _label(row: dict[str, Any]) -> str:
    where = skill_name(row["task"]).removeprefix("push-")
    return "  … merged" if row["merged"] else where


def _spreads(row: dict[str, Any]) -> str:
    over_seeds = "" if row["std_over_seeds"] is None else f" ± {row['std_over_seeds']:.3f}"
    return f"{row['mean']:.3f} ± {row['std_over_episodes']:.3f}{over_seeds}"


def _draw(path: Any, rows: Sequence[dict[str, Any]], seeds: int) -> None:
    panels = {
        algorithm: [
            (_label(row).strip(), (row["mean"], row["std_over_episodes"]), row["paper"])
            for row in rows if row["algorithm"] == algorithm and row["mode"] == "sample"
        ]
        for algorithm in ALGORITHMS
    }  # fmt: skip
    draw_comparison(
        path, panels, names=(f"here, mean of {seeds} seed(s) ± over episodes", "the paper, mean ± std"),
        label="final distance to the goal (m)",
    )  # fmt: skip
