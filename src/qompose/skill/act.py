"""How a skill acts, in NumPy: candidates, importance resampling, and the best of several.

The functions take Q(s, ·) as a callable and the policy as pre-squash particles, so that they know no network. Every
density is relative to the uniform probability measure on the box. Leading axes `*batch` are states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qompose.soft.squash import log_uniform, logsumexp
from qompose.soft.value import draw_smoothed, log_smoothed, mixture_proposal, soft_value
from qompose.types import QomposeError

CANDIDATES = 256
PARTICLES = 64
SMOOTHING = 0.4
# Fewest particles that say something about one policy's spread.
FEWEST_PARTICLES = 8
# Actions are drawn strictly inside the box, where atanh is finite in float32.
EDGE = 1.0 - 1e-6

Q = Callable[[np.ndarray], np.ndarray]


def propose(particles: Sequence[Any], noise: Sequence[Any], uniform: Any, smoothing: float) -> tuple[Any, Any]:
    """Draws u from the defensive mixture of U and the smoothed densities of several policies, and log density w.r.t. U.

    `q = (1 − s) + s · mean_i q_i`, s the share of `noise` among all draws; each q_i is smoothed by its own moments,
    since moments of particles of different policies taken together would say nothing. Works for NumPy and JAX.
    particles: (*batch, centres, act) for each policy, pre-squash; noise ε ~ N(0, I): (*batch, n, act) for each policy,
    the same n; uniform, in (-1, 1): (*batch, m, act) -> u: (*batch, policies · n + m, act), log q: (*batch, same).
    """
    if len(particles) == 1:
        return mixture_proposal(particles[0], noise[0], uniform, smoothing)
    xp = uniform.__array_namespace__()
    draws = [draw_smoothed(p, n, smoothing) for p, n in zip(particles, noise, strict=True)]
    drawn = xp.concat([*draws, xp.atanh(uniform)], axis=-2)
    each = xp.stack([log_smoothed(drawn, p, smoothing) for p in particles], axis=-1)
    log_ratio = logsumexp(each) - math.log(len(particles)) - log_uniform(drawn)
    share = 1.0 - uniform.shape[-2] / drawn.shape[-2]
    both = xp.stack([log_ratio + math.log(share), xp.full_like(log_ratio, math.log1p(-share))], axis=-1)
    return drawn, logsumexp(both)


def draw_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float32 actions strictly inside (-1, 1)."""
    return np.clip(2.0 * rng.random(shape, dtype=np.float32) - 1.0, -EDGE, EDGE).astype(np.float32, copy=False)


def draw_candidates(
    particles: Sequence[np.ndarray], rng: np.random.Generator, count: int = CANDIDATES, smoothing: float = SMOOTHING
) -> tuple[np.ndarray, np.ndarray]:
    """About `count` actions, half from the policies' smoothed densities and half uniform, and their log density.

    particles: as in `propose`. Each policy gives the same number of draws, which may round `count` up.
    -> actions (*batch, n, act) in [-1, 1], log density w.r.t. U (*batch, n)
    """
    *batch, _, size = particles[0].shape
    half = max(count // 2, 1)
    each = -(-half // len(particles))
    noise = [rng.standard_normal((*batch, each, size), dtype=np.float32) for _ in particles]
    u, log_density = propose(particles, noise, draw_uniform(rng, (*batch, half, size)), smoothing)
    return np.tanh(u), check_finite(log_density, "sampler")


def resample(
    q: Q,
    particles: Sequence[np.ndarray],
    temperature: float,
    rng: np.random.Generator,
    *,
    candidates: int = CANDIDATES,
    smoothing: float = SMOOTHING,
) -> np.ndarray:
    """One action, distributed as exp(Q/α) in the limit of many candidates: self-normalised importance resampling.

    Candidate k is taken with probability proportional to exp(Q_k/α)/q_k (Gumbel-max). -> (*batch, act) in [-1, 1]
    """
    actions, log_density = draw_candidates(particles, rng, candidates, smoothing)
    log_weight = check_finite(q(actions)).astype(np.float64) / temperature - log_density
    # argmax of log w + Gumbel = argmin of Exponential/w, in logarithms.
    chosen = np.argmax(log_weight - np.log(rng.standard_exponential(log_weight.shape)), axis=-1)
    return _take(actions, chosen)


def best(
    q: Q, particles: Sequence[np.ndarray], rng: np.random.Generator, *, candidates: int = CANDIDATES
) -> np.ndarray:
    """The action of highest Q among the particles themselves and half of `candidates` uniform ones.

    A heuristic for evaluation: it is neither the policy nor, in many dimensions, the maximum. -> (*batch, act)
    """
    *batch, _, size = particles[0].shape
    uniform = draw_uniform(rng, (*batch, max(candidates // 2, 1), size))
    actions = np.concatenate([*map(np.tanh, particles), uniform], axis=-2)
    return _take(actions, np.argmax(check_finite(q(actions)), axis=-1))


def best_around(q: Q, action: np.ndarray, rng: np.random.Generator, *, candidates: int = CANDIDATES) -> np.ndarray:
    """The action of highest Q among one action (*batch, act) and uniform ones: never worse in Q than that action."""
    *batch, size = action.shape
    actions = np.concatenate([action[..., None, :], draw_uniform(rng, (*batch, candidates - 1, size))], axis=-2)
    return _take(actions, np.argmax(check_finite(q(actions)), axis=-1))


def estimate_value(q: Q, actions: np.ndarray, log_density: np.ndarray | float, temperature: float) -> np.ndarray:
    """V(s) = α log E_{a~U} exp(Q/α) from actions (*batch, n, act) and their log density w.r.t. U. -> (*batch,)"""
    return soft_value(check_finite(q(actions)).astype(np.float64), log_density, temperature)


def check_finite(numbers: np.ndarray, what: str = "critic") -> np.ndarray:
    """The numbers, if all are finite: a choice among NaN would look like any other."""
    if not np.isfinite(numbers).all():
        raise QomposeError(f"the {what} returned NaN or infinity for this observation; check its units and range")
    return numbers


def _take(actions: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.take_along_axis(actions, chosen[..., None, None], axis=-2)[..., 0, :]
