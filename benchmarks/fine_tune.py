"""Compose left and bottom, train the composition further on the corner, and count steps against training from scratch.

They are composed as they are, and after a refit of the two (`qompose.refit`), which takes no steps.

    python -m benchmarks.fine_tune [--seeds 5] [--total-steps 60000] [--study reproduce]

`--study` is an output directory of `qompose reproduce`: trainings that are there already are used. The composed skill
trains for a quarter of the steps of a training from scratch. As in `fine_tune_point`, the level is the mean of what
the training from scratch reaches in the last quarter of its steps, and reached by the first evaluation that is there; a
composition may be there before its first step. Writes results/fine_tune.json.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from qompose.paper.fig3 import CORNER
from qompose.paper.jobs import Job
from qompose.paper.study import CORNERS, EPISODES, EVALUATIONS, Case, Study, curve_of, each_once, first_step
from qompose.run import describe_system
from qompose.shipped import load
from qompose.store import read_json, write_json
from qompose.training.online import Training
from qompose.view.console import print_table

SHARE = 4  # the composed skill trains for one SHARE-th of the steps
AS_THEY_ARE, REFITTED = STARTS = ("as they are", "refitted")


def further_file(study: Study, seed: int, start: str) -> Path:
    return study.folder / "further" / f"s{seed}-{start.replace(' ', '-')}.json"


def measure(study: Study, seed: int, start: str, total_steps: int) -> None:
    """Compose, measure, train further, measure."""
    first, second = (load(study.run_of(Case("sql", task, seed))) for task in CORNERS[CORNER])
    if start == REFITTED:
        first, second = qp.refit(first, second, seed=seed)
    composed = qp.compose(first & second, extraction=qp.Extraction(seed=seed))
    steps, every = total_steps // SHARE, max(total_steps // EVALUATIONS, 1)  # evaluated as the others are
    file = further_file(study, seed, start)
    run = file.with_suffix("")
    shutil.rmtree(run, ignore_errors=True)  # of an attempt that was interrupted
    skill = qp.train(
        CORNER, start=composed, output_dir=run, track=False, total_steps=steps, seed=seed, eval_freq=every,
        save_freq=0,
    )  # fmt: skip
    distances = {
        name: qp.evaluate(policy, CORNER, EPISODES, seed=1000 + seed).values("distance")
        for name, policy in (("composed", composed), ("further", skill))
    }
    figures = {
        name: {"mean": float(of.mean()), "std": float(of.std()), "median": float(np.median(of))}
        for name, of in distances.items()
    }
    system = describe_system()
    write_json(file, {"seed": seed, "start": start, "points": curve_of(run, "distance"), **figures, "system": system})


def count_steps(record: dict[str, Any], scratch: list[list[float]], total_steps: int) -> dict[str, Any]:
    """The level, and the steps to it of the composition (None: not within its share) and from scratch."""
    level = float(np.mean([distance for step, distance in scratch if step > 0.75 * total_steps]))
    composed = [[0, record["composed"]["mean"]], *record["points"]]
    steps, others = (first_step(curve, lambda distance: distance <= level) for curve in (composed, scratch))
    return {"level": level, "steps_to_level": steps, "scratch_steps_to_level": others}


def share_of(row: dict[str, Any]) -> float:
    """Steps to the level against those from scratch."""
    steps = row["steps_to_level"]
    return math.inf if steps is None else steps / row["scratch_steps_to_level"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    parser.add_argument("--measure", nargs=2, metavar=("SEED", "START"), help="for the parent process")
    arguments = parser.parse_args()
    study = Study(arguments.study, arguments.seeds, arguments.total_steps)
    Training(total_steps=arguments.total_steps // SHARE)  # refuses what the last training would, before all others
    study.open()
    if arguments.measure is not None:
        seed, start = arguments.measure
        measure(study, int(seed), start, arguments.total_steps)
        return
    seeds = range(arguments.seeds)
    merged = [Case("sql", CORNER, seed, merged=True) for seed in seeds]
    scratch = [Case("sql", CORNER, seed) for seed in seeds]
    jobs = []
    for case, start in itertools.product(merged, STARTS):
        command = (
            *("benchmarks.fine_tune", "--study", str(study.folder), "--total-steps", str(arguments.total_steps)),
            *("--measure", str(case.seed), start),
        )
        needs = tuple(study.training_job(training).file for training in case.parts)
        file = further_file(study, case.seed, start)
        jobs.append(Job(f"further-{file.stem}", command, file, needs))
    study.run("fine-tune", [part for case in (*merged, *scratch) for part in case.parts], jobs)
    rows = []
    for start, case in itertools.product(STARTS, scratch):
        record = read_json(further_file(study, case.seed, start))
        from_scratch = curve_of(study.run_of(case), "distance")
        rows.append({**record, "scratch": from_scratch, **count_steps(record, from_scratch, arguments.total_steps)})
    made_by = study.systems_of(part for case in (*merged, *scratch) for part in case.parts)
    made_by += [row.pop("system") for row in rows]
    at_bar = {start: sum(share_of(row) <= 1 / SHARE for row in rows if row["start"] == start) for start in STARTS}
    result = {"rows": rows, "runs_made_by": each_once(made_by), "bar": 1 / SHARE, "seeds_at_bar": at_bar}
    command = f"python -m benchmarks.fine_tune --seeds {arguments.seeds} --total-steps {arguments.total_steps}"
    write_results("fine_tune", result, command=command, seed=list(seeds))
    print_table(
        "a composed skill trained further on the corner, against training from scratch",
        ("lines", "seed", "composed (m)", "further (m)", "level (m)", "steps to it", "from scratch", "share"),
        [
            (
                row["start"], row["seed"], f"{row['composed']['mean']:.3f}", f"{row['further']['mean']:.3f}",
                f"{row['level']:.3f}",
                "never" if row["steps_to_level"] is None else row["steps_to_level"], row["scratch_steps_to_level"],
                f"{share_of(row):.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
