"""Table I with every run of an algorithm in one compiled program: what a GPU makes of the paper.

    python -m benchmarks.fused [--algorithms sql ddpg naf] [--seeds 5] [--total-steps 60000] [--runs-dir runs/fused]
                               [--simulator jax|warp]
    python -m benchmarks.fused --small
    python -m benchmarks.fused --compare FOLDER

Needs `pip install "qompose[gpu]"`. Seven tasks of the pusher, each from every seed, simulated on MJX; the programs of
all algorithms are compiled at once. Each run becomes a skill in the runs folder. While the next algorithm trains, the
other cores compose the corners and measure 100 episodes of every policy on C MuJoCo, as `qompose reproduce table1`
does. `--small`: two tasks, one seed, 1200 steps, which is what happens on a machine without a GPU; its figures are
marked: they say that the program works, nothing about its speed.
Writes results/fused.json; what MuJoCo Warp makes goes into the same file, beside what MJX's JAX implementation made,
and its learning curves are compared with those. `--compare` needs no GPU: it tests whether learning curves and final
distances in that file differ from those in the folder of a `qompose reproduce table1`, and adds what it finds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import add_result, describe, read_results, write_results
from qompose import store
from qompose.envs.batch import Simulator, choose_simulator
from qompose.paper.jobs import choose_cores
from qompose.paper.study import CORNERS, EPISODES, EXTRACTION_STEPS, Study, curve_of
from qompose.paper.study import Case as Policy
from qompose.paper.table1 import paper_figure
from qompose.tasks.pusher import GOALS
from qompose.training import fused
from qompose.training.learner import Training
from qompose.training.session import ALGORITHMS, SKILL
from qompose.types import QomposeError
from qompose.view.console import print_table

PERMUTATIONS = 20_000
# The bars: of everything; per second over all runs of SQL; and of environment steps per second, all programs together.
MOST_SECONDS, LEAST_UPDATES, LEAST_STEPS = 600.0, 50_000.0, 500_000.0


@dataclass(frozen=True)
class Plan:
    """What is trained, and how."""

    tasks: tuple[str, ...]
    seeds: int
    hidden: tuple[int, ...]
    options: Training
    study: Study
    simulator: Simulator = "jax"

    @property
    def cases(self) -> list[fused.Case]:
        return [fused.Case(task, seed) for task in self.tasks for seed in range(self.seeds)]

    def agent(self, algorithm: str) -> Any:
        return ALGORITHMS[algorithm](hidden=self.hidden)

    def policies(self, algorithm: str) -> list[Policy]:
        """What the study measures: what was trained, and the corners composed of it."""
        corners = [task for task, parts in CORNERS.items() if set(parts) <= set(self.tasks)]
        rows = [*((task, False) for task in self.tasks), *((task, True) for task in corners)]
        return [Policy(algorithm, task, seed, merged) for task, merged in rows for seed in range(self.seeds)]


def train_all(algorithm: str, prepared: fused.Prepared, plan: Plan) -> dict[str, Any]:
    """Train every task from every seed in one program, save the skills, and return what the training took."""
    begin, stretches = time.perf_counter(), list[fused.Stretch]()

    def note(stretch: fused.Stretch) -> None:
        stretches.append(stretch)
        print(f"{algorithm}: {stretch.step} of {plan.options.total_steps} steps of each run", flush=True)

    trained = fused.run(prepared, on_stretch=note)
    for case, run in zip(plan.cases, trained, strict=True):
        folder = plan.study.run_of(Policy(algorithm, case.task, case.seed))
        folder.mkdir(parents=True, exist_ok=True)
        store.write_json(folder / "system.json", describe())
        fused.fused_skill(case, plan.agent(algorithm), plan.options, run).save(folder / SKILL, overwrite=True)
    learning = sum(stretch.learning for stretch in stretches)
    row = {
        "algorithm": algorithm, "runs": len(plan.cases), "seconds": time.perf_counter() - begin,
        "compiling": prepared.compiling, "learning": learning,
        "evaluating": sum(stretch.evaluating for stretch in stretches),
        "environment_steps_per_second": sum(stretch.steps for stretch in stretches) / learning,
        "updates_per_second": sum(stretch.updates for stretch in stretches) / learning,
        "curves": [
            {
                "task": case.task, "seed": case.seed,
                "points": [[line["step"], line["eval/distance"]] for line in run.evaluations],
            }
            for case, run in zip(plan.cases, trained, strict=True)
        ],
    }  # fmt: skip
    store.write_json(plan.study.folder / f"{algorithm}.json", row)  # should the rest be cut off
    return row


def summarise(algorithm: str, records: dict[Policy, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean distance of each seed on C MuJoCo, beside the paper's."""
    means: dict[tuple[str, bool], list[float]] = {}
    for case, record in records.items():  # seed by seed
        means.setdefault((case.task, case.merged), []).append(float(np.mean(record["sample"]["distance"])))
    return [
        {
            "algorithm": algorithm, "task": task, "merged": merged, "seeds": seeds, "mean": float(np.mean(seeds)),
            "paper": paper_figure(algorithm, task, merged),
        }
        for (task, merged), seeds in means.items()
    ]  # fmt: skip


