import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.quadratic import combine_forms, count_outputs, maximise_in_box, quadratic, read_form
from qompose.types import QomposeError

SIZES = (1, 2, 3, 7)


def random_forms(rng, count, size, spread=2.0):
    """P of condition numbers up to about 10^(2 spread), and maxima inside and outside of the box."""
    factor = np.tril(rng.standard_normal((count, size, size))) * 10 ** rng.uniform(
        -spread / 2, spread / 2, (count, 1, size)
    )
    precision = factor @ factor.swapaxes(-1, -2) + 1e-3 * np.eye(size)
    return precision, rng.uniform(-3.0, 3.0, (count, size))


@pytest.mark.parametrize("size", SIZES)
def test_outputs_are_read_as_value_mean_and_triangle(size):
    outputs = np.random.default_rng(0).standard_normal((4, count_outputs(size))).astype(np.float32)
    value, mean, factor = read_form(outputs)
    np.testing.assert_array_equal(value, outputs[:, 0])
    np.testing.assert_allclose(mean, np.tanh(outputs[:, 1 : 1 + size]), rtol=1e-6)
    rows, columns = np.tril_indices(size)
    entries = outputs[:, 1 + size :]
    expected = np.where(rows == columns, np.log1p(np.exp(entries)), entries)
    np.testing.assert_allclose(factor[:, rows, columns], expected, rtol=1e-5)
    assert np.all(np.triu(factor, 1) == 0.0) and np.all(np.diagonal(factor, axis1=1, axis2=2) > 0.0)


@pytest.mark.parametrize("size", [1, 7])
def test_numpy_and_jax_agree(size):
    rng = np.random.default_rng(1)
    outputs = rng.standard_normal(count_outputs(size)).astype(np.float32)
    actions = rng.uniform(-1, 1, (5, size)).astype(np.float32)
    theirs = jax.jit(lambda o, a: quadratic(*read_form(o), a))(jnp.asarray(outputs), jnp.asarray(actions))
    np.testing.assert_allclose(quadratic(*read_form(outputs), actions), theirs, atol=1e-5)


def test_the_quadratic_is_the_equation_with_p_of_l():
    rng = np.random.default_rng(2)
    value, mean = np.float64(0.7), rng.uniform(-1, 1, 3)
    factor = np.tril(rng.standard_normal((3, 3)))
    actions = rng.uniform(-1, 1, (5, 3))
    expected = [0.7 - 0.5 * (a - mean) @ (factor @ factor.T) @ (a - mean) for a in actions]
    np.testing.assert_allclose(quadratic(value, mean, factor, actions), expected)


def test_a_sum_of_forms_differs_from_their_form_by_a_constant():
    rng = np.random.default_rng(3)
    first, second = (random_forms(rng, 4, 3) for _ in range(2))
    precision, linear = combine_forms([first[0], second[0]], [first[1], second[1]])
    actions = rng.uniform(-1, 1, (10, 4, 3))

    def form(precision, mean):
        moved = actions - mean
        return -0.5 * np.einsum("nbi,bij,nbj->nb", moved, precision, moved)

    total = form(*first) + form(*second)
    combined = np.einsum("bi,nbi->nb", linear, actions) - 0.5 * np.einsum(
        "nbi,bij,nbj->nb", actions, precision, actions
    )
    np.testing.assert_allclose(np.ptp(total - combined, axis=0), 0.0, atol=1e-9)


def brute_force(precision, linear):
    """Every face of the box: its own maximum if that lies on it, and the best of all of them."""
    size, best, found = len(linear), -np.inf, None
    for face in itertools.product((-1, 0, 1), repeat=size):
        action, free = np.array(face, dtype=np.float64), np.array(face) == 0
        if free.any():
            pull = linear[free] - precision[np.ix_(free, ~free)] @ action[~free]
            action[free] = np.linalg.solve(precision[np.ix_(free, free)], pull)
        if np.all(np.abs(action) <= 1.0) and (value := linear @ action - 0.5 * action @ precision @ action) > best:
            best, found = value, action
    return found


@pytest.mark.parametrize(("size", "count"), [(1, 50), (2, 200), (3, 100), (7, 2)])
def test_the_maximum_in_the_box_is_that_of_brute_force(size, count):
    precision, mean = random_forms(np.random.default_rng(size), count, size)
    linear = (precision @ mean[..., None])[..., 0]
    found = maximise_in_box(precision, linear)
    expected = [brute_force(*row) for row in zip(precision, linear, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    if size > 1:  # and cutting the free maximum to the box would be another action
        assert np.abs(np.clip(mean, -1, 1) - expected).max() > 0.1


@pytest.mark.parametrize("size", SIZES)
def test_no_bound_and_no_slope_is_left_to_gain_by(size):
    precision, mean = random_forms(np.random.default_rng(4), 1000, size, spread=4.0)
    linear = (precision @ mean[..., None])[..., 0]
    action = maximise_in_box(precision, linear)
    curvature = np.diagonal(precision, axis1=1, axis2=2)
    gain = (linear - (precision @ action[..., None])[..., 0]) / curvature
    assert np.abs(np.clip(action + gain, -1, 1) - action).max() < 1e-8
    assert 0.2 < np.mean(np.abs(action) == 1.0) < 0.95  # bounds matter here


def test_a_maximum_inside_the_box_is_found_there():
    precision, mean = random_forms(np.random.default_rng(5), 100, 3)
    mean = mean / 4.0
    np.testing.assert_allclose(maximise_in_box(precision, (precision @ mean[..., None])[..., 0]), mean, atol=1e-9)


@pytest.mark.parametrize(
    ("precision", "reason"),
    [
        (np.diag([1.0, -0.5]), "not positive definite"),
        (np.diag([1.0, 0.0]), "not positive definite"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (np.diag([1.0, np.nan]), "NaN or infinity"),
        (np.diag([1.0, np.inf]), "NaN or infinity"),
    ],
)
def test_a_form_without_a_maximum_is_refused(precision, reason):
    with pytest.raises(QomposeError, match=reason):
        maximise_in_box(np.stack([np.eye(2), precision]), np.zeros((2, 2)))
