import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.stein import (
    BANDWIDTH_FLOOR,
    COUNTED,
    median_bandwidth,
    squared_distances,
    stein_direction,
    upper_median,
)


def test_direction_equals_a_hand_computed_example():
    # Fixed 0 and 2, updated 1: squared distances 1 and 1, median 1, h = 1/log 2, k = exp(−log 2) = 1/2.
    # φ = ½ [ ½·3 + 2 log 2·(1 − 0)·½ + ½·(−1) + 2 log 2·(1 − 2)·½ ] = ½.
    fixed, updated = np.array([[0.0], [2.0]]), np.array([[1.0]])
    np.testing.assert_allclose(stein_direction(fixed, updated, np.array([[3.0], [-1.0]])), [[0.5]])
    # With one fixed particle alone the repulsion remains: log of the count is floored at log 2.
    # h = 1/log 2, k = ½, φ = ½·3 + 2 log 2·1·½.
    np.testing.assert_allclose(stein_direction(fixed[:1], updated, np.array([[3.0]])), [[1.5 + np.log(2.0)]])


def test_direction_equals_autodiff_of_the_kernel():
    keys = jax.random.split(jax.random.key(0), 3)
    fixed = jax.random.normal(keys[0], (6, 3))
    updated = jax.random.normal(keys[1], (5, 3))
    gradient = jax.random.normal(keys[2], (6, 3))
    square = jnp.sort(squared_distances(fixed, updated).ravel())
    bandwidth = square[len(square) // 2] / jnp.log(6.0)

    def kernel(x, y):
        return jnp.exp(-jnp.sum((x - y) ** 2) / bandwidth)

    def direction(y):
        terms = [kernel(x, y) * g + jax.grad(kernel)(x, y) for x, g in zip(fixed, gradient, strict=True)]
        return jnp.mean(jnp.stack(terms), axis=0)

    expected = jnp.stack([direction(y) for y in updated])
    np.testing.assert_allclose(stein_direction(fixed, updated, gradient), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("count", [1, 2, 7, 64, COUNTED, COUNTED + 1])
def test_the_median_is_the_element_in_the_middle_of_the_sorted_ones_also_where_some_are_equal(count, xp):
    generator = np.random.default_rng(count)
    for values in (generator.random((5, count)), generator.integers(0, 3, (5, count)), np.ones((5, count))):
        values = values.astype(np.float32)
        expected = np.sort(values, axis=-1)[:, count // 2]
        np.testing.assert_array_equal(upper_median(xp.asarray(values)), expected)


def test_particles_repel_each_other():
    # No gradient: two particles to the left of an updated one push it to the right.
    direction = stein_direction(np.array([[-0.5], [-0.4]]), np.array([[0.0]]), np.zeros((2, 1)))
    assert direction[0, 0] > 0


def test_particles_follow_the_gradient_of_their_neighbours():
    fixed = np.array([[-0.5, 0.0], [0.5, 0.0]])
    direction = stein_direction(fixed, np.zeros((1, 2)), np.array([[0.0, 4.0], [0.0, 4.0]]))
    assert direction[0, 1] > 0
    assert direction[0, 0] == pytest.approx(0.0, abs=1e-12)  # the two repulsions cancel


def test_states_do_not_influence_each_other():
    generator = np.random.default_rng(1)
    fixed, updated, gradient = (generator.normal(size=(4, 8, 2)) for _ in range(3))
    together = stein_direction(fixed, updated, gradient)
    alone = np.stack([stein_direction(*arrays) for arrays in zip(fixed, updated, gradient, strict=True)])
    np.testing.assert_allclose(together, alone)


def test_direction_vanishes_on_average_at_the_target():
    # Stein's identity: E_{x~p}[k(x, y) ∇ log p(x) + ∇_x k(x, y)] = 0 for every y.
    draws = np.random.default_rng(2).normal(size=(1, 200_000, 1))
    direction = stein_direction(draws, np.array([[[0.7]]]), -draws)
    assert abs(direction[0, 0, 0]) < 5e-3
    wrong_score = stein_direction(draws, np.array([[[0.7]]]), -1.5 * draws)
    assert abs(wrong_score[0, 0, 0]) > 2e-2


def test_bandwidth_is_the_median_over_the_logarithm_of_the_count():
    square = np.array([[[1.0, 9.0, 4.0], [16.0, 25.0, 36.0]]])  # sorted 1 4 9 16 25 36, upper median 16
    np.testing.assert_allclose(median_bandwidth(square), [[[16.0 / np.log(2.0)]]])


def test_bandwidth_has_a_floor():
    assert median_bandwidth(np.zeros((4, 8, 8))).min() == BANDWIDTH_FLOOR
    same = np.full((1, 8, 2), 0.3)
    np.testing.assert_allclose(stein_direction(same, same, np.ones((1, 8, 2))), np.ones((1, 8, 2)))


def test_squared_distances_are_ordered_fixed_by_updated():
    square = squared_distances(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(square, [[0.0, 1.0], [25.0, 20.0], [1.0, 0.0]])


def test_numpy_and_jax_agree():
    generator = np.random.default_rng(3)
    arrays = [generator.normal(size=(4, 8, 3)).astype(np.float32) for _ in range(3)]
    in_jax = stein_direction(*[jnp.asarray(array) for array in arrays])
    np.testing.assert_allclose(stein_direction(*arrays), in_jax, rtol=1e-4, atol=1e-5)
    assert in_jax.dtype == jnp.float32
