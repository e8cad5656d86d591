"""Does a nominal 90 % interval of the regret certificate hold the regret? On a line whose regret is known exactly.

    python -m benchmarks.coverage [--seeds 50] [--count 2000]

The skills stay; each seed draws replays and action draws of its own. The certificate is that of `explain`,
V* − V^π = α E_π Σ γ^t KL(π ‖ π*), with Bellman residuals, but C and the regret are solved for by least squares on
piecewise linear functions instead of networks: there is neither a learning rate nor an end that comes too soon.
The interval is from a jackknife over ten parts of the data, which also takes off the first order of the bias.
Writes results/certificate_coverage.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import line
from benchmarks.machine import write_results
from qompose.training.correct import Correction, Survey, survey
from qompose.types import Transition

PARTS, NEWTON_STEPS = 10, 8
KNOTS = 31, 6  # of the piecewise linear functions, along state and action
RIDGE = 1e-6
STUDENT = 1.833  # 95th hundredth of Student's t with PARTS − 1 degrees of freedom
DRAWS = Correction(candidates=256, kept=4)


def hats(x: np.ndarray, count: int) -> np.ndarray:
    """Piecewise linear functions on [-1, 1] that are one at a knot and zero at all others. (…) -> (…, count)"""
    at = (x[..., None] + 1.0) * (0.5 * (count - 1))
    return np.maximum(1.0 - np.abs(at - np.arange(count, dtype=np.float32)), 0.0)


def features(observation: Any, action: Any) -> np.ndarray:
    """Products of hats of state and action: (n, 1), (n, *draws, 1) -> (n, *draws, features), float32"""
    place = hats(observation[:, 0], KNOTS[0]).reshape(len(observation), *(1,) * (action.ndim - 2), KNOTS[0], 1)
    both = place * hats(action[..., 0], KNOTS[1])[..., None, :]
    return both.reshape(*both.shape[:-2], -1).astype(np.float32)


def soft_minimum(x: np.ndarray, weight: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """−α log Σ W exp(−x/α) and its derivative by x. (n, draws) -> (n,), (n, draws)"""
    low = x.min(axis=1, keepdims=True)
    pull = weight * np.exp((low - x) / alpha)
    total = pull.sum(axis=1, keepdims=True)
    return low[:, 0] - alpha * np.log(total[:, 0]), pull / total


def weighted(share: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Σ_k share_k φ_k. (n, draws), (n, draws, features) -> (n, features), float64"""
    return np.matmul(share[:, None, :].astype(np.float32), features)[:, 0].astype(np.float64)


