"""Train left and bottom for several seeds, compose each pair, and measure everything the README says about the pusher.

Left and bottom learn apart from each other; bottom then once more, with the experience of left beside its own.

    python -m benchmarks.pusher [--seeds 5] [--total-steps 60000] [--runs-dir runs/benchmark]

Finished trainings in the runs folder are kept, so an interrupted benchmark continues. Writes results/pusher.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from qompose.demo import PAPER
from qompose.paper.jobs import Job, run_jobs
from qompose.store import write_json
from qompose.training.session import SKILL, skill_name
from qompose.view.console import print_table

SKILLS = ("PushLeft", "PushBottom")
CORNER = "PushBottomLeft"
BARS = {"PushLeft": 0.10, "PushBottom": 0.06, CORNER: 0.11}
EPISODES = 100
INFORMED = "informed"  # a training that learns from the experience of left as well
# Ways to compose, and how each acts.
HOW = {"extracted": "sample", INFORMED: "sample", "direct": "resample"}


def run_folder(folder: Path, task: str, seed: int, informed: bool = False) -> Path:
    return folder / f"{task}{'-' + INFORMED if informed else ''}-s{seed}"


def measured_file(folder: Path, seed: int) -> Path:
    return folder / f"measured-s{seed}.json"


def training_job(folder: Path, task: str, seed: int, total_steps: int, informed: bool = False) -> Job:
    run, left = run_folder(folder, task, seed, informed), run_folder(folder, SKILLS[0], seed)
    command = (
        *("qompose", "train", "--env", task, "--seed", str(seed), "--resume", "--name", skill_name(task)),
        *(("--experience", str(left)) if informed else ()),
        *("--total-steps", str(total_steps), "--progress", "none", "--output-dir", str(run)),
    )
    needs = (_skill_of(left),) if informed else ()
    return Job(run.name, command, _skill_of(run), needs, run=run, total_steps=total_steps)


def measuring_job(folder: Path, seed: int) -> Job:
    command = ("benchmarks.pusher", "--runs-dir", str(folder), "--measure", str(seed))
    needs = tuple(_skill_of(run_folder(folder, *which)) for which in trained(seed))
    return Job(f"measuring-s{seed}", command, measured_file(folder, seed), needs)


def trained(seed: int) -> list[tuple[str, int, bool]]:
    """Task, seed and whether it was informed, of every training of a seed."""
    return [*((task, seed, False) for task in SKILLS), (SKILLS[1], seed, True)]


def _skill_of(run: Path) -> Path:
    return run / SKILL / "manifest.json"


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


def load_pair(folder: Path, seed: int, informed: bool = False) -> tuple[qp.Skill, qp.Skill]:
    left, bottom = SKILLS
    return qp.load(run_folder(folder, left, seed)), qp.load(run_folder(folder, bottom, seed, informed))


def compose_pair(folder: Path, how: str, seed: int) -> qp.Skill:
    left, bottom = load_pair(folder, seed, how == INFORMED)
    return qp.compose(left & bottom, extract=how != "direct", extraction=qp.Extraction(seed=seed))


def measure(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Every way of acting of the skills of a seed and of their compositions."""
    rows = []
    for task, _, informed in trained(seed):
        skill = qp.load(run_folder(folder, task, seed, informed))
        modes = {mode: figures(skill, task, mode, seed) for mode in ("sample", "best")}
        facts = {name: skill.provenance[name] for name in ("steps", "episodes", "seconds", "commit")}
        rows.append({"task": task, "seed": seed, "how": INFORMED if informed else "trained", **facts, **modes})
    for how, mode in HOW.items():
        skill = compose_pair(folder, how, seed)
        modes = {mode: figures(skill, CORNER, mode, seed) for mode in (mode, "best")}
        rows.append({"task": CORNER, "seed": seed, "how": how, **modes})
    return rows


def measure_times(folder: Path, seeds: int) -> dict[str, Any]:
    """Seconds of a composition on all cores and milliseconds per action, with nothing else running."""
    seconds = []
    for seed in range(min(seeds, 3)):
        pair = load_pair(folder, seed)
        begin = time.perf_counter()
        qp.compose(pair[0] & pair[1], extraction=qp.Extraction(seed=seed))
        seconds.append(time.perf_counter() - begin)
    milliseconds = {
        how: milliseconds_per_action(compose_pair(folder, how, 0), HOW[how]) for how in ("extracted", "direct")
    }
    return {"extraction_seconds": seconds, "milliseconds_per_action": milliseconds}


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: mean of the means, spread between seeds, and how many meet the bar."""
    summary = []
    for task, how, mode in (
        *((task, "trained", mode) for task in SKILLS for mode in ("sample", "best")),
        *((SKILLS[1], INFORMED, mode) for mode in ("sample", "best")),
        *((CORNER, way, mode) for way, acting in HOW.items() for mode in (acting, "best")),
    ):  # fmt: skip
        means = [row[mode]["mean"] for row in rows if row["task"] == task and row["how"] == how]
        summary.append({
            "task": task, "how": how, "mode": mode, "seeds": means, "mean": float(np.mean(means)),
            "std_over_seeds": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0, "bar": BARS[task],
            "seeds_at_bar": sum(mean <= BARS[task] for mean in means), "paper": PAPER[task],
        })  # fmt: skip
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, default=60_000)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--measure", type=int, metavar="SEED", help="only measure this seed, for the parent process")
    parser.add_argument("--quick", action="store_true", help="one seed, 3000 steps: the machinery, not the figures")
    arguments = parser.parse_args()
    folder = arguments.runs_dir
    if arguments.measure is not None:
        rows = measure(folder, arguments.measure)
        write_json(measured_file(folder, arguments.measure), rows)
        return
    if arguments.quick:
        folder = folder.with_name(f"{folder.name}-quick")
    seeds, total_steps = (1, 3000) if arguments.quick else (arguments.seeds, arguments.total_steps)
    jobs = [training_job(folder, *which[:2], total_steps, which[2]) for seed in range(seeds) for which in trained(seed)]
    run_jobs([*jobs, *(measuring_job(folder, seed) for seed in range(seeds))], folder / "logs", label="pusher")
    rows = [row for seed in range(seeds) for row in json.loads(measured_file(folder, seed).read_text("utf-8"))]
    times = measure_times(folder, seeds)
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
        result = {
            "summary": summary, "times": times, "rows": rows, "episodes": EPISODES, "total_steps": total_steps,
        }  # fmt: skip
        command = f"python -m benchmarks.pusher --seeds {seeds} --total-steps {total_steps}"
        write_results("pusher", result, command=command, seed=list(range(seeds)))


if __name__ == "__main__":
    main()
