"""Amortised Stein variational gradient descent, wholly in pre-squash space u with a = tanh u.

Target: `log p(u|s) = Q(s, tanh u)/α + log |da/du|`. Kernel, gradients and motion are all in u; taking some of them in a
while adding the Jacobian term makes the sampler target exp(Q/α) Π(1 − a²), a fault that public code carries.
"""

from __future__ import annotations

import math
from typing import Any

BANDWIDTH_FLOOR = 1e-3
# Up to so many numbers counting finds the median sooner than selecting does.
COUNTED = 128


def squared_distances(x: Any, y: Any) -> Any:
    """|x_j − y_i|². x: (*batch, j, act), y: (*batch, i, act) -> (*batch, j, i)"""
    xp = x.__array_namespace__()
    difference = x[..., :, None, :] - y[..., None, :, :]
    return xp.sum(difference**2, axis=-1)


def median_bandwidth(square: Any) -> Any:
    """h = median(|u_j − u_i|²) / log(number of fixed particles), at least 1e-3 (Liu and Wang 2016).

    square: (*batch, j, i) -> (*batch, 1, 1). The upper median: one element of the sorted distances, no interpolation.
    """
    xp = square.__array_namespace__()
    median = upper_median(xp.reshape(square, (*square.shape[:-2], -1)))
    scaled = median / math.log(max(square.shape[-2], 2))
    return xp.maximum(scaled, xp.full_like(scaled, BANDWIDTH_FLOOR))[..., None, None]


def upper_median(x: Any) -> Any:
    """The element in the middle of the sorted x, the upper one of two. x: (*batch, n) -> (*batch,)"""
    xp, middle = x.__array_namespace__(), x.shape[-1] // 2
    if x.shape[-1] > COUNTED:
        return xp.partition(x, middle, axis=-1)[..., middle]
    # The largest that at most `middle` others are smaller than: more comparisons, but none that a processor must guess.
    smaller = xp.sum((x[..., :, None] < x[..., None, :]).astype(x.dtype), axis=-2)
    return xp.max(xp.where(smaller <= middle, x, xp.full_like(x, -math.inf)), axis=-1)


def stein_direction(fixed: Any, updated: Any, gradient: Any) -> Any:
    """φ(u_i) = mean_j [ k(u_j, u_i) ∇ log p(u_j) + ∇_{u_j} k(u_j, u_i) ], k(u, v) = exp(−|u − v|²/h).

    Haarnoja et al. 2017, eq 13, in pre-squash space. The bandwidth is a constant: no gradient passes through it.
    fixed: (*batch, j, act), updated: (*batch, i, act), gradient of log p at `fixed`: (*batch, j, act)
    -> (*batch, i, act)
    """
    xp = fixed.__array_namespace__()
    square = squared_distances(fixed, updated)
    bandwidth = median_bandwidth(square)
    kernel = xp.exp(-square / bandwidth)  # (*batch, j, i)
    # Σ_j ∇_{u_j} k = Σ_j (2/h)(u_i − u_j) k_ji: the particles push each other apart.
    attraction = xp.matmul(xp.matrix_transpose(kernel), gradient - (2.0 / bandwidth) * fixed)
    repulsion = (2.0 / bandwidth) * updated * xp.sum(kernel, axis=-2)[..., None]
    return (attraction + repulsion) / fixed.shape[-2]
