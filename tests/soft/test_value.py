import math

import jax.numpy as jnp
import numpy as np
import pytest

from qompose.soft.squash import log_uniform, logsumexp
from qompose.soft.value import (
    SMALLEST_WIDTH,
    draw_smoothed,
    effective_sample_size,
    log_policy,
    log_smoothed,
    mixture_proposal,
    soft_value,
)

ALPHA = 0.3
STATES, CENTRES, PER_STATE = 200, 16, 100


def q_of(action):
    """Two bumps of different height and width, around ±0.5 in every coordinate."""
    left = 1.0 - np.sum((action + 0.5) ** 2, axis=-1) / 0.1
    right = 0.5 - np.sum((action - 0.5) ** 2, axis=-1) / 0.4
    return 0.3 * np.logaddexp(left, right)


def quadrature(dimension, temperature=ALPHA, count=120):
    line = (np.arange(count) + 0.5) * 2.0 / count - 1.0
    action = np.stack(np.meshgrid(*[line] * dimension, indexing="ij"), axis=-1)
    return temperature * float(np.log(np.mean(np.exp(q_of(action) / temperature))))


def policy_draws(generator, shape, dimension):
    """Pre-squash draws of a rough policy: near the two bumps, in the wrong proportions."""
    side = np.where(generator.random((*shape, 1)) < 0.5, -0.5, 0.5)
    return np.arctanh(np.clip(side + 0.2 * generator.normal(size=(*shape, dimension)), -0.98, 0.98))


def propose(generator, dimension, smoothing):
    """Actions (states, particles, act) and their log density relative to the uniform measure."""
    uniform = generator.uniform(-1.0, 1.0, (STATES, PER_STATE, dimension))
    if smoothing is None:
        return uniform, np.zeros((STATES, PER_STATE))
    particles = policy_draws(generator, (STATES, CENTRES), dimension)
    noise = generator.normal(size=(STATES, PER_STATE, dimension))
    drawn, log_density = mixture_proposal(particles, noise, uniform, smoothing)
    return np.tanh(drawn), log_density


@pytest.mark.parametrize("smoothing", [None, 1.0, 0.5, 0.2])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_soft_value_equals_quadrature(dimension, smoothing):
    actions, log_density = propose(np.random.default_rng(0), dimension, smoothing)
    estimate = soft_value(q_of(actions), log_density, ALPHA)
    assert estimate.shape == (STATES,)
    # exp(V̂/α) is unbiased: its mean over states that are alike has no bias of the logarithm left.
    value = ALPHA * (logsumexp(estimate / ALPHA) - math.log(STATES))
    assert value == pytest.approx(quadrature(dimension), abs=0.03 * ALPHA)


def test_forgetting_the_density_of_policy_particles_is_caught():
    # The fault: the mean of exp(Q/α) over draws of the policy, as if they were uniform.
    generator = np.random.default_rng(0)
    particles = policy_draws(generator, (STATES, CENTRES), 3)
    noise = generator.normal(size=(STATES, PER_STATE, 3))
    q = q_of(np.tanh(draw_smoothed(particles, noise, 0.2)))
    assert soft_value(q, np.zeros_like(q), ALPHA).mean() - quadrature(3) > ALPHA
    actions, log_density = propose(generator, 3, 0.2)
    assert abs(soft_value(q_of(actions), log_density, ALPHA).mean() - quadrature(3)) < 0.1 * ALPHA


@pytest.mark.parametrize("smoothing", [None, 1.0, 0.2])
def test_value_of_a_constant_is_the_constant(smoothing):
    # The base measure is a probability: no α d log 2 is left over.
    _, log_density = propose(np.random.default_rng(1), 3, smoothing)
    estimate = soft_value(np.full_like(log_density, -7.0), log_density, ALPHA)
    value = ALPHA * (logsumexp(estimate / ALPHA) - math.log(STATES))
    assert value == pytest.approx(-7.0, abs=1e-12 if smoothing is None else 0.01 * ALPHA)


