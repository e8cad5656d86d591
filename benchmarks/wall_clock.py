"""From nothing to both pusher skills and their composition: seconds of the whole demonstration, and what it reaches.

    python -m benchmarks.wall_clock [--seeds 5] [--total-steps 44000]

Each seed is a `qompose demo` of its own, without refit and video: two trainings side by side, one for each core,
composition, 100 episodes of all three in two ways, and the picture. Nothing is compiled or trained before. Needs two
idle cores.
Writes results/wall_clock.json when all seeds are done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.view.console import print_table

SECONDS, DISTANCES = 300.0, {"push-left": 0.10, "push-bottom": 0.06}  # the bars, distances in metres


def measure(seed: int, total_steps: int) -> dict[str, Any]:
    """One demonstration, as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["demo", "--total-steps", str(total_steps), "--seed", str(seed), "--output-dir", folder]
        command += ["--no-refit", "--no-video"]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "qompose", *command, "--json"], capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(f"wall_clock: the demonstration failed: {(done.stderr.strip() or 'no word')[-300:]}")
        report = json.loads(done.stdout)
    distances = {entry["name"]: entry["sample"]["mean"] for entry in report["skills"]}
    at_bar = all(distances[name] <= bar for name, bar in DISTANCES.items())
    return {
        "seed": seed, "seconds": seconds, "parts": report["seconds"], "distances": distances,
        "at_bar": at_bar,
    }  # fmt: skip


def median_seconds(rows: Sequence[dict[str, Any]]) -> float:
    """Median over the seeds, where one that misses its bars has never finished."""
    return float(np.median([row["seconds"] if row["at_bar"] else np.inf for row in rows]))


def main() -> None:
    arguments = read_options(__doc__, seeds=5, total_steps=44_000)
    rows = []
    for seed in range(arguments.seeds):
        rows.append(measure(seed, arguments.total_steps))
        print(f"seed {seed}: {rows[-1]['seconds']:.0f} s", flush=True)
    result = {"rows": rows, "total_steps": arguments.total_steps, "bar": SECONDS, "bars_of_distances": DISTANCES}
    command = f"python -m benchmarks.wall_clock --seeds {arguments.seeds} --total-steps {arguments.total_steps}"
    write_results("wall_clock", result, command=command, seed=list(range(arguments.seeds)))
    print_table(
        f"from nothing to two skills and their composition, {arguments.total_steps} steps each",
        ("seed", "s", *rows[0]["distances"], "both at their bars"),
        [
            (
                row["seed"], f"{row['seconds']:.0f}", *(f"{distance:.3f}" for distance in row["distances"].values()),
                "yes" if row["at_bar"] else "no",
            )
            for row in rows
        ],
    )  # fmt: skip
    print(f"median {median_seconds(rows):.0f} s, where a seed that misses its bars is never done; bar {SECONDS:.0f} s")


if __name__ == "__main__":
    main()
