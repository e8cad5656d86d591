"""The learned part of the benchmark of composition: nine operators on a point among peaks, and on the pusher.

Every skill and every reference is trained; an operator acts on its composed Q directly, so that no extraction blurs the
comparison. `python -m qompose.paper.operators FOLDER PROBLEM SEED` is the process that measures one problem.
"""

from __future__ import annotations

import functools
import json
import operator
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from qompose import store
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.evaluation import LANES, evaluate
from qompose.paper.jobs import Job
from qompose.paper.study import CONSTITUENTS, CORNERS, EPISODES, Case, Study
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.skill.expression import Expression, gpi, prefer
from qompose.training.correct import Correction
from qompose.training.offline import compose
from qompose.training.session import SKILL, skill_name
from qompose.view.charts import draw_comparison
from qompose.view.console import print_table

POINT_STEPS = 8_000
SETTINGS = ("--discount", "0.95", "--hidden", "64", "64", "--updates-per-step", "1", "--eval-freq", "0")
NEAR = (0.0, -3.0, 0.8)  # what all tolerate
# Skills of the point: name -> peaks and temperature.
POINTS = {
    "left": ((NEAR, (-3.5, 3.0, 1.0)), 0.1),
    "right": ((NEAR, (3.5, 3.0, 1.0)), 0.1),
    "top": ((NEAR, (0.0, 5.0, 1.0)), 0.1),
    "cool right": ((NEAR, (3.5, 3.0, 1.0)), 0.03),
    "west": (((-4.0, 0.0, 1.0),), 0.1),
    "east": (((4.0, 0.0, 1.0),), 0.1),
    "lower": (((-4.0, -3.0, 1.0), (4.0, -3.0, 1.0)), 0.1),
    "eastern": (((4.0, -3.0, 1.0), (4.0, 3.0, 1.0)), 0.1),
}
# Name -> skills of the point, whose reference is trained on the sum of their tasks. `CORNERS` are those of the pusher.
PROBLEMS: dict[str, tuple[str, ...]] = {
    "fit together": ("lower", "eastern"),
    "modes": ("left", "right"),
    "modes, unequal temperatures": ("left", "cool right"),
    "modes, three skills": ("left", "right", "top"),
    "opposite": ("west", "east"),
}
FIGURES = ("return", "success", "distance")
OPERATORS = (
    "mean", "half-corrected", "corrected", "corrected, residuals", "or", "gpi", "prefer", "constituents",
    "from scratch",
)  # fmt: skip
SLACK = 0.5


def composed_peaks(problem: str) -> tuple[tuple[tuple[float, float, float], ...], float]:
    """Peaks of the composed task, heights divided by the number of skills, and the mean of the temperatures."""
    parts = [POINTS[name] for name in PROBLEMS[problem]]
    heights: dict[tuple[float, float], float] = {}
    for peaks, _ in parts:
        for x, y, height in peaks:
            heights[x, y] = heights.get((x, y), 0.0) + height / len(parts)
    temperature = sum(temperature for _, temperature in parts) / len(parts)
    return tuple((x, y, round(height, 6)) for (x, y), height in heights.items()), round(temperature, 6)


def training_job(study: Study, name: str, seed: int) -> Job:
    """Train a skill, or, for the name of a problem, its reference. Those of the pusher are shared with Table I."""
    if name in CONSTITUENTS or name in CORNERS:
        return study.training_job(Case("sql", name, seed))
    peaks, temperature = POINTS[name] if name in POINTS else composed_peaks(name)
    slug, total_steps = f"point-{_slug(name)}", min(POINT_STEPS, study.total_steps)
    run = study.folder / "runs" / f"{slug}-s{seed}"
    command = (
        *("qompose", "train", "--env", "Peaks", "--env-option", f"peaks={json.dumps(peaks)}", "--name", slug),
        *("--temperature", str(temperature), "--seed", str(seed), "--total-steps", str(total_steps), "--resume"),
        *("--track", "none", "--progress", "none", "--output-dir", str(run)), *SETTINGS,
    )  # fmt: skip
    return Job(f"{slug}-s{seed}", command, run / SKILL / "manifest.json", run=run, total_steps=total_steps)


def measuring_job(study: Study, problem: str, seed: int) -> Job:
    """Compose in every way and run the episodes."""
    needs = tuple(training_job(study, name, seed).file for name in (*_parts(problem), problem))
    file = study.folder / "operators" / f"{_slug(problem)}-s{seed}.json"
    command = ("qompose.paper.operators", str(study.folder), problem, str(seed))
    return Job(f"{file.stem}-operators", command, file, needs)


def _parts(problem: str) -> tuple[str, ...]:
    return CORNERS[problem] if problem in CORNERS else PROBLEMS[problem]


def _slug(name: str) -> str:
    return skill_name(name) if name in CORNERS else name.replace(",", "").replace(" ", "-")


