import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.compose import combine_temperatures, combine_values, mix_values, prefer_values, spread_actions
from qompose.soft.finite import boltzmann, combine, evaluate, optimal_q, state_value
from qompose.soft.value import log_policy


def test_values_combine_by_their_weights():
    first, second = np.array([1.0, 2.0]), np.array([3.0, -2.0])
    np.testing.assert_allclose(combine_values([first, second], [0.5, 0.5]), [2.0, 0.0])
    np.testing.assert_allclose(combine_values([first, second, first], [2.0, -1.0, 0.5]), [-0.5, 7.0])
    np.testing.assert_allclose(combine_values([first], [1.0]), first)


def test_temperatures_combine_by_the_same_weights():
    assert combine_temperatures([0.1, 0.3], [0.5, 0.5]) == pytest.approx(0.2)
    assert combine_temperatures([0.1, 0.1], [1.0, 1.0]) == pytest.approx(0.2)


def test_composed_policy_is_the_geometric_mean_of_the_policies():
    # Equal temperatures, mean of the values: π_Σ ∝ √(π_1 π_2), here on 9 equally likely actions.
    generator = np.random.default_rng(0)
    q = [generator.normal(size=9) for _ in range(2)]
    temperatures, weights = [0.4, 0.4], [0.5, 0.5]
    temperature = combine_temperatures(temperatures, weights)

    def policy(q, temperature):
        value = temperature * np.log(np.mean(np.exp(q / temperature)))
        return np.exp(log_policy(q, value, temperature))

    composed = policy(combine_values(q, weights), temperature)
    product = np.sqrt(policy(q[0], 0.4) * policy(q[1], 0.4))
    np.testing.assert_allclose(composed, product / product.mean())


def test_a_weight_for_every_value_is_required():
    with pytest.raises(ValueError):
        combine_values([np.zeros(2), np.zeros(2)], [1.0])
    with pytest.raises(ValueError):
        combine_temperatures([0.1, 0.1], [1.0])


def test_numpy_and_jax_agree():
    values = [np.arange(3, dtype=np.float32), np.ones(3, np.float32)]
    composed = combine_values([jnp.asarray(value) for value in values], [0.25, 0.75])
    assert composed.dtype == jnp.float32
    np.testing.assert_allclose(combine_values(values, [0.25, 0.75]), composed)


# ---------------------------------------------------------------------------------------------------- any of several


def test_a_mixture_of_values_equals_its_formula_and_lies_below_the_largest():
    generator = np.random.default_rng(0)
    values, weights = generator.normal(size=(3, 50)), [0.2, 0.5, 0.3]
    mixed = mix_values(list(values), weights, 0.7)
    np.testing.assert_allclose(mixed, 0.7 * np.log(weights @ np.exp(values / 0.7)))
    assert np.all(mixed <= values.max(axis=0)) and np.all(mixed >= values.max(axis=0) + 0.7 * np.log(0.2))
    np.testing.assert_allclose(mix_values([values[0], values[0]], [0.4, 0.6], 0.7), values[0])


def test_a_mixture_keeps_its_digits_where_values_are_thousands_of_temperatures():
    values = [np.array([-1500.0, -1500.0], np.float32), np.array([-1500.25, -1499.0], np.float32)]
    exact = -1500.0 + 0.1 * np.log(0.5 + 0.5 * np.exp(np.array([-0.25, 1.0]) / 0.1))
    np.testing.assert_allclose(mix_values(values, [0.5, 0.5], 0.1), exact, atol=2e-4)


def test_the_policy_of_a_mixture_is_the_mixture_of_the_policies():
    generator = np.random.default_rng(1)
    q, weights, alpha = generator.normal(size=(2, 4, 9)), np.array([0.3, 0.7]), 0.5
    value = state_value(q, alpha)
    share = weights[:, None] * np.exp(value / alpha)
    mixture = np.sum(share[..., None] * boltzmann(q, alpha), axis=0) / share.sum(axis=0)[:, None]
    mixed = mix_values(list(q), weights.tolist(), alpha)
    np.testing.assert_allclose(boltzmann(mixed, alpha), mixture)
    np.testing.assert_allclose(state_value(mixed, alpha), mix_values(list(value), weights.tolist(), alpha))


