"""Does the 90 % interval of the regret certificate hold the regret? On a line whose regret is known exactly.

    python -m benchmarks.coverage [--seeds 50] [--count 4000]

It is the certificate of `explain`, as a user gets it. The skills' networks stay; each seed has replays, draws and first
weights of its own. The truth is the oracle's regret, under the true rewards, in the very states that are held out.
Writes results/coverage.json after every seed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import line
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.explanation import STEPS, explain
from qompose.training.correct import Correction


def measure(exact: line.Exact, seed: int, count: int) -> dict[str, float]:
    """One interval, from `count` transitions of each skill, and what it should hold."""
    begin = time.perf_counter()
    skills = line.with_replays(exact.skills, seed, count)
    report = explain(dict(zip(skills, exact.weights, strict=True)), correction=Correction(steps=STEPS, seed=seed))
    truth = exact.regret(exact.total)[line.place(report.positions[report.held_out, 0])].mean()
    return {"truth": float(truth), **vars(report.regret), "seconds": time.perf_counter() - begin}


def summarise(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Coverage, width and bias over the seeds."""
    held = [row["low"] <= row["truth"] <= row["high"] for row in rows]
    truth = float(np.mean([row["truth"] for row in rows]))
    return {
        "regret": truth, "nominal": 0.9, "coverage": float(np.mean(held)),
        "median_width": float(np.median([row["high"] - row["low"] for row in rows])),
        "bias": float(np.mean([row["mean"] - row["truth"] for row in rows])),
        "bar": {"coverage": [0.8, 0.98], "median_width": truth}, "rows": rows,
    }  # fmt: skip


def main() -> None:
    arguments = read_options(__doc__, seeds=50, count=4000)
    exact = line.solve_exactly((0.1, 0.05), (0.5, 0.5))
    rows = []
    for seed in range(arguments.seeds):
        rows.append(row := measure(exact, seed, arguments.count))
        print(
            f"{seed}: {row['truth']:.3f} in [{row['low']:.3f}, {row['high']:.3f}]? {row['seconds']:.0f} s", flush=True
        )
        command = f"python -m benchmarks.coverage --seeds {seed + 1} --count {arguments.count}"
        write_results("coverage", summarise(rows), command=command, seed=list(range(seed + 1)))
    print({name: value for name, value in summarise(rows).items() if name != "rows"})


if __name__ == "__main__":
    main()
