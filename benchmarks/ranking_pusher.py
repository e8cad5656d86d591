"""Does `explain` know which compositions of the pusher lose more? Certificates of twelve pairs against what they lose.

    python -m benchmarks.ranking_pusher [--seed 0] [--total-steps 60000] [--study reproduce]

Every pair of the four lines at equal weights (three corners, three that cannot both be had) and six in which the second
is avoided. What a pair loses: the soft return of a skill trained on Σ w_i r_i, less that of the Boltzmann policy of
Σ w_i Q_i, over episodes from the same starts. Two such skills are trained, from scratch and, for half of the steps,
from the composition; the better one counts. `--study` is an output directory of `qompose reproduce`: trainings that are
there already are used. Writes results/ranking_pusher.json and docs/ranking_pusher.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

import qompose as qp
from benchmarks.machine import RESULTS, write_results
from qompose.envs.lockstep import Lockstep
from qompose.evaluation import LANES
from qompose.explanation import explain
from qompose.paper.jobs import Job
from qompose.paper.study import CONSTITUENTS, CORNERS, EPISODES, Case, Study
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.skill.expression import Expression, from_weights
from qompose.store import read_json, write_json
from qompose.tasks import TASKS, make_task
from qompose.tasks.pusher import Pusher
from qompose.tasks.task import Array, Readings
from qompose.training.session import SKILL
from qompose.view.console import print_table
from qompose.view.pictures import INK, make_figure

AVOIDED = (
    ("PushBottom", "PushLeft"), ("PushBottom", "PushRight"), ("PushLeft", "PushBottom"), ("PushRight", "PushBottom"),
    ("PushMiddle", "PushLeft"), ("PushLeft", "PushRight"),
)  # fmt: skip
WEIGHTS = {"together": (0.5, 0.5), "avoided": (1.0, -0.5)}
PAIRS = (
    *((names, WEIGHTS["together"]) for names in itertools.combinations(CONSTITUENTS, 2)),
    *((names, WEIGHTS["avoided"]) for names in AVOIDED),
)
PICTURE = RESULTS.parent / "docs" / "ranking_pusher.png"
BAR = 0.8
FIGURES = ("regret", "theorem", "divergence")  # of an explanation, by which pairs may be ordered


@dataclasses.dataclass(frozen=True)
class PushSum(Pusher):
    """The pusher under a weighted sum of the rewards of the lines; its goal is only that of the picture."""

    goal_x: float | None = 0.0
    PushLeft: float = 0.0
    PushMiddle: float = 0.0
    PushRight: float = 0.0
    PushBottom: float = 0.0

    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return Σ w_i r_i and its terms, one for each line of a weight that is not 0."""
        weights = {name: getattr(self, name) for name in CONSTITUENTS if getattr(self, name)}
        terms = {name: w * make_task(name).reward(before, action, after)[0] for name, w in weights.items()}
        return sum(terms.values()), terms


SUM = "PushSum"
BEGINS = ("from scratch", "from the sum")  # the two trainings on a sum of rewards


def name_of(index: int) -> str:
    """A word for files: what is in the sum, and how."""
    (first, second), weights = PAIRS[index]
    return f"{first}-{'without' if min(weights) < 0.0 else 'and'}-{second}".replace("Push", "").lower()


def options_of(index: int) -> dict[str, Any]:
    names, weights = PAIRS[index]
    return dict(zip(names, weights, strict=True))


def corner_of(index: int) -> str | None:
    """The task of the package that has the same reward, if there is one."""
    return next((corner for corner, parts in CORNERS.items() if PAIRS[index] == (parts, WEIGHTS["together"])), None)


def training_job(study: Study, index: int, seed: int, begin: str) -> Job:
    """Train on the sum of the rewards, from one of `BEGINS`; of a corner, that from scratch is shared with Table I."""
    corner = corner_of(index)
    if corner is not None and begin == BEGINS[0]:
        return study.training_job(Case("sql", corner, seed))
    run = study.folder / "pairs" / f"{name_of(index)}-s{seed}{'' if begin == BEGINS[0] else '-further'}"
    words = command_of(study, "--train", index, seed, begin)
    return Job(run.name, words, run / SKILL / "manifest.json", run=run, total_steps=steps_of(study, begin))


def steps_of(study: Study, begin: str) -> int:
    """A training that begins with the sum has half of the steps."""
    return study.total_steps // (1 if begin == BEGINS[0] else 2)


