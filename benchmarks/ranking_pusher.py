"""Does `explain` know which compositions of the pusher lose more? Certificates of twelve pairs against what they lose.

    python -m benchmarks.ranking_pusher [--seeds 3] [--reference 0] [--total-steps 60000] [--steps 8000]
        [--study reproduce] [--extend]

Every pair of the four lines at equal weights (three corners, three that cannot both be had) and six in which the second
is avoided; lines of several seeds. What a pair loses: the soft return of a skill trained on Σ w_i r_i, less that of the
Boltzmann policy of Σ w_i Q_i, over episodes from the same starts. Two such skills are trained, from scratch and, for
half of the steps, from the composition of the lines of one seed (`--reference`); the better one counts, for the lines
of all seeds. Certificates as they are, and with the critics' Bellman residuals taken off. `--study` is an output
directory of `qompose reproduce`: trainings that are there already are used. `--extend` keeps what the results hold and
adds seeds to it. Writes results/ranking_pusher.json and docs/ranking_pusher.png.
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
from scipy.stats import spearmanr

import qompose as qp
from benchmarks.machine import RESULTS, read_results, write_results
from qompose.envs.lockstep import Lockstep
from qompose.evaluation import LANES
from qompose.explanation import SMALL_REGRET, Interval, explain, judge
from qompose.paper.jobs import Job
from qompose.paper.study import CONSTITUENTS, CORNERS, EPISODES, Case, Study, each_once, made_by
from qompose.run import describe_system
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.skill.expression import Expression, from_weights
from qompose.store import read_json, write_json
from qompose.tasks import TASKS, make_task
from qompose.tasks.pusher import Pusher
from qompose.tasks.task import Array, Readings
from qompose.training.session import SKILL
from qompose.types import QomposeError
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
OTHERS = ("theorem", "divergence")  # figures of an explanation by which pairs may be ordered, too


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
WAYS = PLAIN, RESIDUALS = "as they are", "residuals taken off"  # of a certificate
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


def command_of(study: Study, what: str, *words: Any) -> tuple[str, ...]:
    shared = ("--study", study.folder, "--total-steps", study.total_steps)
    return ("benchmarks.ranking_pusher", *map(str, (*shared, what, *words)))


def expression_of(study: Study, index: int, seed: int) -> Expression:
    names, weights = PAIRS[index]
    skills = (load(study.run_of(Case("sql", name, seed))) for name in names)
    return from_weights(dict(zip(skills, weights, strict=True)))


def train(study: Study, index: int, seed: int, begin: str) -> None:
    """As the lines were trained, at the temperature of the sum; begun with the sum it has the experience of both."""
    further = begin != BEGINS[0]
    composed = qp.compose(
        expression_of(study, index, seed), name="sum", extract=further, extraction=qp.Extraction(seed=seed)
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


def certify(study: Study, index: int, seed: int, way: str, steps: int) -> None:
    """What `explain` says of a pair, learned from the seed of its lines."""
    begin = time.perf_counter()
    options = qp.Correction(steps=steps, residuals=way == RESIDUALS, seed=seed)
    found = explain(expression_of(study, index, seed), correction=options).summary()
    record = {"explanation": found, "seconds": time.perf_counter() - begin, "system": describe_system()}
    write_json(certificate_of(study, index, seed, way, steps), record)


def measure(study: Study, index: int, reference: int, seed: int | None = None) -> None:
    """Mean soft return of the sum of the lines of a seed or, without one, of the two trainings; from the same starts.

    Those are of the seed of the reference.
    """
    if seed is None:
        runs = trainings_of(study, index, reference)
        skills = {begin: load(run) for begin, run in zip(BEGINS, runs, strict=True)}
        runs += lines_of(study, index, reference)  # with which one of the trainings began
    else:
        runs = lines_of(study, index, seed)
        skills = {"sum": qp.compose(expression_of(study, index, seed), name="sum", extract=False)}
    returns = {name: float(soft_returns(skill, options_of(index), reference).mean()) for name, skill in skills.items()}
    trained_by = [read_json(run / "system.json") for run in runs]
    write_json(
        returns_of(study, index, reference, seed),
        {"soft_return": returns, "trained_by": trained_by, "system": describe_system()},
    )


def lines_of(study: Study, index: int, seed: int) -> list[Path]:
    return [study.run_of(Case("sql", name, seed)) for name in PAIRS[index][0]]


def trainings_of(study: Study, index: int, seed: int) -> list[Path]:
    return [training_job(study, index, seed, begin).file.parent.parent for begin in BEGINS]


def certificate_of(study: Study, index: int, seed: int, way: str, steps: int) -> Path:
    return study.folder / "pairs" / f"{name_of(index)}-s{seed}-{way.replace(' ', '-')}-{steps}.json"


def returns_of(study: Study, index: int, reference: int, seed: int | None = None) -> Path:
    """Of the two trainings of a seed, or of the sum of the lines of another one beside them."""
    return study.folder / "pairs" / f"{name_of(index)}-r{reference}{'' if seed is None else f'-s{seed}'}.json"


def certifying_job(study: Study, index: int, seed: int, way: str, steps: int) -> Job:
    file = certificate_of(study, index, seed, way, steps)
    words = command_of(study, "--certify", index, seed, way, steps)
    return Job(file.stem, words, file, skills_in(lines_of(study, index, seed)))


def measuring_job(study: Study, index: int, reference: int, seed: int | None = None) -> Job:
    file = returns_of(study, index, reference, seed)
    runs = trainings_of(study, index, reference) if seed is None else lines_of(study, index, seed)
    words = command_of(study, "--measure", index, reference, *([] if seed is None else [seed]))
    return Job(f"{file.stem}-measured", words, file, skills_in(runs))


def skills_in(runs: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(run / SKILL / "manifest.json" for run in runs)


def gather(study: Study, index: int, reference: int, seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """What a pair loses, seed by seed, beside what `explain` says."""
    trained = read_json(returns_of(study, index, reference))
    sums = [read_json(returns_of(study, index, reference, seed)) for seed in seeds]
    better = max(BEGINS, key=lambda begin: trained["soft_return"][begin])
    said = {way: [read_json(certificate_of(study, index, seed, way, steps)) for seed in seeds] for way in WAYS}
    return {
        "pair": name_of(index), "names": PAIRS[index][0], "weights": PAIRS[index][1], "better": better,
        "soft_return": {**trained["soft_return"], "sums": [record["soft_return"]["sum"] for record in sums]},
        "loss": [trained["soft_return"][better] - record["soft_return"]["sum"] for record in sums],
        "explanations": {way: [judged(record["explanation"]) for record in records] for way, records in said.items()},
        "seconds": {way: [record["seconds"] for record in records] for way, records in said.items()},
        "made_by": [
            *made_by([trained, *sums]), *(record["system"] for records in said.values() for record in records)
        ],
    }  # fmt: skip


def judged(said: dict[str, Any]) -> dict[str, Any]:
    """An explanation with the verdict of today's rules of thumb: they may change after it was learned."""
    random = said["random"]
    if not isinstance(random, dict):  # once it had no interval
        random = dict.fromkeys(("mean", "low", "high"), random)
    figures = {"regret": Interval(**said["regret"]), "random": Interval(**random), "doubt": said["doubt"]}
    coverage = {pair: Interval(**share) for pair, share in said["coverage"].items()}
    weights, alpha = said["weights"], said["temperature"] / sum(said["weights"])  # that of every line
    total = sum(abs(w) * alpha * rms for w, rms in zip(weights, said["residual"].values(), strict=True))
    own_errors = total / (1.0 - said["discount"])
    verdict, reason = judge(figures, coverage, own_errors, said["residuals"], avoided=min(weights) < 0.0)
    return {**said, "random": random, "own_errors": own_errors, "verdict": verdict, "reason": reason}


