"""Put trained skills into the package, two and two: those of the seed whose composition is the median; and one alone.

    python -m benchmarks.ship [--runs-dir runs/benchmark] [--transitions 8000]
    python -m benchmarks.ship --stack reproduce-stack
    python -m benchmarks.ship --reach RUN

The first ships pushing left and bottom, by results/pusher.json: run `python -m benchmarks.pusher` before. Of the two
ways of learning bottom it is the informed one, whose compositions are more reliable. The second ships stacking and
avoiding: run `qompose reproduce fig6` into that folder before. The third ships reaching one target: a run of
`qompose reproduce fig4`, whose file says which seed is the median. The manifest of a shipped skill keeps the command
that trained it, its seed and its figures, and says how much of its replay was kept.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import qompose as qp
from benchmarks.machine import RESULTS
from benchmarks.pusher import CORNER, INFORMED, SKILLS, run_folder
from qompose.paper import fig6
from qompose.paper.study import Case, Study
from qompose.shipped import SHIPPED
from qompose.skill.artifact import Skill
from qompose.store import read_json

TRANSITIONS = 8000
JUDGED, REACH = "composed 1:3", "SawyerReach"


def median_seed(rows: list[dict[str, Any]]) -> int:
    """The seed in the middle: what a user may expect, not the luckiest."""
    means = sorted((row["sample"]["mean"], row["seed"]) for row in rows if row["how"] == INFORMED)
    return means[len(means) // 2][1]


def ship(skill: Skill, command: str, transitions: int, figures: dict[str, float]) -> None:
    """Write one skill into the package, with part of its replay."""
    shipped = {"shipped": {"command": command, "transitions": transitions, **figures}}
    # Where its run lay is nobody's business: the last two folders say which one it was.
    trained_by = re.sub(r"(--output-dir )/\S*/([^/\s]+/[^/\s]+)", r"\1\2", skill.provenance["command"])
    provenance = skill.provenance | {"command": trained_by} | shipped
    thin = replace(skill, provenance=provenance).thin(transitions)
    folder = thin.save(SHIPPED / skill.name, overwrite=True)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: seed {skill.provenance['seed']}, {size:.2f} MB")


def ship_pushing(runs: Path, transitions: int) -> None:
    rows = json.loads((RESULTS / "pusher.json").read_text(encoding="utf-8"))["result"]["rows"]
    seed = median_seed([row for row in rows if row["task"] == CORNER])
    for task, how in zip(SKILLS, ("trained", INFORMED), strict=True):
        measured = next(row for row in rows if (row["task"], row["seed"], row["how"]) == (task, seed, how))
        figures = {
            "mean_distance": measured["sample"]["mean"], "mean_distance_best_of_k": measured["best"]["mean"],
        }  # fmt: skip
        ship(qp.load(run_folder(runs, task, seed, how == INFORMED)), "python -m benchmarks.ship", transitions, figures)


def ship_stacking(folder: Path, transitions: int) -> None:
    rows = read_json(folder / "fig6.json")["result"]["rows"]
    shares = next(row["success"] for row in rows if (row["policy"], row["mode"]) == (JUDGED, "resample"))
    seed = sorted((share, seed) for seed, share in enumerate(shares))[len(shares) // 2][1]
    study = Study(folder, len(shares), 1)  # for its paths only
    for task in fig6.PARTS:
        skill = qp.load(study.run_of(Case("sql", task, seed)))
        command = "python -m benchmarks.ship --stack reproduce-stack"
        ship(skill, command, transitions, {"success_composed": shares[seed]})


def ship_reaching(run: Path, transitions: int) -> None:
    skill = qp.load(run)
    distance = qp.evaluate(skill, REACH, 100, seed=1000 + skill.provenance["seed"]).values("distance")
    ship(skill, "python -m benchmarks.ship --reach RUN", transitions, {"mean_distance": float(distance.mean())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--stack", type=Path, help="ship stacking and avoiding, from this folder of fig6")
    parser.add_argument("--reach", type=Path, help="ship reaching, the skill of this run")
    parser.add_argument("--transitions", type=int, default=TRANSITIONS)
    arguments = parser.parse_args()
    if arguments.reach is not None:
        ship_reaching(arguments.reach, arguments.transitions)
    elif arguments.stack is not None:
        ship_stacking(arguments.stack, arguments.transitions)
    else:
        ship_pushing(arguments.runs_dir, arguments.transitions)


if __name__ == "__main__":
    main()
