from typing import NamedTuple

import numpy as np
import pytest

from qompose.soft.compose import combine_values
from qompose.soft.finite import (
    accumulate,
    bellman_residual,
    boltzmann,
    combine,
    correction,
    divergence,
    evaluate,
    expect_next,
    lemma_bound,
    optimal_q,
    policy_value,
    soft_regret,
    state_value,
    theorem_bound,
)
from qompose.soft.squash import logsumexp
from qompose.soft.value import effective_sample_size, log_policy, soft_value
from qompose.types import QomposeError

COUNT = 600  # MDPs for each number of skills
SIZES = {2: (6, 4), 3: (5, 3), 4: (4, 5), 5: (7, 2)}  # skills: (states, actions)


class Problem(NamedTuple):
    """COUNT random MDPs, skills, compositions, and everything the oracle says about them."""

    kernel: np.ndarray
    reward: np.ndarray
    temperatures: np.ndarray
    weights: np.ndarray
    alpha: np.ndarray
    q: np.ndarray
    value: np.ndarray
    composed_reward: np.ndarray
    optimal: np.ndarray
    q_sum: np.ndarray
    c: np.ndarray
    kappa: np.ndarray
    lemma: np.ndarray
    policy: np.ndarray
    q_policy: np.ndarray
    theorem: np.ndarray

    @property
    def unit(self):
        """1 + ‖Q*_w‖∞: (COUNT,)"""
        return 1.0 + np.abs(self.optimal).max(axis=(1, 2))

    @property
    def covered(self):
        """Where the paper's upper bound and theorem are claimed: (COUNT,)"""
        total = np.sum(self.weights * self.temperatures, axis=1)
        return np.all(self.weights >= 0.0, axis=1) & (total <= self.alpha * (1.0 + 1e-12))

    def excess(self, x):
        """The largest value of x in each MDP, in its unit: (COUNT,)"""
        return x.reshape(COUNT, -1).max(axis=1) / self.unit


def random_kernels(generator, states, actions):
    """A fifth each: no terminal state, a terminal state with a last reward, one that is fatal to enter, single
    terminal transitions, deterministic transitions."""
    kernel = generator.dirichlet(np.full(states, 0.5), (COUNT, states, actions))
    deterministic = np.eye(states)[generator.integers(states, size=(COUNT, states, actions))]
    kind = np.arange(COUNT) % 5
    kernel[kind == 4] = deterministic[kind == 4]
    kernel *= generator.choice([0.5, 0.9, 0.95, 0.99], (COUNT, 1, 1, 1))
    kernel[kind == 1, -1] = 0.0
    kernel[kind == 2, ..., -1] = 0.0
    single = generator.random(kernel.shape) < 0.3
    kernel[(kind == 3)[:, None, None, None] & single] = 0.0
    return kernel


def random_compositions(generator, skills):
    """A quarter each: the paper's mean; nonnegative weights that need not sum to one; any weights; large weights."""
    temperatures = 10.0 ** generator.uniform(-1.0, 0.7, (COUNT, skills))
    family = np.arange(COUNT) // 5 % 4
    temperatures[family == 0] = temperatures[family == 0, :1]
    weights = generator.uniform(0.0, 1.5, (COUNT, skills))
    weights[family == 0] = 1.0 / skills
    weights[family == 2] = generator.normal(size=(COUNT, skills))[family == 2]
    weights[family == 3] = 1.0
    natural = np.sum(weights * temperatures, axis=1)
    free = 10.0 ** generator.uniform(-1.0, 0.7, COUNT)
    hotter, colder = generator.uniform(1.0, 2.0, COUNT), generator.uniform(0.05, 0.3, COUNT)
    alpha = np.choose(family, [natural, hotter * natural, free, colder * natural])
    return weights, temperatures, alpha


