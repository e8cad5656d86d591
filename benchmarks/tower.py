"""How heavy avoiding must be at the tower, and how cold the sum: Fig. 6's composition varied.

    python -m benchmarks.tower [--seeds 3] [--total-steps 100000] [--study reproduce-stack]

`--study` is an output directory of `qompose reproduce fig6`, whose trainings are used. Each pair acts on its sum, as
`composed` there does. The episodes are others than Fig. 6's: what is chosen here is judged there. What is measured is
kept in the study, so that an interrupted benchmark goes on. Writes results/tower.json and docs/tower.png.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

import qompose as qp
from benchmarks.machine import RESULTS, write_results
from benchmarks.options import read_options
from qompose.paper import fig5, fig6
from qompose.paper.study import Case, Study, each_once, made_by
from qompose.shipped import load
from qompose.store import read_json
from qompose.view.charts import draw_curves
from qompose.view.console import bars, print_table

FIRST_SEED = 1000  # of the episodes
MODES = ("resample", "best")
# Times the weight of stacking, at the skills' temperature; and parts of that temperature, at Fig. 6's weight.
WEIGHTS, COOLER, WEIGHT = (1.0, 2.0, 3.0, 4.0), (0.5,), 3.0
SETTINGS = (
    *((weight, 1.0, mode) for weight, mode in itertools.product(WEIGHTS, MODES)),
    *((WEIGHT, part, "resample") for part in COOLER),
)


def measure(study: Study, seed: int, weight: float, part: float, mode: str) -> dict[str, Any]:
    """Shares of the episodes of one composition: as in Fig. 6."""
    file = study.folder / "tower" / f"s{seed}-{weight:g}-{part:g}-{mode}.json"
    if not file.exists():
        stack, avoid = (load(study.run_of(Case("sql", task, seed))) for task in fig6.PARTS)
        assert stack.temperature is not None  # of soft Q-learning
        skill = qp.compose(stack & weight * avoid, temperature=part * stack.temperature, extract=False)
        result = qp.evaluate(skill, fig6.TASK, fig6.EPISODES, mode=mode, seed=FIRST_SEED + seed, options={})
        shares = {name: float(result.values(name).mean()) for name in fig6.SHARES}
        study.write_episodes(file, shares, [Case("sql", task, seed) for task in fig6.PARTS])
    return read_json(file)


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Shares over the weight of avoiding, for each way of acting and seed."""
    over = [row for row in rows if row["part"] == 1.0]
    panels = {}
    for name in ("success", "collided"):
        curves = {}
        for mode in MODES:
            points = [(row["weight"], row[name]) for row in over if row["mode"] == mode]
            curves[mode] = [[[weight, shares[seed]] for weight, shares in points] for seed in range(len(points[0][1]))]
        panels[fig6.SHARES[name]] = curves
    draw_curves(path, panels, labels=("weight of avoiding, times that of stacking", "share"), logarithmic="x",
                levels={fig6.SHARES["success"]: {"asked for": 0.9}})  # fmt: skip


def main() -> None:
    options = read_options(__doc__, None, seeds=3, total_steps=100_000, study=Path("reproduce-stack"))
    study = Study(options.study, options.seeds, options.total_steps)
    study.open(fig5.SETTINGS)
    rows: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    with bars() as shown:
        for done, (weight, part, mode) in enumerate(SETTINGS):
            shown.update("tower", done, len(SETTINGS))
            each = [measure(study, seed, weight, part, mode) for seed in range(options.seeds)]
            shares = {name: [one[name] for one in each] for name in fig6.SHARES}
            made += made_by(each)
            rows.append({"weight": weight, "part": part, "mode": mode, **shares})
        shown.update("tower", len(SETTINGS), len(SETTINGS))
    result = {"rows": rows, "episodes": fig6.EPISODES, "first_seed": FIRST_SEED, "runs_made_by": each_once(made)}
    command = f"python -m benchmarks.tower --seeds {options.seeds} --total-steps {options.total_steps}"
    write_results("tower", result, command=command, seed=list(range(options.seeds)))
    draw(RESULTS.parent / "docs" / "tower.png", rows)
    print_table(
        f"composed at the tower, shares of {fig6.EPISODES} episodes, each seed",
        ("weight of avoiding", "temperature, times", "acting", *fig6.SHARES.values(), "mean"),
        [
            (
                f"{row['weight']:g}", f"{row['part']:g}", row["mode"],
                *(" ".join(f"{share:.2f}" for share in row[name]) for name in fig6.SHARES),
                f"{np.mean(row['success']):.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