def test_value_lies_between_mean_and_maximum():
    q = np.random.default_rng(2).normal(scale=3.0, size=(1000, 16))
    value = soft_value(q, np.zeros_like(q), ALPHA)
    assert np.all(value <= q.max(axis=-1))
    assert np.all(value >= q.mean(axis=-1))


def test_value_becomes_the_maximum_when_cold_and_the_mean_when_hot():
    q = np.array([[1.0, 2.0, 4.0]])
    np.testing.assert_allclose(soft_value(q, np.zeros((1, 3)), 1e-3), [4.0 - 1e-3 * math.log(3.0)])
    np.testing.assert_allclose(soft_value(q, np.zeros((1, 3)), 1e6), [7.0 / 3.0], rtol=1e-5)


def test_value_keeps_the_units_of_q():
    q = np.random.default_rng(3).normal(size=(5, 16))
    zero = np.zeros_like(q)
    np.testing.assert_allclose(soft_value(10.0 * q + 4.0, zero, 10.0 * ALPHA), 10.0 * soft_value(q, zero, ALPHA) + 4.0)


def test_log_policy_is_a_density_relative_to_the_uniform_measure():
    line = ((np.arange(2000) + 0.5) / 1000 - 1.0)[:, None]
    q = q_of(line)
    assert np.mean(np.exp(log_policy(q, quadrature(1, count=2000), ALPHA))) == pytest.approx(1.0)


