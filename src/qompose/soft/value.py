"""Soft value by importance sampling, and the proposals that make it accurate.

`V(s) = α log E_{a~U}[exp(Q(s,a)/α)]` (paper, eq 4; base measure: see `squash`). Uniform proposals collapse with the
dimension of the action; a defensive mixture of the uniform and a density that follows the policy does not.
"""

from __future__ import annotations

import math
from typing import Any

from qompose.soft.squash import LOG_2_PI, log_uniform, logsumexp

# Widths below this (pre-squash units) are numerically a point; no proposal is narrower.
SMALLEST_WIDTH = 1e-2


def soft_value(q: Any, log_density: Any, temperature: Any) -> Any:
    """V̂ = α [ logsumexp_k(Q_k/α − log q_k) − log K ] for particles a_k ~ q, q a density w.r.t. the uniform measure.

    Haarnoja et al. 2017, eq 10, with the density of the proposal kept. For uniform particles log q = 0.
    q, log_density: (*batch, particles) -> (*batch,), in the units of q.
    """
    return temperature * (logsumexp(q / temperature - log_density) - math.log(q.shape[-1]))


def effective_sample_size(q: Any, log_density: Any, temperature: Any) -> Any:
    """(Σ w)² / (K Σ w²) for w_k = exp(Q_k/α)/q_k: the share of the K particles that does work, in (0, 1].

    q, log_density: (*batch, particles) -> (*batch,)
    """
    log_weight = q / temperature - log_density
    xp = log_weight.__array_namespace__()
    return xp.exp(2.0 * logsumexp(log_weight) - logsumexp(2.0 * log_weight)) / q.shape[-1]


def log_weights(q: Any, log_density: Any, temperature: Any) -> Any:
    """log W_k, W_k = w_k/Σ w for w_k = exp(Q_k/α)/q_k: makes draws a_k ~ q a weighted sample of the policy exp(Q/α).

    q, log_density: (*batch, particles) -> (*batch, particles), Σ_k W_k = 1
    """
    # Values first become differences: in float32 a large offset over α would eat the digits.
    log_weight = (q - q.__array_namespace__().max(q, axis=-1, keepdims=True)) / temperature - log_density
    return log_weight - logsumexp(log_weight)[..., None]


def log_policy(q: Any, value: Any, temperature: float) -> Any:
    """log π(a|s) = (Q(s,a) − V(s))/α, relative to the uniform measure (paper, eq 2). Broadcasts."""
    return (q - value) / temperature


def _spread(particles: Any, smoothing: float) -> tuple[Any, Any, Any]:
    """Mean (*batch, 1, act), offsets of the centres from it (*batch, centres, act) and widths (*batch, 1, act)."""
    xp = particles.__array_namespace__()
    mean = xp.mean(particles, axis=-2, keepdims=True)
    width = smoothing * xp.std(particles, axis=-2, keepdims=True, correction=1)
    width = xp.maximum(width, xp.full_like(width, SMALLEST_WIDTH))
    if smoothing == 1.0:
        return mean, xp.zeros_like(mean), width
    return mean, math.sqrt(1.0 - smoothing**2) * (particles - mean), width


def draw_smoothed(particles: Any, noise: Any, smoothing: float = 1.0) -> Any:
    """Draw from a smoothed density of particles, in pre-squash space: kernel density with the particles' own moments.

    `u = m + √(1−h²) (u_j − m) + h σ ε`, j = k mod M (West 1993). h = 1 is the moment-matched diagonal Gaussian; a
    small h follows separate modes. particles: (*batch, centres, act), noise ε ~ N(0, I): (*batch, draws, act).
    """
    mean, offset, width = _spread(particles, smoothing)
    xp = noise.__array_namespace__()
    count = offset.shape[-2]
    if count == 1:
        return mean + width * noise
    repeats = -(-noise.shape[-2] // count)
    tiled = xp.concat([offset] * repeats, axis=-2)[..., : noise.shape[-2], :]
    return mean + tiled + width * noise


def log_smoothed(u: Any, particles: Any, smoothing: float = 1.0) -> Any:
    """Log density (Lebesgue in u) of `draw_smoothed`. u: (*batch, draws, act) -> (*batch, draws)"""
    mean, offset, width = _spread(particles, smoothing)
    xp = u.__array_namespace__()
    constant = xp.sum(xp.log(width), axis=-1) + 0.5 * u.shape[-1] * LOG_2_PI  # (*batch, 1)
    # From the mean: far from the origin the square below would lose its digits.
    scaled_u = (u - mean) / width
    if offset.shape[-2] == 1:
        return -0.5 * xp.sum(scaled_u**2, axis=-1) - constant
    # |u − c|² by the inner product: no (draws × centres × act) array is ever made.
    scaled_c = offset / width
    cross = xp.matmul(scaled_u, xp.matrix_transpose(scaled_c))
    square = xp.sum(scaled_u**2, axis=-1)[..., :, None] + xp.sum(scaled_c**2, axis=-1)[..., None, :] - 2.0 * cross
    return logsumexp(-0.5 * square) - math.log(offset.shape[-2]) - constant


def mixture_proposal(particles: Any, noise: Any, uniform: Any, smoothing: float = 1.0) -> tuple[Any, Any]:
    """Defensive mixture of the uniform measure and the smoothed density of policy particles.

    Stratified: as many particles as `noise` holds come from the smoothed density, as many as `uniform` holds from U,
    and each is weighted by the density of the whole mixture: consistent for every Q, of bounded variance.
    particles: (*batch, centres, act) pre-squash draws of the policy, which are *not* weighted themselves (weighting
    what fitted the density biases the value upwards); noise ε ~ N(0, I): (*batch, n, act); uniform, in (-1, 1):
    (*batch, m, act).
    Returns pre-squash draws (*batch, n + m, act) and log density w.r.t. the uniform measure (*batch, n + m).
    """
    xp = noise.__array_namespace__()
    drawn = xp.concat([draw_smoothed(particles, noise, smoothing), xp.atanh(uniform)], axis=-2)
    share = noise.shape[-2] / drawn.shape[-2]
    log_ratio = log_smoothed(drawn, particles, smoothing) - log_uniform(drawn)
    both = xp.stack([log_ratio + math.log(share), xp.full_like(log_ratio, math.log1p(-share))], axis=-1)
    return drawn, logsumexp(both)
