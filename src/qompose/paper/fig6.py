"""Fig. 6: stacking and avoiding a tower, composed from two skills that were learned apart; neither can do both.

`python -m qompose.paper.fig6 FOLDER POLICY SEED` is the process that measures one policy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.evaluation import evaluate
from qompose.paper import fig5
from qompose.paper.films import make_film
from qompose.paper.jobs import Job
from qompose.paper.study import EXTRACTION_STEPS, Case, Study, expert_means, figures_of, made_by
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.training.correct import Correction
from qompose.training.offline import Extraction, compose
from qompose.view.charts import draw_bars
from qompose.view.console import print_table

TASK, PARTS = "SawyerStackAvoid", ("SawyerStack", "SawyerAvoid")
EPISODES = 50
SEED = 2000  # and up: not the episodes on which weights and ways of acting were chosen
FIGURES = ("success", "seated", "collided", "distance", "length")
# In place at the last instant; touched at any; in place for the last 0.2 s and never touched.
SHARES = {"seated": "brick in place", "collided": "tower touched", "success": "held, untouched"}
# How each policy acts: the first is shown in the picture. Composed ones act on Q_Σ itself, with candidates from the
# samplers of both skills, unless they are `extracted`: a new sampler, learned from the replays alone. 1:3 gives three
# times the weight to avoiding; `corrected` takes the divergence correction off, and is extracted.
POLICIES = {
    "stack": ("sample", "best"), "avoid": ("sample", "best"), "composed": ("resample", "best"),
    "composed 1:3": ("resample", "best"), "extracted": ("best", "sample"), "extracted 1:3": ("best", "sample"),
    "corrected": ("best", "sample"),
}  # fmt: skip
FILMED = ("stack", "avoid", "composed 1:3")
# In the paper: 10 of 10 collide with stacking alone, none stacks with avoiding alone, composed 10 of 10 do both.
PAPER = {"stack": (0.0, 1.0), "avoid": (0.0, None), "composed": (1.0, 0.0)}


def reproduce(study: Study) -> dict[str, Any]:
    """Train both skills, compose them, try all at the tower; write fig6.json and a picture."""
    study.open(fig5.SETTINGS)
    apart = fig5.with_settings(study, "sql")
    seeds = range(study.seeds)
    trainings = [apart.training_job(Case("sql", task, seed)) for seed in seeds for task in PARTS]
    jobs = {(policy, seed): _job(study, policy, seed) for seed in seeds for policy in POLICIES}
    study.run_jobs("fig6", [*trainings, *jobs.values()])
    records = {key: store.read_json(job.file) for key, job in jobs.items()}
    rows = [
        {
            "policy": policy, "mode": mode,
            **{
                name: [float(np.mean(records[policy, seed][mode][name])) for seed in seeds]
                for name in FIGURES
            },
            "paper": PAPER.get(policy),
        }
        for policy, modes in POLICIES.items() for mode in modes
    ]  # fmt: skip
    picture = study.folder / "fig6_tower.png"
    shown = [row for row in rows if row["mode"] == POLICIES[row["policy"]][0]]
    expert = expert_means(TASK, *SHARES)
    draw_bars(
        picture,
        {
            title: {**{row["policy"]: row[name] for row in shown}, "scripted expert": [expert[name]]}
            for name, title in SHARES.items()
        },
        label="share of episodes",
    )
    result = {"rows": rows, "expert": expert, "episodes": EPISODES}
    path = study.write("fig6", result, made_by(records.values()))
    film = make_film(
        study.folder / "fig6_tower.mp4",
        lambda: [(make_policy(study, name, 0), TASK, {}, name) for name in FILMED],
        seed=SEED,
    )
    return {**result, **film, "picture": str(picture), "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """Shares of episodes, seed by seed."""
    print_table(
        f"at the tower, shares of {result['episodes']} episodes, each seed",
        ("policy", "acting", *SHARES.values()),
        [
            (
                row["policy"], row["mode"],
                *(" ".join(f"{share:.2f}" for share in row[name]) for name in SHARES),
            )
            for row in result["rows"]
        ],
    )  # fmt: skip
    print("in the paper, of 10 trials: stack hits it in 10, avoid stacks in 0, composed 10")


def make_policy(study: Study, policy: str, seed: int) -> Skill:
    """One of the two skills, or what is composed of them from their replays alone."""
    stack, avoid = (load(study.run_of(Case("sql", task, seed))) for task in PARTS)
    if policy in ("stack", "avoid"):
        return stack if policy == "stack" else avoid
    return compose(
        stack & (3.0 * avoid if policy.endswith("1:3") else avoid),
        extract=policy.startswith("extracted") or policy == "corrected", correct=policy == "corrected",
        extraction=Extraction(steps=EXTRACTION_STEPS, seed=seed), correction=Correction(seed=seed),
    )  # fmt: skip


def measure(study: Study, policy: str, seed: int) -> None:
    """Write how each episode at the tower ends."""
    skill = make_policy(study, policy, seed)
    record: dict[str, Any] = {"policy": policy, "seed": seed}
    for mode in POLICIES[policy]:
        result = evaluate(skill, TASK, EPISODES, mode=mode, seed=SEED + seed, options={})
        record[mode] = figures_of(result, *FIGURES)
    study.write_episodes(_file(study, policy, seed), record, [Case("sql", task, seed) for task in PARTS])


def _name(policy: str, seed: int) -> str:
    return f"tower-{policy.replace(' ', '-').replace(':', '-')}-s{seed}"


def _file(study: Study, policy: str, seed: int) -> Path:
    return study.folder / "episodes" / f"{_name(policy, seed)}.json"


def _job(study: Study, policy: str, seed: int) -> Job:
    command = ("qompose.paper.fig6", str(study.folder), policy, str(seed))
    needs = tuple(study.training_job(Case("sql", task, seed)).file for task in PARTS)
    return Job(_name(policy, seed), command, _file(study, policy, seed), needs)


if __name__ == "__main__":
    folder, name, number = sys.argv[1:]
    measure(Study(Path(folder), 1, 1), name, int(number))
