"""Fig. 3: gradient steps to a policy for the corner: extracted from Q_Σ, trained online, or trained on logged data.

`python -m qompose.paper.fig3 FOLDER CURVE SEED UPDATES` is the process that measures one curve.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.agents.sql import SQL
from qompose.evaluation import evaluate
from qompose.paper.jobs import Job
from qompose.paper.study import CORNERS, Case, Study, curve_of
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.algebra import as_network, unite_replays
from qompose.skill.artifact import Skill
from qompose.tasks import make_task
from qompose.tasks.task import relabel
from qompose.training.logged import learn_from_log
from qompose.training.offline import Extraction, compose
from qompose.training.online import Training
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

CORNER = "PushBottomLeft"
EXTRACTED = {"sql": "extraction, sql", "ddpg": "extraction, ddpg"}
ONLINE, OFFLINE = "online sql", "offline sql"
EPISODES = Training().eval_episodes  # of every point, as in the course of a training
CLOSELY = 0.1  # share of the way from a curve's first point to its last that may be missing
CLOSE = 0.05  # m: what offline SQL may be worse than online SQL and still be said to converge


def reproduce(study: Study) -> dict[str, Any]:
    """Make the four curves of each seed; write fig3.json and a picture; return what is in the file."""
    study.open()
    seeds = range(study.seeds)
    trainings = [case for seed in seeds for case in (_online(seed), *_pair("sql", seed), *_pair("ddpg", seed))]
    jobs = [_curve_job(study, curve, seed) for seed in seeds for curve in (*EXTRACTED.values(), OFFLINE)]
    study.run("fig3", trainings, jobs)
    records = [store.read_json(job.file) for job in jobs]
    curves = {
        curve: [record["points"] for record in records if record["curve"] == curve]
        for curve in (*EXTRACTED.values(), OFFLINE)
    }  # fmt: skip
    curves[ONLINE] = [online_points(study.run_of(_online(seed))) for seed in seeds]
    rows = [
        {"curve": curve, "seeds": [compare(*pair) for pair in zip(curves[curve], curves[ONLINE], strict=True)]}
        for curve in curves
    ]  # fmt: skip
    picture = study.folder / "fig3_steps.png"
    draw_curves(
        picture,
        {"a policy for the bottom-left corner": {
            curve: [[p[:2] for p in points] for points in runs] for curve, runs in curves.items()
        }},
        labels=("gradient steps", "final distance to the goal (m)"), logarithmic="x",
    )  # fmt: skip
    result = {"rows": rows, "curves": curves, "episodes": EPISODES, "close": CLOSE}
    path = study.write("fig3", result, [*study.systems_of(trainings), *(record["system"] for record in records)])
    return {**result, "picture": str(picture), "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """Medians over the seeds: where each curve ends, and how much sooner than online SQL it is there."""
    header = ("", "steps in all", "distance at the end", "level", "steps to it", "online's steps", "ratio")
    rows = []
    for row in result["rows"]:
        if row["curve"] == ONLINE:
            continue
        # Online may not come as near: then it takes longer than any number of steps.
        found = {
            name: float(np.median([float("inf") if seed[name] is None else seed[name] for seed in row["seeds"]]))
            for name in row["seeds"][0]
        }
        rows.append((
            row["curve"], f"{found['steps']:.0f}", f"{found['end']:.3f}", f"{found['level']:.3f}",
            f"{found['steps_to_level']:.0f}", f"{found['online_steps_to_level']:.0f}", f"{found['ratio']:.3g}",
        ))  # fmt: skip
    seeds = result["rows"][0]["seeds"]
    print_table(f"gradient steps to a policy for the corner, medians of {len(seeds)} seed(s)", header, rows)
    offline = next(row["seeds"] for row in result["rows"] if row["curve"] == OFFLINE)
    converged = sum(seed["late"] <= seed["online_late"] + result["close"] for seed in offline)
    print("level: distance (m) at which a tenth of the curve's way, first to last, is left")
    print("ratio: gradient steps of online SQL to the level, over the curve's; inf: never")
    print(f"offline SQL ends within {result['close']} m of online SQL for {converged} of {len(offline)} seed(s)")
    for index, seed in enumerate(offline):
        print(f"  seed {index}: offline {seed['late']:.3f} m, online {seed['online_late']:.3f} m (last 3 points)")
    print("in the paper extraction takes orders of magnitude fewer steps than online SQL,")
    print("and offline SQL fails to converge")


def online_points(run: Path) -> list[list[int | float]]:
    """[gradient steps, mean distance (m)] at each evaluation in the course of a training."""
    training = Training()
    return [
        [training.updates_per_step * (step - training.warmup_steps), distance]
        for step, distance in curve_of(run, "distance") if step > training.warmup_steps
    ]  # fmt: skip


def compare(points: Sequence[Sequence[Any]], online: Sequence[Sequence[Any]]) -> dict[str, int | float | None]:
    """Where a curve ends, and the first step of both where a tenth of its way is left; None: online never is there."""
    level = points[-1][1] + CLOSELY * (points[0][1] - points[-1][1])
    mine, theirs = (next((point[0] for point in curve if point[1] <= level), None) for curve in (points, online))
    assert mine is not None  # its last point, if no other
    late, online_late = (float(np.mean([point[1] for point in curve[-3:]])) for curve in (points, online))
    return {
        "steps": points[-1][0], "end": points[-1][1], "late": late, "online_late": online_late, "level": level,
        "steps_to_level": mine, "online_steps_to_level": theirs, "ratio": None if theirs is None else theirs / mine,
    }  # fmt: skip


def log_spaced(last: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last step itself."""
    steps = (digit * 10**power for power in range(len(str(last))) for digit in (1, 2, 5))
    return [*(step for step in steps if step < last), last]