WEIGHTS, ALPHA = [0.2, 0.5, 0.3], 0.7


def goals(discount, deterministic, seed=0, count=200, states=6, actions=3):
    """Random MDPs whose skills have one reward but on the steps that end the episode; each state has such a step."""
    generator = np.random.default_rng(seed)
    kernel = generator.dirichlet(np.full(states, 0.3), (count, states, actions))
    if deterministic:
        kernel = np.eye(states)[generator.integers(states, size=(count, states, actions))]
    kernel = discount * kernel
    kernel[..., 0, :] = 0.0
    scale = 10.0 ** generator.uniform(-1.0, 1.0, (count, 1, 1, 1))
    shared = -generator.uniform(0.1, 2.0, size=(count, 1, states, actions))  # else none would end without a discount
    ends = np.arange(actions) == 0
    return kernel, scale * np.where(ends, 3.0 * generator.normal(size=(count, 3, states, actions)), shared)


def mixed(x):
    """`mix_values` over the axis of the skills."""
    return mix_values(list(np.moveaxis(x, 1, 0)), WEIGHTS, ALPHA)


def solve_goals(*args, **kwargs):
    """Q_or, the optimal Q of the task of reward α log Σ w exp(r/α), and the Q of the policy of Q_or in it."""
    kernel, reward = goals(*args, **kwargs)
    q, composed = mixed(optimal_q(reward, kernel[:, None], ALPHA)), mixed(reward)
    return q, optimal_q(composed, kernel, ALPHA), evaluate(composed, kernel, boltzmann(q, ALPHA), ALPHA)


def test_or_is_exact_where_ends_alone_differ_dynamics_are_deterministic_and_nothing_is_discounted():
    # One minus a rounding error: the oracle wants rows below one.
    q, optimal, reached = solve_goals(1.0 - 1e-13, deterministic=True)
    np.testing.assert_allclose(q, optimal, atol=1e-8)
    np.testing.assert_allclose(reached, optimal, atol=1e-8)


@pytest.mark.parametrize(("discount", "deterministic"), [(0.9, True), (1.0 - 1e-13, False), (0.9, False)])
def test_or_is_a_lower_bound_with_a_discount_or_chance_and_its_policy_keeps_what_it_promises(discount, deterministic):
    q, optimal, reached = solve_goals(discount, deterministic)
    assert np.max(q - reached) < 1e-9 and np.max(reached - optimal) < 1e-9
    assert np.max(optimal - q) > 1e-2  # no longer exact


def test_or_is_a_lower_bound_of_the_task_of_the_larger_reward_whatever_the_rewards():
    kernel, _ = goals(0.9, deterministic=False)
    reward = 3.0 * np.random.default_rng(7).normal(size=(200, 3, 6, 3))
    q = mixed(optimal_q(reward, kernel[:, None], ALPHA))
    assert np.max(q - optimal_q(reward.max(axis=1), kernel, ALPHA)) < 1e-9
    # But none of the task of the mixed reward, once rewards differ on other steps.
    assert np.max(q - optimal_q(mixed(reward), kernel, ALPHA)) > 1e-2


@pytest.mark.parametrize(("temperature", "holds"), [(0.2, True), (ALPHA, True), (2.0, False)])
def test_or_is_a_lower_bound_at_no_higher_temperature_than_the_skills_own(temperature, holds):
    kernel, _ = goals(0.9, deterministic=False)
    reward = 3.0 * np.random.default_rng(7).normal(size=(200, 3, 6, 3))
    each = optimal_q(reward, kernel[:, None], ALPHA)
    q = mix_values(list(np.moveaxis(each, 1, 0)), WEIGHTS, temperature)
    over = np.max(q - optimal_q(reward.max(axis=1), kernel, temperature))
    assert over < 1e-9 if holds else over > 0.1


# ----------------------------------------------------------------------------------------------------- AND and AVOID