def measure(study: Study, problem: str, seed: int) -> dict[str, Any]:
    """Every operator's figures on the composed task, means over the episodes; None where it is refused."""
    parts, reference = (
        [load(training_job(study, name, seed).file.parent) for name in names] for names in (_parts(problem), (problem,))
    )
    task, options = (problem, {}) if problem in CORNERS else ("Peaks", {"peaks": composed_peaks(problem)[0]})
    correction, total = Correction(seed=seed), functools.reduce(operator.and_, parts)
    mean = compose(total, name="mean", extract=False)
    corrected, with_residuals = (
        compose(total, name="corrected", extract=False, correct=True, correction=how)
        for how in (correction, replace(correction, residuals=True))
    )
    made: dict[str, list[Skill]] = {
        "mean": [mean],
        "half-corrected": [compose(mean & corrected, name="half", extract=False)],  # Σ w_i Q_i − C/2
        "corrected": [corrected],
        "corrected, residuals": [with_residuals],
        "gpi": [compose(gpi(total), name="gpi", extract=False, correction=correction)],
        "prefer": [compose(functools.reduce(_prefer, parts[::-1]), name="prefer", extract=False)],
        "constituents": parts,
        "from scratch": reference,
    }
    if len({part.temperature for part in parts}) == 1:  # else an `|` has no temperature
        made["or"] = [compose(functools.reduce(operator.or_, parts), name="or", extract=False)]

    def run(skill: Skill) -> dict[str, float]:
        found = evaluate(skill, task, EPISODES, mode="resample", seed=1000 + seed, options=options)
        return {figure: float(found.values(figure).mean()) for figure in FIGURES}

    figures = {}
    for name in OPERATORS:
        each = [run(skill) for skill in made.get(name, [])]
        figures[name] = {figure: float(np.mean([one[figure] for one in each])) for figure in FIGURES} if each else None
    return {"problem": problem, "seed": seed, "figures": figures, "uniform": _uniform_return(task, options, seed),
            "system": describe_system()}  # fmt: skip


def _prefer(low: Expression, high: Expression) -> Expression:
    return prefer(high, low, slack=SLACK)


def _uniform_return(task: str, options: dict[str, Any], seed: int) -> float:
    """Mean return of the uniform policy: what an operator can lose."""
    env, rng = Lockstep.make(task, LANES, options), np.random.default_rng(seed)
    try:
        size = env.action_size
        policy = lambda observations, step: rng.uniform(-1.0, 1.0, (len(observations), size))  # noqa: E731
        episodes = run_episodes(policy, env, EPISODES, seed=1000 + seed)
        return float(np.mean([episode["return"] for episode in episodes]))
    finally:
        env.close()


def reproduce(study: Study, problems: Sequence[str], picture: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train and measure everything; return the rows, a figure for each problem and operator, and what made them."""
    seeds = range(study.seeds)
    measuring = [measuring_job(study, problem, seed) for seed in seeds for problem in problems]
    names = dict.fromkeys(name for problem in problems for name in (*_parts(problem), problem))
    # A training whose every problem is measured need not be there.
    missing = {need for job in measuring if not job.file.exists() for need in job.needs}
    training = [training_job(study, name, seed) for seed in seeds for name in names]
    study.run_jobs("operators", [*(job for job in training if job.file in missing), *measuring])
    records = [store.read_json(job.file) for job in measuring]
    rows = [
        summarise(problem, name, [record for record in records if record["problem"] == problem])
        for problem in problems for name in OPERATORS
    ]  # fmt: skip
    _draw(picture, rows, study.seeds)
    return {"rows": rows, "episodes": EPISODES}, [record["system"] for record in records]


def _draw(path: Path, rows: Sequence[dict[str, Any]], seeds: int) -> None:
    def figure(row: dict[str, Any], name: str) -> tuple[float, float]:
        found = row[name] or {"mean": float("nan"), "half": None}  # refused
        return found["mean"], found["half"] or 0.0

    panels: dict[str, list[Any]] = {}
    for row in rows:
        panels.setdefault(row["problem"], []).append((row["operator"], figure(row, "loss"), figure(row, "success")))
    names = ("lost, as a share of what the uniform policy loses", "success")
    draw_comparison(path, panels, names=names, label=f"mean of {seeds} seed(s), 95 % interval")


def print_report(learned: dict[str, Any]) -> None:
    """A table for each problem, a line for each operator."""
    for problem in dict.fromkeys(row["problem"] for row in learned["rows"]):
        print_table(
            f"{problem}: learned skills, {learned['episodes']} episodes of each seed",
            ("operator", "return lost", "success", "distance"),
            [
                (row["operator"], *(spell(row[name]) for name in ("loss", "success", "distance")))
                for row in learned["rows"] if row["problem"] == problem
            ],
        )  # fmt: skip
    print("return lost: against training from scratch, as a share of what the uniform policy loses; ± 95 %")


def spell(found: dict[str, Any] | None) -> str:
    """A mean and half of its interval, for people."""
    if found is None:
        return "-"
    return f"{found['mean']:.2f}" + ("" if found["half"] is None else f" ± {found['half']:.2f}")


def summarise(problem: str, name: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Loss and further figures of an operator over the seeds, each with half of its 95 % interval by Student's t.

    loss: what its return falls short of that of the skill from scratch, as a share of what the uniform policy's does.
    """
    found = [record["figures"][name] for record in records]
    if any(figures is None for figures in found):
        return {"problem": problem, "operator": name, **dict.fromkeys(("loss", *FIGURES))}
    best = [record["figures"]["from scratch"]["return"] for record in records]
    floor = [record["uniform"] for record in records]
    values = {"loss": [(b - figures["return"]) / (b - f) for figures, b, f in zip(found, best, floor, strict=True)]}
    values |= {figure: [figures[figure] for figures in found] for figure in FIGURES}
    row = {figure: {**interval_of(each), "seeds": [round(x, 5) for x in each]} for figure, each in values.items()}
    return {"problem": problem, "operator": name, **row}


def interval_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, and half of its 95 % interval by Student's t; None for one value."""
    count = len(values)
    half = float(stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / count**0.5) if count > 1 else None
    return {"mean": float(np.mean(values)), "half": half}


if __name__ == "__main__":
    study, problem, seed = Study(Path(sys.argv[1]), 1, POINT_STEPS), sys.argv[2], int(sys.argv[3])
    record, path = measure(study, problem, seed), measuring_job(study, problem, seed).file
    path.parent.mkdir(exist_ok=True)
    store.write_json(path, record)
