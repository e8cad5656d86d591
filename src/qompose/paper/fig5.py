"""Fig. 5: Sawyer stacks a brick, and finds back after a push or when it is suddenly somewhere else.

`python -m qompose.paper.fig5 FOLDER CASE` is the process that measures one policy.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.evaluation import evaluate
from qompose.paper.films import make_film
from qompose.paper.jobs import Job
from qompose.paper.study import (
    ALGORITHMS,
    Case,
    Study,
    curve_of,
    expert_means,
    figures_of,
    first_step,
    made_by,
    modes_of,
    robot_minutes,
)
from qompose.shipped import load
from qompose.tasks import make_task
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

TASK, TITLE = "SawyerStack", "a brick onto another"
# The temperature comes down from 0.1 for the last millimetre; Q keeps the first one as its unit.
SETTINGS = {
    "sql": (
        *("--discount", "0.98", "--temperature", "0.005", "--initial-heat", "20", "--critic-unit", "0.1"),
        *("--updates-per-step", "1"),
    ),
    "ddpg": ("--discount", "0.98", "--updates-per-step", "1"),
    "naf": ("--discount", "0.98", "--updates-per-step", "1"),
}
# What happens -> options of the task, episodes, steps of each: 8 s, or until 8 s after the disturbance.
TRIALS: dict[str, tuple[dict[str, float], int, int]] = {
    "undisturbed": ({}, 100, 160),
    "pushed, 10 N": ({"push": 10.0}, 50, 200),
    "forced, 0.4 rad": ({"forced": 0.4}, 50, 240),
}  # fmt: skip
TWENTY = 20  # episodes: those of the paper
FIGURES = ("success", "seated", "distance", "turn")


def with_settings(study: Study, algorithm: str) -> Study:
    """The study with the flags of one algorithm."""
    return dataclasses.replace(study, settings=SETTINGS[algorithm])


def reproduce(study: Study) -> dict[str, Any]:
    """Train each algorithm to stack, try it undisturbed and disturbed; write fig5.json and a picture."""
    study.open(SETTINGS)
    cases = [Case(algorithm, TASK, seed) for seed in range(study.seeds) for algorithm in ALGORITHMS]
    # One call, so that all cores are busy to the end. The runs are needed for their curves, even where episodes exist.
    trainings = [with_settings(study, case.algorithm).training_job(case) for case in cases]
    study.run_jobs("fig5", [*trainings, *(_job(study, case) for case in cases)])
    records = {case: store.read_json(study.episodes_of(case)) for case in cases}
    rows = [
        _summarise(study, algorithm, [Case(algorithm, TASK, seed) for seed in range(study.seeds)], records)
        for algorithm in ALGORITHMS
    ]
    period = make_task(TASK).control_period
    picture = study.folder / "fig5_stacking.png"
    expert = expert_means(TASK, "distance", "success")
    draw_curves(
        picture,
        {TITLE: {
            row["algorithm"]: [[[step * period / 60.0, metres] for step, metres, _ in curve] for curve in row["curves"]]
            for row in rows
        }},
        labels=("robot time (minutes)", "final distance of the brick (m)"), logarithmic="y",
        levels={TITLE: {"scripted expert": expert["distance"]}},
    )  # fmt: skip
    settings = {name: list(flags) for name, flags in SETTINGS.items()}
    counts = {name: count for name, (_, count, _) in TRIALS.items()}
    result = {
        "rows": rows, "expert": expert, "settings": settings, "episodes": counts, "total_steps": study.total_steps,
        "seconds": {name: steps * period for name, (*_, steps) in TRIALS.items()},
    }  # fmt: skip
    path = study.write("fig5", result, made_by(records.values()))
    film = make_film(study.folder / "fig5_stacking.mp4", lambda: [
        (load(study.run_of(cases[0]), replay=False), TASK, options, f"stack, {trial}")
        for trial, (options, *_) in TRIALS.items()
    ], episode_steps=max(steps for *_, steps in TRIALS.values()))  # fmt: skip
    return {**result, **film, "picture": str(picture), "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """Share of episodes with all four studs in place, seed by seed."""
    print_table(
        "share of episodes that end with the brick in place, each seed",
        ("algorithm", "acting", *result["episodes"], "minutes to the first"),
        [
            (
                row["algorithm"], mode,
                *(" ".join(f"{share:.2f}" for share in row["success"][mode][trial]) for trial in result["episodes"]),
                robot_minutes(TASK, row["first_success"]),
            )
            for row in result["rows"] for mode in row["success"]
        ],
    )  # fmt: skip
    print("minutes: of robot time, to the first evaluation (20 episodes) with a success")
    print("in the paper sql stacks after two hours, 20 of 20, wherever it is put meanwhile")


def _summarise(study: Study, algorithm: str, cases: list[Case], records: dict[Case, Any]) -> dict[str, Any]:
    curves = [curve_of(study.run_of(case), "distance", "success_rate") for case in cases]
    return {
        "algorithm": algorithm,
        "success": {
            mode: {trial: [float(np.mean(records[case][mode][trial]["success"])) for case in cases] for trial in TRIALS}
            for mode in modes_of(cases[0])
        },
        "of_twenty": {
            mode: [int(sum(records[case][mode]["undisturbed"]["success"][:TWENTY])) for case in cases]
            for mode in modes_of(cases[0])
        },
        "curves": curves,
        "first_success": [first_step(curve, lambda share: share > 0.0) for curve in curves],
        "training_seconds": [records[case]["seconds"] for case in cases],
    }


def _job(study: Study, case: Case) -> Job:
    command = ("qompose.paper.fig5", str(study.folder), json.dumps(dataclasses.asdict(case)))
    return Job(f"{case.name}-episodes", command, study.episodes_of(case), (study.training_job(case).file,))


def measure(study: Study, case: Case) -> None:
    """Write how each episode ends, undisturbed and disturbed, for each way of acting."""
    skill = load(study.run_of(case))
    record: dict[str, Any] = {**dataclasses.asdict(case), "seconds": skill.provenance["seconds"]}
    for mode in modes_of(case):
        record[mode] = {}
        for trial, (options, episodes, steps) in TRIALS.items():
            result = evaluate(
                skill, TASK, episodes, mode=mode, seed=1000 + case.seed, options=options, episode_steps=steps
            )
            record[mode][trial] = figures_of(result, *FIGURES)
    study.write_episodes(study.episodes_of(case), record, [case])


if __name__ == "__main__":
    folder, text = sys.argv[1:]
    measure(Study(Path(folder), 1, 1), Case(**json.loads(text)))
