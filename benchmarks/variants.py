"""Trainings with a thing or two changed, beside those of the paper's tables: what suffices, what mends a missed figure.

    python -m benchmarks.variants particles|naf|corner|lines|reach ... [--seeds 3] [--runs-dir runs/variants]

particles: does soft Q-learning learn the four lines as well with a quarter of them, and do these compose as well? An
    update costs in proportion to them.
naf: what of longer training, more updates or more noise brings NAF's missed lines to the paper's figures?
corner: does longer training, or a hotter policy, bring the puck nearer to the corner at the edge of the arm's reach?
lines: is a corner reached by the sum of two skills of which one has learned from the other's experience, too?
reach: what brings the hand near to targets that differ from episode to episode, with fewer updates than Fig. 4 has?

Same seeds and steps as the tables, whose own figures are read from their files. Finished trainings are kept. Writes
results/variants_particles.json, docs/variants_particles.png and so on.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, read_results, write_results
from benchmarks.yardstick_run import FEWER
from qompose import store
from qompose.paper import fig4
from qompose.paper.jobs import Job, run_jobs
from qompose.paper.study import CONSTITUENTS, CORNERS, Case, Study, curve_of, each_once, made_by, modes_of
from qompose.types import QomposeError
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

FIGURE = "distance"  # of an episode, in metres


@dataclasses.dataclass(frozen=True)
class Question:
    """Trainings of one algorithm on some tasks, and what is changed in them."""

    algorithm: str
    tasks: tuple[str, ...]
    variants: Mapping[str, tuple[str, ...]]
    """Name -> flags of `qompose train`; of its steps `--total-steps` alone may be among them. `--experience` names one
    of the tasks: the others learn from what its training of the same seed has seen."""
    settings: tuple[str, ...] = ()
    """Flags that the table has, too."""
    steps: int = 60_000
    """Of the table."""
    merged: tuple[str, ...] = ()
    """Corners that are composed of these trainings."""


def flags_of_particles(fewer: str) -> tuple[str, ...]:
    return tuple(x for name, count in FEWER[fewer].items() for x in (f"--{name.replace('_', '-')}", str(count)))


EXPERIENCE = "--experience"
TWO = ("--updates-per-step", "2")  # the default; the table has four
QUESTIONS = {
    "particles": Question(
        "sql", CONSTITUENTS, {"a quarter of them": flags_of_particles("quartersql")}, merged=tuple(CORNERS)
    ),
    "naf": Question(
        "naf", ("PushLeft", "PushMiddle"),
        {"100 000 steps": ("--total-steps", "100000"), "four updates a step": ("--updates-per-step", "4"),
         "noise 0.4": ("--noise", "0.4")},
    ),
    "corner": Question(
        "sql", ("PushBottomLeft",),
        {"100 000 steps": ("--total-steps", "100000"), "temperature 0.2": ("--temperature", "0.2")},
    ),
    "lines": Question(
        "sql", ("PushLeft", "PushBottom"), {"shared experience": (EXPERIENCE, "PushLeft")}, merged=("PushBottomLeft",)
    ),
    "reach": Question(
        "sql", ("SawyerReachRandom",),
        {"two updates a step": TWO,
         "two, temperature down to 0.02": (
             *TWO, "--temperature", "0.02", "--initial-heat", "25", "--critic-unit", "0.1",
         ),
         "two, batches of 128": (*TWO, "--batch-size", "128")},
        fig4.DISCOUNT, 18_000,
    ),
}  # fmt: skip


def flags_of(name: str, variant: str) -> dict[str, str]:
    words = QUESTIONS[name].variants[variant]
    return dict(zip(words[::2], words[1::2], strict=True))


def study_of(folder: Path, name: str, variant: str, seeds: int) -> Study:
    """Where the trainings of a variant are."""
    question = QUESTIONS[name]
    flags = flags_of(name, variant)
    flags.pop(EXPERIENCE, None)
    steps = int(flags.pop("--total-steps", question.steps))
    settings = (*question.settings, *(word for flag in flags.items() for word in flag))
    place = folder / name / variant.replace(" ", "-")
    return Study(place, seeds, steps, settings=settings)


def cases_of(name: str, task: str, seeds: int) -> list[Case]:
    question = QUESTIONS[name]
    return [Case(question.algorithm, task, seed, task in question.merged) for seed in range(seeds)]


def training_job(study: Study, case: Case, experience: str | None) -> Job:
    """Train a case, with the experience of the training on another task beside its own unless that is its task."""
    job = study.training_job(case)
    if experience in (None, case.task):
        return job
    other = dataclasses.replace(case, task=experience)
    words = (*job.arguments, EXPERIENCE, str(study.run_of(other)))
    return dataclasses.replace(job, arguments=words, needs=(study.training_job(other).file,))


def policies_of(name: str) -> tuple[str, ...]:
    """The tasks that a question's policies are for."""
    return (*QUESTIONS[name].tasks, *QUESTIONS[name].merged)


