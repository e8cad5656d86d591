"""Train a composition further, where the sum alone fails: a point between two peaks of its own and one in common.

    python -m benchmarks.fine_tune_point [--seeds 5]

For each seed two skills of `qompose.paper.operators` ("modes"), and a reference that is trained on their composed task
from scratch. The composed skills, as the sum and corrected, train further on that task. The level is the mean return of
the reference over the last quarter of its evaluations; counted are the steps to the first evaluation that reaches it.
Writes results/fine_tune_point.json after every seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.paper.operators import POINT_STEPS, POINTS, PROBLEMS, composed_peaks
from qompose.paper.study import curve_of, first_step
from qompose.view.console import print_table

PROBLEM, EVERY, EPISODES = "modes", 250, 50
HIDDEN = 64, 64
BAR = 0.25


def learn(peaks: Any, seed: int, folder: Path, **settings: Any) -> tuple[qp.Skill, list[list[float]]]:
    """A skill of these peaks, and its curve: [step, mean return]."""
    shared = {"discount": 0.95, "hidden": HIDDEN, "updates_per_step": 1, "total_steps": POINT_STEPS}
    skill = qp.train(
        "Peaks", options={"peaks": peaks}, seed=seed, eval_freq=EVERY, eval_episodes=EPISODES, save_freq=0,
        output_dir=folder, track=False, **(shared | settings),
    )  # fmt: skip
    return skill, curve_of(folder, "mean_reward")


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Curves from scratch, and from the sum and the corrected sum."""
    parts = []
    for name in PROBLEMS[PROBLEM]:
        peaks, temperature = POINTS[name]
        parts.append(learn(peaks, seed, folder / name, temperature=temperature, name=name)[0])
    peaks, temperature = composed_peaks(PROBLEM)
    curves = {"from scratch": learn(peaks, seed, folder / "scratch", temperature=temperature)[1]}
    for name, correct in (("sum", False), ("corrected", True)):
        start = qp.compose(
            parts[0] & parts[1], correct=correct, extraction=qp.Extraction(seed=seed, hidden=HIDDEN),
            correction=qp.Correction(seed=seed),
        )  # fmt: skip
        found = qp.evaluate(start, "Peaks", EPISODES, seed=1000 + seed, options={"peaks": peaks}).values("return")
        # It has the experience of both from the start, and waits for no more than the first evaluation.
        curve = learn(
            peaks, seed, folder / f"from-{name}", start=start, total_steps=POINT_STEPS // 4, warmup_steps=EVERY
        )[1]
        curves[name] = [[0, float(found.mean())], *curve]
    tail = [value for step, value in curves["from scratch"] if step > 0.75 * POINT_STEPS]
    level = float(np.mean(tail))
    steps = {name: first_step(curve, lambda value: value >= level) for name, curve in curves.items()}
    return {"seed": seed, "level": level, "steps": steps, "curves": curves}


def main() -> None:
    arguments = read_options(__doc__, seeds=5)
    rows = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(seed, Path(folder)))
        command = f"python -m benchmarks.fine_tune_point --seeds {seed + 1}"
        result = {"problem": PROBLEM, "rows": rows, "bar": BAR, "total_steps": POINT_STEPS, "every": EVERY}
        write_results("fine_tune_point", result, command=command, seed=list(range(seed + 1)))
        print(f"{seed}: {rows[-1]['steps']}", flush=True)
    print_table(
        "steps to the level of training from scratch",
        ("seed", "level", "from scratch", "from the sum", "from the corrected sum"),
        [(row["seed"], f"{row['level']:.2f}", *(str(row["steps"][name]) for name in row["curves"])) for row in rows],
    )


if __name__ == "__main__":
    main()