def solve_sum(signs, seed=0, count=300, cooler=1.0):
    """Q_Σ, Q* and the Q of the policy of Q_Σ for random MDPs and weights of the given signs, at α ≤ Σ w_i α_i."""
    generator = np.random.default_rng(seed)
    skills = len(signs)
    kernel = 0.9 * generator.dirichlet(np.full(5, 0.5), (count, 5, 3))
    kernel[..., 0, :] *= generator.integers(2, size=(count, 5, 1))
    reward = generator.normal(size=(count, skills, 5, 3))
    temperatures = 10.0 ** generator.uniform(-1.0, 0.5, (count, skills))
    weights = np.array(signs) * generator.uniform(0.2, 1.0, (count, skills))
    natural = np.sum(weights * temperatures, axis=1)
    keep = natural > 0.05
    kernel, reward, temperatures, weights = kernel[keep], reward[keep], temperatures[keep], weights[keep]
    alpha = cooler * natural[keep]
    each = optimal_q(reward, kernel[:, None], temperatures)
    q, composed = combine(weights, each), combine(weights, reward)
    return q, optimal_q(composed, kernel, alpha), evaluate(composed, kernel, boltzmann(q, alpha), alpha)


def test_and_is_an_upper_bound_and_no_lower_one():
    q, optimal, _ = solve_sum([1, 1, 1])
    assert len(q) == 300 and np.max(optimal - q) < 1e-9 and np.max(q - optimal) > 0.1


@pytest.mark.parametrize("signs", [[1, -1], [-1, 1, -1]])
@pytest.mark.parametrize("cooler", [1.0, 0.3])
def test_one_skill_while_avoiding_others_is_a_lower_bound_that_its_policy_keeps(signs, cooler):
    q, optimal, reached = solve_sum(signs, cooler=cooler)
    assert len(q) > 50
    assert np.max(q - reached) < 1e-9 and np.max(reached - optimal) < 1e-9
    assert np.max(optimal - q) > 0.1


def test_two_skills_while_avoiding_a_third_bound_nothing():
    q, optimal, _ = solve_sum([1, 1, -1])
    assert np.max(q - optimal) > 0.05 and np.max(optimal - q) > 0.05


def test_avoiding_is_no_upper_bound_by_hand():
    """One step to a fork: the left branch pays the skill, the right one what is avoided, and both may be had apart.

    Q_Σ subtracts half of the best of what is avoided, although who goes left never meets it.
    """
    kernel = np.zeros((1, 2, 2, 2))
    kernel[:, 0, :, 1] = 1.0 - 1e-13
    reward = np.zeros((1, 2, 2, 2))
    reward[0, 0, 1], reward[0, 1, 1] = [8.0, 0.0], [0.0, 8.0]  # in state 1, where both actions end
    temperature = np.array([[0.1, 0.1]])
    first, avoided = optimal_q(reward, kernel[:, None], temperature)[0]
    at_start = combine_values([first, avoided], [1.0, -0.5])[0, 0]
    optimal = optimal_q(combine([1.0, -0.5], reward), kernel, 0.05)[0, 0, 0]
    # V = 8 − α log 2 of either skill; Q* = 8 − ½·0.1·log 2 at α = 0.05, since the other action is worse by 12.
    assert at_start == pytest.approx(0.5 * (8.0 - 0.1 * np.log(2.0)))
    assert optimal == pytest.approx(8.0 - 0.05 * np.log(2.0)) and optimal > at_start


# ---------------------------------------------------------------------------------------------------- lexicographic


def test_preference_equals_its_formula_and_does_not_overflow():
    high, low = np.array([5.0, 4.0, -1e5]), np.array([0.0, 3.0, 1.0])
    found = prefer_values(high, 5.0, low, 0.5, 0.2, 2.0)
    expected = low[:2] + 2.0 * np.log(1.0 / (1.0 + np.exp(-(high[:2] - 5.0 + 0.5) / 0.2)))
    np.testing.assert_allclose(found[:2], expected)
    np.testing.assert_allclose(found[2], 1.0 - 2.0 * (1e5 + 5.0 - 0.5) / 0.2)
    assert np.all(found <= low)


