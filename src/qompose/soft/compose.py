"""How values combine: the energies of `&`, `|` and `prefer`, and the temperatures that belong to them.

Q_i are the soft-optimal values of the rewards r_i at temperatures α_i, V_i their soft values relative to the uniform
measure (see `squash`). What each energy says about the optimal value Q* of the composed task stands in its docstring;
`soft.finite` is the oracle that checks it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from qompose.soft.squash import softplus


def combine_values(values: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Q_Σ(s,a) = Σ_i w_i Q_i(s,a) (paper, eq 6, with w_i = 1/|C|). Values broadcast; units are kept.

    For the task of reward Σ w_i r_i at temperature α:
    an upper bound of Q* if all w_i ≥ 0 and Σ w_i α_i ≤ α (Hölder; Lemma 1 of the paper);
    a lower bound of Q*, and of the value of the policy exp(Q_Σ/α), if one w_i > 0, all others < 0 and Σ w_i α_i ≥ α
    (the reverse Hölder inequality in the same proof), or if no w_i > 0 (Jensen); neither otherwise. Exact for no
    composition in general.
    Differs: the original code adds (w_i = 1), which is the mean at 1/|C| of the temperature; weights are explicit here.
    """
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def combine_temperatures(temperatures: Sequence[float], weights: Sequence[float]) -> float:
    """α = Σ_i w_i α_i: the temperature at which the sum of the skills' energies is the product of their policies.

    `exp(Σ w_i Q_i / Σ w_i α_i)` is a weighted geometric mean of the policies when the α_i are equal. Negative weights
    can make it zero or negative: then the energy has no policy of its own, and a temperature must be chosen.
    """
    return float(sum(weight * temperature for weight, temperature in zip(weights, temperatures, strict=True)))


def mix_values(values: Sequence[Any], weights: Sequence[float], temperature: float) -> Any:
    """Q_or(s,a) = α log Σ_i w_i exp(Q_i(s,a)/α), w_i > 0 of sum one: the mixture of the policies as an energy.

    V_or = α log Σ w_i exp(V_i/α), and exp((Q_or − V_or)/α) is the mixture Σ_i w_i exp((V_i − V_or)/α) π_i.
    Q_or ≤ max_i Q_i, and so a lower bound of Q* for the reward max_i r_i, if α is not above the skills' temperature
    (what is warmer is worth less). Where the r_i differ only on steps that end the episode, and α is the skills' own,
    also a lower bound of Q* for the reward α log Σ w_i exp(r_i/α) and of the Q^π of its own policy; exact if, besides,
    the dynamics are deterministic and γ = 1 (cf. van Niekerk et al. 2019).
    Differs: a mean instead of a sum, so that a skill and its twin make the same skill, and V_or ≤ max_i V_i.
    Values broadcast; they and α are in reward units.
    """
    xp = values[0].__array_namespace__()
    top = functools.reduce(xp.maximum, values)
    # From the largest value: Q/α itself would lose its digits where |Q| ≫ α.
    shares = [weight * xp.exp((value - top) / temperature) for value, weight in zip(values, weights, strict=True)]
    return top + temperature * xp.log(functools.reduce(xp.add, shares))


def prefer_values(high: Any, highest: Any, low: Any, slack: float, width: float, strength: float) -> Any:
    """Q_low + β log σ((Q_high − max_a Q_high + ε)/τ): among the actions nearly best for high, what low wants.

    A smoothed lexicographic order of one decision, in the manner of Rietz et al. 2024 (who forbid what is not nearly
    best). An action within ε (`slack`) of the best of high keeps its Q_low up to β log ½; beyond, each unit of Q_high
    costs β/τ units of Q_low. σ is the logistic function of width τ; as τ → 0 and β/τ → ∞ the policy becomes that of
    low, restricted to the actions within ε. A heuristic: it is the value of no task, and tolerances add up over time.
    All in reward units; high, low and highest, the (estimated) max_a Q_high, broadcast.
    """
    return low - strength * softplus((highest - high - slack) / width)


def spread_actions(count: int, size: int) -> np.ndarray:
    """Fixed actions spread over the box: x_k = frac(½ + k/φ^j), j = 1 … act, φ^(act+1) = φ + 1 (Roberts 2018).

    The same for everyone and for ever, so that a value which maximises over them is a function of state and action.
    In few dimensions they cover the box more evenly than random ones. -> (count, act) in (-1, 1), float64
    """
    phi = 2.0
    for _ in range(60):
        phi = (1.0 + phi) ** (1.0 / (size + 1))
    steps = phi ** -np.arange(1.0, size + 1.0)
    return 2.0 * ((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0) - 1.0
