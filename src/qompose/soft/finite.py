"""The exact oracle on finite MDPs: what learned and sampled quantities are compared with. NumPy, float64, batched.

An MDP is two arrays. `reward` r(s,a): (*batch, S, A). `kernel` γ (1 − terminated) p(s'|s,a): (*batch, S, A, S), the
transition probabilities times the discount of each step, so that a terminal step is one whose entries are 0. Every
row of it must sum to less than one.

`temperature` is a number or (*batch,). Actions are equally likely under the base measure: E_U is their mean, a `policy`
is a density relative to it, (*batch, S, A) of mean 1 over the last axis, and E_π f = E_U[π f].

Skills lie along one more axis, in front of the states: (*batch, K, S, A) for `reward` and `q`, (*batch, K, S) for
`value`, (*batch, K) for `weights`. All are solved at once by `optimal_q(reward, kernel[..., None, :, :, :],
temperatures)`. The composed reward is Σ_i w_i r_i, the composed energy Q_Σ = Σ_i w_i Q_i; the composition has its own
temperature α, whatever those of the skills.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qompose.types import QomposeError

# Largest Bellman residual, relative to 1 + ‖Q‖∞, before the last Newton step, which leaves rounding only.
TOLERANCE = 1e-13
MOST_STEPS = 1000


def combine(weights: Any, x: Any) -> np.ndarray:
    """Σ_i w_i x_i over the skills (paper, eq 6, for any weights). (*batch, K), (*batch, K, S, A) -> (*batch, S, A)"""
    return np.einsum("...k,...ksa->...sa", weights, x)


def expect_next(kernel: np.ndarray, value: np.ndarray) -> np.ndarray:
    """γ E_{s'} V(s'), 0 where the step is terminal. (*batch, S, A, S), (*batch, S) -> (*batch, S, A)"""
    return np.einsum("...saz,...z->...sa", kernel, value)


def _energies(q: np.ndarray, temperature: Any) -> tuple[np.ndarray, np.ndarray]:
    """max_a Q (*batch, S, 1) and (Q − max_a Q)/α (*batch, S, A). At α = 0 the latter is 0 or −inf."""
    if np.any(np.asarray(temperature) < 0.0):
        raise QomposeError("a temperature is negative; give a positive one, or 0 for hard values")
    top = q.max(axis=-1, keepdims=True)
    below, alpha = np.broadcast_arrays(q - top, np.asarray(temperature, float)[..., None, None])
    with np.errstate(divide="ignore", over="ignore"):
        return top, np.divide(below, alpha, out=np.zeros(below.shape), where=below < 0.0)


def state_value(q: np.ndarray, temperature: Any) -> np.ndarray:
    """V(s) = α log E_{a~U} exp(Q(s,a)/α) (paper, eq 4, relative to U); max_a Q(s,a) for α = 0.

    Never above max_a Q, never below E_U Q, which it approaches for large α, without loss of digits.
    q: (*batch, S, A) -> (*batch, S)
    """
    top, energy = _energies(q, temperature)
    return top[..., 0] + np.asarray(temperature)[..., None] * np.log1p(np.expm1(energy).mean(axis=-1))


def boltzmann(q: np.ndarray, temperature: Any) -> np.ndarray:
    """π(a|s) = exp((Q(s,a) − V(s))/α), a density relative to U (paper, eq 2); uniform over the best for α = 0.

    q: (*batch, S, A) -> (*batch, S, A)
    """
    weight = np.exp(_energies(q, temperature)[1])
    return weight / weight.mean(axis=-1, keepdims=True)


def policy_value(q: np.ndarray, policy: np.ndarray, temperature: Any) -> np.ndarray:
    """E_π[Q(s,a) − α log π(a|s)], 0 log 0 = 0: V^π(s) for q = Q^π (Haarnoja et al. 2018, eq 3, relative to U).

    q, policy: (*batch, S, A) -> (*batch, S)
    """
    log_policy = np.log(policy, out=np.zeros(policy.shape), where=policy > 0.0)
    return np.mean(policy * (q - np.asarray(temperature)[..., None, None] * log_policy), axis=-1)


def accumulate(source: np.ndarray, kernel: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """x(s) = source(s) + E_π γ E_{s'} x(s'), by solving the linear system.

    source: (*batch, S), kernel: (*batch, S, A, S), policy: (*batch, S, A) -> (*batch, S)
    """
    if not np.all(kernel.sum(axis=-1) < 1.0):
        raise QomposeError("a row of the kernel does not sum to less than one; multiply the transitions by a discount")
    chain = np.mean(policy[..., None] * kernel, axis=-2)
    return np.linalg.solve(np.eye(chain.shape[-1]) - chain, source[..., None])[..., 0]


def optimal_q(reward: np.ndarray, kernel: np.ndarray, temperature: Any) -> np.ndarray:
    """Q*(s,a) = r(s,a) + γ E_{s'} V*(s'), V* the soft value of Q* (Haarnoja et al. 2017, eq 7); hard for α = 0.

    Differs: soft policy iteration instead of soft value iteration. It is Newton's method on the soft Bellman equation
    and rises from its first step on: a handful of linear systems, however close to one the discount.
    reward: (*batch, S, A), kernel: (*batch, S, A, S) -> (*batch, S, A)
    """
    value = state_value(reward, temperature)
    for _ in range(MOST_STEPS):
        q = reward + expect_next(kernel, value)
        residual = state_value(q, temperature) - value
        value = value + accumulate(residual, kernel, boltzmann(q, temperature))
        if np.all(np.abs(residual) <= TOLERANCE * (1.0 + np.abs(q).max(axis=(-2, -1)))[..., None]):
            return reward + expect_next(kernel, value)
    raise QomposeError("no fixed point was found; rewards, kernel and temperature must be finite numbers")


def evaluate(reward: np.ndarray, kernel: np.ndarray, policy: np.ndarray, temperature: Any) -> np.ndarray:
    """Q^π(s,a) = r(s,a) + γ E_{s'} V^π(s'), V^π = E_π[Q^π − α log π] (Haarnoja et al. 2018, eqs 2 and 3).

    The entropy of the first action is not in Q^π. reward, policy: (*batch, S, A), kernel: (*batch, S, A, S)
    -> (*batch, S, A)
    """
    value = accumulate(policy_value(reward, policy, temperature), kernel, policy)
    return reward + expect_next(kernel, value)


def bellman_residual(reward: np.ndarray, q: np.ndarray, value: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """δ_i = r_i + γ E_{s'} V_i(s') − Q_i: what critics lack of the soft Bellman equation.

    reward, q: (*batch, K, S, A), value: (*batch, K, S), kernel: (*batch, S, A, S) -> (*batch, K, S, A)
    """
    return reward + expect_next(kernel[..., None, :, :, :], value) - q


def correction(
    q: np.ndarray, value: np.ndarray, weights: Any, kernel: np.ndarray, temperature: Any, residual: Any = 0.0
) -> np.ndarray:
    """C_w = −Σ w_i δ_i − α γ E_{s'} log E_U exp([Σ w_i A_i − C_w](s',·)/α), A_i = Q_i − V_i: Q*_w = Σ w_i Q_i − C_w.

    Hunt et al. 2019 for two skills with w_1 + w_2 = 1, one temperature and δ = 0. Here: any weights, any temperatures.
    With δ = 0 for the optimal Q_i and V_i; with δ = `bellman_residual` for any functions Q_i and V_i whatever, because
    A_i + δ_i = r_i + γ E V_i − V_i: with Φ = Σ w_i V_i as a shaping potential (Ng et al. 1999), V*_w − Φ is the soft
    value of the reward Σ w_i (A_i + δ_i), and C_w + Σ w_i δ_i = −γ E (V*_w − Φ).
    q: (*batch, K, S, A), value: (*batch, K, S), residual: (*batch, K, S, A) or 0 -> (*batch, S, A)
    """
    residual = combine(weights, np.broadcast_to(residual, q.shape))
    shaped = combine(weights, q - value[..., None]) + residual
    return -residual - expect_next(kernel, state_value(optimal_q(shaped, kernel, temperature), temperature))


def divergence(q: np.ndarray, value: np.ndarray, weights: Any, temperature: Any) -> np.ndarray:
    """κ(s) = −α log E_U exp(Σ w_i A_i(s,·)/α): how far the skills disagree, in units of reward.

    Generalises the paper's ½ D_½ (eq 8): for w = ½, ½ and α_1 = α_2 = α it is α/2 times D_½ of Rényi.
    κ ≥ 0 wherever all w_i ≥ 0 and Σ w_i α_i ≤ α (Hölder); κ ≤ 0 if one w_i > 0, all others < 0 and Σ w_i α_i ≥ α, or
    if no w_i > 0 (Jensen); otherwise it has either sign.
    q: (*batch, K, S, A), value: (*batch, K, S), the soft values of q -> (*batch, S)
    """
    return -state_value(combine(weights, q - value[..., None]), temperature)


def lemma_bound(kappa: np.ndarray, kernel: np.ndarray, residual: Any = 0.0) -> np.ndarray:
    """C*(s,a) = γ E_{s'}[κ(s') + max_{a'} C*(s',a')] (paper, eq 8): an optimal hard value with reward γ E κ(s').

    For optimal Q_i, Q*_w ≥ Q_Σ − C* with any weights and temperatures (Lemma 1). Its upper half Q_Σ ≥ Q*_w, and
    V_Σ ≥ V*_w of Corollary 1, hold if κ ≥ 0 in every state, so if all w_i ≥ 0 and Σ w_i α_i ≤ α; else they can fail.
    With `residual`, Σ w_i δ_i of `bellman_residual`, less that: Q*_w ≥ Q_Σ − C* for any critics, and no upper half.
    kappa: (*batch, S), kernel: (*batch, S, A, S), residual: (*batch, S, A) or 0 -> (*batch, S, A)
    """
    return optimal_q(expect_next(kernel, kappa) - residual, kernel, 0.0)


def theorem_bound(lemma: np.ndarray, kernel: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """D*(s,a) = γ E_{s'} E_{a'~π_Σ}[C*(s',a') + D*(s',a')] (paper, eq 10), linear. C* is `lemma_bound`.

    Theorem 1, Q^{π_Σ} ≥ Q*_w − D* for optimal Q_i and π_Σ the Boltzmann policy of Q_Σ, holds if κ ≥ 0 in every state,
    so if all w_i ≥ 0 and Σ w_i α_i ≤ α; else it can fail: its proof uses the upper half of Corollary 1.
    lemma, policy: (*batch, S, A), kernel: (*batch, S, A, S) -> (*batch, S, A)
    """
    return expect_next(kernel, accumulate(np.mean(policy * lemma, axis=-1), kernel, policy))


def soft_regret(q: np.ndarray, gap: np.ndarray, kernel: np.ndarray, temperature: Any) -> np.ndarray:
    """V*(s) − V^π(s) = α E_π Σ_t γ^t k(s_t), k = E_π[C/α] + log E_π exp(−C/α) = KL(π ‖ π*), linear.

    The performance difference lemma (Kakade and Langford 2002) with entropy. π is the Boltzmann policy of q, and C,
    the `gap`, is q − Q*: `correction` for q = Q_Σ, half of it for q = Q_Σ − C_w/2. Any weights, any critics. At α = 0
    it is the hard regret.
    q, gap: (*batch, S, A), kernel: (*batch, S, A, S) -> (*batch, S)
    """
    policy = boltzmann(q, temperature)
    # α log E_π exp(−C/α) as a difference of soft values: no density that underflows is divided by.
    local = np.mean(policy * gap, axis=-1) + state_value(q - gap, temperature) - state_value(q, temperature)
    return accumulate(local, kernel, policy)