@pytest.fixture(scope="module", params=SIZES)
def problem(request):
    skills = request.param
    generator = np.random.default_rng(skills)
    states, actions = SIZES[skills]
    kernel = random_kernels(generator, states, actions)
    scale = 10.0 ** generator.uniform(-1.0, 1.0, (COUNT, 1, 1, 1))
    reward = scale * generator.normal(size=(COUNT, skills, states, actions))
    weights, temperatures, alpha = random_compositions(generator, skills)

    q = optimal_q(reward, kernel[:, None], temperatures)
    value = state_value(q, temperatures)
    composed_reward = combine(weights, reward)
    q_sum = combine(weights, q)
    kappa = divergence(q, value, weights, alpha)
    lemma = lemma_bound(kappa, kernel)
    policy = boltzmann(q_sum, alpha)
    return Problem(
        kernel, reward, temperatures, weights, alpha, q, value, composed_reward,
        optimal=optimal_q(composed_reward, kernel, alpha),
        q_sum=q_sum,
        c=correction(q, value, weights, kernel, alpha),
        kappa=kappa,
        lemma=lemma,
        policy=policy,
        q_policy=evaluate(composed_reward, kernel, policy, alpha),
        theorem=theorem_bound(lemma, kernel, policy),
    )  # fmt: skip


def next_mean(kernel, value):
    """γ E_{s'} V(s'), written another way."""
    return np.sum(kernel * value[..., None, None, :], axis=-1)


def log_mean_exp(energy):
    return logsumexp(energy) - np.log(energy.shape[-1])


# Fixed points: each solution satisfies its equation, written out here without the module under test.


def test_optimal_q_solves_the_soft_bellman_equation_of_soft_value(problem):
    alpha = problem.alpha[:, None, None]
    value = alpha[..., 0] * soft_value(problem.optimal / alpha, np.zeros_like(problem.optimal), 1.0)
    error = problem.composed_reward + next_mean(problem.kernel, value) - problem.optimal
    assert problem.excess(np.abs(error)).max() < 1e-13


def test_evaluated_q_solves_the_equation_of_soft_policy_evaluation(problem):
    alpha = problem.alpha[:, None, None]
    policy = np.random.default_rng(0).dirichlet(np.ones(problem.policy.shape[-1]), problem.policy.shape[:2])
    policy *= policy.shape[-1]
    q = evaluate(problem.composed_reward, problem.kernel, policy, problem.alpha)
    value = np.mean(policy * (q - alpha * np.log(policy)), axis=-1)
    assert problem.excess(np.abs(problem.composed_reward + next_mean(problem.kernel, value) - q)).max() < 1e-13
    np.testing.assert_allclose(policy_value(q, policy, problem.alpha), value)
    # No policy beats the optimal one, and the Boltzmann policy of Q* is it.
    assert problem.excess(q - problem.optimal).max() < 1e-13
    best = evaluate(problem.composed_reward, problem.kernel, boltzmann(problem.optimal, problem.alpha), problem.alpha)
    assert problem.excess(np.abs(best - problem.optimal)).max() < 1e-12


def test_correction_is_the_fixed_point_of_its_equation(problem):
    alpha = problem.alpha[:, None, None]
    advantage = np.einsum("nk,nksa->nsa", problem.weights, problem.q - problem.value[..., None])
    log_mean = log_mean_exp((advantage - problem.c) / alpha)
    error = -alpha * next_mean(problem.kernel, log_mean) - problem.c
    assert problem.excess(np.abs(error)).max() < 1e-12


def test_bounds_are_the_fixed_points_of_their_equations(problem):
    lemma = next_mean(problem.kernel, problem.kappa + problem.lemma.max(axis=-1))
    assert problem.excess(np.abs(lemma - problem.lemma)).max() < 1e-12
    mean = np.mean(problem.policy * (problem.lemma + problem.theorem), axis=-1)
    assert problem.excess(np.abs(next_mean(problem.kernel, mean) - problem.theorem)).max() < 1e-11


# The theory of composition.


def test_values_minus_correction_are_optimal(problem):
    error = problem.q_sum - problem.c - problem.optimal
    assert problem.excess(np.abs(error)).max() < 1e-10
    assert problem.excess(np.abs(problem.c)).mean() > 1e-2  # the correction is no trifle


