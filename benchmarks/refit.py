"""Do skills that have learned on from each other's experience compose better? The corners of Table I, refitted and not.

    python -m benchmarks.refit [--seeds 3] [--total-steps 60000] [--study reproduce]

`--study` is an output directory of `qompose reproduce table1`: trainings of soft Q-learning that are there already are
used. Each corner is composed from its two lines as they are, and after `qompose.refit`, with short and long extraction;
judged like the merged rows of Table I. A refitted line is measured on its own task, too. What is measured is kept in
the study, so that an interrupted benchmark goes on. Writes results/refit.json and docs/refit.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import RESULTS, read_results, write_results
from qompose.paper.jobs import Job
from qompose.paper.study import CORNERS, EPISODES, EXTRACTION_STEPS, Case, Study, made_by
from qompose.paper.table1 import paper_figure
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.store import read_json, write_json
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

UPDATES = (0, 20_000)  # of a refit; 0: the lines as they are
STEPS = (qp.Extraction().steps, EXTRACTION_STEPS)
MODES = ("sample", "best")
PICTURE = RESULTS.parent / "docs" / "refit.png"


def lines_of(corner: str, seed: int) -> list[Case]:
    return [Case("sql", task, seed) for task in CORNERS[corner]]


def file_of(study: Study, corner: str, seed: int, updates: int) -> Path:
    return study.folder / "refit" / f"{corner}-s{seed}-{updates}.json"


def measure(study: Study, corner: str, seed: int, updates: int) -> None:
    """Refit the lines of a corner, compose, and evaluate all in each mode: figures of the distance (m)."""
    cases = lines_of(corner, seed)
    lines = tuple(load(study.run_of(case)) for case in cases)
    if updates:
        lines = qp.refit(*lines, updates=updates, seed=seed)
    composed = {
        str(steps): judge(qp.compose(lines[0] & lines[1], options=qp.Extraction(steps=steps, seed=seed)), corner, seed)
        for steps in STEPS
    }
    path = file_of(study, corner, seed, updates)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {
        "composed": composed,
        "lines": {case.task: judge(line, case.task, seed) for case, line in zip(cases, lines, strict=True)},
        "seconds": sum(line.provenance["refit"]["seconds"] for line in lines) if updates else 0.0,
        "system": describe_system(), "trained_by": study.systems_of(cases),
    })  # fmt: skip


def judge(skill: Skill, task: str, seed: int) -> dict[str, dict[str, float]]:
    found = {}
    for mode in MODES:
        distance = qp.evaluate(skill, task, EPISODES, mode=mode, seed=1000 + seed).values("distance")
        figures = {"mean": distance.mean(), "std": distance.std(), "median": np.median(distance)}
        found[mode] = {name: round(float(value), 5) for name, value in figures.items()}
    return found


def measuring_job(study: Study, corner: str, seed: int, updates: int) -> Job:
    file = file_of(study, corner, seed, updates)
    words = ("--study", str(study.folder), "--measure", corner, str(seed), str(updates))
    needs = tuple(study.training_job(case).file for case in lines_of(corner, seed))
    return Job(f"refit-{file.stem}", ("benchmarks.refit", *words), file, needs)


def summarise(study: Study) -> dict[str, Any]:
    """The corners, then the lines; of every figure a value for each seed."""
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for corner, updates in itertools.product(CORNERS, UPDATES):
        records = [read_json(file_of(study, corner, seed, updates)) for seed in range(study.seeds)]
        shared = {"corner": corner, "updates": updates, "seconds": [record["seconds"] for record in records]}
        rows += [
            {**shared, "steps": steps, "mode": mode,
             **gather([record["composed"][str(steps)][mode] for record in records]),
             "paper": list(paper_figure("sql", corner, merged=True))}
            for steps, mode in itertools.product(STEPS, MODES)
        ]  # fmt: skip
        lines += [
            {"corner": corner, "updates": updates, "task": task, "mode": mode,
             **gather([record["lines"][task][mode] for record in records])}
            for task, mode in itertools.product(CORNERS[corner], MODES)
        ]  # fmt: skip
    return {"rows": rows, "lines": lines, "episodes": EPISODES}


def gather(figures: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in figures] for name in figures[0]}


def trained_on(corner: str) -> float:
    """Mean distance of the policies that Table I trained on a corner itself."""
    wanted = {"algorithm": "sql", "task": corner, "mode": "sample", "merged": False}
    return float(
        np.mean(next(r["seeds"] for r in read_results("table1")["result"]["rows"] if r.items() >= wanted.items()))
    )


def draw(path: Path, rows: list[dict[str, Any]], seeds: int) -> None:
    """Distance by updates of the refit, long extraction, a line for each seed."""
    long = [row for row in rows if row["steps"] == EXTRACTION_STEPS]
    panels = {
        corner: {
            mode: [
                [[row["updates"], row["mean"][seed]] for row in long if (row["corner"], row["mode"]) == (corner, mode)]
                for seed in range(seeds)
            ]
            for mode in MODES
        }
        for corner in CORNERS
    }
    levels = {corner: {"trained on it": trained_on(corner)} for corner in CORNERS}
    draw_curves(
        path,
        panels,
        labels=("updates of the lines from both replays", "final distance (m)"),
        logarithmic="y",
        levels=levels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    parser.add_argument("--measure", nargs=3, metavar=("CORNER", "SEED", "UPDATES"), help="for the parent process")
    options = parser.parse_args()
    study = Study(options.study, options.seeds, options.total_steps)
    if options.measure is not None:
        corner, *numbers = options.measure
        measure(study, corner, *map(int, numbers))
        return
    study.open()
    cases = list(itertools.product(CORNERS, range(options.seeds), UPDATES))
    trainings = dict.fromkeys(line for corner, seed, _ in cases for line in lines_of(corner, seed))
    study.run("refit", trainings, [measuring_job(study, *case) for case in cases])
    records = [read_json(file_of(study, *case)) for case in cases]
    systems = {json.dumps(system, sort_keys=True): system for system in made_by(records)}
    result = {**summarise(study), "made_by": list(systems.values())}
    command = f"python -m benchmarks.refit --seeds {options.seeds} --total-steps {options.total_steps}"
    write_results("refit", result, command=command, seed=list(range(options.seeds)))
    draw(PICTURE, result["rows"], options.seeds)
    print_table(
        f"composed corners: distance (m), mean of {options.seeds} seed(s)",
        ("corner", "refit", "steps", "acting", "distance", "seeds", "the paper"),
        [
            (row["corner"], row["updates"], row["steps"], row["mode"], f"{np.mean(row['mean']):.3f}",
             " ".join(f"{x:.3f}" for x in row["mean"]), f"{row['paper'][0]:.2f}")
            for row in result["rows"]
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