def restore(study: Study, held: dict[str, Any], reference: int, steps: int) -> int:
    """Put what a file of results holds where `gather` looks, and return of how many seeds.

    Which machine made which is no longer known: every record of the reference says all that took part. Raises
    QomposeError if the file is of another reference, or of other steps.
    """
    result, words = held["result"], held["command"].split()
    wanted = {"--reference": reference, "--total-steps": study.total_steps, "--steps": steps}
    for flag, value in wanted.items():
        if (found := words[words.index(flag) + 1]) != str(value):
            raise QomposeError(f"the results are of {flag} {found}, not {value}: they cannot be extended")
    for index, row in enumerate(result["rows"]):
        returns = dict(row["soft_return"])
        made = {"trained_by": result["runs_made_by"], "system": result["runs_made_by"][0]}
        files: dict[Path, Any] = {}
        for seed, value in enumerate(returns.pop("sums")):
            files[returns_of(study, index, reference, seed)] = {"soft_return": {"sum": value}, **made}
        files[returns_of(study, index, reference)] = {"soft_return": returns, **made}
        for way in WAYS:
            for seed, (said, seconds) in enumerate(zip(row["explanations"][way], row["seconds"][way], strict=True)):
                record = {"explanation": said, "seconds": seconds, "system": made["system"]}
                files[certificate_of(study, index, seed, way, steps)] = record
        for file, record in files.items():
            if not file.exists():
                write_json(file, record)
    return len(held["seed"])


