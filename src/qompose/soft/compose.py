"""How values combine: the composed energy of a conjunction and the temperature that belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def combine_values(values: Sequence[Any], weights: Sequence[float]) -> Any:
    """Q_Σ(s,a) = Σ_i w_i Q_i(s,a) (paper, eq 6, with w_i = 1/|C|). Values broadcast; units are kept.

    An upper bound of Q*_C if all w_i ≥ 0 and Σ w_i α_i ≤ α; in general exact for no composition (Lemma 1).
    Differs: the original code adds (w_i = 1), which is the mean at 1/|C| of the temperature; weights are explicit here.
    """
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def combine_temperatures(temperatures: Sequence[float], weights: Sequence[float]) -> float:
    """α = Σ_i w_i α_i: the temperature at which the sum of the skills' energies is the product of their policies.

    `exp(Σ w_i Q_i / Σ w_i α_i)` is a weighted geometric mean of the policies when the α_i are equal.
    """
    return float(sum(weight * temperature for weight, temperature in zip(weights, temperatures, strict=True)))