def command_of(study: Study, what: str, index: int, seed: int, *more: str) -> tuple[str, ...]:
    words = ("--study", study.folder, "--total-steps", study.total_steps, "--seed", seed, what, index, *more)
    return ("benchmarks.ranking_pusher", *map(str, words))


def expression_of(study: Study, index: int, seed: int) -> Expression:
    names, weights = PAIRS[index]
    skills = (load(study.run_of(Case("sql", name, seed))) for name in names)
    return from_weights(dict(zip(skills, weights, strict=True)))


def train(study: Study, index: int, seed: int, begin: str) -> None:
    """As the lines were trained, at the temperature of the sum; begun with the sum it has the experience of both."""
    further = begin != BEGINS[0]
    composed = qp.compose(
        expression_of(study, index, seed), name="sum", extract=further, options=qp.Extraction(seed=seed)
    )
    qp.train(
        SUM, options=options_of(index), temperature=composed.temperature, start=composed if further else None,
        seed=seed, eval_freq=0, total_steps=steps_of(study, begin), resume=True, track=False,
        output_dir=training_job(study, index, seed, begin).run,
    )  # fmt: skip


def soft_returns(skill: Skill, options: dict[str, float], seed: int) -> np.ndarray:
    """Σ γ^t (r + V − Q) of every episode: V − Q is −α log π of the action that the policy took. In reward units."""
    env, rng = Lockstep.make(SUM, LANES, options), np.random.default_rng(seed)
    totals = []
    try:
        for block in range(EPISODES // LANES):
            observations, total = env.reset(1000 + seed * EPISODES + block), np.zeros(LANES)
            for step in range(env.horizon or 0):
                actions = skill.act(observations, mode="resample", rng=rng)
                entropy = skill.value(observations, rng=rng) - skill.q(observations, actions)
                result = env.step(actions)
                total += skill.discount**step * (result.reward + entropy)
                observations = result.current
            totals.append(total)
    finally:
        env.close()
    return np.concatenate(totals)


def certify(study: Study, index: int, seed: int) -> dict[str, Any]:
    """What `explain` says of a pair."""
    begin = time.perf_counter()
    found = explain(expression_of(study, index, seed)).summary()
    return {"explanation": found, "seconds": time.perf_counter() - begin, "system": describe_system()}


def measure(study: Study, index: int, seed: int) -> dict[str, Any]:
    """What the sum loses against the better of the two trainings, beside the certificate."""
    composed = qp.compose(expression_of(study, index, seed), name="sum", extract=False)
    own = soft_returns(composed, options_of(index), seed)
    trained = {
        begin: soft_returns(load(training_job(study, index, seed, begin).file.parent), options_of(index), seed)
        for begin in BEGINS
    }
    better = max(trained, key=lambda begin: trained[begin].mean())
    loss = trained[better] - own
    return {
        "pair": name_of(index), "names": PAIRS[index][0], "weights": PAIRS[index][1],
        "loss": float(loss.mean()), "standard_error": float(loss.std(ddof=1) / len(loss) ** 0.5),
        "soft_return": {name: float(total.mean()) for name, total in {"sum": own, **trained}.items()},
        "better": better, **read_json(certifying_job(study, index, seed).file),
        "trained_by": [read_json(run / "system.json") for run in runs_of(study, index, seed)],
    }  # fmt: skip


def runs_of(study: Study, index: int, seed: int) -> list[Path]:
    """The two lines first."""
    return [*(study.run_of(Case("sql", name, seed)) for name in PAIRS[index][0]),
            *(training_job(study, index, seed, begin).file.parent.parent for begin in BEGINS)]  # fmt: skip


def certifying_job(study: Study, index: int, seed: int) -> Job:
    file = study.folder / "pairs" / f"{name_of(index)}-s{seed}-certificate.json"
    return Job(file.stem, command_of(study, "--certify", index, seed), file, skills_in(runs_of(study, index, seed)[:2]))


def measuring_job(study: Study, index: int, seed: int) -> Job:
    file = study.folder / "pairs" / f"{name_of(index)}-s{seed}.json"
    needs = (*skills_in(runs_of(study, index, seed)), certifying_job(study, index, seed).file)
    return Job(f"{file.stem}-measured", command_of(study, "--measure", index, seed), file, needs)


def skills_in(runs: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(run / SKILL / "manifest.json" for run in runs)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the orders by what `explain` says agree with that by the loss; `rows` as `measure` gives them."""

    def agreement(name: str, among: list[dict[str, Any]]) -> float:
        ranks = [
            rankdata([row["loss"] for row in among]),
            rankdata([row["explanation"][name]["mean"] for row in among]),
        ]
        return float(np.corrcoef(ranks)[0, 1])

    # Where both trainings end worse than the sum, what it loses is not known.
    known = [row for row in rows if row["loss"] > 0.0]
    kinds = {kind: [row for row in rows if (min(row["weights"]) < 0.0) == (kind == "avoided")] for kind in WEIGHTS}
    return {
        "spearman": agreement("regret", rows), "pairs": len(rows), "bar": BAR,
        "within": {kind: agreement("regret", some) for kind, some in kinds.items() if len(some) > 1},
        "by": {name: agreement(name, rows) for name in FIGURES}, "known": [row["pair"] for row in known],
        "by_of_known": {name: agreement(name, known) for name in FIGURES},
        "intervals_that_hold": sum(
            row["explanation"]["regret"]["low"] <= row["loss"] <= row["explanation"]["regret"]["high"] for row in known
        ),
    }  # fmt: skip


def draw(path: Path, rows: list[dict[str, Any]], spearman: float) -> None:
    """Certificate against loss; a point and its intervals for each pair."""
    figure = make_figure(7.2, 5.4)
    axes = figure.subplots()
    for row in rows:
        avoided, found = min(row["weights"]) < 0.0, row["explanation"]["regret"]
        axes.errorbar(
            row["loss"], found["mean"], xerr=1.96 * row["standard_error"],
            yerr=[[found["mean"] - found["low"]], [found["high"] - found["mean"]]], color="C1" if avoided else "C0",
            marker="s" if avoided else "o", markersize=5, linewidth=0.9,
        )  # fmt: skip
        axes.annotate(row["pair"].replace("-", " "), (row["loss"], found["mean"]), (5, 4), textcoords="offset points",
                      fontsize=8, color=INK)  # fmt: skip
    axes.set(xlabel="soft return lost against training on the sum", ylabel="regret that explain expects")
    axes.axvline(0.0, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set_title(f"twelve pairs of the pusher: Spearman {spearman:.2f}", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8e8e5", linewidth=0.8)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    for what in ("--certify", "--measure"):
        parser.add_argument(what, type=int, metavar="PAIR", help="only do this, for the parent process")
    parser.add_argument("--train", nargs=2, metavar=("PAIR", "BEGIN"), help="only train, for the parent process")
    arguments = parser.parse_args()
    TASKS[SUM] = functools.partial(PushSum, SUM)  # known to this process alone
    study, seed = Study(arguments.study, 1, arguments.total_steps), arguments.seed
    study.open()
    (study.folder / "pairs").mkdir(exist_ok=True)
    if arguments.train is not None:
        train(study, int(arguments.train[0]), seed, arguments.train[1])
        return
    for index, make, job_of in (
        (arguments.certify, certify, certifying_job), (arguments.measure, measure, measuring_job),
    ):  # fmt: skip
        if index is not None:
            write_json(job_of(study, index, seed).file, make(study, index, seed))
            return
    lines = [study.training_job(Case("sql", name, seed)) for name in CONSTITUENTS]
    pairs = range(len(PAIRS))
    references = [
        dataclasses.replace(training_job(study, index, seed, begin), needs=tuple(job.file for job in lines))
        for begin in BEGINS for index in pairs
    ]  # fmt: skip
    certifying = [certifying_job(study, index, seed) for index in pairs]
    measuring = [measuring_job(study, index, seed) for index in pairs]
    study.run_jobs("ranking", [*lines, *references, *certifying, *measuring])
    rows = [read_json(job.file) for job in measuring]
    result = {**summarise(rows), "episodes": EPISODES, "rows": rows}
    command = f"python -m benchmarks.ranking_pusher --seed {seed} --total-steps {arguments.total_steps}"
    write_results("ranking_pusher", result, command=command, seed=seed)
    draw(PICTURE, rows, result["spearman"])
    print_table(
        f"what sums of the pusher lose: Spearman {result['spearman']:.2f} (bar {BAR})",
        ("pair", "lost", "certificate", "verdict"),
        [
            (row["pair"], f"{row['loss']:.2f} ± {1.96 * row['standard_error']:.2f}",
             "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**row["explanation"]["regret"]), row["explanation"]["verdict"])
            for row in sorted(rows, key=lambda row: row["loss"])
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