def loss_of(row: dict[str, Any]) -> float:
    return float(np.mean(row["loss"]))


def said_of(row: dict[str, Any], way: str, name: str) -> float:
    """A figure of an explanation, as the mean over the seeds."""
    return float(np.mean([said[name]["mean"] for said in row["explanations"][way]]))


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the orders by what `explain` says agree with that by the loss; `rows` as `gather` gives them."""

    def agreement(among: list[dict[str, Any]], way: str, name: str = "regret", seed: int | None = None) -> float | None:
        """Spearman's coefficient of the means over the seeds, or of one seed; None of fewer than two pairs."""
        if len(among) < 2:
            return None
        pairs = [
            (loss_of(row), said_of(row, way, name)) if seed is None
            else (row["loss"][seed], row["explanations"][way][seed][name]["mean"])
            for row in among
        ]  # fmt: skip
        return float(spearmanr(np.array(pairs))[0])

    # Where both trainings end worse than the sum, what it loses is not known.
    known = [row for row in rows if loss_of(row) > 0.0]
    kinds = {kind: [row for row in rows if (min(row["weights"]) < 0.0) == (kind == "avoided")] for kind in WEIGHTS}
    ways = {}
    for way in WAYS:
        cases = [
            (loss, said["regret"])
            for row in rows for loss, said in zip(row["loss"], row["explanations"][way], strict=True) if loss > 0.0
        ]  # fmt: skip
        ways[way] = {
            "spearman": agreement(rows, way),
            "seeds": [agreement(rows, way, seed=seed) for seed in range(len(rows[0]["loss"]))],
            "within": {kind: agreement(some, way) for kind, some in kinds.items()}, "of_known": agreement(known, way),
            "intervals_that_hold": sum(said["low"] <= loss <= said["high"] for loss, said in cases),
            "intervals": len(cases),
            "verdicts": count_verdicts(rows, way),
        }  # fmt: skip
    others = {name: agreement(rows, PLAIN, name) for name in OTHERS}
    return {"pairs": len(rows), "bar": BAR, "known": [row["pair"] for row in known], "ways": ways, "others": others}