def summarise(folder: Path, name: str, seeds: int) -> dict[str, Any]:
    """What the variants of one question came to."""
    question = QUESTIONS[name]
    rows: list[dict[str, Any]] = []
    systems: list[dict[str, Any]] = []
    for variant in question.variants:
        study = study_of(folder, name, variant, seeds)
        for task in policies_of(name):
            cases = cases_of(name, task, seeds)
            records = [store.read_json(study.episodes_of(case)) for case in cases]
            curves = [curve_of(study.run_of(case), FIGURE) for case in cases]
            systems += made_by(records)
            rows += [
                {"variant": variant, "task": task, "mode": mode, "seeds": means_of(records, mode),
                 "training_seconds": [record.get("seconds") for record in records], "curves": curves}
                for mode in modes_of(cases[0])
            ]  # fmt: skip
    return {
        "figure": FIGURE, "steps": question.steps, "variants": question.variants, "rows": rows,
        "runs_made_by": each_once(systems),
    }  # fmt: skip


def means_of(records: Sequence[dict[str, Any]], mode: str) -> list[float]:
    return [float(np.mean(record[mode][FIGURE])) for record in records]


def table_rows(name: str, seeds: int) -> list[dict[str, Any]]:
    """The same figures without a change, of Table I or Fig. 4, as far as their seeds go."""
    question = QUESTIONS[name]
    return [
        {"variant": "as in the table", "task": task, "mode": mode, "seeds": table_seeds(name, task, mode)[:seeds]}
        for task in policies_of(name) for mode in modes_of(Case(question.algorithm, task, 0))
    ]  # fmt: skip


def table_seeds(name: str, task: str, mode: str) -> list[float]:
    """What the table says of a policy, seed by seed."""
    question = QUESTIONS[name]
    if name == "reach":
        row = fig4_row(read_results("fig4")["result"]["rows"], question.algorithm, task)
        return row["best"] if mode == "best" else row["seeds"]
    wanted = {"algorithm": question.algorithm, "task": task, "mode": mode, "merged": task in question.merged}
    rows = read_results("table1")["result"]["rows"]
    return next(row["seeds"] for row in rows if row.items() >= wanted.items())


def draw(path: Path, name: str, result: dict[str, Any]) -> None:
    """The curves of every variant, a panel for each task; with those of Fig. 4, which are in its file."""
    panels = {
        task: {
            row["variant"]: row["curves"] for row in result["rows"] if (row["task"], row["mode"]) == (task, "sample")
        }
        for task in QUESTIONS[name].tasks
    }
    if name == "reach":
        rows = read_results("fig4")["result"]["rows"]
        panels = {
            task: {"as in the table": fig4_row(rows, QUESTIONS[name].algorithm, task)["curves"], **curves}
            for task, curves in panels.items()
        }
    levels = {task: {"2 cm": fig4.BAR} for task in panels} if name == "reach" else {}
    draw_curves(path, panels, labels=("environment steps", "final distance (m)"), logarithmic="y", levels=levels)


def fig4_row(rows: Sequence[dict[str, Any]], algorithm: str, task: str) -> dict[str, Any]:
    return next(row for row in rows if (row["algorithm"], row["task"]) == (algorithm, task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="+", choices=QUESTIONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/variants"))
    arguments = parser.parse_args()
    folder, seeds = arguments.runs_dir, arguments.seeds
    try:
        jobs = []
        for name in arguments.questions:
            for variant in QUESTIONS[name].variants:
                study = study_of(folder, name, variant, seeds)
                study.open({variant: (*QUESTIONS[name].settings, *QUESTIONS[name].variants[variant])})
                cases = [case for task in policies_of(name) for case in cases_of(name, task, seeds)]
                shared = flags_of(name, variant).get(EXPERIENCE)
                made = [training_job(study, case, shared) for case in cases if not case.merged]
                jobs += [named(job, variant) for job in (*made, *map(study.measuring_job, cases))]
        # All together, so that no core waits; the longest first.
        run_jobs(sorted(jobs, key=lambda job: -job.total_steps), folder / "logs", label="variants")
    except QomposeError as error:
        raise SystemExit(f"variants: {error}") from None
    for name in arguments.questions:
        result = summarise(folder, name, seeds)
        command = f"python -m benchmarks.variants {name} --seeds {seeds}"
        write_results(f"variants_{name}", result, command=command, seed=list(range(seeds)))
        draw(RESULTS.parent / "docs" / f"variants_{name}.png", name, result)
        print_table(
            f"{name}: {result['figure']}", ("variant", "task", "acting", "mean", "seeds"),
            [
                (row["variant"], row["task"], row["mode"], f"{np.mean(row['seeds']):.3f}",
                 " ".join(f"{mean:.3f}" for mean in row["seeds"]))
                for row in (*table_rows(name, seeds), *result["rows"])
            ],
        )  # fmt: skip


def named(job: Job, variant: str) -> Job:
    """The job under a name of its own among those of other variants."""
    return dataclasses.replace(job, name=f"{variant.replace(' ', '-')}-{job.name}")


if __name__ == "__main__":
    main()
