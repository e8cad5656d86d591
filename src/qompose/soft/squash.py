"""The box [-1, 1]^d and its unsquashed coordinates: a = tanh u, and densities relative to the uniform measure.

Every density in qompose is relative to the *uniform probability measure* on the box, not to Lebesgue measure. The soft
value of the paper is ours plus the constant α d log 2; ours composes without residue and never exceeds max Q.
"""

from __future__ import annotations

import math
from typing import Any

LOG_2 = math.log(2.0)
LOG_2_PI = math.log(2.0 * math.pi)


def softplus(x: Any) -> Any:
    """log(1 + exp x), without overflow. x: any shape."""
    xp = x.__array_namespace__()
    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x)))


def log_jacobian(u: Any) -> Any:
    """log |da/du| = Σ_i log(1 − tanh² u_i), exact for large |u|: 2 (log 2 − u − softplus(−2u)).

    u: (*batch, act) -> (*batch,)
    """
    xp = u.__array_namespace__()
    return xp.sum(2.0 * (LOG_2 - u - softplus(-2.0 * u)), axis=-1)


def log_uniform(u: Any) -> Any:
    """Log density over u, relative to Lebesgue measure, of the uniform measure on the box: log |da/du| − d log 2.

    u: (*batch, act) -> (*batch,)
    """
    return log_jacobian(u) - u.shape[-1] * LOG_2


def logsumexp(x: Any) -> Any:
    """log Σ exp x over the last axis. x: (*batch, n) -> (*batch,)"""
    xp = x.__array_namespace__()
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.log(xp.sum(xp.exp(x - top), axis=-1)) + top[..., 0]