def measure(folder: Path, curve: str, seed: int, updates: int) -> None:
    """Write one curve: [gradient steps, mean distance (m), mean Q of a batch or null] at log-spaced steps."""
    study = Study(folder, 1, 1)  # for its paths only
    policies = _learned(study, seed, updates) if curve == OFFLINE else _extracted(study, curve, seed)
    points = []
    for step, skill, q in policies:
        result = evaluate(skill, CORNER, EPISODES, seed=10_000_000 + seed)  # the starts of online evaluations
        points.append([step, float(result.values("distance").mean()), q])
    path = _curve_file(study, curve, seed)
    path.parent.mkdir(exist_ok=True)
    store.write_json(path, {"curve": curve, "seed": seed, "points": points, "system": describe_system()})


def _extracted(study: Study, curve: str, seed: int) -> Iterator[tuple[int, Skill, None]]:
    algorithm = next(name for name, its in EXTRACTED.items() if its == curve)
    first, second = (load(study.run_of(case)) for case in _pair(algorithm, seed))
    # Randomness is numbered by step, so a short extraction is the beginning of a long one.
    for steps in log_spaced(Extraction().steps):
        yield steps, compose(first & second, extraction=Extraction(seed=seed, steps=steps)), None


def _learned(study: Study, seed: int, updates: int) -> Iterator[tuple[int, Skill, float]]:
    """SQL on the union of what its constituents have seen, with the rewards that the corner gives for it.

    Ends early if the training diverges.
    """
    skills = [load(study.run_of(case)) for case in _pair("sql", seed)]
    data = relabel(make_task(CORNER), unite_replays(skills))
    for step, state, figures in learn_from_log(SQL(planned_updates=updates), data, log_spaced(updates), seed=seed):
        if not all(map(np.isfinite, figures.values())):
            return
        policy = {"critic": as_network(state.critic), "sampler": as_network(state.sampler)}
        yield step, dataclasses.replace(skills[0], replay=None, **policy), figures["q"]


def _online(seed: int) -> Case:
    return Case("sql", CORNER, seed)


def _pair(algorithm: str, seed: int) -> tuple[Case, ...]:
    return tuple(Case(algorithm, task, seed) for task in CORNERS[CORNER])


def _curve_file(study: Study, curve: str, seed: int) -> Path:
    return study.folder / "curves" / f"{curve.replace(', ', '-').replace(' ', '-')}-s{seed}.json"


def _curve_job(study: Study, curve: str, seed: int) -> Job:
    training = Training(total_steps=study.total_steps)
    updates = training.updates_per_step * (training.total_steps - training.warmup_steps)
    file = _curve_file(study, curve, seed)
    algorithm = next((name for name, its in EXTRACTED.items() if its == curve), "sql")
    needs = tuple(study.training_job(case).file for case in _pair(algorithm, seed))
    return Job(file.stem, ("qompose.paper.fig3", str(study.folder), curve, str(seed), str(updates)), file, needs)


if __name__ == "__main__":
    folder, curve, seed, updates = sys.argv[1:]
    measure(Path(folder), curve, int(seed), int(updates))
