"""The trainings of Table I with every run of an algorithm in one compiled program: what a GPU makes of the paper.

    python -m benchmarks.fused [--algorithms sql ddpg naf] [--seeds 5] [--total-steps 60000] [--runs-dir runs/fused]
    python -m benchmarks.fused --small

Needs `pip install "qompose[gpu]"`. Seven tasks of the pusher, each from every seed, simulated on MJX; each run becomes
a skill in the runs folder, which composes and evaluates like any other. Distances are those of the last evaluation, on
MJX as well. `--small`: two tasks, one seed, a few hundred steps, which is what happens on a machine without a GPU; its
figures are marked: they say that the program works, nothing about its speed. Writes results/fused.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import write_results
from qompose.tasks.pusher import GOALS
from qompose.training.fused import Case, Stretch, fused_skill, train_fused
from qompose.training.learner import Training
from qompose.training.session import ALGORITHMS, skill_name
from qompose.types import QomposeError
from qompose.view.console import print_table

MOST_SECONDS, LEAST_UPDATES = 600.0, 50_000.0  # the bars: of all trainings, and per second over all runs of SQL


def train_all(
    algorithm: str, tasks: Sequence[str], seeds: int, options: Training, hidden: tuple[int, ...], folder: Path
) -> dict[str, Any]:
    """Train every task from every seed in one program, save the skills, and return what was measured."""
    agent, stretches = ALGORITHMS[algorithm](hidden=hidden), list[Stretch]()
    cases = [Case(task, seed) for task in tasks for seed in range(seeds)]
    begin = time.perf_counter()
    trained = train_fused(cases, agent, options, on_stretch=stretches.append)
    seconds = time.perf_counter() - begin
    for case, run in zip(cases, trained, strict=True):
        skill = fused_skill(case, agent, options, run)
        skill.save(folder / f"{algorithm}-{skill_name(case.task)}-s{case.seed}" / "skill", overwrite=True)
    learning = sum(stretch.learning for stretch in stretches)
    return {
        "algorithm": algorithm, "runs": len(cases), "seconds": seconds, "compiling": stretches[0].compiling,
        "learning": learning, "evaluating": sum(stretch.evaluating for stretch in stretches),
        "environment_steps_per_second": sum(stretch.steps for stretch in stretches) / learning,
        "updates_per_second": sum(stretch.updates for stretch in stretches) / learning,
        "distances": [
            {
                "task": case.task, "seed": case.seed, "distance": run.evaluations[-1]["eval/distance"],
                "curve": [[line["step"], line["eval/distance"]] for line in run.evaluations],
            }
            for case, run in zip(cases, trained, strict=True)
        ],
    }  # fmt: skip


def print_rows(rows: Sequence[dict[str, Any]], device: str) -> None:
    print_table(
        f"all runs of an algorithm in one program, on {device}",
        ("algorithm", "runs", "s", "compiling", "learning", "evaluating", "env steps/s", "updates/s"),
        [
            (
                row["algorithm"], row["runs"],
                *(f"{row[name]:.1f}" for name in ("seconds", "compiling", "learning", "evaluating")),
                f"{row['environment_steps_per_second']:.0f}", f"{row['updates_per_second']:.0f}",
            )
            for row in rows
        ],
    )  # fmt: skip
    for row in rows:
        for task in dict.fromkeys(run["task"] for run in row["distances"]):
            found = [run["distance"] for run in row["distances"] if run["task"] == task]
            print(f"{row['algorithm']} {task}: {' '.join(f'{distance:.3f}' for distance in found)} m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/fused"))
    parser.add_argument("--small", action="store_true", help="the machinery, not the figures; so on a CPU in any case")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    small = arguments.small or device.platform == "cpu"
    tasks, seeds, hidden, folder = list(GOALS), arguments.seeds, (128, 128), arguments.runs_dir
    steps = arguments.total_steps
    if small:
        tasks, seeds, hidden, steps = ["PushLeft", "PushBottom"], 1, (32, 32), 400
        folder = folder.with_name(f"{folder.name}-small")
    begin = time.perf_counter()
    try:
        options = Training(
            total_steps=steps, warmup_steps=200 if small else 1000, eval_freq=max(steps // (2 if small else 6), 1),
            eval_episodes=4 if small else 100,
        )  # fmt: skip
        rows = [train_all(name, tasks, seeds, options, hidden, folder) for name in arguments.algorithms]
    except QomposeError as error:
        raise SystemExit(f"fused: {error}") from None
    seconds = time.perf_counter() - begin
    print_rows(rows, device.device_kind)
    print(f"{seconds:.0f} s in all" + ("; small: the machinery, not the figures" if small else ""))
    result: dict[str, Any] = {
        "small": small, "device": device.device_kind, "total_steps": steps, "hidden": hidden,
        "episodes": options.eval_episodes, "seconds": seconds, "rows": rows,
    }  # fmt: skip
    if not small:
        result["bars"] = {f"trainings in {MOST_SECONDS:.0f} s (compositions not counted)": seconds <= MOST_SECONDS} | {
            f"{LEAST_UPDATES:.0f} updates/s of {row['algorithm']}": row["updates_per_second"] >= LEAST_UPDATES
            for row in rows if row["algorithm"] == "sql"
        }  # fmt: skip
    command = f"python -m benchmarks.fused --algorithms {' '.join(arguments.algorithms)}"
    command += " --small" if small else f" --seeds {seeds} --total-steps {steps}"
    write_results("fused", result, command=command, seed=np.arange(seeds).tolist())


if __name__ == "__main__":
    main()