def test_effective_sample_size_runs_from_one_particle_to_all():
    zero = np.zeros((1, 8))
    assert effective_sample_size(zero, zero, ALPHA)[0] == pytest.approx(1.0)
    assert effective_sample_size(zero + 5.0, zero - 3.0, ALPHA)[0] == pytest.approx(1.0)
    one = np.where(np.arange(8) == 2, 100.0, 0.0)[None]
    assert effective_sample_size(one, zero, ALPHA)[0] == pytest.approx(1 / 8)
    half = np.where(np.arange(8) < 4, 100.0, 0.0)[None]
    assert effective_sample_size(half, zero, ALPHA)[0] == pytest.approx(0.5)
    # A proposal that equals the policy makes every particle count.
    assert effective_sample_size(half, half / ALPHA, ALPHA)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("smoothing", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("dimension", [1, 2])
def test_smoothed_density_integrates_to_one(dimension, smoothing):
    particles = np.random.default_rng(4).normal(size=(8, dimension)) * 0.7 + 0.5
    line = np.linspace(-6.0, 7.0, 521)
    u = np.stack(np.meshgrid(*[line] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    mass = np.exp(log_smoothed(u, particles, smoothing)).sum() * (line[1] - line[0]) ** dimension
    assert mass == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("smoothing", [1.0, 0.5, 0.2])
def test_smoothed_density_is_the_density_of_the_draws(smoothing):
    generator = np.random.default_rng(5)
    particles = np.array([[-1.0], [-0.8], [0.1], [1.3]])
    drawn = draw_smoothed(particles, generator.normal(size=(400_000, 1)), smoothing)[:, 0]
    edges = np.linspace(-3.0, 3.0, 25)
    share = np.histogram(drawn, edges)[0] / len(drawn)
    fine = np.linspace(-3.0, 3.0, 24 * 40 + 1)
    fine = (0.5 * (fine[1:] + fine[:-1]))[:, None]
    expected = np.exp(log_smoothed(fine, particles, smoothing)).reshape(24, 40).mean(axis=1) * (edges[1] - edges[0])
    np.testing.assert_allclose(share, expected, atol=3e-3)


@pytest.mark.parametrize("smoothing", [1.0, 0.5, 0.2])
def test_smoothed_draws_keep_mean_and_deviation_of_the_particles(smoothing):
    generator = np.random.default_rng(6)
    particles = np.array([0.5, -2.0]) + np.array([0.3, 2.0]) * generator.normal(size=(64, 2))
    drawn = draw_smoothed(particles, generator.normal(size=(640_000, 2)), smoothing)
    np.testing.assert_allclose(drawn.mean(axis=0), particles.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), particles.std(axis=0, ddof=1), rtol=0.015)


def test_light_smoothing_follows_separate_modes_and_heavy_smoothing_fills_the_gap():
    particles = np.array([[-1.0], [1.0]] * 8)
    gap = np.zeros((1, 1))
    assert log_smoothed(gap, particles, 0.2)[0] < -8.0
    assert log_smoothed(gap, particles, 1.0)[0] > -1.0


def test_smoothed_density_of_a_narrow_cluster_far_out_is_exact_in_single_precision():
    generator = np.random.default_rng(7)
    particles = 4.0 + 0.01 * generator.normal(size=(16, 2))
    u = draw_smoothed(particles, generator.normal(size=(64, 2)), 0.2)
    single = log_smoothed(u.astype(np.float32), particles.astype(np.float32), 0.2)
    double = log_smoothed(u.astype(np.float32).astype(float), particles.astype(np.float32).astype(float), 0.2)
    np.testing.assert_allclose(single, double, atol=1e-2)


@pytest.mark.parametrize("smoothing", [1.0, 0.2])
def test_particles_that_coincide_give_a_proposal_of_the_smallest_width(smoothing):
    particles = np.full((16, 1), 0.4)
    drawn = draw_smoothed(particles, np.random.default_rng(8).normal(size=(100_000, 1)), smoothing)
    assert drawn.std() == pytest.approx(SMALLEST_WIDTH, rel=0.02)


def test_mixture_takes_its_shares_from_noise_and_uniform():
    generator = np.random.default_rng(9)
    particles = np.full((8, 2), 1.0) + 0.01 * generator.normal(size=(8, 2))
    uniform = generator.uniform(-1.0, 1.0, (3, 2))
    drawn, log_density = mixture_proposal(particles, generator.normal(size=(5, 2)), uniform)
    assert drawn.shape == (8, 2)
    np.testing.assert_allclose(np.tanh(drawn[5:]), uniform)
    assert np.all(np.abs(drawn[:5] - 1.0) < 0.2)
    # The density of the whole mixture, whichever part a particle came from.
    parts = [math.log(5 / 8) + log_smoothed(drawn, particles) - log_uniform(drawn), np.full(8, math.log(3 / 8))]
    np.testing.assert_allclose(log_density, np.logaddexp(*parts))


def test_weights_of_the_mixture_are_bounded():
    # Far from every particle the uniform share remains: 1/q ≤ 1/share.
    generator = np.random.default_rng(10)
    _, log_density = mixture_proposal(
        generator.normal(size=(50, 8, 7)) * 0.05,
        generator.normal(size=(50, 8, 7)),
        generator.uniform(-1, 1, (50, 8, 7)),
    )
    assert log_density.min() >= math.log(0.5)


def test_numpy_and_jax_agree():
    generator = np.random.default_rng(11)
    particles, noise = (generator.normal(size=(4, 8, 3)).astype(np.float32) for _ in range(2))
    uniform = generator.uniform(-1, 1, (4, 8, 3)).astype(np.float32)
    q = generator.normal(size=(4, 16)).astype(np.float32)
    for smoothing in (1.0, 0.3):
        in_numpy = mixture_proposal(particles, noise, uniform, smoothing)
        in_jax = mixture_proposal(jnp.asarray(particles), jnp.asarray(noise), jnp.asarray(uniform), smoothing)
        for ours, theirs in zip(in_numpy, in_jax, strict=True):
            assert ours.dtype == theirs.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        for function in (soft_value, effective_sample_size):
            ours, theirs = function(q, in_numpy[1], ALPHA), function(jnp.asarray(q), in_jax[1], ALPHA)
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
