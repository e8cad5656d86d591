"""A quadratic Q in the action, `Q = V − ½ (a − μ)ᵀ P (a − μ)`, P = L Lᵀ, and its maximum in the box.

Gu et al. 2016 (NAF), section 4. Sums of such forms are such forms, so that a composition acts in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qompose.soft.squash import softplus
from qompose.types import QomposeError

# How far from its best a coordinate may be bound: far below what the float32 of an action resolves.
TOLERANCE = 1e-10
# For each coordinate; ten in all are typical.
MOST_MOVES = 100


def count_outputs(action_size: int) -> int:
    """Numbers that describe one form: 1 for V, d for μ, d (d + 1)/2 for the lower triangle of L."""
    return (action_size + 1) * (action_size + 2) // 2


def read_form(outputs: Any) -> tuple[Any, Any, Any]:
    """V, μ = tanh(·) inside the box, and L: lower triangular, its diagonal positive through softplus.

    Differs: the paper's μ has no bound and its diagonal is an exponential, which overflows where softplus does not.
    outputs: (*batch, count_outputs(act)) -> (*batch,), (*batch, act), (*batch, act, act)
    """
    xp = outputs.__array_namespace__()
    action_size = (math.isqrt(8 * outputs.shape[-1] + 1) - 3) // 2
    value, mean = outputs[..., 0], xp.tanh(outputs[..., 1 : 1 + action_size])
    rows, columns = np.tril_indices(action_size)
    places = np.zeros((action_size, action_size), np.int32)
    places[rows, columns] = np.arange(len(rows), dtype=np.int32)
    square = xp.take(outputs[..., 1 + action_size :], xp.asarray(places), axis=-1)
    lower = xp.asarray(np.tri(action_size, k=-1, dtype=np.float32))
    diagonal = xp.asarray(np.eye(action_size, dtype=np.float32))
    return value, mean, square * lower + softplus(square) * diagonal


def quadratic(value: Any, mean: Any, factor: Any, action: Any) -> Any:
    """Q = V − ½ |Lᵀ (a − μ)|² (Gu et al. 2016, section 4).

    value: (*batch,), mean: (*batch, act), factor: (*batch, act, act), action: (*batch, n, act) -> (*batch, n)
    """
    moved = (action - mean[..., None, :]) @ factor
    return value[..., None] - 0.5 * moved.__array_namespace__().sum(moved**2, axis=-1)


def combine_forms(precisions: Sequence[np.ndarray], means: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Σ_i (V_i − ½ (a − μ_i)ᵀ P_i (a − μ_i)) = const + bᵀa − ½ aᵀ P_Σ a: P_Σ = Σ P_i and b = Σ P_i μ_i.

    Weights are part of the P_i. μ_Σ = P_Σ⁻¹ b may lie outside the box.
    precisions: (batch, act, act) each, float64, means: (batch, act) each -> (batch, act, act), (batch, act), float64
    """
    linear = [(p @ m.astype(np.float64)[..., None])[..., 0] for p, m in zip(precisions, means, strict=True)]
    return sum(precisions[1:], precisions[0]), sum(linear[1:], linear[0])


def maximise_in_box(precision: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """argmax_a bᵀa − ½ aᵀ P a over [−1, 1]^d: the constrained maximum, which is *not* P⁻¹b cut to the box.

    The method of active bounds, for all rows at once: go to the maximum over the free coordinates, or as far towards it
    as the box allows and bind the coordinate that was hit; once there, free the bound that resists most, until none
    does. Every maximum visited is higher than the one before, so that it ends (Nocedal and Wright 2006, section 16.5).
    precision: (batch, act, act), linear: (batch, act) -> (batch, act), float64. Raises QomposeError if P is not
    positive definite.
    """
    try:
        if not (np.isfinite(precision).all() and np.isfinite(linear).all()):
            raise QomposeError("the summed quadratic form holds NaN or infinity; check the critics")
        np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        raise QomposeError("the summed quadratic form is not positive definite; give positive weights") from None
    size = linear.shape[-1]
    curvature = np.diagonal(precision, axis1=-2, axis2=-1)
    action, free = np.zeros(linear.shape), np.ones(linear.shape, dtype=bool)
    for _ in range(MOST_MOVES * size):
        slope = linear - (precision @ action[..., None])[..., 0]
        inner = free[:, :, None] & free[:, None, :]
        reduced = np.where(inner, precision, np.eye(size))
        step = np.linalg.solve(reduced, np.where(free, slope, 0.0)[..., None])[..., 0]
        room = np.where(step == 0.0, np.inf, (np.sign(step) - action) / np.where(step == 0.0, 1.0, step))
        length = room.min(axis=-1, keepdims=True)
        blocked = (room <= length) & (length < 1.0)
        action = np.where(blocked, np.sign(step), np.clip(action + np.minimum(length, 1.0) * step, -1.0, 1.0))
        free &= ~blocked
        # Where the maximum over the free coordinates is reached: how far each bound keeps its coordinate from better.
        slope = linear - (precision @ action[..., None])[..., 0]
        resistance = np.where(free | (length < 1.0), 0.0, -action * slope / curvature)
        worst = resistance.max(axis=-1, keepdims=True)
        free |= (resistance == worst) & (worst > TOLERANCE)
        if np.all((length >= 1.0) & (worst <= TOLERANCE)):
            return action
    raise QomposeError("the maximum of the summed quadratic form was not found; its weights differ too much")
