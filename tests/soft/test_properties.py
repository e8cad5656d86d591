"""Properties of the mathematics, on random problems and numbers; the oracle on finite MDPs on 200 of them each."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qompose.soft import bounds, finite
from qompose.soft.compose import combine_values, mix_values, prefer_values, spread_actions
from qompose.soft.correct import soft_minimum
from qompose.soft.quadratic import combine_forms, count_outputs, maximise_in_box, quadratic, read_form
from qompose.soft.squash import LOG_2, log_jacobian, log_uniform, logsumexp, softplus
from qompose.soft.stein import BANDWIDTH_FLOOR, median_bandwidth, squared_distances, stein_direction
from qompose.soft.value import (
    draw_smoothed,
    effective_sample_size,
    log_policy,
    log_smoothed,
    log_weights,
    mixture_proposal,
    soft_value,
)

TWO_HUNDRED = settings(max_examples=200)
SEEDS = st.integers(0, 2**32 - 1)
TEMPERATURES = st.floats(0.01, 10.0)
SHIFTS = st.floats(-50.0, 50.0)
SMOOTHINGS = st.sampled_from([0.1, 0.4, 0.9, 1.0])


def problem(seed, skills=None):
    """Reward and kernel of a random MDP: 2 to 6 states, 1 to 5 actions, discount 0.5 to 0.9, some steps terminal."""
    rng = np.random.default_rng(seed)
    states, actions = int(rng.integers(2, 7)), int(rng.integers(1, 6))
    kernel = rng.uniform(0.5, 0.9) * rng.dirichlet(np.ones(states), (states, actions))
    kernel[rng.random((states, actions)) < 0.1] = 0.0
    shape = (states, actions) if skills is None else (skills, states, actions)
    return rng.normal(size=shape) * rng.choice([0.1, 1.0, 10.0]), kernel


class Composition:
    """Skills of a random problem at temperatures of their own, and weights: of any sign, or as Hölder wants them."""

    def __init__(self, seed, *, pursued):
        rng = np.random.default_rng(seed + 1)
        self.skills = int(rng.integers(2, 4))
        self.reward, self.kernel = problem(seed, self.skills)
        self.temperatures = rng.uniform(0.1, 2.0, self.skills)
        self.weights = rng.uniform(0.1, 1.0, self.skills) * (1.0 if pursued else rng.choice([-1.0, 1.0], self.skills))
        least = max(float(self.weights @ self.temperatures), 0.0)
        self.alpha = least + rng.uniform(0.0, 1.0) if pursued else float(rng.uniform(0.1, 2.0))
        self.q = finite.optimal_q(self.reward, self.kernel[None], self.temperatures)
        self.value = finite.state_value(self.q, self.temperatures)
        self.total = finite.combine(self.weights, self.q)
        self.best = finite.optimal_q(finite.combine(self.weights, self.reward), self.kernel, self.alpha)
        self.kappa = finite.divergence(self.q, self.value, self.weights, self.alpha)
        self.slack = 1e-9 * (1.0 + np.abs(self.q).max() + np.abs(self.best).max())


def draws(seed, *shape, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


# ----------------------------------------------------------------------------------------------------------- the oracle


@TWO_HUNDRED
@given(SEEDS, TEMPERATURES)
def test_optimal_q_is_what_plain_soft_value_iteration_reaches(seed, temperature):
    reward, kernel = problem(seed)
    q = np.zeros_like(reward)
    for _ in range(300):  # 0.9^300 is below 1e-13
        top = q.max(axis=-1, keepdims=True)
        value = top[:, 0] + temperature * np.log(np.mean(np.exp((q - top) / temperature), axis=-1))
        q = reward + kernel @ value
    assert np.abs(finite.optimal_q(reward, kernel, temperature) - q).max() <= 1e-6


@given(SEEDS, TEMPERATURES, st.floats(-5.0, 5.0))
def test_a_constant_reward_more_is_worth_the_expected_discounted_time(seed, temperature, shift):
    reward, kernel = problem(seed)
    kernel[kernel.sum(axis=-1) == 0.0] = kernel.max(axis=-1).max() / kernel.shape[-1]  # no terminal step,
    kernel *= 0.8 / kernel.sum(axis=-1, keepdims=True)  # and one discount for all
    moved = finite.optimal_q(reward + shift, kernel, temperature) - finite.optimal_q(reward, kernel, temperature)
    np.testing.assert_allclose(moved, shift / 0.2, rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES)
def test_q_rises_with_every_reward(seed, temperature):
    reward, kernel = problem(seed)
    more = reward + np.abs(draws(seed, *reward.shape))
    slack = 1e-9 * (1.0 + np.abs(reward).max())
    assert (finite.optimal_q(more, kernel, temperature) >= finite.optimal_q(reward, kernel, temperature) - slack).all()


@given(SEEDS, TEMPERATURES, st.floats(0.01, 100.0))
def test_the_unit_of_reward_and_temperature_is_that_of_q(seed, temperature, unit):
    reward, kernel = problem(seed)
    scaled = finite.optimal_q(unit * reward, kernel, unit * temperature)
    own = finite.optimal_q(reward, kernel, temperature)
    np.testing.assert_allclose(scaled, unit * own, rtol=1e-9, atol=1e-9 * unit * np.abs(own).max())


@given(SEEDS, TEMPERATURES)
def test_names_of_states_and_actions_do_not_matter_to_q(seed, temperature):
    reward, kernel = problem(seed)
    rng = np.random.default_rng(seed)
    states, actions = rng.permutation(reward.shape[0]), rng.permutation(reward.shape[1])
    renamed = finite.optimal_q(reward[states][:, actions], kernel[states][:, actions][..., states], temperature)
    own = finite.optimal_q(reward, kernel, temperature)[states][:, actions]
    np.testing.assert_allclose(renamed, own, rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES, st.integers(2, 4))
def test_actions_that_are_there_several_times_change_nothing(seed, temperature, times):
    reward, kernel = problem(seed)
    again = finite.optimal_q(np.repeat(reward, times, axis=1), np.repeat(kernel, times, axis=1), temperature)
    own = np.repeat(finite.optimal_q(reward, kernel, temperature), times, axis=1)
    np.testing.assert_allclose(again, own, rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES)
def test_a_shaping_potential_moves_q_by_itself_and_the_policy_not_at_all(seed, temperature):
    reward, kernel = problem(seed)
    potential = draws(seed, len(reward))
    shaped = reward + finite.expect_next(kernel, potential) - potential[:, None]
    moved = finite.optimal_q(shaped, kernel, temperature)
    own = finite.optimal_q(reward, kernel, temperature)
    np.testing.assert_allclose(moved, own - potential[:, None], rtol=1e-8, atol=1e-8)


@TWO_HUNDRED
@given(SEEDS, TEMPERATURES)
def test_soft_q_is_below_hard_q_by_no_more_than_the_entropy_can_cost(seed, temperature):
    reward, kernel = problem(seed)
    gap = finite.optimal_q(reward, kernel, 0.0) - finite.optimal_q(reward, kernel, temperature)
    discount = kernel.sum(axis=-1).max()
    most = temperature * math.log(reward.shape[1]) * discount / (1.0 - discount)
    slack = 1e-9 * (1.0 + np.abs(reward).max())
    assert (gap >= -slack).all() and (gap <= most + slack).all()


@TWO_HUNDRED
@given(SEEDS, TEMPERATURES)
def test_no_policy_is_worth_more_than_the_boltzmann_policy_of_the_optimal_q(seed, temperature):
    reward, kernel = problem(seed)
    best = finite.optimal_q(reward, kernel, temperature)
    weights = np.random.default_rng(seed + 1).dirichlet(np.ones(reward.shape[1]), len(reward))
    other = finite.evaluate(reward, kernel, weights * reward.shape[1], temperature)
    own = finite.evaluate(reward, kernel, finite.boltzmann(best, temperature), temperature)
    scale = 1.0 + np.abs(best).max()
    assert (other <= best + 1e-9 * scale).all() and np.abs(own - best).max() <= 1e-9 * scale


@given(SEEDS, TEMPERATURES)
def test_the_soft_value_lies_between_mean_and_maximum_and_falls_with_the_temperature(seed, temperature):
    reward, _ = problem(seed)
    value, hotter = (finite.state_value(reward, alpha) for alpha in (temperature, 2.0 * temperature))
    assert (value <= reward.max(axis=-1) + 1e-12).all() and (value >= reward.mean(axis=-1) - 1e-12).all()
    assert (hotter <= value + 1e-12).all()


@given(SEEDS, TEMPERATURES)
def test_the_soft_value_is_what_the_best_density_makes_of_q_and_entropy(seed, temperature):
    q, _ = problem(seed)
    density = np.random.default_rng(seed).dirichlet(np.ones(q.shape[1]), len(q)) * q.shape[1]
    value, slack = finite.state_value(q, temperature), 1e-9 * (1.0 + np.abs(q).max())
    assert (finite.policy_value(q, density, temperature) <= value + slack).all()
    own = finite.policy_value(q, finite.boltzmann(q, temperature), temperature)
    np.testing.assert_allclose(own, value, rtol=1e-9, atol=slack)


# ------------------------------------------------------------------------------------------- bounds and certificate


@TWO_HUNDRED
@given(SEEDS)
def test_the_correction_is_exact_for_weights_of_any_sign_and_temperatures_of_any_kind(seed):
    c = Composition(seed, pursued=False)
    corrected = c.total - finite.correction(c.q, c.value, c.weights, c.kernel, c.alpha)
    assert np.abs(corrected - c.best).max() <= 10 * c.slack


@TWO_HUNDRED
@given(SEEDS)
def test_the_correction_with_residuals_is_exact_for_any_critics_whatever(seed):
    c = Composition(seed, pursued=False)
    q, value = c.q + draws(seed, *c.q.shape), c.value + draws(seed + 1, *c.value.shape)
    residual = finite.bellman_residual(c.reward, q, value, c.kernel)
    corrected = finite.combine(c.weights, q) - finite.correction(q, value, c.weights, c.kernel, c.alpha, residual)
    assert np.abs(corrected - c.best).max() <= 100 * c.slack


@TWO_HUNDRED
@given(SEEDS)
def test_the_lower_bound_of_lemma_1_holds_for_any_weights(seed):
    c = Composition(seed, pursued=False)
    assert (c.best >= c.total - finite.lemma_bound(c.kappa, c.kernel) - 10 * c.slack).all()


@TWO_HUNDRED
@given(SEEDS)
def test_the_sum_is_an_upper_bound_where_hoelder_holds_and_the_skills_never_agree_too_well(seed):
    c = Composition(seed, pursued=True)
    assert (c.kappa >= -c.slack).all()
    assert (c.best <= c.total + 10 * c.slack).all()


@TWO_HUNDRED
@given(SEEDS)
def test_the_bound_of_theorem_1_holds_where_hoelder_does(seed):
    c = Composition(seed, pursued=True)
    policy = finite.boltzmann(c.total, c.alpha)
    lemma = finite.lemma_bound(c.kappa, c.kernel)
    worth = finite.evaluate(finite.combine(c.weights, c.reward), c.kernel, policy, c.alpha)
    assert (worth >= c.best - finite.theorem_bound(lemma, c.kernel, policy) - 10 * c.slack).all()


@TWO_HUNDRED
@given(SEEDS)
def test_the_certificate_is_the_exact_regret_of_the_composed_policy(seed):
    c = Composition(seed, pursued=False)
    policy = finite.boltzmann(c.total, c.alpha)
    worth = finite.evaluate(finite.combine(c.weights, c.reward), c.kernel, policy, c.alpha)
    lost = finite.state_value(c.best, c.alpha) - finite.policy_value(worth, policy, c.alpha)
    regret = finite.soft_regret(c.total, c.total - c.best, c.kernel, c.alpha)
    np.testing.assert_allclose(regret, lost, rtol=1e-7, atol=100 * c.slack)
    assert (regret >= -100 * c.slack).all()


@given(SEEDS)
def test_the_sampled_divergence_on_all_actions_is_the_exact_one(seed):
    c = Composition(seed, pursued=False)
    flat = np.zeros(c.total.shape)
    kappa, _ = bounds.divergence([*c.q], [*c.weights], [*c.temperatures], c.alpha, flat)
    np.testing.assert_allclose(kappa, c.kappa, rtol=1e-9, atol=10 * c.slack)


@given(SEEDS, TEMPERATURES, st.floats(0.05, 0.95))
def test_skills_that_agree_have_no_divergence_and_no_error_of_it_however_few_the_draws(seed, temperature, share):
    q, density = draws(seed, 3, 5, scale=10.0), draws(seed + 1, 3, 5)
    kappa, error = bounds.divergence([q, q], [share, 1.0 - share], [temperature] * 2, temperature, density)
    scale = 1e-12 * (temperature + np.abs(q).max())
    assert (np.abs(kappa) <= scale).all() and (error <= scale).all()


@given(SEEDS, TEMPERATURES, SHIFTS)
def test_a_step_costs_never_less_than_nothing_and_nothing_where_the_correction_is_constant(seed, temperature, shift):
    correction, log_weight = draws(seed, 4, 6, scale=5.0), log_weights(draws(seed + 1, 4, 6), np.zeros((4, 6)), 1.0)
    assert (bounds.local_regret(correction, log_weight, temperature) >= -1e-9 * (1.0 + temperature)).all()
    constant = np.full((4, 6), shift)
    assert np.abs(bounds.local_regret(constant, log_weight, temperature)).max() <= 1e-10 * (1.0 + abs(shift))


@given(SEEDS, TEMPERATURES)
def test_the_soft_minimum_lies_between_minimum_and_mean_and_nears_the_minimum_when_cold(seed, temperature):
    x, log_weight = draws(seed, 4, 6), log_weights(draws(seed + 1, 4, 6), np.zeros((4, 6)), 1.0)
    soft, colder = (soft_minimum(x, log_weight, alpha) for alpha in (temperature, 0.1 * temperature))
    assert (soft >= x.min(axis=-1) - 1e-9).all() and (soft <= bounds.expect(x, log_weight) + 1e-9).all()
    assert (colder <= soft + 1e-9).all()


# ------------------------------------------------------------------------------------------------ values by sampling


@given(SEEDS, TEMPERATURES, SHIFTS)
def test_the_sampled_value_moves_with_q_and_does_not_know_the_order_of_the_draws(seed, temperature, shift):
    q, density = draws(seed, 3, 7), draws(seed + 1, 3, 7)
    order = np.random.default_rng(seed).permutation(7)
    value = soft_value(q, density, temperature)
    np.testing.assert_allclose(soft_value(q + shift, density, temperature), value + shift, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(soft_value(q[:, order], density[:, order], temperature), value, rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES, SHIFTS)
def test_draws_of_the_policy_itself_give_its_value_without_any_error(seed, temperature, value):
    q = draws(seed, 3, 7)
    estimate = soft_value(q, log_policy(q, value, temperature), temperature)
    np.testing.assert_allclose(estimate, value, rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES)
def test_the_share_of_draws_that_work_is_that_of_the_weights(seed, temperature):
    q, density = draws(seed, 3, 7), draws(seed + 1, 3, 7)
    weights = np.exp(log_weights(q, density, temperature))
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-9)
    share = effective_sample_size(q, density, temperature)
    np.testing.assert_allclose(share, 1.0 / (7 * (weights**2).sum(axis=-1)), rtol=1e-8)
    assert (share >= 1 / 7 - 1e-9).all() and (share <= 1.0 + 1e-9).all()


@given(SEEDS, SMOOTHINGS, st.integers(1, 5), st.integers(1, 3))
def test_every_draw_of_the_proposal_has_at_least_the_density_of_its_uniform_part(seed, smoothing, few, size):
    rng = np.random.default_rng(seed)
    particles, uniform = draws(seed, 2, 5, size, scale=2.0), rng.uniform(-1.0, 1.0, (2, 3, size))
    drawn, log_density = mixture_proposal(particles, draws(seed + 1, 2, few, size), uniform, smoothing)
    assert drawn.shape == (2, few + 3, size) and log_density.shape == (2, few + 3)
    assert (log_density >= math.log(3 / (few + 3)) - 1e-12).all()


@given(SEEDS, SMOOTHINGS)
def test_the_smoothed_density_of_one_action_integrates_to_one(seed, smoothing):
    particles = draws(seed, 1, 5, 1)
    width = smoothing * particles.std(axis=-2, ddof=1).item()
    assume(width > 0.02)
    u = np.linspace(-12.0, 12.0, 20_001)[None, :, None]
    mass = np.trapezoid(np.exp(log_smoothed(u, particles, smoothing))[0], u[0, :, 0])
    assert math.isclose(mass, 1.0, rel_tol=1e-4)


@given(SEEDS, SMOOTHINGS, SHIFTS)
def test_the_smoothed_density_moves_with_its_particles(seed, smoothing, shift):
    particles, noise, u = draws(seed, 2, 5, 3), draws(seed + 1, 2, 4, 3), draws(seed + 2, 2, 6, 3)
    moved = draw_smoothed(particles + shift, noise, smoothing)
    np.testing.assert_allclose(moved, draw_smoothed(particles, noise, smoothing) + shift, rtol=1e-9, atol=1e-9)
    own = log_smoothed(u, particles, smoothing)
    np.testing.assert_allclose(log_smoothed(u + shift, particles + shift, smoothing), own, rtol=1e-6, atol=1e-6)


@given(SEEDS, SMOOTHINGS)
def test_smoothing_keeps_the_middle_of_the_particles(seed, smoothing):
    particles = draws(seed, 2, 5, 3)
    still = draw_smoothed(particles, np.zeros((2, 10, 3)), smoothing)
    np.testing.assert_allclose(still.mean(axis=-2), particles.mean(axis=-2), atol=1e-12)


# ------------------------------------------------------------------------------------------------------- composition


@given(SEEDS, TEMPERATURES, st.floats(0.05, 0.95))
def test_a_mixture_lies_between_its_values_and_is_the_value_of_the_mixture(seed, temperature, share):
    q = draws(seed, 2, 4, 6)
    mixed = mix_values([*q], [share, 1.0 - share], temperature)
    assert (mixed >= q.min(axis=0) - 1e-9).all() and (mixed <= q.max(axis=0) + 1e-9).all()
    values = [finite.state_value(x, temperature) for x in q]
    own = finite.state_value(mixed, temperature)
    np.testing.assert_allclose(own, mix_values(values, [share, 1.0 - share], temperature), rtol=1e-9, atol=1e-9)


@given(SEEDS, TEMPERATURES)
def test_the_policy_of_a_sum_is_the_product_of_the_policies(seed, temperature):
    q, weights = draws(seed, 3, 4, 5), np.random.default_rng(seed).uniform(-1.0, 1.0, 3)
    product = np.prod([finite.boltzmann(x, temperature) ** w for x, w in zip(q, weights, strict=True)], axis=0)
    total = finite.boltzmann(combine_values([*q], [*weights]), temperature)
    np.testing.assert_allclose(total, product / product.mean(axis=-1, keepdims=True), rtol=1e-7)


@given(SEEDS, st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.floats(0.1, 50.0))
def test_what_is_preferred_costs_at_most_half_a_log_within_the_slack_and_more_the_worse(seed, slack, width, strength):
    high, low = np.sort(draws(seed, 9, scale=3.0)), np.zeros(9)
    value = prefer_values(high, high.max(), low, slack, width, strength)
    assert (np.diff(value) >= -1e-9).all() and (value <= 0.0).all()
    assert (value[high >= high.max() - slack] >= -strength * LOG_2 * (1.0 + 1e-12)).all()


@given(st.integers(1, 8), st.integers(1, 60), st.integers(1, 60))
def test_more_fixed_actions_leave_the_first_as_they_were_and_none_is_there_twice(size, few, more):
    first, whole = spread_actions(few, size), spread_actions(few + more, size)
    np.testing.assert_array_equal(first, whole[:few])
    assert (np.abs(whole) < 1.0).all() and len(np.unique(whole, axis=0)) == few + more


# ---------------------------------------------------------------------------------------------------- squash and box


@given(st.lists(st.floats(-300.0, 300.0), min_size=1, max_size=4))
def test_the_jacobian_of_the_squash_is_even_and_falls_by_two_per_unit_far_out(u):
    u = np.array(u)
    assert math.isclose(log_jacobian(u), log_jacobian(-u), rel_tol=1e-12) and log_jacobian(u) <= 0.0
    far = np.abs(u) + 20.0
    np.testing.assert_allclose(log_jacobian(far + 1.0), log_jacobian(far) - 2.0 * len(u), rtol=1e-12)
    near = np.clip(u, -5.0, 5.0)
    np.testing.assert_allclose(log_jacobian(near), np.log(1.0 - np.tanh(near) ** 2).sum(), rtol=1e-9, atol=1e-9)


@given(st.floats(-3.0, 3.0), st.floats(0.01, 3.0))
def test_the_uniform_measure_gives_every_interval_half_its_length(start, length):
    u = np.linspace(start, start + length, 4001)
    mass = np.trapezoid(np.exp(log_uniform(u[:, None])), u)
    assert math.isclose(mass, 0.5 * (math.tanh(start + length) - math.tanh(start)), rel_tol=1e-5)


@given(st.floats(-1e6, 1e6))
def test_softplus_is_above_both_of_its_limits_and_differs_from_its_mirror_by_x(x):
    x = np.array(x)
    assert softplus(x) >= max(x, 0.0)
    assert math.isclose(softplus(x) - softplus(-x), x, rel_tol=1e-12, abs_tol=1e-12)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=9), st.floats(-1e4, 1e4))
def test_logsumexp_lies_within_log_n_of_the_largest_and_moves_with_all(x, shift):
    x = np.array(x)
    total = logsumexp(x)
    assert x.max() <= total <= x.max() + math.log(len(x)) + 1e-9
    assert math.isclose(logsumexp(x + shift), total + shift, rel_tol=1e-12, abs_tol=1e-8)


# --------------------------------------------------------------------------------------------------------------- stein


@given(SEEDS, SHIFTS)
def test_the_stein_direction_does_not_know_where_the_origin_is(seed, shift):
    fixed, updated, gradient = draws(seed, 6, 3), draws(seed + 1, 5, 3), draws(seed + 2, 6, 3)
    moved = stein_direction(fixed + shift, updated + shift, gradient)
    np.testing.assert_allclose(moved, stein_direction(fixed, updated, gradient), rtol=1e-6, atol=1e-8)


@given(SEEDS)
def test_the_stein_direction_turns_with_the_particles(seed):
    fixed, updated, gradient = draws(seed, 6, 3), draws(seed + 1, 5, 3), draws(seed + 2, 6, 3)
    turn, _ = np.linalg.qr(draws(seed + 3, 3, 3))
    turned = stein_direction(fixed @ turn, updated @ turn, gradient @ turn)
    np.testing.assert_allclose(turned, stein_direction(fixed, updated, gradient) @ turn, rtol=1e-8, atol=1e-10)


@given(SEEDS)
def test_the_order_of_fixed_particles_does_not_matter_and_updated_ones_keep_theirs(seed):
    fixed, updated, gradient = draws(seed, 6, 3), draws(seed + 1, 5, 3), draws(seed + 2, 6, 3)
    rng = np.random.default_rng(seed)
    some, other = rng.permutation(6), rng.permutation(5)
    found = stein_direction(fixed[some], updated[other], gradient[some])
    np.testing.assert_allclose(found, stein_direction(fixed, updated, gradient)[other], rtol=1e-9, atol=1e-12)


@given(SEEDS, st.integers(1, 5))
def test_a_particle_alone_climbs_the_gradient(seed, size):
    particle, gradient = draws(seed, 1, size, scale=3.0), draws(seed + 1, 1, size)
    np.testing.assert_allclose(stein_direction(particle, particle, gradient), gradient, rtol=1e-9, atol=1e-9)


@given(SEEDS)
def test_without_a_gradient_particles_part_and_their_middle_stays(seed):
    particles = draws(seed, 6, 2)
    direction = stein_direction(particles, particles, np.zeros((6, 2)))
    np.testing.assert_allclose(direction.sum(axis=0), 0.0, atol=1e-9)
    before = squared_distances(particles, particles).sum()
    assert squared_distances(*(particles + 1e-4 * direction,) * 2).sum() > before


@given(SEEDS, st.floats(0.1, 10.0))
def test_the_bandwidth_is_measured_in_the_square_of_the_distance_and_has_a_floor(seed, unit):
    square = squared_distances(draws(seed, 6, 2), draws(seed + 1, 5, 2))
    own = median_bandwidth(square)
    assume(own.item() * min(unit**2, 1.0) > BANDWIDTH_FLOOR)
    np.testing.assert_allclose(median_bandwidth(unit**2 * square), unit**2 * own, rtol=1e-9)
    assert median_bandwidth(0.0 * square).item() == BANDWIDTH_FLOOR


# ------------------------------------------------------------------------------------------------------ quadratic forms


@given(SEEDS, st.integers(1, 7), st.floats(0.1, 20.0))
def test_nothing_in_the_box_is_better_than_the_maximum_of_a_form(seed, size, pull):
    root = draws(seed, 3, size, size)
    precision = root @ np.swapaxes(root, -1, -2) + 0.05 * np.eye(size)
    linear = draws(seed + 1, 3, size, scale=pull)
    best = maximise_in_box(precision, linear)
    assert (np.abs(best) <= 1.0).all()
    slope = linear - (precision @ best[..., None])[..., 0]
    inside = np.abs(best) < 1.0
    assert np.abs(slope[inside]).max(initial=0.0) <= 1e-6 * (1.0 + pull)  # flat inside,
    assert (slope * best)[~inside].min(initial=0.0) >= -1e-6 * (1.0 + pull)  # and at a bound uphill is outwards


@given(SEEDS, st.integers(1, 5), st.integers(2, 4))
def test_a_sum_of_forms_differs_from_their_combination_by_a_constant(seed, size, count):
    roots, means = draws(seed, count, 1, size, size), np.tanh(draws(seed + 1, count, 1, size))
    precisions = [root @ np.swapaxes(root, -1, -2) for root in roots]
    precision, linear = combine_forms(precisions, [*means])
    actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (1, 8, size))
    forms = zip(roots, means, strict=True)
    total = sum(quadratic(np.zeros(1), mean, root, actions) for root, mean in forms)
    curved = np.einsum("bnd,bde,bne->bn", actions, precision, actions)
    combined = np.einsum("bnd,bd->bn", actions, linear) - 0.5 * curved
    assert np.ptp(total - combined) <= 1e-9 * (1.0 + np.abs(total).max())


@given(SEEDS, st.integers(1, 6))
def test_every_output_is_a_form_whose_best_action_is_in_the_box(seed, size):
    value, mean, factor = read_form(draws(seed, 3, count_outputs(size), scale=4.0))
    assert (np.abs(mean) <= 1.0).all() and (np.linalg.det(factor) > 0.0).all()
    actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (3, 8, size))
    assert (quadratic(value, mean, factor, actions) <= value[:, None]).all()
    np.testing.assert_allclose(quadratic(value, mean, factor, mean[:, None]), value[:, None])