def reproduce(algorithms: Sequence[str], plan: Plan) -> dict[str, Any]:
    """Everything: compile, train, compose, measure."""
    begin = time.perf_counter()
    plan.study.open()
    if (plan.study.folder / "episodes").exists():
        raise QomposeError(f"{plan.study.folder} holds what was measured of earlier runs; give another --runs-dir")
    with ThreadPoolExecutor() as compilers, ThreadPoolExecutor(1) as measurer:
        compiled = {
            name: compilers.submit(fused.prepare, plan.cases, plan.agent(name), plan.options, simulator=plan.simulator)
            for name in algorithms
        }
        rows, measured = [], dict[str, Future[Any]]()
        if plan.simulator == "warp":  # nothing else may use the GPU while it captures what it does there
            wait(compiled.values())
        for name in algorithms:
            rows.append(train_all(name, compiled.pop(name).result(), plan))
            measured[name] = measurer.submit(plan.study.measure, f"{name}: episodes", plan.policies(name))
        trained = time.perf_counter() - begin
        table = [line for name, found in measured.items() for line in summarise(name, found.result())]
    return {"rows": rows, "table": table, "seconds_to_trained": trained, "seconds": time.perf_counter() - begin}


Runs = tuple[Sequence[float], Sequence[float]]  # scores of the runs here and there, of one task


def compare_curves(rows: Sequence[dict[str, Any]], study: Study) -> list[dict[str, Any]]:
    """Do the trainings of each algorithm differ from those of the study? See `permute`.

    The score of a run is the mean logarithm of its distance over the evaluations that both have.
    """
    found = []
    for row in rows:
        scores: dict[str, tuple[list[float], list[float]]] = {}
        for curve in row["curves"]:
            case = Policy(row["algorithm"], curve["task"], curve["seed"])
            here, there = scores.setdefault(case.task, ([], []))
            here.append(_score(curve["points"]))
            steps = {step for step, _ in curve["points"]}
            points = [point for point in curve_of(study.run_of(case), "distance") if point[0] in steps]
            there += [_score(points)] if len(points) == len(steps) else []
        found.append({"algorithm": row["algorithm"], "what": "curves", **permute(list(scores.values()))})
    return [row for row in found if row["tasks"]]


