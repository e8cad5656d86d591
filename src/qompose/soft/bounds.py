"""How much the skills disagree, and what the sum of their Q-functions may lose: the paper's bounds and the certificate.

Functions of one state (leading axes `*batch` are states), given draws a_k ~ q and weights W_k that make the draws a
sample of π_Σ ∝ exp(Σ w_i Q_i/α) (`soft.value.log_weights`). The same quantities without sampling are in `soft.finite`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qompose.soft.compose import combine_values
from qompose.soft.correct import soft_minimum
from qompose.soft.squash import logsumexp
from qompose.soft.value import log_weights, soft_value


def divergence(
    q: Sequence[Any], weights: Sequence[Any], temperatures: Sequence[float], temperature: Any, log_density: Any
) -> tuple[Any, Any]:
    """κ(s) = −α log E_U exp(Σ w_i A_i/α) = Σ w_i V_i − V_Σ by importance sampling, and its standard error.

    For w = ½, ½ and equal temperatures κ = α/2 · D_½ of Rényi (paper, eq 8, Lemma 1). All values come from the *same*
    draws, so that errors they share cancel: skills that agree have κ = 0 exactly, however few the draws. The standard
    error is that of independent draws (delta method), a little too large where they are stratified.
    q: for each skill (*batch, draws), log_density w.r.t. U: (*batch, draws) -> (*batch,), (*batch,), in reward units.
    """
    total = combine_values(q, weights)
    values = [soft_value(x, log_density, alpha) for x, alpha in zip(q, temperatures, strict=True)]
    kappa = combine_values(values, weights) - soft_value(total, log_density, temperature)
    xp = total.__array_namespace__()
    # κ moves by Σ w_i α_i (W_ik − 1/K) − α (W_Σk − 1/K) if draw k is counted once more.
    pulls = [alpha * xp.exp(log_weights(x, log_density, alpha)) for x, alpha in zip(q, temperatures, strict=True)]
    pull = combine_values(pulls, weights) - temperature * xp.exp(log_weights(total, log_density, temperature))
    pull = pull - xp.mean(pull, axis=-1, keepdims=True)
    return kappa, xp.sqrt(xp.sum(pull**2, axis=-1))


def lemma_target(kappa: Any, lemma: Any, discount: Any) -> Any:
    """y = γ' [ κ(s') + max_k C*(s',a_k) ] for C*, `Q*_w ≥ Σ w_i Q_i − C*` (paper, eq 8, Lemma 1).

    The maximum is taken over the draws, so that it is a little too small: many of them should be uniform. For critics
    that are not optimal Σ w_i δ_i of the step is taken off (`soft.finite.lemma_bound`).
    kappa, discount: (*batch,), lemma: (*batch, draws) at s' -> (*batch,), in reward units.
    """
    return discount * (kappa + lemma.__array_namespace__().max(lemma, axis=-1))


def theorem_target(lemma: Any, theorem: Any, log_weight: Any, discount: Any) -> Any:
    """y = γ' E_{a'~π_Σ}[ C*(s',a') + D*(s',a') ] for D*, `Q^{π_Σ} ≥ Q*_w − D*` (paper, eq 10, Theorem 1).

    Holds where κ ≥ 0 in every state, so for w ≥ 0 and Σ w_i α_i ≤ α; else it can fail (`soft.finite.theorem_bound`).
    lemma, theorem, log_weight: (*batch, draws) at s', discount: (*batch,) -> (*batch,), in reward units.
    """
    return discount * expect(lemma + theorem, log_weight)


def local_regret(correction: Any, log_weight: Any, temperature: float) -> Any:
    """α k(s), k = E_{π_Σ}[C/α] + log E_{π_Σ} exp(−C/α) = KL(π_Σ ‖ π*): what one step of π_Σ in s costs.

    Never negative; 0 where C does not depend on the action. correction, log_weight: (*batch, draws) -> (*batch,)
    """
    return expect(correction, log_weight) - soft_minimum(correction, log_weight, temperature)


def split_draws(estimate: Callable[[Any, Any], Any], x: Any, log_weight: Any) -> Any:
    """2 e − ½ (e_even + e_odd): an estimate e(x, log_weight) without the bias of first order in 1/draws.

    Ratios and logarithms of sums are biased by c/K; halves of the draws, weighted anew, by 2 c/K (Quenouille 1956).
    x, log_weight: (*batch, draws), in an order in which every second draw is a fair half.
    """
    halves = [log_weight[..., half::2] for half in (0, 1)]
    halves = [half - logsumexp(half)[..., None] for half in halves]
    both = estimate(x[..., 0::2], halves[0]) + estimate(x[..., 1::2], halves[1])
    return 2.0 * estimate(x, log_weight) - 0.5 * both


def regret_target(local: Any, regret: Any, log_weight: Any, discount: Any) -> Any:
    """y = γ' E_{s'}[ α k(s') + E_{a'~π_Σ} G(s',a') ] for G, `V*_w(s) − V^{π_Σ}(s) = α k(s) + E_{π_Σ} G(s,a)`.

    The exact regret of `soft.finite.soft_regret` as a function of state and action, so that transitions of any policy
    teach it. local: α k(s') (*batch,), see `local_regret`; regret, log_weight: (*batch, draws) at s', discount:
    (*batch,) -> (*batch,), in reward units.
    """
    return discount * (local + expect(regret, log_weight))


def expect(x: Any, log_weight: Any) -> Any:
    """E_{a~π}[x(a)] = Σ_k W_k x_k. x, log_weight: (*batch, draws) -> (*batch,)"""
    xp = x.__array_namespace__()
    return xp.sum(xp.exp(log_weight) * x, axis=-1)
