"""Do skills that have learned on from each other's experience compose better? The corners of Table I, refitted and not.

    python -m benchmarks.refit [--seeds 3] [--total-steps 60000] [--study reproduce]

`--study` is an output directory of `qompose reproduce table1`: trainings of soft Q-learning that are there already are
used. Each corner is composed from its two lines as they are, after as many further updates of each from its own replay,
and after `qompose.refit` of the two, at its own learning rate and at a gentler one; judged like the merged rows of
Table I. The lines are measured on their own tasks, too. What is measured is kept in the study, so that an interrupted
benchmark goes on. Writes results/refit.json and docs/refit.png.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.corner_extraction import MODES, judge
from benchmarks.machine import RESULTS, read_results, write_results
from qompose.paper.jobs import Job
from qompose.paper.study import CORNERS, EPISODES, EXTRACTION_STEPS, Case, Study, each_once, made_by
from qompose.paper.table1 import paper_figure
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.store import read_json, write_json
from qompose.view.charts import draw_bars
from qompose.view.console import print_table

AS_THEY_ARE, OWN, ALL, GENTLE = "as they are", "own replay", "both replays", "both replays gently"
RATES = {OWN: 1e-3, ALL: 1e-3, GENTLE: 3e-4}  # of learning, where lines learn on
SHORT = qp.Extraction().steps
BOTH = (SHORT, EXTRACTION_STEPS)
# What the lines learn from before they are composed -> steps of extraction.
WAYS = {AS_THEY_ARE: BOTH, OWN: (SHORT,), ALL: BOTH, GENTLE: (SHORT,)}
UPDATES = 20_000  # of a refit
PICTURE = RESULTS.parent / "docs" / "refit.png"


def lines_of(corner: str, seed: int) -> list[Case]:
    return [Case("sql", task, seed) for task in CORNERS[corner]]


def file_of(study: Study, corner: str, seed: int, way: str) -> Path:
    return study.folder / "refit" / f"{corner}-s{seed}-{way.replace(' ', '-')}.json"


def measure(study: Study, corner: str, seed: int, way: str) -> None:
    """Refit the lines of a corner, compose, and evaluate all in each mode: figures of the distance (m)."""
    cases = lines_of(corner, seed)
    lines = tuple(load(study.run_of(case)) for case in cases)
    begin = time.perf_counter()
    if way == OWN:
        lines = tuple(refit([line], way, seed)[0] for line in lines)
    elif way != AS_THEY_ARE:
        lines = refit(lines, way, seed)
    seconds = time.perf_counter() - begin
    composed = {
        str(steps): judge(
            qp.compose(lines[0] & lines[1], extraction=qp.Extraction(steps=steps, seed=seed)), corner, seed
        )
        for steps in WAYS[way]
    }
    path = file_of(study, corner, seed, way)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {
        "composed": composed,
        "lines": {case.task: judge(line, case.task, seed) for case, line in zip(cases, lines, strict=True)},
        "seconds": None if way == AS_THEY_ARE else round(seconds, 1),
        "system": describe_system(), "trained_by": study.systems_of(cases),
    })  # fmt: skip


def refit(lines: Sequence[Skill], way: str, seed: int) -> tuple[Skill, ...]:
    return qp.refit(*lines, updates=UPDATES, learning_rate=RATES[way], seed=seed)


def measuring_job(study: Study, corner: str, seed: int, way: str) -> Job:
    file = file_of(study, corner, seed, way)
    words = ("--study", str(study.folder), "--measure", corner, str(seed), way)
    needs = tuple(study.training_job(case).file for case in lines_of(corner, seed))
    return Job(f"refit-{file.stem}", ("benchmarks.refit", *words), file, needs)


def summarise(study: Study) -> dict[str, Any]:
    """The corners, then the lines; of every figure a value for each seed."""
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for corner, way in itertools.product(CORNERS, WAYS):
        records = [read_json(file_of(study, corner, seed, way)) for seed in range(study.seeds)]
        shared = {"corner": corner, "learned_from": way}
        rows += [
            {**shared, "steps": steps, "mode": mode, "seconds": [record["seconds"] for record in records],
             **gather([record["composed"][str(steps)][mode] for record in records]),
             "paper": list(paper_figure("sql", corner, merged=True))}
            for steps, mode in itertools.product(WAYS[way], MODES)
        ]  # fmt: skip
        lines += [
            {**shared, "task": task, "mode": mode, **gather([record["lines"][task][mode] for record in records])}
            for task, mode in itertools.product(CORNERS[corner], MODES)
        ]
    return {"rows": rows, "lines": lines, "episodes": EPISODES, "updates": UPDATES}


def gather(figures: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in figures] for name in figures[0]}


def trained_on(corner: str, mode: str = "sample") -> list[float]:
    """Mean distance of each policy that Table I trained on a corner itself."""
    rows = read_results("table1")["result"]["rows"]
    (found,) = [
        row["seeds"] for row in rows
        if (row["algorithm"], row["task"], row["mode"], row["merged"]) == ("sql", corner, mode, False)
    ]  # fmt: skip
    return found


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Distance of the stochastic policy after a short extraction, beside that of policies trained on the corner."""
    panels = {
        corner: {
            **{row["learned_from"]: row["mean"] for row in rows
               if (row["corner"], row["steps"], row["mode"]) == (corner, SHORT, "sample")},
            "trained on it": trained_on(corner),
        }
        for corner in CORNERS
    }  # fmt: skip
    highest = max(max(seeds) for bars in panels.values() for seeds in bars.values())
    draw_bars(path, panels, label="final distance (m)", top=1.05 * highest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    parser.add_argument("--measure", nargs=3, metavar=("CORNER", "SEED", "WAY"), help="for the parent process")
    options = parser.parse_args()
    study = Study(options.study, options.seeds, options.total_steps)
    if options.measure is not None:
        corner, seed, way = options.measure
        measure(study, corner, int(seed), way)
        return
    study.open()
    cases = list(itertools.product(CORNERS, range(options.seeds), WAYS))
    missing = [case for case in cases if not file_of(study, *case).exists()]
    trainings = [line for corner, seed, _ in missing for line in lines_of(corner, seed)]
    study.run("refit", trainings, [measuring_job(study, *case) for case in cases])
    records = [read_json(file_of(study, *case)) for case in cases]
    result = {**summarise(study), "runs_made_by": each_once(made_by(records))}
    command = f"python -m benchmarks.refit --seeds {options.seeds} --total-steps {options.total_steps}"
    write_results("refit", result, command=command, seed=list(range(options.seeds)))
    draw(PICTURE, result["rows"])
    print_table(
        f"composed corners: distance (m), mean of {options.seeds} seed(s)",
        ("corner", "learned from", "steps", "acting", "distance", "seeds", "the paper"),
        [
            (row["corner"], row["learned_from"], row["steps"], row["mode"], f"{np.mean(row['mean']):.3f}",
             " ".join(f"{x:.3f}" for x in row["mean"]), f"{row['paper'][0]:.2f}")
            for row in result["rows"]
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
