"""What decides how near a composed policy of the pusher comes: steps of its extraction, and its temperature.

    python -m benchmarks.corner_extraction [--seeds 2] [--total-steps 60000] [--study reproduce]

`--study` is an output directory of `qompose reproduce table1`, whose trainings are used. Each corner is composed from
its two lines by soft Q-learning, with every setting, and judged like the merged rows of Table I. What is measured is
kept in the study, so that an interrupted benchmark goes on. Writes results/corner_extraction.json.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.paper.study import CORNERS, EPISODES, Case, Study, each_once
from qompose.paper.table1 import paper_figure
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.store import read_json, write_json
from qompose.view.console import print_table

# Gradient steps of the extraction, and the temperature of the composed policy; the first are the defaults, as the
# skills' own temperature is 0.1.
SETTINGS = ((2_000, 0.1), (10_000, 0.1), (2_000, 0.03), (10_000, 0.03))
MODES = ("sample", "best")


def measure(study: Study, corner: str, seed: int, steps: int, temperature: float) -> dict[str, dict[str, float]]:
    """Compose, and evaluate in each mode: mean, deviation and median of the distance (m) over the episodes."""
    file = study.folder / "extraction" / f"{corner}-s{seed}-{steps}-{temperature:g}.json"
    if not file.exists():
        first, second = (load(study.run_of(Case("sql", task, seed))) for task in CORNERS[corner])
        skill = qp.compose(first & second, temperature=temperature, extraction=qp.Extraction(steps=steps, seed=seed))
        file.parent.mkdir(exist_ok=True)
        write_json(file, judge(skill, corner, seed))
    return read_json(file)


def judge(skill: Skill, task: str, seed: int) -> dict[str, dict[str, float]]:
    """Figures of the final distance (m) in each mode, over the episodes by which Table I judges."""
    found = {}
    for mode in MODES:
        distance = qp.evaluate(skill, task, EPISODES, mode=mode, seed=1000 + seed).values("distance")
        figures = {"mean": distance.mean(), "std": distance.std(), "median": np.median(distance)}
        found[mode] = {name: round(float(value), 5) for name, value in figures.items()}
    return found


def main() -> None:
    options = read_options(__doc__, None, seeds=2, total_steps=60_000, study=Path("reproduce"))
    study = Study(options.study, options.seeds, options.total_steps)
    study.open()
    rows: list[dict[str, Any]] = []
    for corner, (steps, temperature) in itertools.product(CORNERS, SETTINGS):
        each = [measure(study, corner, seed, steps, temperature) for seed in range(options.seeds)]
        for mode in MODES:
            figures = {name: [one[mode][name] for one in each] for name in ("mean", "std", "median")}
            paper = paper_figure("sql", corner, merged=True)
            rows.append({"corner": corner, "steps": steps, "temperature": temperature, "mode": mode, **figures,
                         "paper": list(paper)})  # fmt: skip
            print(corner, steps, temperature, mode, figures["mean"], flush=True)
    parts = {task for pair in CORNERS.values() for task in pair}
    made_by = study.systems_of(Case("sql", task, seed) for task in sorted(parts) for seed in range(options.seeds))
    result = {"rows": rows, "episodes": EPISODES, "runs_made_by": each_once(made_by)}
    command = f"python -m benchmarks.corner_extraction --seeds {options.seeds} --total-steps {options.total_steps}"
    write_results("corner_extraction", result, command=command, seed=list(range(options.seeds)))
    print_table(
        f"composed corners: distance (m), mean of {options.seeds} seed(s)",
        ("corner", "steps", "temperature", "acting", "distance", "the paper"),
        [
            (row["corner"], row["steps"], row["temperature"], row["mode"], f"{np.mean(row['mean']):.3f}",
             f"{row['paper'][0]:.2f}")
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
