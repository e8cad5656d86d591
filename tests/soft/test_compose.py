import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.compose import combine_temperatures, combine_values
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
