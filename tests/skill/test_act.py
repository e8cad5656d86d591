import numpy as np
import pytest

from qompose.skill import act
from qompose.types import QomposeError

TEMPERATURE = 0.2


def two_peaks(action):
    """Unequal peaks at -0.6 and 0.6: what amortised Stein descent cannot weigh."""
    x = action[..., 0]
    return TEMPERATURE * np.logaddexp(-0.5 * ((x + 0.6) / 0.1) ** 2, np.log(3.0) - 0.5 * ((x - 0.6) / 0.1) ** 2)


def quadrature(q, bins):
    """Exact mass of each bin under exp(Q/α) on [-1, 1]."""
    grid = np.linspace(-1, 1, 40_001)
    grid = (grid[:-1] + grid[1:]) / 2
    density = np.exp(q(grid[:, None]) / TEMPERATURE)
    mass, _ = np.histogram(grid, bins=bins, weights=density / density.sum())
    return mass


def particles_at(centre, rng, batch, count=64, width=0.3):
    return np.asarray(centre + width * rng.standard_normal((batch, count, 1)), dtype=np.float32)


@pytest.mark.parametrize("centres", [(0.6,), (-0.7, 0.7), (1.5, 0.0, -2.0)], ids=str)
def test_resampling_follows_the_boltzmann_density_whatever_the_sampler(centres):
    # The samplers' modes are wrong on purpose, and several samplers are taken together.
    rng = np.random.default_rng(0)
    chosen = np.concatenate(
        [
            act.resample(two_peaks, [particles_at(c, rng, 100, 32) for c in centres], TEMPERATURE, rng)[:, 0]
            for _ in range(40)
        ]
    )
    bins = np.linspace(-1, 1, 21)
    found = np.histogram(chosen, bins=bins)[0] / len(chosen)
    # 4000 draws: a fair sample stands at 0.02 ± 0.005; the samplers themselves stand beyond 0.3.
    assert 0.5 * np.abs(found - quadrature(two_peaks, bins)).sum() < 0.035


def test_the_samplers_alone_would_fail_the_test_above():
    rng = np.random.default_rng(0)
    drawn = np.tanh(particles_at(0.6, rng, 1, 10_000)[0, :, 0])
    bins = np.linspace(-1, 1, 21)
    found = np.histogram(drawn, bins=bins)[0] / len(drawn)
    assert 0.5 * np.abs(found - quadrature(two_peaks, bins)).sum() > 0.3


@pytest.mark.parametrize("centres", [(0.3,), (-2.0, 2.0)], ids=str)
def test_candidates_come_with_their_own_density(centres):
    # E_q[1/q] = 1 for a density q relative to U, and E_q[f/q] = E_U[f].
    rng = np.random.default_rng(1)
    actions, log_density = act.draw_candidates([particles_at(c, rng, 500) for c in centres], rng, 400)
    weight = np.exp(-log_density.astype(np.float64))
    assert abs(np.mean(weight) - 1.0) < 0.01
    assert abs(np.mean(weight * actions[..., 0] ** 2) - 1 / 3) < 0.01


def test_distant_samplers_keep_their_own_densities():
    # Moments of both sets taken together would put the density's centres between them.
    rng = np.random.default_rng(2)
    particles = [particles_at(centre, rng, 50, width=0.05) for centre in (-1.0, 1.0)]
    actions, _ = act.draw_candidates(particles, rng, 400)
    u = np.arctanh(actions[:, : actions.shape[1] // 2, 0])
    assert np.all(np.abs(np.abs(u) - 1.0) < 0.5)
    assert abs(np.mean(u > 0) - 0.5) < 0.01


def test_half_the_candidates_are_uniform():
    rng = np.random.default_rng(3)
    actions, _ = act.draw_candidates([particles_at(0.0, rng, 100)], rng, 256)
    assert actions.shape == (100, 256, 1)
    uniform = np.sort(actions[:, 128:].ravel())
    assert np.max(np.abs(uniform - np.linspace(-1, 1, uniform.size))) < 0.03


def test_uniform_actions_stay_where_atanh_is_finite():
    class Extreme(np.random.Generator):
        def random(self, size, dtype):
            return np.resize(np.array([0.0, 1.0 - 2.0**-24], dtype=dtype), size)

    drawn = act.draw_uniform(Extreme(np.random.PCG64(0)), (4,))
    assert drawn.dtype == np.float32
    assert np.all(np.isfinite(np.arctanh(drawn)))


def test_best_is_the_highest_candidate_or_particle():
    rng = np.random.default_rng(4)
    particles = particles_at(0.0, rng, 3)
    particles[1, 5] = np.arctanh(np.float32(0.777))

    def needle(action):
        return np.where(np.abs(action[..., 0] - 0.777) < 1e-6, 1.0, -np.abs(action[..., 0] - 0.3))

    chosen = act.best(needle, [particles], rng)[:, 0]
    assert abs(chosen[1] - 0.777) < 1e-6
    others = np.abs(chosen[[0, 2]] - 0.3)
    assert np.all(others <= np.abs(np.tanh(particles[[0, 2], :, 0]) - 0.3).min(axis=-1))
    assert np.all(others < 0.05)


def test_best_looks_beyond_the_policy():
    rng = np.random.default_rng(8)
    chosen = act.best(lambda action: -np.abs(action[..., 0] + 0.8), [particles_at(1.0, rng, 20, width=0.05)], rng)
    assert np.all(np.abs(chosen[:, 0] + 0.8) < 0.3)
    assert np.median(np.abs(chosen[:, 0] + 0.8)) < 0.05


@pytest.mark.parametrize("centres", [(0.6,), (-0.7, 0.7)], ids=str)
def test_the_estimated_value_equals_quadrature(centres):
    rng = np.random.default_rng(5)
    grid = np.linspace(-1, 1, 40_001)[:, None]
    exact = TEMPERATURE * np.log(np.mean(np.exp(two_peaks(grid) / TEMPERATURE)))
    actions, log_density = act.draw_candidates([particles_at(c, rng, 100) for c in centres], rng, 512)
    found = act.estimate_value(two_peaks, actions, log_density, TEMPERATURE)
    assert found.shape == (100,)
    assert abs(np.mean(found) - exact) < 0.02 * TEMPERATURE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_choice_among_values_that_are_not_finite_is_refused(bad):
    rng = np.random.default_rng(6)

    def broken(action):
        return np.where(np.arange(action.shape[-2]) == 7, bad, 0.0)

    particles = [particles_at(0.0, rng, 1)]
    for attempt in (
        lambda: act.resample(broken, particles, TEMPERATURE, rng),
        lambda: act.best(broken, particles, rng),
        lambda: act.estimate_value(broken, *act.draw_candidates(particles, rng), TEMPERATURE),
    ):
        with pytest.raises(QomposeError, match="critic returned NaN or infinity"):
            attempt()


def test_leading_axes_are_states():
    rng = np.random.default_rng(7)
    particles = rng.standard_normal((2, 3, 16, 2)).astype(np.float32)
    peaks = rng.uniform(-0.8, 0.8, (2, 3, 1, 2)).astype(np.float32)

    def q(action):
        return -np.sum((action - peaks) ** 2, axis=-1)

    chosen = act.resample(q, [particles], 1e-3, rng)
    assert chosen.shape == (2, 3, 2)
    assert np.max(np.abs(chosen - peaks[..., 0, :])) < 0.35
