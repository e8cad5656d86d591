"""Fixed analytic energies Q/α = log p with known answers: mixtures of Gaussians cut by the box, and a ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qompose.soft.squash import logsumexp

BINS = 40


@dataclass(frozen=True)
class Mixture:
    """log p(a) = log Σ_i w_i exp(−|a − c_i|²/2σ²), up to a constant, on the box."""

    name: str
    centres: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    width: float

    @property
    def dimension(self) -> int:
        """Of the action."""
        return len(self.centres[0])

    def log_density(self, action: Any) -> Any:
        """(*batch, act) -> (*batch,), up to a constant; NumPy and JAX alike."""
        xp = action.__array_namespace__()
        terms = []
        for centre, weight in zip(self.centres, self.weights, strict=True):
            offset = action - xp.reshape(xp.asarray(centre, dtype=action.dtype), (1,) * (action.ndim - 1) + (-1,))
            terms.append(float(np.log(weight)) - xp.sum(offset**2, axis=-1) / (2.0 * self.width**2))
        return logsumexp(xp.stack(terms, axis=-1))

    def mode_of(self, action: np.ndarray) -> np.ndarray:
        """Index of the nearest mode."""
        square = [np.sum((action - np.asarray(centre)) ** 2, axis=-1) for centre in self.centres]
        return np.argmin(np.stack(square, axis=-1), axis=-1)


@dataclass(frozen=True)
class Ring:
    """log p(a) = −(|a| − r)²/2σ² in two dimensions; its four quadrants count as modes."""

    name: str
    radius: float
    width: float
    dimension: int = 2

    def log_density(self, action: Any) -> Any:
        """(*batch, 2) -> (*batch,), up to a constant; NumPy and JAX alike."""
        xp = action.__array_namespace__()
        radius = xp.sqrt(xp.sum(action**2, axis=-1) + 1e-12)
        return -((radius - self.radius) ** 2) / (2.0 * self.width**2)

    def mode_of(self, action: np.ndarray) -> np.ndarray:
        """Index of the quadrant."""
        return 2 * (action[..., 0] > 0) + (action[..., 1] > 0)


Target = Mixture | Ring

FOUR = ((-0.5, -0.5), (0.5, 0.4), (-0.4, 0.6), (0.9, -0.9))
THREE = ((-0.5, -0.4, 0.3), (0.5, 0.5, 0.5), (0.3, -0.6, -0.5))
TARGETS: tuple[Target, ...] = (
    Mixture("overlapping", ((-0.3,), (0.3,)), (0.5, 0.5), 0.2),
    Mixture("separated", ((-0.6,), (0.6,)), (0.25, 0.75), 0.1),
    Mixture("three, one at the edge", ((-0.6,), (0.1,), (0.95,)), (1 / 3, 1 / 3, 1 / 3), 0.12),
    Mixture("four, one in a corner", FOUR, (0.1, 0.2, 0.3, 0.4), 0.12),
    Ring("ring", 0.6, 0.08),
    Mixture("three in 3-D", THREE, (0.2, 0.3, 0.5), 0.15),
)


@dataclass(frozen=True)
class Exact:
    """The target on a fine grid: what samples are compared with."""

    target: Target
    cells: np.ndarray  # (cells, act), centres
    mass: np.ndarray  # (cells,), sums to one
    cell_width: float

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Exact samples: the inverse of the cumulative mass, uniform within a cell."""
        chosen = np.searchsorted(np.cumsum(self.mass), generator.random(count) * self.mass.sum(), side="right")
        jitter = generator.random((count, self.target.dimension)) - 0.5
        return self.cells[np.minimum(chosen, len(self.cells) - 1)] + jitter * self.cell_width

    def mode_masses(self) -> np.ndarray:
        """Share of every mode."""
        return np.bincount(self.target.mode_of(self.cells), weights=self.mass)

    def histogram(self) -> np.ndarray:
        """Mass of every bin, 40 along each axis."""
        return histogram(self.cells, self.mass)


def solve(target: Target) -> Exact:
    """Quadrature with the midpoint rule; 50, 10 or 2 cells along each side of a bin."""
    count = BINS * {1: 50, 2: 10, 3: 2}[target.dimension]
    line = (np.arange(count) + 0.5) * 2.0 / count - 1.0
    cells = np.stack(np.meshgrid(*[line] * target.dimension, indexing="ij"), axis=-1).reshape(-1, target.dimension)
    mass = np.exp(target.log_density(cells))
    return Exact(target, cells, mass / mass.sum(), 2.0 / count)


def histogram(action: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
    """Shares of the joint bins."""
    edges = [np.linspace(-1.0, 1.0, BINS + 1)] * action.shape[-1]
    counts = np.histogramdd(np.clip(action, -1.0, 1.0), edges, weights=mass)[0]
    return counts / counts.sum()


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    """½ Σ |p − q| over the bins."""
    return float(0.5 * np.abs(first - second).sum())


def energy_distance(first: np.ndarray, second: np.ndarray, count: int = 10_000) -> float:
    """2 E|X − Y| − E|X − X'| − E|Y − Y'| of the first `count` samples (Székely and Rizzo 2013)."""
    first, second = first[:count].astype(np.float32), second[:count].astype(np.float32)

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        total = 0.0
        for rows in np.array_split(x, 20):
            square = (rows**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * rows @ y.T
            total += float(np.sqrt(np.maximum(square, 0.0)).sum(dtype=np.float64))
        pairs = len(x) * (len(y) - 1) if x is y else len(x) * len(y)
        return total / pairs

    return 2.0 * mean_distance(first, second) - mean_distance(first, first) - mean_distance(second, second)