class Problem:
    """Transitions with features, and states whose mean regret is asked for."""

    def __init__(self, seen: Survey, starts: Survey, alpha: float, seed: int) -> None:
        self.alpha, self.seen = alpha, seen
        self.part = np.random.default_rng([seed, 1]).permutation(len(seen.kappa)) % PARTS
        self.here = features(seen.observation, seen.action).astype(np.float64)
        self.after = features(seen.next_observation, seen.next_actions)
        self.weight = np.exp(seen.log_weight.astype(np.float64))
        self.start = features(starts.next_observation, starts.next_actions)
        self.start_weight = np.exp(starts.log_weight.astype(np.float64))

    def solve(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """C's coefficients (parts + 1, features), of all transitions and without each part, and the regret of each.

        Newton's method for all transitions; without a part it is one step away from there.
        """
        here, after, weight = self.here, self.after, self.weight
        discount, kappa = (x.astype(np.float64) for x in (self.seen.discount, self.seen.kappa))
        c = np.zeros(here.shape[1])
        for _ in range(steps):
            values = after @ c.astype(np.float32)
            low, share = soft_minimum(values, weight, self.alpha)
            source = discount * (kappa + low - np.sum(share * values, axis=1)) - self.seen.residual
            chain = here - discount[:, None] * weighted(share, after)
            c = self._solve(chain, source)[0]
        c = self._solve(chain, source)
        chain = here - discount[:, None] * weighted(weight, after)
        later = [self._solve(chain, discount * self._local(after, weight, each), [k])[0] for k, each in enumerate(c)]
        ahead = weighted(self.start_weight, self.start)
        regrets = [np.mean(self._local(self.start, self.start_weight, each) + ahead @ g)
                   for each, g in zip(c, later, strict=True)]  # fmt: skip
        return c, np.array(regrets)

    def _solve(self, chain: np.ndarray, source: np.ndarray, which: Any = range(PARTS + 1)) -> np.ndarray:
        """Least squares by all transitions (0) and by those of all parts but part k − 1: (len(which), features)"""
        groups = [self.part == p for p in range(PARTS)]
        grams = np.stack([self.here[g].T @ chain[g] for g in groups])
        sides = np.stack([self.here[g].T @ source[g] for g in groups])
        ridge = RIDGE * len(source) * np.eye(grams.shape[1])
        solved = []
        for k in which:
            kept = np.arange(PARTS) != k - 1
            solved.append(np.linalg.solve(grams[kept].sum(axis=0) + ridge, sides[kept].sum(axis=0)))
        return np.stack(solved)

    def _local(self, features: np.ndarray, weight: np.ndarray, c: np.ndarray) -> np.ndarray:
        """α KL(π_Σ ‖ π*) in each state."""
        values = features @ c.astype(np.float32)
        return np.sum(weight * values, axis=1) - soft_minimum(values, weight, self.alpha)[0]


def estimate(problem: Problem) -> tuple[float, float]:
    """The regret with the first order of its bias taken off, and its standard error: jackknife over PARTS."""
    whole, *less = problem.solve(NEWTON_STEPS)[1]
    error = np.sqrt((PARTS - 1) / PARTS * np.sum((less - np.mean(less)) ** 2))
    return float(PARTS * whole - (PARTS - 1) * np.mean(less)), float(error)


def measure(exact: Any, seed: int, count: int) -> dict[str, float]:
    """One interval, from `count` transitions of each skill."""
    begin = time.perf_counter()
    parts = [line.rows(skill.name, count, 1000 + 2 * seed + k) for k, skill in enumerate(exact.skills)]
    data = Transition(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    rewards = [line.reward_at(skill.name, data) for skill in exact.skills]
    options = replace(DRAWS, seed=seed)
    seen = survey(exact.skills, exact.weights, exact.alpha, data, options, rewards)
    grid = line.X.astype(np.float32)[:, None]
    zeros = np.zeros(len(grid), np.float32)
    starts = survey(
        exact.skills, exact.weights, exact.alpha, Transition(grid, 0.0 * grid, zeros, grid, zeros),
        replace(options, seed=seed + 10_000),
    )  # fmt: skip
    mean, error = estimate(Problem(seen, starts, exact.alpha, seed))
    return {"mean": mean, "low": mean - STUDENT * error, "high": mean + STUDENT * error,
            "seconds": time.perf_counter() - begin}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    exact = line.solve_exactly((0.1, 0.05), (0.5, 0.5))
    truth = float(exact.regret(exact.total).mean())
    rows = []
    for seed in range(arguments.seeds):
        rows.append(measure(exact, seed, arguments.count))
        row = rows[-1]
        print(f"{seed}: {row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}], {row['seconds']:.1f} s", flush=True)
    held = [row["low"] <= truth <= row["high"] for row in rows]
    widths = [row["high"] - row["low"] for row in rows]
    result = {
        "regret": truth, "nominal": 0.9, "coverage": float(np.mean(held)), "median_width": float(np.median(widths)),
        "bias": float(np.mean([row["mean"] for row in rows]) - truth), "transitions_of_each_skill": arguments.count,
        "bar": {"coverage": [0.8, 0.98], "median_width": truth}, "rows": rows,
    }  # fmt: skip
    command = f"python -m benchmarks.coverage --seeds {arguments.seeds} --count {arguments.count}"
    write_results("certificate_coverage", result, command=command, seed=list(range(arguments.seeds)))
    print({name: value for name, value in result.items() if name != "rows"})


if __name__ == "__main__":
    main()
