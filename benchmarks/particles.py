"""Does soft Q-learning learn as well with fewer particles? Left and bottom with half of them, against Table I's.

    python -m benchmarks.particles [--seeds 3] [--total-steps 60000] [--runs-dir runs/particles]

An update costs in proportion to them (`benchmarks.update_speed`). The figures of the default are those of
results/table1.json, same seeds and steps. Finished trainings are kept. Writes results/particles.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import read_results, write_results
from benchmarks.options import read_options
from qompose.paper.study import Case, Study
from qompose.types import QomposeError
from qompose.view.console import print_table

TASKS = ("PushLeft", "PushBottom")
DEFAULT = "16 for V, 8 that shape its proposal, 8 + 8 of Stein"
HALF = {"value": 8, "fit": 4, "fixed": 4, "updated": 4}
VARIANTS = {
    "half of all": HALF,
    "half for V": {name: HALF[name] for name in ("value", "fit")},
    "half of Stein's": {name: HALF[name] for name in ("fixed", "updated")},
}


def train(folder: Path, particles: dict[str, int], seeds: int, total_steps: int) -> list[dict[str, Any]]:
    """Final distances of each seed on both tasks."""
    flags = tuple(word for name, count in particles.items() for word in (f"--{name}-particles", str(count)))
    study = Study(folder, seeds, total_steps, settings=flags)
    study.open()
    cases = {task: [Case("sql", task, seed) for seed in range(seeds)] for task in TASKS}
    records = study.measure("particles", [case for each in cases.values() for case in each])
    return [
        {"task": task, "seeds": [float(np.mean(records[case]["sample"]["distance"])) for case in each],
         "medians": [float(np.median(records[case]["sample"]["distance"])) for case in each]}
        for task, each in cases.items()
    ]  # fmt: skip


def default_rows(seeds: int) -> list[dict[str, Any]]:
    """The same of Table I, as far as its seeds go."""
    rows = read_results("table1")["result"]["rows"]
    return [
        {"task": row["task"], "seeds": row["seeds"][:seeds], "medians": row["medians"][:seeds]}
        for task in TASKS for row in rows
        if (row["task"], row["algorithm"], row["mode"], row["merged"], row["informed"])
        == (task, "sql", "sample", False, False)
    ]  # fmt: skip


def main() -> None:
    arguments = read_options(__doc__, seeds=3, total_steps=60_000, runs_dir=Path("runs/particles"))
    rows = [{"particles": "default", **row} for row in default_rows(arguments.seeds)]
    for name, particles in VARIANTS.items():
        try:
            folder = arguments.runs_dir / name.replace(" ", "-").replace("'", "")
            found = train(folder, particles, arguments.seeds, arguments.total_steps)
        except QomposeError as error:
            raise SystemExit(f"particles: {error}") from None
        rows += [{"particles": name, **row} for row in found]
        command = f"python -m benchmarks.particles --seeds {arguments.seeds} --total-steps {arguments.total_steps}"
        result = {"rows": rows, "default": DEFAULT, "variants": VARIANTS, "total_steps": arguments.total_steps}
        write_results("particles", result, command=command, seed=list(range(arguments.seeds)))
    print_table(
        "final distance (m) with fewer particles",
        ("particles", "task", "mean", "seeds"),
        [
            (row["particles"], row["task"], f"{np.mean(row['seeds']):.3f}", " ".join(f"{x:.3f}" for x in row["seeds"]))
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
