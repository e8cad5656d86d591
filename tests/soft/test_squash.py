import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.squash import log_jacobian, log_uniform, logsumexp, softplus


def test_log_jacobian_equals_its_definition_where_that_is_exact():
    u = np.linspace(-3.0, 3.0, 61)[:, None]
    np.testing.assert_allclose(log_jacobian(u), np.log(1.0 - np.tanh(u[:, 0]) ** 2), atol=1e-12)


def test_log_jacobian_sums_over_the_action():
    np.testing.assert_allclose(
        log_jacobian(np.array([[0.3, -1.2, 2.0]])), np.log(1 - np.tanh([0.3, -1.2, 2]) ** 2).sum()
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_jacobian_is_exact_far_out(dtype):
    # 1 − tanh² u → 4 exp(−2|u|), which underflows where log(1 − tanh² u) would be −inf.
    u = np.array([[50.0], [-50.0], [20.0]], dtype)
    np.testing.assert_allclose(log_jacobian(u), 2 * np.log(2.0) - 2 * np.abs(u[:, 0]), rtol=1e-6)
    assert log_jacobian(u).dtype == dtype


def test_gradient_of_log_jacobian_is_finite_far_out():
    gradient = jax.vmap(jax.grad(log_jacobian))(jnp.array([[50.0], [-50.0], [0.7]]))
    np.testing.assert_allclose(gradient[:, 0], [-2.0, 2.0, -2.0 * np.tanh(0.7)], rtol=1e-5)


@pytest.mark.parametrize("dimension", [1, 2])
def test_log_uniform_is_a_density(dimension):
    line = np.linspace(-12.0, 12.0, 601)
    u = np.stack(np.meshgrid(*[line] * dimension, indexing="ij"), axis=-1)
    mass = np.exp(log_uniform(u)).sum() * (line[1] - line[0]) ** dimension
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_tanh_of_log_uniform_draws_is_uniform():
    # P(|a| > 0.9) = 0.1: the integral of the density over |u| > atanh 0.9.
    u = np.linspace(np.arctanh(0.9), 15.0, 100_001)[:, None]
    assert 2.0 * np.trapezoid(np.exp(log_uniform(u)), u[:, 0]) == pytest.approx(0.1, abs=1e-6)


def test_logsumexp_neither_overflows_nor_underflows():
    x = np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [0.0, np.log(3.0)]])
    np.testing.assert_allclose(logsumexp(x), [1000 + np.log(2), -1000 + np.log(2), np.log(4)])


def test_softplus_neither_overflows_nor_loses_small_numbers():
    np.testing.assert_allclose(softplus(np.array([800.0, 0.0, -40.0])), [800.0, np.log(2.0), np.exp(-40.0)])


@pytest.mark.parametrize("function", [log_jacobian, log_uniform, logsumexp, softplus])
def test_numpy_and_jax_agree(function):
    u = np.random.default_rng(0).normal(scale=4.0, size=(5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(function(u), function(jnp.asarray(u)), rtol=1e-5, atol=1e-6)