def test_correction_with_residuals_is_exact_for_any_critic(problem):
    generator = np.random.default_rng(1)
    scale = np.abs(problem.q).max(axis=(1, 2, 3))[:, None, None, None]
    q = problem.q + scale * generator.normal(size=problem.q.shape)
    # Neither are the values those of the critics.
    for value in (state_value(q, problem.temperatures), problem.value + generator.normal(size=problem.value.shape)):
        residual = bellman_residual(problem.reward, q, value, problem.kernel)
        c = correction(q, value, problem.weights, problem.kernel, problem.alpha, residual)
        q_sum = combine(problem.weights, q)
        assert problem.excess(np.abs(q_sum - c - problem.optimal)).max() < 1e-10
        without = correction(q, value, problem.weights, problem.kernel, problem.alpha)
        assert problem.excess(np.abs(q_sum - without - problem.optimal)).min() > 1e-3
        # Lemma 1 needs the residuals, too.
        kappa, errors = divergence(q, value, problem.weights, problem.alpha), combine(problem.weights, residual)
        lemma = lemma_bound(kappa, problem.kernel, errors)
        assert problem.excess(q_sum - lemma - problem.optimal).max() < 1e-10
        assert problem.excess(q_sum - lemma_bound(kappa, problem.kernel) - problem.optimal).max() > 1e-2
        # So is the certificate.
        q_policy = evaluate(problem.composed_reward, problem.kernel, boltzmann(q_sum, problem.alpha), problem.alpha)
        assert_certified(problem, q_policy, boltzmann(q_sum, problem.alpha), soft_regret(q_sum, c, *dynamics(problem)))


def test_residuals_of_optimal_values_vanish(problem):
    residual = bellman_residual(problem.reward, problem.q, problem.value, problem.kernel)
    assert np.all(np.abs(residual) < 1e-13 * (1.0 + np.abs(problem.q).max(axis=(1, 2, 3)))[:, None, None, None])


def test_lower_bound_of_the_lemma_holds_for_any_weights_and_temperatures(problem):
    assert problem.excess(problem.q_sum - problem.lemma - problem.optimal).max() < 1e-10
    assert problem.excess(problem.q_sum - 0.5 * problem.lemma - problem.optimal).max() > 1e-2


def test_upper_bound_and_theorem_hold_for_nonnegative_weights_of_a_warm_enough_composition(problem):
    covered = problem.covered
    assert covered.sum() >= COUNT // 2
    assert problem.kappa[covered].min() > -1e-12
    assert problem.excess(problem.optimal - problem.q_sum)[covered].max() < 1e-10
    corollary = state_value(problem.optimal, problem.alpha) - state_value(problem.q_sum, problem.alpha)
    assert problem.excess(corollary)[covered].max() < 1e-10
    assert problem.excess(problem.optimal - problem.theorem - problem.q_policy)[covered].max() < 1e-10
    # Without D* it is false: composing costs something.
    assert problem.excess(problem.optimal - problem.q_policy)[covered].max() > 1e-2


def test_upper_bound_and_theorem_hold_wherever_no_divergence_is_negative(problem):
    beyond = np.all(problem.kappa >= 0.0, axis=1) & ~problem.covered
    assert beyond.sum() >= 10
    assert problem.excess(problem.optimal - problem.q_sum)[beyond].max() < 1e-10
    assert problem.excess(problem.optimal - problem.theorem - problem.q_policy)[beyond].max() < 1e-10


def test_a_sum_of_what_is_avoided_alone_is_a_lower_bound_that_its_policy_keeps(problem):
    region = np.all(problem.weights < 0.0, axis=1)
    assert region.any()
    assert problem.excess(problem.kappa)[region].max() <= 1e-12
    assert problem.excess(problem.q_sum - problem.optimal)[region].max() <= 1e-10
    assert problem.excess(problem.q_sum - problem.q_policy)[region].max() <= 1e-10


