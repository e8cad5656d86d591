"""Divergence correction: what Σ w_i Q_i overestimates because the skills will not agree later.

For soft-optimal Q_i `Q*_w = Σ w_i Q_i − C_w`, exactly, and C_w is the fixed point of an equation without rewards (Hunt
et al. 2019 for two skills; any weights and temperatures here, see `soft.finite.correction`). With A_i = Q_i − V_i and
π_Σ ∝ exp(Σ w_i Q_i/α),

    log E_U exp([Σ w_i A_i − C_w]/α) = −κ/α + log E_{π_Σ} exp(−C_w/α),   κ = −α log E_U exp(Σ w_i A_i/α),

so that the correction is the divergence of the next state and of those that follow, softly minimised by the action:

    C_w(s,a) = γ (1 − terminated) E_{s'}[ κ(s') − α log E_{a'~π_Σ} exp(−C_w(s',a')/α) ].

Differs: in this form the hard factor κ(s') depends on no learned number and is estimated once, with many draws, and the
learned C_w appears under a ratio of sums alone: a C that is constant in s' is passed on without any error of sampling.
"""

from __future__ import annotations

from typing import Any

from qompose.soft.squash import logsumexp


def soft_minimum(x: Any, log_weight: Any, temperature: float) -> Any:
    """−α log E_{a~π} exp(−x(a)/α), never above E_π x; in the units of x. `log_weight`: draws as a sample of π.

    x, log_weight: (*batch, draws), Σ exp(log_weight) = 1 -> (*batch,)
    """
    return -temperature * logsumexp(log_weight - x / temperature)


def correction_target(kappa: Any, correction: Any, log_weight: Any, discount: Any, temperature: float) -> Any:
    """y = γ' [ κ(s') − α log Σ_k W_k exp(−C(s',a_k)/α) ], γ' = γ (1 − terminated): what C(s,a) is regressed on.

    The sampled form of the equation above for one transition; unbiased for dynamics that are not deterministic, since
    the expectation over s' stands outside the logarithm. kappa, discount: (*batch,), reward units and none;
    correction, log_weight: (*batch, draws) at s' -> (*batch,), in reward units.
    """
    return discount * (kappa + soft_minimum(correction, log_weight, temperature))
