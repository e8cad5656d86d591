"""Fig. 4: Sawyer's hand learns to reach, with soft Q-learning, DDPG and NAF: final error against robot time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qompose import store
from qompose.paper.films import make_film
from qompose.paper.study import (
    ALGORITHMS,
    EPISODES,
    Case,
    Study,
    curve_of,
    expert_means,
    first_step,
    made_by,
    modes_of,
    robot_minutes,
    training_curve_of,
)
from qompose.shipped import load
from qompose.tasks import make_task
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

TITLES = {"SawyerReach": "one target", "SawyerReachRandom": "a target of its own in each episode"}
CAPTIONS = ("reach", "reach anywhere")  # of the film, which is narrow
LONGER = {"SawyerReach": 1.0, "SawyerReachRandom": 1.5}  # times the steps of the study
# The arm is at its target within two seconds: what happens after is worth little, and learned sooner without it.
DISCOUNT = ("--discount", "0.95")
# Of every algorithm. Targets that differ want more updates a step (docs/measurements.md has what else was tried).
SETTINGS = {"SawyerReach": DISCOUNT, "SawyerReachRandom": (*DISCOUNT, "--updates-per-step", "4")}
TRAINING = "sql, in training"  # the name of the curve that the paper shows
BAR = 0.02  # m


def reproduce(study: Study) -> dict[str, Any]:
    """Train each algorithm on both tasks, each seed; write fig4.json and a picture; return what is in the file."""
    study.open(SETTINGS)
    cases = [
        Case(algorithm, task, seed) for task in TITLES for seed in range(study.seeds) for algorithm in ALGORITHMS
    ]  # fmt: skip
    # Their curves lie in the runs: a training is made again if its run is gone.
    trainings = [part_of(study, case.task).training_job(case) for case in cases]
    study.run_jobs("fig4", [*trainings, *(study.measuring_job(case) for case in cases)])
    records = {case: store.read_json(study.episodes_of(case)) for case in cases}
    rows = [
        _summarise(task, algorithm, [study.run_of(Case(algorithm, task, seed)) for seed in range(study.seeds)], [
            records[Case(algorithm, task, seed)] for seed in range(study.seeds)
        ])
        for task in TITLES for algorithm in ALGORITHMS
    ]  # fmt: skip
    experts = {task: expert_means(task, "distance")["distance"] for task in TITLES}
    picture = study.folder / "fig4_reaching.png"
    draw_curves(
        picture, {title: _drawn([row for row in rows if row["task"] == task]) for task, title in TITLES.items()},
        labels=("robot time (minutes)", "final distance to the target (m)"), logarithmic="y",
        levels={title: {"2 cm": BAR, "scripted expert": experts[task]} for task, title in TITLES.items()},
    )  # fmt: skip
    settings = {task: list(flags) for task, flags in SETTINGS.items()}
    result = {"rows": rows, "experts": experts, "episodes": EPISODES, "bar": BAR, "settings": settings}
    path = study.write("fig4", result, made_by(records.values()))
    film = make_film(study.folder / "fig4_reaching.mp4", lambda: [
        (load(study.run_of(Case("sql", task, 0)), replay=False), task, {}, caption)
        for task, caption in zip(TITLES, CAPTIONS, strict=True)
    ])  # fmt: skip
    return {**result, **film, "picture": str(picture), "file": str(path)}


def part_of(study: Study, task: str) -> Study:
    """The trainings of one of the tasks: its steps and its flags."""
    return dataclasses.replace(
        study, total_steps=round(LONGER[task] * study.total_steps), settings=SETTINGS[task]
    )  # fmt: skip


def print_report(result: dict[str, Any]) -> None:
    """Final distances, and robot time to two centimetres."""
    print_table(
        f"final distance of the hand to its target (mm), {result['episodes']} episodes of each seed",
        ("task", "algorithm", "each seed's mean", "90 % within", "minutes to 20 mm"),
        [
            (
                row["task"], row["algorithm"], ", ".join(f"{1000 * mean:.1f}" for mean in row["seeds"]),
                f"{1000 * row['within']:.1f}", robot_minutes(row["task"], row["steps_to_bar"]),
            )
            for row in result["rows"]
        ],
    )  # fmt: skip
    print("minutes: of robot time, to the first evaluation with a mean of 20 mm or less")
    print("in the paper sql needs about 10 minutes, ddpg and naf substantially longer")


def _drawn(rows: list[dict[str, Any]]) -> dict[str, list[list[list[float]]]]:
    """The curves of one task against minutes of robot time: of every algorithm tested, of soft Q-learning learning."""
    period = make_task("SawyerReach").control_period
    curves = {row["algorithm"]: row["curves"] for row in rows}
    curves[TRAINING] = next(row["training_curves"] for row in rows if row["algorithm"] == "sql")
    return {
        name: [[[step * period / 60.0, metres] for step, metres in curve] for curve in seeds]
        for name, seeds in curves.items()
    }


def _summarise(task: str, algorithm: str, runs: list[Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one algorithm on one task, over its seeds."""
    distances = np.array([record["sample"]["distance"] for record in records])  # (seeds, episodes)
    curves = [curve_of(run, "distance") for run in runs]
    modes = modes_of(Case(algorithm, task, 0))
    best = [float(np.mean(record["best"]["distance"])) for record in records if "best" in modes]
    return {
        "task": task, "algorithm": algorithm, "seeds": distances.mean(axis=1).tolist(),
        "medians": np.median(distances, axis=1).tolist(), "within": float(np.quantile(distances, 0.9)),
        "success": {mode: [float(np.mean(record[mode]["success"])) for record in records] for mode in modes},
        "best": best or None, "curves": curves,
        "training_curves": [training_curve_of(run, "distance") for run in runs],
        "steps_to_bar": [first_step(curve, lambda distance: distance <= BAR) for curve in curves],
        "training_seconds": [record["seconds"] for record in records],
    }  # fmt: skip
