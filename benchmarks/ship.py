"""Put two trained skills into the package: those of the seed whose composition is the median of results/pusher.json.

Of the two ways of learning bottom the informed one, whose compositions are more reliable.

    python -m benchmarks.ship [--runs-dir runs/benchmark] [--transitions 8000]

Run `python -m benchmarks.pusher` before. The manifest of a shipped skill keeps the command that trained it, its seed
and its figures, and says how much of its replay was kept.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import qompose as qp
from benchmarks.machine import RESULTS
from benchmarks.pusher import CORNER, INFORMED, SKILLS, run_folder
from qompose.shipped import SHIPPED

TRANSITIONS = 8000


def median_seed(rows: list[dict[str, Any]]) -> int:
    """The seed in the middle: what a user may expect, not the luckiest."""
    means = sorted((row["sample"]["mean"], row["seed"]) for row in rows if row["how"] == INFORMED)
    return means[len(means) // 2][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--transitions", type=int, default=TRANSITIONS)
    arguments = parser.parse_args()
    rows = json.loads((RESULTS / "pusher.json").read_text(encoding="utf-8"))["result"]["rows"]
    seed = median_seed([row for row in rows if row["task"] == CORNER])
    for task, how in zip(SKILLS, ("trained", INFORMED), strict=True):
        skill = qp.load(run_folder(arguments.runs_dir, task, seed, how == INFORMED))
        measured = next(row for row in rows if (row["task"], row["seed"], row["how"]) == (task, seed, how))
        provenance = skill.provenance | {
            "shipped": {
                "command": "python -m benchmarks.ship", "transitions": arguments.transitions,
                "mean_distance": measured["sample"]["mean"], "mean_distance_best_of_k": measured["best"]["mean"],
            }
        }  # fmt: skip
        folder = (
            replace(skill, provenance=provenance).thin(arguments.transitions).save(SHIPPED / skill.name, overwrite=True)
        )
        print(f"{folder}: {task}, seed {seed}, {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
