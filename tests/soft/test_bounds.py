"""Targets against the exact oracle: in a finite problem the draws are all actions, and nothing is left to chance."""

import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft import finite
from qompose.soft.bounds import (
    divergence,
    expect,
    lemma_target,
    local_regret,
    regret_target,
    split_draws,
    theorem_target,
)
from qompose.soft.correct import correction_target
from qompose.soft.value import log_weights
from tests.soft.problems import ACTIONS, STATES, Problem


@pytest.fixture(params=range(5))
def problem(request):
    return Problem(request.param)


def test_weights_make_draws_a_sample_of_the_policy(problem):
    np.testing.assert_allclose(np.exp(problem.log_weight) * ACTIONS, problem.policy, rtol=1e-12)
    x = np.random.default_rng(0).normal(size=(STATES, ACTIONS))
    np.testing.assert_allclose(expect(x, problem.log_weight), np.mean(problem.policy * x, axis=-1), rtol=1e-12)


def test_divergence_is_that_of_the_oracle(problem):
    kappa, error = divergence(
        list(problem.q), tuple(problem.weights), tuple(problem.temperatures), problem.alpha, problem.flat
    )
    np.testing.assert_allclose(kappa, problem.kappa, atol=1e-12)
    assert np.all(error > 0.0)


def test_bounds_are_the_fixed_points_of_their_targets(problem):
    lemma = finite.lemma_bound(problem.kappa, problem.kernel)
    np.testing.assert_allclose(problem.regress(lemma_target(problem.kappa, lemma, 1.0)), lemma, atol=1e-10)
    theorem = finite.theorem_bound(lemma, problem.kernel, problem.policy)
    target = theorem_target(lemma, theorem, problem.log_weight, 1.0)
    np.testing.assert_allclose(problem.regress(target), theorem, atol=1e-9)


def test_certificate_is_the_exact_regret(problem):
    regret = finite.soft_regret(problem.total, problem.c, problem.kernel, problem.alpha)
    local = local_regret(problem.c, problem.log_weight, problem.alpha)
    assert np.all(local >= -1e-12) and local.max() > 1e-3
    later = finite.expect_next(problem.kernel, regret)  # G(s,a) = γ E R(s')
    np.testing.assert_allclose(local + expect(later, problem.log_weight), regret, atol=1e-10)
    target = regret_target(local, later, problem.log_weight, 1.0)
    np.testing.assert_allclose(problem.regress(target), later, atol=1e-10)


def test_a_constant_correction_costs_nothing_and_is_passed_on_whole():
    log_weight = log_weights(np.random.default_rng(0).normal(size=(4, 9)), np.zeros((4, 9)), 0.5)
    constant = np.full((4, 9), 7.0)
    np.testing.assert_allclose(local_regret(constant, log_weight, 0.5), 0.0, atol=1e-12)
    np.testing.assert_allclose(correction_target(np.ones(4), constant, log_weight, 0.9, 0.5), 0.9 * 8.0)


def test_skills_that_agree_have_no_divergence_however_few_the_draws():
    q = np.random.default_rng(0).normal(size=(3, 4))
    kappa, error = divergence([q, q], (0.5, 0.5), (0.2, 0.2), 0.2, np.random.default_rng(1).normal(size=(3, 4)))
    np.testing.assert_allclose(kappa, 0.0, atol=1e-14)
    np.testing.assert_allclose(error, 0.0, atol=1e-14)


def test_standard_error_is_the_spread_of_the_estimate():
    rng = np.random.default_rng(0)
    a = rng.uniform(-1.0, 1.0, (4000, 200))
    q = [-((a - 0.3) ** 2), -2.0 * (a + 0.2) ** 2]
    kappa, error = divergence(q, (0.6, 0.7), (0.2, 0.3), 0.33, np.zeros_like(a))
    assert np.mean(error) == pytest.approx(np.std(kappa), rel=0.05)


def test_jax_computes_the_same(problem):
    q = [jnp.asarray(x, jnp.float32) for x in problem.q]
    flat = jnp.zeros((STATES, ACTIONS))
    kappa, _ = divergence(q, tuple(problem.weights), tuple(problem.temperatures), problem.alpha, flat)
    np.testing.assert_allclose(kappa, problem.kappa, atol=1e-5)
    c, log_weight = jnp.asarray(problem.c, jnp.float32), jnp.asarray(problem.log_weight, jnp.float32)
    ours = regret_target(local_regret(c, log_weight, problem.alpha), c, log_weight, jnp.ones(STATES))
    local = local_regret(problem.c, problem.log_weight, problem.alpha)
    theirs = regret_target(local, problem.c, problem.log_weight, np.ones(STATES))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_split_draws_have_no_bias_of_first_order():
    rng, draws = np.random.default_rng(0), 16
    x = rng.normal(size=(200_000, draws))  # of N(0, 1): 1/2 = E x + log E exp(-x)
    even = np.full(x.shape, -np.log(draws))
    plain = local_regret(x, even, 1.0).mean() - 0.5
    split = split_draws(lambda x, w: local_regret(x, w, 1.0), x, even).mean() - 0.5
    assert plain < -0.04 and abs(split) < 0.2 * abs(plain)


def test_split_draws_weigh_each_half_anew():
    log_weight = np.log(np.array([0.1, 0.4, 0.3, 0.2]))
    x = np.array([1.0, 2.0, 3.0, 4.0])
    found = split_draws(expect, x, log_weight)
    assert found == pytest.approx(2.0 * 2.6 - 0.5 * ((0.1 + 0.9) / 0.4 + (0.8 + 0.8) / 0.6))