@pytest.mark.parametrize("outside", ["a negative weight", "too cold a composition"])
def test_upper_bound_and_theorem_fail_outside(problem, outside):
    total = np.sum(problem.weights * problem.temperatures, axis=1)
    negative, cold = np.any(problem.weights < 0.0, axis=1), total > problem.alpha * (1.0 + 1e-12)
    region = negative & ~cold if outside == "a negative weight" else cold & ~negative
    assert region.sum() >= 50
    corollary = state_value(problem.optimal, problem.alpha) - state_value(problem.q_sum, problem.alpha)
    assert problem.excess(problem.optimal - problem.q_sum)[region].max() > 1e-2
    assert problem.excess(corollary)[region].max() > 1e-2
    assert problem.excess(problem.optimal - problem.theorem - problem.q_policy)[region].max() > 1e-2


def test_lower_bound_is_tight_where_actions_do_not_steer(problem):
    kernel = np.broadcast_to(problem.kernel[:, :, :1], problem.kernel.shape)
    q = optimal_q(problem.reward, kernel[:, None], problem.temperatures)
    value = state_value(q, problem.temperatures)
    c = correction(q, value, problem.weights, kernel, problem.alpha)
    lemma = lemma_bound(divergence(q, value, problem.weights, problem.alpha), kernel)
    assert problem.excess(np.abs(c - lemma)).max() < 1e-10
    assert problem.excess(np.abs(c)).max() > 1e-2


def test_divergence_of_two_halves_is_half_the_renyi_divergence():
    generator = np.random.default_rng(2)
    alpha = 0.7
    q = generator.normal(size=(50, 2, 3, 5))
    kappa = divergence(q, state_value(q, alpha), np.array([0.5, 0.5]), alpha)
    probability = np.exp(q / alpha)
    probability /= probability.sum(axis=-1, keepdims=True)
    renyi = -2.0 * np.log(np.sum(np.sqrt(probability[:, 0] * probability[:, 1]), axis=-1))
    np.testing.assert_allclose(kappa, alpha * 0.5 * renyi)


# The certificate.


def dynamics(problem):
    return problem.kernel, problem.alpha


def assert_certified(problem, q_policy, policy, certificate):
    regret = state_value(problem.optimal, problem.alpha) - policy_value(q_policy, policy, problem.alpha)
    # The floor is the rounding of a difference of values.
    assert np.all(np.abs(certificate - regret) <= 1e-8 * regret + 1e-12 * problem.unit[:, None])
    assert np.median(regret / problem.unit[:, None]) > 1e-5


def test_certificate_equals_the_soft_regret(problem):
    certificate = soft_regret(problem.q_sum, problem.c, *dynamics(problem))
    assert_certified(problem, problem.q_policy, problem.policy, certificate)
    assert certificate.min() > -1e-12 * problem.unit.max()


def test_certificate_adds_up_divergences_from_the_optimal_policy(problem):
    optimal = boltzmann(problem.optimal, problem.alpha)
    some = np.all(np.minimum(problem.policy, optimal) > 0.0, axis=(1, 2))  # a density that underflows has no logarithm
    assert some.sum() >= 0.9 * COUNT
    divergence = np.mean(problem.policy[some] * np.log(problem.policy[some] / optimal[some]), axis=-1)
    total = accumulate(problem.alpha[some, None] * divergence, problem.kernel[some], problem.policy[some])
    certificate = soft_regret(problem.q_sum, problem.c, *dynamics(problem))[some]
    np.testing.assert_allclose(certificate, total, rtol=1e-8, atol=1e-12 * problem.unit.max())


def test_half_the_correction_reduces_the_mean_regret_and_the_whole_removes_it(problem):
    plain = soft_regret(problem.q_sum, problem.c, *dynamics(problem))
    half = soft_regret(problem.q_sum - 0.5 * problem.c, 0.5 * problem.c, *dynamics(problem))
    for family in range(4):
        chosen = np.arange(COUNT) // 5 % 4 == family
        assert half[chosen].max(axis=1).mean() < 0.9 * plain[chosen].max(axis=1).mean()
    corrected = boltzmann(problem.q_sum - problem.c, problem.alpha)
    q_corrected = evaluate(problem.composed_reward, problem.kernel, corrected, problem.alpha)
    assert problem.excess(problem.optimal - q_corrected).max() < 1e-10


# Numbers computed by hand, and limits.


