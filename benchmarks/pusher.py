"""Train left and bottom for several seeds, compose each pair, and measure everything the README says about the pusher.

    python -m benchmarks.pusher [--seeds 5] [--total-steps 60000] [--runs-dir runs/benchmark]

Finished trainings in the runs folder are kept, so an interrupted benchmark continues. Writes results/pusher.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from qompose.demo import PAPER
from qompose.run import read_metrics
from qompose.view.console import bars, print_table

SKILLS = ("PushLeft", "PushBottom")
CORNER = "PushBottomLeft"
BARS = {"PushLeft": 0.10, "PushBottom": 0.06, CORNER: 0.11}
EPISODES = 100


def train_all(folder: Path, seeds: int, total_steps: int) -> None:
    """One process for each training, one core for each process."""
    cores = sorted(os.sched_getaffinity(0))
    waiting = [
        (task, seed) for seed in range(seeds) for task in SKILLS
        if not (run_folder(folder, task, seed) / "skill" / "manifest.json").exists()
    ]  # fmt: skip
    running: dict[int, tuple[str, int, subprocess.Popen[bytes]]] = {}
    with bars() as shown:
        while waiting or running:
            for core in cores:
                if core not in running and waiting:
                    task, seed = waiting.pop(0)
                    running[core] = (task, seed, start(folder, task, seed, total_steps, core))
            time.sleep(1.0)
            for core, (task, seed, worker) in list(running.items()):
                last = (read_metrics(run_folder(folder, task, seed)) or [{"step": 0}])[-1]
                shown.update(f"{task} {seed}", last["step"], total_steps, last)
                if worker.poll() is not None:
                    del running[core]
                    if worker.returncode:
                        raise SystemExit(f"training {task} with seed {seed} failed with status {worker.returncode}")


def run_folder(folder: Path, task: str, seed: int) -> Path:
    return folder / f"{task}-s{seed}"


def start(folder: Path, task: str, seed: int, total_steps: int, core: int) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "qompose", "train", "--env", task, "--seed", str(seed), "--resume"),
        *("--total-steps", str(total_steps), "--progress", "none"),
        *("--output-dir", str(run_folder(folder, task, seed))),
    ]
    worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(worker.pid, {core})
    return worker


def figures(skill: qp.Skill, task: str, mode: str, seed: int) -> dict[str, Any]:
    result = qp.evaluate(skill, task, EPISODES, mode=mode, seed=1000 + seed)
    distance = result.values("distance")
    return {
        "mean": float(distance.mean()), "std": float(distance.std()), "median": float(np.median(distance)),
        "worst": float(distance.max()),
        "mean_position": [float(result.values(name).mean()) for name in ("puck_x", "puck_y")],
        "spread": [float(result.values(name).std()) for name in ("puck_x", "puck_y")],
    }  # fmt: skip


def milliseconds_per_action(skill: qp.Skill, mode: str, count: int = 300) -> dict[str, float]:
    """Time of single actions on states that the skill may meet."""
    assert skill.replay is not None
    states = skill.replay.observation[:: max(len(skill.replay.observation) // count, 1)][:count]
    rng = np.random.default_rng(0)
    times = []
    for state in states:
        begin = time.perf_counter()
        skill.act(state, mode=mode, rng=rng)
        times.append(1e3 * (time.perf_counter() - begin))
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}


def measure(folder: Path, seed: int) -> list[dict[str, Any]]:
    skills = {task: qp.load(run_folder(folder, task, seed)) for task in SKILLS}
    rows = []
    for task, skill in skills.items():
        modes = {mode: figures(skill, task, mode, seed) for mode in ("sample", "best")}
        facts = {name: skill.provenance[name] for name in ("steps", "episodes", "seconds")}
        rows.append({"task": task, "seed": seed, "how": "trained", **facts, **modes})
    left, bottom = skills.values()
    begin = time.perf_counter()
    extracted = qp.compose(left & bottom, options=qp.Extraction(seed=seed))
    seconds = time.perf_counter() - begin
    direct = qp.compose(left & bottom, extract=False)
    rows.append({
        "task": CORNER, "seed": seed, "how": "extracted", "extraction_seconds": seconds,
        **{mode: figures(extracted, CORNER, mode, seed) for mode in ("sample", "best")},
        "milliseconds": milliseconds_per_action(extracted, "sample"),
    })  # fmt: skip
    rows.append({
        "task": CORNER, "seed": seed, "how": "direct",
        **{mode: figures(direct, CORNER, mode, seed) for mode in ("resample", "best")},
        "milliseconds": milliseconds_per_action(direct, "resample"),
    })  # fmt: skip
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: mean of the means, spread between seeds, and how many meet the bar."""
    summary = []
    for task, how, mode in (
        *((task, "trained", mode) for task in SKILLS for mode in ("sample", "best")),
        (CORNER, "extracted", "sample"), (CORNER, "extracted", "best"), (CORNER, "direct", "resample"),
        (CORNER, "direct", "best"),
    ):  # fmt: skip
        means = [row[mode]["mean"] for row in rows if row["task"] == task and row["how"] == how]
        summary.append({
            "task": task, "how": how, "mode": mode, "seeds": means, "mean": float(np.mean(means)),
            "std_over_seeds": float(np.std(means)), "bar": BARS[task],
            "seeds_at_bar": sum(mean <= BARS[task] for mean in means), "paper": PAPER[task],
        })  # fmt: skip
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--quick", action="store_true", help="one seed, 3000 steps: the machinery, not the figures")
    arguments = parser.parse_args()
    seeds, total_steps = (1, 3000) if arguments.quick else (arguments.seeds, arguments.total_steps)
    train_all(arguments.runs_dir, seeds, total_steps)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        rows += measure(arguments.runs_dir, seed)
        print(f"measured seed {seed}", flush=True)
    summary = summarise(rows)
    print_table(
        f"final distance to the goal (m), {EPISODES} episodes, {seeds} seeds, {total_steps} steps per skill",
        ("task", "how", "mode", "mean ± std over seeds", "seeds", "bar", "met by", "paper"),
        [
            (
                s["task"], s["how"], s["mode"], f"{s['mean']:.3f} ± {s['std_over_seeds']:.3f}",
                " ".join(f"{mean:.3f}" for mean in s["seeds"]), s["bar"], f"{s['seeds_at_bar']}/{seeds}",
                f"{s['paper'][0]:.2f}",
            )
            for s in summary
        ],
    )  # fmt: skip
    if not arguments.quick:
        result = {"summary": summary, "rows": rows, "episodes": EPISODES, "total_steps": total_steps}
        write_results("pusher", result, command="python -m benchmarks.pusher", seed=list(range(seeds)))


if __name__ == "__main__":
    main()
