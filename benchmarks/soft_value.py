"""How far soft values estimated from a few particles are from quadrature, in units of the temperature.

    python -m benchmarks.soft_value [--quick] [--seed 0]

|mean of 1000 estimates − quadrature| for uniform particles and for the mixture proposal, whose density is fitted to
particles of the policy: drawn from exp(Q/α) itself, as a converged sampler would, or from a sampler trained by SQL.
"8, h 1" fits a Gaussian (the agent's proposal) to 8 particles; "16, h 0.3" is a lightly smoothed density of 16.
Writes results/soft_value.json.

Bars: mixture, K = 256: ≤ 0.05 α for d ≤ 3; K = 16, d = 7, peak of width 0.2: ≤ 0.15 α. Several modes at K = 16:
reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.machine import write_results
from benchmarks.sampler_fidelity import draw_raw, train_sampler
from benchmarks.targets import TARGETS, Mixture, Target, solve
from qompose.agents.sql import SQL
from qompose.soft.value import effective_sample_size, mixture_proposal, soft_value
from qompose.view.console import print_table

WIDTH = 0.2
PEAKS = tuple(Mixture(f"peak, d = {d}", ((0.0,) * d,), (1.0,), WIDTH) for d in (1, 2, 3, 7))
CASES: tuple[Target, ...] = (*PEAKS, *TARGETS)
PROPOSALS: dict[str, tuple[int, float] | None] = {
    "uniform": None,
    "8, h 1": (8, 1.0),
    "16, h 1": (16, 1.0),
    "16, h 0.3": (16, 0.3),
}
# Which proposal is held against the bars.
JUDGED = "16, h 1"
EDGE = 1.0 - 1e-6
Draw = Callable[[np.random.Generator, int], np.ndarray]


def exact_value(target: Target) -> float:
    """log E_{a~U} exp(Q/α) by quadrature; the peak factorises."""
    if target.dimension > 3:
        line = ((np.arange(20_000) + 0.5) / 10_000 - 1.0)[:, None]
        return target.dimension * float(np.log(np.mean(np.exp(-(line**2) / (2.0 * WIDTH**2)))))
    return float(np.log(np.mean(np.exp(target.log_density(solve(target).cells)))))


def exact_draw(target: Target) -> Draw:
    """Draws of exp(Q/α), before squashing."""
    if target in PEAKS:
        shape = (target.dimension,)
        return lambda generator, n: np.arctanh(np.clip(WIDTH * generator.normal(size=(n, *shape)), -EDGE, EDGE))
    exact = solve(target)
    return lambda generator, n: np.arctanh(np.clip(exact.draw(generator, n), -EDGE, EDGE))


def trained_draw(target: Target, updates: int, seed: int) -> Draw:
    """Draws of a sampler that was trained on this Q with default hyperparameters, before squashing."""
    sampler = train_sampler(target, SQL(temperature=1.0), updates, key=jax.random.key(seed))

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        actions = np.asarray(draw_raw(sampler, jax.random.key(int(generator.integers(2**31))), n), np.float64)
        return np.arctanh(np.clip(actions, -EDGE, EDGE))

    return draw


def estimate(
    target: Target, draw: Draw, proposal: tuple[int, float] | None, particles: int, count: int, seed: int
) -> dict[str, float]:
    """Bias and deviation of `count` estimates in units of α, and the share of the particles that does work."""
    generator = np.random.default_rng(seed)
    if proposal is None:
        actions = generator.uniform(-1.0, 1.0, (count, particles, target.dimension))
        log_density = np.zeros((count, particles))
    else:
        fit, smoothing = proposal
        shape = (count, particles // 2, target.dimension)
        centres = draw(generator, count * fit).reshape(count, fit, target.dimension)
        uniform = generator.uniform(-EDGE, EDGE, shape)
        drawn, log_density = mixture_proposal(centres, generator.normal(size=shape), uniform, smoothing)
        actions = np.tanh(drawn)
    q = target.log_density(actions)
    value = soft_value(q, log_density, 1.0)
    return {
        "bias": float(value.mean() - exact_value(target)), "deviation": float(value.std()),
        "effective_share": float(effective_sample_size(q, log_density, 1.0).mean()),
    }  # fmt: skip


def measure(target: Target, count: int, updates: int, seed: int) -> list[dict[str, Any]]:
    """All proposals, 16 and 256 particles, exact and trained policy."""
    rows = []
    for source, draw in (("exact", exact_draw(target)), ("trained", trained_draw(target, updates, seed))):
        for particles in (16, 256):
            results = {
                name: estimate(target, draw, proposal, particles, count, seed) for name, proposal in PROPOSALS.items()
            }
            row = {"target": target.name, "dimension": target.dimension, "particles": particles, "policy": source}
            rows.append({**row, "proposals": results})
    return rows


def judge(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The bars, each met or not, with particles of the exact policy and of the trained sampler."""
    bars = {}
    for source in ("exact", "trained"):
        mine = [row for row in rows if row["policy"] == source]
        low = [row for row in mine if row["particles"] == 256 and row["dimension"] <= 3]
        peak = next(row for row in mine if row["particles"] == 16 and row["dimension"] == 7)
        for name in ("8, h 1", JUDGED):
            worst = max(abs(row["proposals"][name]["bias"]) for row in low)
            bars[f"{source} policy, {name}: K = 256, d ≤ 3: {worst:.3f} ≤ 0.05"] = worst <= 0.05
            bias = abs(peak["proposals"][name]["bias"])
            bars[f"{source} policy, {name}: K = 16, d = 7: {bias:.3f} ≤ 0.15"] = bias <= 0.15
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="few updates and estimates: the machinery, not the figures"
    )
    arguments = parser.parse_args()
    count, updates = (50, 100) if arguments.quick else (1000, 4000)
    rows: list[dict[str, Any]] = []
    for target in CASES:
        rows += measure(target, count, updates, arguments.seed)
    print_table(
        f"mean of {count} soft values − quadrature (α)",
        ("Q", "policy", "K", *PROPOSALS),
        [
            (
                row["target"], row["policy"], row["particles"],
                *(f"{result['bias']:+.3f}" for result in row["proposals"].values()),
            )
            for row in rows
        ],
    )  # fmt: skip
    if arguments.quick:
        return
    bars = judge(rows)
    for bar, met in bars.items():
        print(f"{'met   ' if met else 'MISSED'} {bar}")
    command = f"python -m benchmarks.soft_value --seed {arguments.seed}"
    result = {"bars": bars, "estimates": count, "sampler_updates": updates, "rows": rows}
    write_results("soft_value", result, command=command, seed=arguments.seed)


if __name__ == "__main__":
    main()
