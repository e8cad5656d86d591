"""Compose left and bottom, train the composition further on the corner, and count steps against training from scratch.

    python -m benchmarks.fine_tune [--seeds 5] [--total-steps 60000] [--study reproduce]

`--study` is an output directory of `qompose reproduce`: trainings that are there already are used. The composed skill
trains for a quarter of the steps of a training from scratch. As in `fine_tune_point`, the level is the mean of what
the training from scratch reaches in the last quarter of its steps, and reached by the first evaluation that is there; a
composition may be there before its first step. Writes results/fine_tune.json.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from qompose.paper.fig3 import CORNER
from qompose.paper.jobs import Job
from qompose.paper.study import CORNERS, EPISODES, EVALUATIONS, Case, Study, curve_of, first_step
from qompose.shipped import load
from qompose.store import read_json, write_json
from qompose.training.online import Training
from qompose.view.console import print_table

SHARE = 4  # the composed skill trains for one SHARE-th of the steps


def further_file(study: Study, seed: int) -> Path:
    return study.folder / "further" / f"s{seed}.json"


def measure(study: Study, seed: int, total_steps: int) -> None:
    """Compose, measure, train further, measure."""
    first, second = (load(study.run_of(Case("sql", task, seed))) for task in CORNERS[CORNER])
    composed = qp.compose(first & second, options=qp.Extraction(seed=seed))
    steps, every = total_steps // SHARE, max(total_steps // EVALUATIONS, 1)  # evaluated as the others are
    run = study.folder / "further" / f"run-s{seed}"
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
    write_json(further_file(study, seed), {"seed": seed, "points": curve_of(run, "distance"), **figures})


def count_steps(record: dict[str, Any], scratch: list[list[float]], total_steps: int) -> dict[str, Any]:
    """The level, and the steps to it of the composition (None: not within its share) and from scratch."""
    level = float(np.mean([distance for step, distance in scratch if step > 0.75 * total_steps]))
    composed = [[0, record["composed"]["mean"]], *record["points"]]
    steps, others = (first_step(curve, lambda distance: distance <= level) for curve in (composed, scratch))
    return {"level": level, "steps_to_level": steps, "scratch_steps_to_level": others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    parser.add_argument("--measure", type=int, metavar="SEED", help="only measure this seed, for the parent process")
    arguments = parser.parse_args()
    study = Study(arguments.study, arguments.seeds, arguments.total_steps)
    Training(total_steps=arguments.total_steps // SHARE)  # refuses what the last training would, before all others
    study.open()
    if arguments.measure is not None:
        measure(study, arguments.measure, arguments.total_steps)
        return
    seeds = range(arguments.seeds)
    merged = [Case("sql", CORNER, seed, merged=True) for seed in seeds]
    scratch = [Case("sql", CORNER, seed) for seed in seeds]
    jobs = []
    for case in merged:
        command = (
            *("benchmarks.fine_tune", "--study", str(study.folder), "--total-steps", str(arguments.total_steps)),
            *("--measure", str(case.seed)),
        )
        needs = tuple(study.training_job(training).file for training in case.parts)
        jobs.append(Job(f"further-s{case.seed}", command, further_file(study, case.seed), needs))
    study.run("fine-tune", [part for case in (*merged, *scratch) for part in case.parts], jobs)
    rows = []
    for case in scratch:
        record = read_json(further_file(study, case.seed))
        from_scratch = curve_of(study.run_of(case), "distance")
        rows.append({**record, "scratch": from_scratch, **count_steps(record, from_scratch, arguments.total_steps)})
    shares = [
        float("inf") if row["steps_to_level"] is None else row["steps_to_level"] / row["scratch_steps_to_level"]
        for row in rows
    ]
    made_by = study.systems_of(part for case in (*merged, *scratch) for part in case.parts)
    result = {
        "rows": rows, "trained_by": made_by, "bar": 1 / SHARE,
        "seeds_at_bar": sum(share <= 1 / SHARE for share in shares),
    }  # fmt: skip
    command = f"python -m benchmarks.fine_tune --seeds {arguments.seeds} --total-steps {arguments.total_steps}"
    write_results("fine_tune", result, command=command, seed=list(seeds))
    print_table(
        "a composed skill trained further on the corner, against training from scratch",
        ("seed", "composed (m)", "further (m)", "level (m)", "steps to it", "from scratch", "share"),
        [
            (
                row["seed"], f"{row['composed']['mean']:.3f}", f"{row['further']['mean']:.3f}", f"{row['level']:.3f}",
                "never" if row["steps_to_level"] is None else row["steps_to_level"], row["scratch_steps_to_level"],
                f"{share:.2f}",
            )
            for row, share in zip(rows, shares, strict=True)
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