def compare_ends(table: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of the final distances, trained and merged, in this table and in that of `qompose reproduce table1`."""

    def seeds_in(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, bool, str], Sequence[float]]:
        return {
            (row["algorithm"], row["merged"], row["task"]): np.log(row["seeds"]).tolist() for row in rows
            if row.get("mode", "sample") == "sample"
        }  # fmt: skip

    here, there = seeds_in(table), seeds_in(reference)
    pairs: dict[tuple[str, bool], list[Runs]] = {}
    for key, scores in here.items():
        pairs.setdefault(key[:2], []).append((scores, there.get(key, [])))
    found = [
        {"algorithm": algorithm, "what": "merged" if merged else "trained", **permute(runs)}
        for (algorithm, merged), runs in pairs.items()
    ]
    return [row for row in found if row["tasks"]]


def compare_simulators(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do these learning curves differ from those with another simulator? See `permute`."""
    curves = {row["algorithm"]: row["curves"] for row in others}
    found = []
    for row in rows:
        here, there = row["curves"], curves.get(row["algorithm"], [])
        pairs = [
            tuple([_score(curve["points"]) for curve in side if curve["task"] == task] for side in (here, there))
            for task in dict.fromkeys(curve["task"] for curve in here)
        ]
        found.append({"algorithm": row["algorithm"], **permute(pairs)})
    return found


def _score(points: Sequence[Sequence[float]]) -> float:
    return float(np.mean(np.log([distance for _, distance in points])))


def permute(pairs: Sequence[Runs], seed: int = 0) -> dict[str, Any]:
    """Ratio of distances, here to there, and how often chance alone gives one as far from 1: a permutation test.

    If nothing differs, every choice of which runs of a task were made here is as likely as the one that happened. Tasks
    that one side lacks are left out.
    """
    pairs, rng = [pair for pair in pairs if min(map(len, pair))], np.random.default_rng(seed)

    def difference(pair: Runs, shuffle: bool) -> float:
        runs = np.concatenate(pair)
        runs = rng.permutation(runs) if shuffle else runs
        return runs[: len(pair[0])].mean() - runs[len(pair[0]) :].mean()

    if not pairs:
        return {"tasks": 0, "runs": [0, 0], "ratio": 1.0, "p": 1.0}
    measured = np.mean([difference(pair, False) for pair in pairs])
    chance = [np.mean([difference(pair, True) for pair in pairs]) for _ in range(PERMUTATIONS)]
    as_far = np.abs(chance) >= abs(measured) - 1e-12
    return {
        "tasks": len(pairs), "runs": [sum(len(pair[side]) for pair in pairs) for side in (0, 1)],
        "ratio": float(np.exp(measured)), "p": float((1 + as_far.sum()) / (1 + PERMUTATIONS)),
    }  # fmt: skip


def add_comparison(folder: Path) -> None:
    """Compare what results/fused.json holds with the study in a folder and its table1.json; write it into the file."""
    result = read_results("fused")["result"]
    curves = compare_curves(result["rows"], Study(folder, 1, result["total_steps"]))
    reference = folder / "table1.json"
    if not curves or not reference.exists():
        raise QomposeError(f"{folder} holds no runs and no table1.json of 'qompose reproduce table1'")
    table = store.read_json(reference)
    rows = [*curves, *compare_ends(result["table"], table["result"]["rows"])]
    for row in rows:
        print("{algorithm}, {what}: {tasks} tasks, {runs} runs, {ratio:.2f} times as far, p = {p:.3f}".format(**row))
    command = f"python -m benchmarks.fused --compare FOLDER, that of {table['command']}"
    add_result("fused", "comparison", {"rows": rows}, command=command)


def print_report(result: dict[str, Any]) -> None:
    print_table(
        f"all runs of an algorithm in one program, on {result['device']}",
        ("algorithm", "runs", "s", "compiling", "learning", "evaluating", "env steps/s", "updates/s"),
        [
            (
                row["algorithm"], row["runs"],
                *(f"{row[name]:.1f}" for name in ("seconds", "compiling", "learning", "evaluating")),
                f"{row['environment_steps_per_second']:.0f}", f"{row['updates_per_second']:.0f}",
            )
            for row in result["rows"]
        ],
    )  # fmt: skip
    print_table(
        f"final distance (m) on C MuJoCo, {result['episodes']} episodes of each seed",
        ("algorithm", "task", "merged", "mean", "seeds", "the paper"),
        [
            (
                row["algorithm"], row["task"], "yes" if row["merged"] else "", f"{row['mean']:.3f}",
                " ".join(f"{distance:.3f}" for distance in row["seeds"]), f"{row['paper'][0]:.2f}",
            )
            for row in result["table"]
        ],
    )  # fmt: skip
    print(f"trained after {result['seconds_to_trained']:.0f} s, everything after {result['seconds']:.0f} s")


def extraction_of(result: dict[str, Any]) -> int:
    """Steps of extraction of its compositions; a file from before there were 10 000 of them does not say so."""
    return result.get("extraction_steps", 2000)


def bars_of(result: dict[str, Any]) -> dict[str, bool]:
    """What is asked of a GPU, which is an H200's; met or not."""
    learning = [row["learning"] for row in result["rows"]]  # one algorithm after the other
    rates = [row["environment_steps_per_second"] for row in result["rows"]]
    steps = float(np.dot(rates, learning) / np.sum(learning))
    extraction = extraction_of(result)
    how = "" if extraction == EXTRACTION_STEPS else f", with {extraction} steps of extraction, not {EXTRACTION_STEPS}"
    return {
        f"everything in {MOST_SECONDS:.0f} s{how}": result["seconds"] <= MOST_SECONDS,
        **{
            f"{LEAST_UPDATES:.0f} updates/s of sql": row["updates_per_second"] >= LEAST_UPDATES
            for row in result["rows"] if row["algorithm"] == "sql"
        },
        f"{LEAST_STEPS:.0f} environment steps/s, all algorithms together ({steps:.0f})": steps >= LEAST_STEPS,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/fused"))
    parser.add_argument("--simulator", choices=("jax", "warp"), help="MJX's own in JAX, or Warp where it is installed")
    parser.add_argument("--small", action="store_true", help="the machinery, not the figures; so on a CPU in any case")
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="test the file against the runs of a study")
    arguments = parser.parse_args()
    if arguments.compare:
        try:
            add_comparison(arguments.compare)
        except QomposeError as error:
            raise SystemExit(f"fused: {error}") from None
        return
    device = jax.devices()[0]
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the processes that measure
    small = arguments.small or device.platform == "cpu"
    tasks, seeds, hidden, folder = tuple(GOALS), arguments.seeds, (128, 128), arguments.runs_dir
    steps = arguments.total_steps
    if small:
        tasks, seeds, hidden, steps = ("PushLeft", "PushBottom"), 1, (32, 32), 1200
        folder = folder.with_name(f"{folder.name}-small")
    try:
        options = Training(
            total_steps=steps, eval_freq=max(steps // (1 if small else 6), 1),
            eval_episodes=4 if small else 20,
        )  # fmt: skip
        workers = max(1, len(choose_cores(None)) - 3)  # the others are for what drives the GPU, and for compiling
        study = Study(folder, seeds, steps, workers)
        simulator = arguments.simulator or choose_simulator()
        result = reproduce(arguments.algorithms, Plan(tasks, seeds, hidden, options, study, simulator))
    except QomposeError as error:
        raise SystemExit(f"fused: {error}") from None
    result |= {
        "small": small, "device": device.device_kind, "simulator": simulator,
        "total_steps": steps, "hidden": hidden, "episodes": EPISODES, "extraction_steps": EXTRACTION_STEPS,
    }  # fmt: skip
    print_report(result)
    if small:
        print("small: the machinery, not the figures")
    else:
        result["bars"] = bars_of(result)
    command = f"python -m benchmarks.fused --algorithms {' '.join(arguments.algorithms)}"
    command += " --small" if small else f" --seeds {seeds} --total-steps {steps} --simulator {simulator}"
    if simulator == "warp" and not small:
        result["against_jax"] = compare_simulators(result["rows"], read_results("fused")["result"]["rows"])
        add_result("fused", "warp", result, command=command)
    else:
        write_results("fused", result, command=command, seed=np.arange(seeds).tolist())


if __name__ == "__main__":
    main()