def count_verdicts(rows: list[dict[str, Any]], way: str) -> dict[str, dict[str, int]]:
    """How often each verdict was given, and how often the sum lost little then, by the rule of thumb itself."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        for loss, said in zip(row["loss"], row["explanations"][way], strict=True):
            counts = found.setdefault(said["verdict"], {"given": 0, "lost_little": 0})
            counts["given"] += 1
            counts["lost_little"] += loss <= SMALL_REGRET * said["random"]["mean"]
    return found


def draw(path: Path, rows: list[dict[str, Any]], ways: dict[str, Any]) -> None:
    """Certificate against loss; a numbered point for each pair, the mean over the seeds, and its range."""
    figure = make_figure(14.5, 5.4)
    rows = sorted(rows, key=loss_of)
    for axes, way in zip(figure.subplots(1, len(WAYS)), WAYS, strict=True):
        for number, row in enumerate(rows, 1):
            avoided, x, y = min(row["weights"]) < 0.0, loss_of(row), said_of(row, way, "regret")
            said = [explanation["regret"]["mean"] for explanation in row["explanations"][way]]
            axes.errorbar(
                x, y, xerr=[[x - min(row["loss"])], [max(row["loss"]) - x]], yerr=[[y - min(said)], [max(said) - y]],
                color="C1" if avoided else "C0", marker="s" if avoided else "o", markersize=5, linewidth=0.9,
                label=f"{number}  {row['pair'].replace('-', ' ')}",
            )  # fmt: skip
            axes.annotate(f"{number}", (x, y), (5, 4), textcoords="offset points", fontsize=9, color=INK)
        axes.set(xlabel="soft return lost against training on the sum", ylabel="regret that explain expects")
        axes.axvline(0.0, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set_title(f"{way}: Spearman {ways[way]['spearman']:.2f}", fontsize=11, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e5", linewidth=0.8)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="of the lines")
    parser.add_argument("--reference", type=int, default=0, metavar="SEED", help="of the trainings on the sum")
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=8000, help="of explain")
    parser.add_argument("--study", type=Path, default=Path("reproduce"))
    parser.add_argument("--extend", action="store_true", help="keep what results/ holds, add the other seeds")
    for what in ("--certify", "--measure", "--train"):
        parser.add_argument(what, nargs="+", metavar=("PAIR", "MORE"), help="only do this, for the parent process")
    arguments = parser.parse_args()
    TASKS[SUM] = functools.partial(PushSum, SUM)  # known to this process alone
    study, reference = Study(arguments.study, arguments.seeds, arguments.total_steps), arguments.reference
    study.open()
    (study.folder / "pairs").mkdir(exist_ok=True)
    if arguments.train is not None:
        index, seed, begin = arguments.train
        train(study, int(index), int(seed), begin)
    elif arguments.certify is not None:
        index, seed, way, steps = arguments.certify
        certify(study, int(index), int(seed), way, int(steps))
    elif arguments.measure is not None:
        measure(study, *map(int, arguments.measure))
    else:
        if arguments.extend:
            try:
                kept = restore(study, read_results("ranking_pusher"), reference, arguments.steps)
            except QomposeError as error:
                raise SystemExit(f"ranking_pusher: {error}") from None
            print(f"{kept} seeds of results/ranking_pusher.json are kept")
        rank(study, reference, arguments.steps)


def rank(study: Study, reference: int, steps: int) -> None:
    """Train, certify and measure what is missing, and write what came of it."""
    pairs, seeds = range(len(PAIRS)), range(study.seeds)
    lines = {
        seed: [study.training_job(Case("sql", name, seed)) for name in CONSTITUENTS] for seed in {*seeds, reference}
    }
    references = [
        dataclasses.replace(
            training_job(study, index, reference, begin), needs=tuple(job.file for job in lines[reference])
        )
        for begin in BEGINS for index in pairs if not returns_of(study, index, reference).exists()
    ]  # fmt: skip
    measuring = [measuring_job(study, index, reference, seed) for seed in (None, *seeds) for index in pairs]
    certifying = [
        certifying_job(study, index, seed, way, steps) for seed in seeds for way in WAYS for index in pairs
    ]  # fmt: skip
    # A line whose every figure is there need not be there.
    missing = {
        need for job in (*references, *measuring, *certifying) if not job.file.exists() for need in job.needs
    }  # fmt: skip
    training = [job for job in itertools.chain(*lines.values()) if job.file in missing]
    study.run_jobs("ranking", [*training, *references, *measuring, *certifying])
    rows = [gather(study, index, reference, seeds, steps) for index in pairs]
    makers = each_once(system for row in rows for system in row.pop("made_by"))
    settings = {"reference": reference, "steps": steps, "episodes": EPISODES}
    result = {**summarise(rows), **settings, "runs_made_by": makers, "rows": rows}
    words = f"--seeds {study.seeds} --reference {reference} --total-steps {study.total_steps} --steps {steps}"
    write_results("ranking_pusher", result, command=f"python -m benchmarks.ranking_pusher {words}", seed=list(seeds))
    draw(PICTURE, rows, result["ways"])
    print_table(
        f"what sums of the pusher lose, and what is said (bar of Spearman's coefficient: {BAR})",
        ("pair", "lost", *(f"{way} ({result['ways'][way]['spearman']:.2f})" for way in WAYS)),
        [
            (row["pair"], f"{loss_of(row):.2f}", *(f"{said_of(row, way, 'regret'):.2f}" for way in WAYS))
            for row in sorted(rows, key=loss_of)
        ],
    )


if __name__ == "__main__":
    main()
