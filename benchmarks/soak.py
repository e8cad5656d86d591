"""A long training: does it hold more and more memory, files or threads, or compile anything again?

    python -m benchmarks.soak [--steps 173000] [--seed 0] [--quick]

173 000 steps are two hours and 24 minutes of a robot at 20 Hz. The training is the command line's own, with metrics,
TensorBoard, evaluations and checkpoints, on MultiGoal, and cheap: one hidden layer of 16 units, batches of 8, one
update per step, a replay of 20 000. Looked at from outside, once a second: the process's own memory, resident or
swapped out, its open descriptors and threads, and what JAX says that it compiles. The first 40 000 steps are warm-up.
The growth of memory is the median of the slopes between any two looks after it, since memory that is given back at
once would hide what grows from a fitted line. Writes section R9 of results/reliability.json, and stops with status 1 if
a bar is missed. `--quick`: 12 000 steps, of which 4000 are warm-up; nothing is written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write_section
from benchmarks.options import read_options
from qompose.run import read_metrics

FLAGS = {
    "--env": "MultiGoal", "--hidden": 16, "--batch-size": 8, "--updates-per-step": 1, "--num-envs": 8,
    "--value-particles": 8, "--fit-particles": 4, "--fixed-particles": 4, "--updated-particles": 4,
    "--replay-size": 20_000, "--warmup-steps": 1000, "--log-freq": 500, "--progress": "none",
}  # fmt: skip
MOST_GROWTH = 1.0  # MB per 100 000 steps
COMPILING = "Finished XLA compilation"


def look(process: int) -> tuple[float, int, int]:
    """Megabytes of a process's own memory, resident or swapped out, and its open descriptors and threads."""
    folder = Path("/proc") / str(process)
    # Not all that is resident: a system short of memory takes pages away, and what grows would seem to shrink.
    lines = dict(line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines())
    kilobytes = sum(int(lines[name].split()[0]) for name in ("RssAnon", "VmSwap"))
    return 1.024e-3 * kilobytes, len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))


def soak(steps: int, warmup: int, seed: int, folder: Path) -> dict[str, Any]:
    flags = FLAGS | {"--total-steps": steps, "--seed": seed, "--eval-freq": warmup // 2, "--save-freq": warmup // 4}
    words = [str(word) for pair in flags.items() for word in pair]
    command = [sys.executable, "-m", "qompose", "train", *words, "--output-dir", str(folder / "run")]
    rows, begin = [], time.monotonic()
    with (
        open(folder / "stderr", "w+", encoding="utf-8") as complaints,
        subprocess.Popen(
            command, env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1"},
            stdout=subprocess.DEVNULL, stderr=complaints,
        ) as process,
    ):  # fmt: skip
        while process.poll() is None:
            time.sleep(1.0)
            try:
                seen = look(process.pid)
            except (OSError, KeyError):  # it has just ended
                break
            lines = read_metrics(folder / "run")
            compiled = (folder / "stderr").read_text(encoding="utf-8").count(COMPILING)
            if lines and lines[-1]["step"] < steps:
                rows.append((lines[-1]["step"], *seen, compiled))
        if process.wait():
            raise SystemExit((folder / "stderr").read_text(encoding="utf-8").strip().splitlines()[-1])
    return judge(np.array(rows), warmup) | {"steps": steps, "warm_up": warmup, "seconds": time.monotonic() - begin}


def judge(rows: np.ndarray, warmup: int) -> dict[str, Any]:
    """What became of rows (n, 5) of step, megabytes, descriptors, threads and compilations after the warm-up."""
    after = rows[rows[:, 0] >= warmup]
    if len(after) < 3:
        raise SystemExit(f"only {len(after)} looks after the warm-up; give more steps")
    first, second = np.triu_indices(len(after), 1)
    steps, megabytes = (after[second] - after[first])[:, :2].T
    slope = np.median(megabytes[steps > 0] / steps[steps > 0])
    names = ("descriptors", "threads", "compilations")
    ranges = {name: [int(part.min()), int(part.max())] for name, part in zip(names, after[:, 2:].T, strict=True)}
    growth = float(1e5 * slope)
    return {
        "looks": len(after),
        "megabytes": [float(after[0, 1]), float(after[-1, 1])],
        "megabytes_per_100_000_steps": growth,
        **ranges,
        "met": growth < MOST_GROWTH and all(low == high for low, high in ranges.values()),
        "every_tenth_look": after[::10, :2].tolist(),
    }


def main(arguments: list[str] | None = None) -> int:
    options = read_options(__doc__, arguments, steps=173_000, seed=0, quick=False)
    steps, warmup = (12_000, 4000) if options.quick else (options.steps, 40_000)
    with tempfile.TemporaryDirectory() as folder:
        result = soak(steps, warmup, options.seed, Path(folder))
    if not options.quick:
        command = f"python -m benchmarks.soak --steps {steps} --seed {options.seed}"
        write_section("R9", result, command=command, seed=options.seed)
    print(json.dumps({name: value for name, value in result.items() if name != "every_tenth_look"}))
    return 0 if result["met"] or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