def test_within_the_slack_the_policy_is_that_of_low_and_beyond_it_there_is_none():
    generator = np.random.default_rng(0)
    high, low = generator.normal(size=(2, 20, 50))
    highest = high.max(axis=-1, keepdims=True)
    inside = high >= highest - 0.5
    sharp = boltzmann(prefer_values(high, highest, low, 0.5, 1e-5, 1.0), 0.3)
    restricted = inside * boltzmann(low, 0.3)
    np.testing.assert_allclose(sharp, restricted / restricted.mean(axis=-1, keepdims=True), atol=1e-6)


def test_beyond_the_slack_a_unit_of_high_costs_strength_over_width():
    steep = prefer_values(np.array([-2.0, -3.0]), 0.0, np.zeros(2), 0.5, 0.1, 0.7)
    assert steep[0] - steep[1] == pytest.approx(7.0, rel=1e-4)
    edge = prefer_values(np.array([-0.5]), 0.0, np.zeros(1), 0.5, 0.1, 0.7)
    np.testing.assert_allclose(edge, 0.7 * np.log(0.5))


def test_a_preference_is_the_optimal_value_of_no_task_of_its_rewards():
    # A first step that high does not care about, and later two goods that exclude each other: what low loses by having
    # to please high later is not in Q_low, so that the preference is off by it.
    kernel = np.zeros((1, 2, 2, 2))
    kernel[:, 0, 0, 1] = 0.9
    reward = np.zeros((1, 2, 2, 2))
    reward[0, :, 1] = [[1.0, 0.0], [0.0, 1.0]]
    high, low = optimal_q(reward, kernel[:, None], np.array([[0.0, 0.0]]))[0]
    promised = prefer_values(high, high.max(axis=-1, keepdims=True), low, 0.1, 0.01, 1.0)
    reached = boltzmann(promised, 1e-3)[1]  # in state 1
    np.testing.assert_allclose(reached, [2.0, 0.0], atol=1e-6)  # high has its way
    assert promised[0, 0] == pytest.approx(0.9, abs=1e-3)  # yet low was promised its own best


# ---------------------------------------------------------------------------------------------------- fixed actions


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_fixed_actions_are_the_same_for_ever_and_inside_the_box(size):
    actions = spread_actions(128, size)
    assert actions.shape == (128, size) and np.all(np.abs(actions) < 1.0)
    np.testing.assert_array_equal(actions, spread_actions(128, size))
    np.testing.assert_array_equal(actions[:50], spread_actions(50, size))
    if size < 10:
        assert np.all(np.abs(actions.mean(axis=0)) < 0.1)


def test_fixed_actions_leave_smaller_holes_than_random_ones():
    targets = np.random.default_rng(0).uniform(-1, 1, (2000, 1, 2))

    def hole(actions):
        return np.max(np.min(np.sum((targets - actions) ** 2, axis=-1), axis=-1))

    random = [hole(np.random.default_rng(seed).uniform(-1, 1, (64, 2))) for seed in range(20)]
    assert hole(spread_actions(64, 2)) < min(random)


def test_the_first_fixed_actions_of_one_dimension_by_hand():
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    np.testing.assert_allclose(spread_actions(2, 1)[:, 0], [2.0 * golden - 2.0, 4.0 * golden - 2.0])


def test_numpy_and_jax_agree_on_mixtures_and_preferences():
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(4, 5)).astype(np.float32) for _ in range(2))
    both = jnp.asarray(first), jnp.asarray(second)
    for mine, theirs in (
        (mix_values([first, second], [0.3, 0.7], 0.2), mix_values(list(both), [0.3, 0.7], 0.2)),
        (prefer_values(first, 2.0, second, 0.3, 0.1, 1.5), prefer_values(both[0], 2.0, both[1], 0.3, 0.1, 1.5)),
    ):
        assert mine.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_no_gradient_of_a_mixture_is_nan_where_values_are_far_apart_or_equal():
    gradient = jax.grad(lambda x: jnp.sum(mix_values([x, 0.0 * x], [0.5, 0.5], 1e-3)))(jnp.array([100.0, -100.0, 0.0]))
    np.testing.assert_allclose(gradient, [1.0, 0.0, 0.5], atol=1e-6)