def test_two_states_by_hand():
    # State 1 is terminal. In state 0, action 0 stays and action 1 leaves; γ = ½, α = 1, so with x = exp(V/2)
    # x² = ½ (exp r_0 x + exp r_1). Skill 1: r = (0, log 6), x = 2. Skill 2: r = (log 3/2, log ½), x = 1.
    kernel = np.zeros((2, 2, 2))
    kernel[0, 0, 0] = kernel[0, 1, 1] = 0.5
    reward = np.array([[[1.0, 6.0], [1.0, 1.0]], [[1.5, 0.5], [1.0, 1.0]]])
    reward = np.log(reward)
    q = optimal_q(reward, kernel, 1.0)
    value = state_value(q, 1.0)
    np.testing.assert_allclose(np.exp(value), [[4.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(np.exp(q[:, 0]), [[2.0, 6.0], [1.5, 0.5]])
    np.testing.assert_allclose(boltzmann(q, 1.0)[:, 0], [[0.5, 1.5], [1.5, 0.5]])

    # Both advantages are log ½ and log 3/2, in turn: their mean is ½ log ¾ for each action.
    half = np.array([0.5, 0.5])
    kappa = divergence(q, value, half, 1.0)
    np.testing.assert_allclose(kappa, [0.5 * np.log(4 / 3), 0.0], atol=1e-15)
    # With y = exp(F/2), F = log E exp(½ log ¾ − C): y² = h (y + 1), h = √3/4, and C = −F/2 = −log y.
    h = np.sqrt(3.0) / 4.0
    log_y = np.log((h + np.sqrt(h * h + 4.0 * h)) / 2.0)
    c = correction(q, value, half, kernel, 1.0)
    np.testing.assert_allclose(c, [[-log_y, 0.0], [0.0, 0.0]], atol=1e-15)
    q_sum = combine(half, q)
    np.testing.assert_allclose(q_sum[0], [0.5 * np.log(3.0)] * 2)
    np.testing.assert_allclose(q_sum - c, optimal_q(combine(half, reward), kernel, 1.0))

    # C* = ½ (κ + C*) = κ; the composed policy is uniform, so D* = ½ · ½ (κ + D*) = κ/3.
    lemma = lemma_bound(kappa, kernel)
    np.testing.assert_allclose(lemma, [[kappa[0], 0.0], [0.0, 0.0]], atol=1e-15)
    policy = boltzmann(q_sum, 1.0)
    np.testing.assert_allclose(policy, 1.0)
    np.testing.assert_allclose(theorem_bound(lemma, kernel, policy), [[kappa[0] / 3, 0.0], [0.0, 0.0]], atol=1e-15)
    # k = C/2 + log ½ (exp(−C) + 1), and the uniform policy stays with probability ½: R = k / (1 − ¼).
    k = -0.5 * log_y + np.log(0.5 * (np.exp(log_y) + 1.0))
    np.testing.assert_allclose(soft_regret(q_sum, c, kernel, 1.0), [k / 0.75, 0.0], atol=1e-15)
    # V of the uniform policy: V = ½ (r_0 + V/2 + r_1) with r = ½ (log 3/2, log 3), so V = ⅓ log 9/2.
    q_policy = evaluate(combine(half, reward), kernel, policy, 1.0)
    np.testing.assert_allclose(policy_value(q_policy, policy, 1.0), [np.log(4.5) / 3.0, 0.0], atol=1e-15)


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e-1])
def test_soft_values_tend_to_hard_values_when_cold(problem, alpha):
    hard = optimal_q(problem.composed_reward, problem.kernel, 0.0)
    error = problem.composed_reward + next_mean(problem.kernel, hard.max(axis=-1)) - hard
    assert problem.excess(np.abs(error)).max() < 1e-13
    # The soft value lies below by at most α log |A| a step.
    step = problem.kernel.sum(axis=-1).max(axis=(1, 2))
    below = hard - optimal_q(problem.composed_reward, problem.kernel, alpha)
    most = alpha * np.log(hard.shape[-1]) * step / (1.0 - step)
    assert problem.excess(-below).max() < 1e-12
    assert problem.excess(below - most[:, None, None]).max() < 1e-12
    assert problem.excess(below).max() > 1e-3 * alpha


@pytest.mark.parametrize("alpha", [1e2, 1e6, 1e12])
def test_soft_values_tend_to_the_mean_when_hot(problem, alpha):
    uniform = np.ones_like(problem.policy)
    mean = evaluate(problem.composed_reward, problem.kernel, uniform, alpha)
    above = optimal_q(problem.composed_reward, problem.kernel, alpha) - mean
    # The soft value lies above by at most range²/8α a step (Hoeffding).
    step = problem.kernel.sum(axis=-1).max(axis=(1, 2))
    most = np.ptp(mean + above, axis=2).max(axis=1) ** 2 / (8.0 * alpha) * step / (1.0 - step)
    assert problem.excess(-above).max() < 1e-12
    assert problem.excess(above - most[:, None, None]).max() < 1e-12


def test_correction_and_certificate_are_exact_without_temperature(problem):
    hard = optimal_q(problem.composed_reward, problem.kernel, 0.0)
    c = correction(problem.q, problem.value, problem.weights, problem.kernel, 0.0)
    assert problem.excess(np.abs(problem.q_sum - c - hard)).max() < 1e-10
    policy = boltzmann(problem.q_sum, 0.0)
    q_policy = evaluate(problem.composed_reward, problem.kernel, policy, 0.0)
    regret = hard.max(axis=-1) - policy_value(q_policy, policy, 0.0)
    certificate = soft_regret(problem.q_sum, c, problem.kernel, 0.0)
    assert np.all(np.abs(certificate - regret) <= 1e-8 * np.abs(regret) + 1e-12 * problem.unit[:, None])
    assert problem.excess(regret).max() > 1e-2


def test_policy_without_temperature_is_uniform_over_the_best():
    q = np.array([[1.0, 3.0, 3.0, -2.0], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(boltzmann(q, 0.0), [[0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 4.0]])
    np.testing.assert_array_equal(state_value(q, 0.0), [3.0, 1.0])


def test_a_deterministic_policy_can_be_evaluated():
    # One state, stays for ever: log π = log 2 is paid at every later step, 0 log 0 is 0.
    q = evaluate(np.array([[1.0, 5.0]]), np.full((1, 2, 1), 0.5), np.array([[2.0, 0.0]]), 3.0)
    np.testing.assert_allclose(q, [[1.0 + (1.0 - 3.0 * np.log(2.0)), 5.0 + (1.0 - 3.0 * np.log(2.0))]])


# Termination, batches, mistakes.


def test_entering_a_terminal_state_equals_entering_an_absorbing_one_without_reward(problem):
    fatal = problem.kernel.copy()
    fatal[..., -1] = 0.0
    absorbing = problem.kernel.copy()
    absorbing[:, -1] = 0.0
    reward = problem.composed_reward.copy()
    reward[:, -1] = 0.0
    q = optimal_q(reward, fatal, problem.alpha)
    np.testing.assert_allclose(q[:, :-1], optimal_q(reward, absorbing, problem.alpha)[:, :-1], atol=1e-12)


def test_nothing_is_to_be_corrected_where_the_episode_ends(problem):
    last = np.arange(COUNT) % 5 == 1
    for array in (problem.c, problem.lemma, problem.theorem):
        np.testing.assert_array_equal(array[last, -1], 0.0)
    np.testing.assert_array_equal(problem.optimal[last, -1], problem.composed_reward[last, -1])


def test_batch_equals_one_by_one(problem):
    for n in range(0, COUNT, 97):
        alpha = float(problem.alpha[n])
        kernel, weights = problem.kernel[n], problem.weights[n]
        skills = zip(problem.reward[n], problem.temperatures[n], strict=True)
        q = np.stack([optimal_q(reward, kernel, float(temperature)) for reward, temperature in skills])
        np.testing.assert_allclose(q, problem.q[n], rtol=1e-10, atol=1e-10)
        c = correction(problem.q[n], problem.value[n], weights, kernel, alpha)
        np.testing.assert_allclose(c, problem.c[n], rtol=1e-10, atol=1e-10 * problem.unit[n])
        regret = soft_regret(problem.q_sum[n], c, kernel, alpha)
        whole = soft_regret(problem.q_sum, problem.c, *dynamics(problem))[n]
        np.testing.assert_allclose(regret, whole, rtol=1e-8, atol=1e-10 * problem.unit[n])


def test_undiscounted_transitions_are_refused():
    with pytest.raises(QomposeError, match="discount"):
        optimal_q(np.zeros((2, 3)), np.full((2, 3, 2), 0.5), 1.0)


def test_negative_temperatures_are_refused():
    # A sum of temperatures with negative weights may be one; its soft value would be a soft minimum.
    with pytest.raises(QomposeError, match="negative"):
        state_value(np.zeros((2, 3)), -0.1)


def test_rewards_that_are_not_numbers_are_refused():
    with pytest.raises(QomposeError, match="finite"):
        optimal_q(np.full((2, 3), np.nan), np.full((2, 3, 2), 0.25), 1.0)


# The functions for particles agree with the oracle.


def test_soft_value_over_all_actions_equals_the_state_value(problem):
    for q, alpha in zip(problem.optimal[:40], problem.alpha[:40], strict=True):
        value = state_value(q, alpha)
        np.testing.assert_allclose(soft_value(q, np.zeros_like(q), alpha), value, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(np.exp(log_policy(q, value[:, None], alpha)), boltzmann(q, alpha), rtol=1e-9)
        share = 1.0 / np.mean(boltzmann(q, alpha) ** 2, axis=-1)
        np.testing.assert_allclose(effective_sample_size(q, np.zeros_like(q), alpha), share, rtol=1e-9)


def test_soft_value_of_weighted_particles_equals_the_state_value(problem):
    # Every action occurs, some more often than others: their density is divided out.
    repeats = 1 + np.arange(problem.optimal.shape[-1])
    actions = np.repeat(np.arange(len(repeats)), repeats)
    log_density = np.log(repeats / repeats.mean())[actions]
    for q, alpha in zip(problem.optimal[:40], problem.alpha[:40], strict=True):
        estimate = soft_value(q[:, actions], log_density, alpha)
        np.testing.assert_allclose(estimate, state_value(q, alpha), rtol=1e-12, atol=1e-12)


def test_combined_values_equal_the_composed_energy(problem):
    for n in range(0, COUNT, 97):
        np.testing.assert_allclose(combine_values(list(problem.q[n]), list(problem.weights[n])), problem.q_sum[n])


def test_expected_next_value_is_discounted():
    kernel = 0.9 * np.array([[[0.25, 0.75], [1.0, 0.0]], [[0.0, 0.0], [0.5, 0.5]]])
    np.testing.assert_allclose(expect_next(kernel, np.array([4.0, 8.0])), 0.9 * np.array([[7.0, 4.0], [0.0, 6.0]]))


def test_the_best_of_the_skills_own_policies_is_a_lower_bound_for_any_weights_and_temperatures():
    rng = np.random.default_rng(7)
    exact = 0
    for trial in range(200):
        skills, states, actions = int(rng.integers(2, 5)), 6, 4
        kernel = 0.9 * rng.dirichlet(np.ones(states), (states, actions))
        reward = rng.normal(size=(skills, states, actions)) * 3.0
        temperatures, alpha = rng.uniform(0.1, 2.0, skills), float(rng.uniform(0.1, 2.0))
        weights = rng.normal(size=skills) if trial % 2 else np.eye(skills)[0]
        policies = boltzmann(optimal_q(reward, kernel[None], temperatures), temperatures)
        if not trial % 2:
            alpha = temperatures[0]
        composed = combine(weights, reward)
        best = evaluate(composed, kernel[None], policies, np.full(skills, alpha)).max(axis=0)
        worth = evaluate(composed, kernel, boltzmann(best, alpha), alpha)
        optimal = optimal_q(composed, kernel, alpha)
        slack = 1e-10 * (1.0 + np.abs(optimal).max())
        assert np.all(best <= worth + slack) and np.all(worth <= optimal + slack)
        exact += not trial % 2 and np.allclose(best, optimal, atol=slack)
    assert exact == 100  # where the task is that of one skill, following it is optimal
