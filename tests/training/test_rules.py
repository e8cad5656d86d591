"""What is learned off-policy, against the exact oracle: its rules have the oracle's values for their fixed points.

In a finite problem the draws are all actions and the batch is every transition, so that nothing is left to chance.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.explanation import Random, act_at_random, certify
from qompose.skill.algebra import unite_replays
from qompose.soft import finite
from qompose.training import gpi
from qompose.training.correct import Correction, Survey, correct
from qompose.training.gpi import Followed
from qompose.training.reweigh import _Weighed, correct_each
from tests.soft.problems import ACTIONS, SKILLS, STATES, Problem

# Each action twice in a row: both halves of the draws are all actions, as those must be that bias is taken off by.
DRAWS = np.repeat(np.arange(ACTIONS), 2)


class Whole:
    """Every transition (s, a, s') of a problem as one batch, and how likely it is."""

    def __init__(self, problem):
        self.problem = problem
        discount = problem.kernel.sum(axis=-1)
        goes_on = discount[..., None] > 0.0
        self.share = np.where(goes_on, problem.kernel / np.where(goes_on, discount[..., None], 1.0), 1.0 / STATES)
        self.discount = np.repeat(discount.ravel(), STATES)
        self.next = np.tile(np.arange(STATES), STATES * ACTIONS)
        self.log_weight = problem.log_weight[:, DRAWS] - np.log(2.0)

    def columns(self, **more):
        """Fields of a batch: what the rules read, and nothing else."""
        names = {*Survey._fields, *Followed._fields, *_Weighed._fields, *Random._fields}
        plain = dict.fromkeys(names) | {"discount": self.discount, "kappa": self.problem.kappa[self.next]}
        plain |= {"log_weight": self.log_weight[self.next], "residual": np.zeros(len(self.next))} | more
        return {name: None if value is None else jnp.asarray(value, jnp.float32) for name, value in plain.items()}

    def batch(self, kind, **more):
        columns = self.columns(**more)
        return kind(**{name: columns[name] for name in kind._fields})

    def at_next(self, *heads):
        """Values (S, A) of heads at the draws in the next state: (N, draws, heads)."""
        return jnp.asarray(np.stack(heads, axis=-1)[:, DRAWS][self.next], jnp.float32)

    def regress(self, targets):
        """What a network with no error would learn: the mean target of each state and action (S, A, heads)."""
        return np.einsum("sazh,saz->sah", np.asarray(targets).reshape(STATES, ACTIONS, STATES, -1), self.share)


@pytest.fixture(params=range(3))
def whole(request):
    return Whole(Problem(request.param))


def per_transition(values):
    """(S, A) -> (N,)"""
    return np.repeat(np.asarray(values).ravel(), STATES)


def test_the_certificate_learns_the_correction_both_bounds_and_the_regret(whole):
    problem = whole.problem
    lemma = finite.lemma_bound(problem.kappa, problem.kernel)
    theorem = finite.theorem_bound(lemma, problem.kernel, problem.policy)
    regret = finite.soft_regret(problem.total, problem.c, problem.kernel, problem.alpha)
    later = finite.expect_next(problem.kernel, regret)
    heads = problem.c, lemma, theorem, later
    learned = whole.regress(certify(whole.batch(Survey), whole.at_next(*heads), problem.alpha))
    for head, exact in enumerate(heads):
        np.testing.assert_allclose(learned[..., head], exact, atol=1e-4 * (1.0 + np.abs(exact).max()))


def test_a_correction_with_residuals_is_exact_for_any_critics(whole):
    problem, rng = whole.problem, np.random.default_rng(0)
    reward = problem.q - finite.expect_next(problem.kernel[None], problem.value)
    q = problem.q + rng.normal(size=problem.q.shape)
    value = finite.state_value(q, problem.temperatures)
    residual = finite.bellman_residual(reward, q, value, problem.kernel)
    c = finite.correction(q, value, problem.weights, problem.kernel, problem.alpha, residual)
    total = finite.combine(problem.weights, q)
    best = finite.optimal_q(finite.combine(problem.weights, reward), problem.kernel, problem.alpha)
    np.testing.assert_allclose(total - c, best, atol=1e-8)
    energy = total / problem.alpha
    log_weight = energy - np.log(np.exp(energy).sum(axis=-1, keepdims=True))
    more = {
        "kappa": finite.divergence(q, value, problem.weights, problem.alpha)[whole.next],
        "log_weight": (log_weight[:, DRAWS] - np.log(2.0))[whole.next],
        # Of each transition: the value of the state that it led to, not of the mean one.
        "residual": per_transition(finite.combine(problem.weights, reward - q))
        + whole.discount * (problem.weights @ value)[whole.next],
    }
    learned = whole.regress(correct(whole.batch(Survey, **more), whole.at_next(c), problem.alpha))
    np.testing.assert_allclose(learned[..., 0], c, atol=1e-4 * (1.0 + np.abs(c).max()))
    # So are Lemma 1's bound and the regret of the certificate.
    kappa = finite.divergence(q, value, problem.weights, problem.alpha)
    lemma = finite.lemma_bound(kappa, problem.kernel, finite.combine(problem.weights, residual))
    later = finite.expect_next(problem.kernel, finite.soft_regret(total, c, problem.kernel, problem.alpha))
    heads = c, lemma, np.zeros_like(c), later
    certified = whole.regress(certify(whole.batch(Survey, **more), whole.at_next(*heads), problem.alpha))
    for head in (0, 1, 3):
        exact = heads[head]
        np.testing.assert_allclose(certified[..., head], exact, atol=1e-4 * (1.0 + np.abs(exact).max()))
    each = whole.batch(_Weighed, **more, temperature=np.full(len(whole.next), problem.alpha))
    np.testing.assert_allclose(whole.regress(correct_each(each, whole.at_next(c), 1.0)), learned, atol=1e-4)


@pytest.mark.parametrize("perfect", [True, False])
def test_what_acting_at_random_loses_is_learned_without_a_reward(whole, perfect):
    problem = whole.problem
    reward = problem.q - finite.expect_next(problem.kernel[None], problem.value)
    q = problem.q + (0.0 if perfect else np.random.default_rng(0).normal(size=problem.q.shape))
    value, total = finite.state_value(q, problem.temperatures), finite.combine(problem.weights, q)
    uniform = np.ones_like(total)
    at_random = finite.evaluate(finite.combine(problem.weights, reward), problem.kernel, uniform, problem.alpha)
    d = total - at_random
    more = {
        "above": (problem.weights @ value - total.mean(axis=-1))[whole.next],
        "residual": per_transition(finite.combine(problem.weights, reward - q))
        + whole.discount * (problem.weights @ value)[whole.next],
    }
    learned = whole.regress(act_at_random(whole.batch(Random, **more), whole.at_next(d), 0.0))
    np.testing.assert_allclose(learned[..., 0], d, atol=1e-4 * (1.0 + np.abs(d).max()))


def test_gpi_learns_what_following_each_skill_is_worth(whole):
    problem = whole.problem
    reward = finite.combine(problem.weights, problem.q - finite.expect_next(problem.kernel[None], problem.value))
    policies = [finite.boltzmann(q, alpha) for q, alpha in zip(problem.q, problem.temperatures, strict=True)]
    values = [finite.evaluate(reward, problem.kernel, policy, problem.alpha) for policy in policies]
    entropy = [-problem.alpha * np.mean(policy * np.log(policy), axis=-1) for policy in policies]
    log_weight = np.stack([np.log(policy / ACTIONS)[:, DRAWS] - np.log(2.0) for policy in policies], axis=-1)
    batch = whole.batch(
        Followed, reward=per_transition(reward), log_weight=log_weight[whole.next],
        entropy=np.stack(entropy, axis=-1)[whole.next],
    )  # fmt: skip
    learned = whole.regress(gpi.evaluate(batch, whole.at_next(*values), problem.alpha))
    for head in range(SKILLS):
        np.testing.assert_allclose(learned[..., head], values[head], atol=1e-4 * (1.0 + np.abs(values[head]).max()))


def test_what_gpi_follows_are_the_skills_own_policies(tiny_skills):
    first, second = replace(tiny_skills["right"], temperature=0.004), replace(tiny_skills["top"], temperature=0.012)
    skills, alpha, data = (first, second), 0.01, unite_replays((first, second))
    data = jax.tree.map(lambda column: column[:64], data)
    options = Correction(candidates=4096, kept=1)
    followed = gpi._follow(skills, (0.5, 0.25), alpha, data, options, [data.reward, 3.0 * data.reward])
    side = (np.arange(48) + 0.5) / 24.0 - 1.0
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    for index, skill in enumerate(skills):
        q = np.stack([skill.q(np.broadcast_to(state, (len(grid), 2)), grid) for state in data.next_observation[:8]])
        density = np.exp((q - q.max(axis=1, keepdims=True)) / skill.temperature)
        density /= density.mean(axis=1, keepdims=True)
        entropy = -alpha * np.mean(density * np.log(density), axis=1)
        assert entropy.min() < -0.2 * alpha  # else it would say little
        np.testing.assert_allclose(followed.entropy[:8, index], entropy, atol=0.05 * np.abs(entropy).max())
        mean = np.sum(np.exp(followed.log_weight[:8, :, index, None]) * followed.next_actions[:8], axis=1)
        np.testing.assert_allclose(mean, np.mean(density[..., None] * grid, axis=1), atol=0.05)
    np.testing.assert_allclose(followed.reward, 1.25 * data.reward, rtol=1e-5)
