from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import pytest

from qompose.learning import adam, check_hyperparameters, measure_observations, measure_returns
from qompose.types import QomposeError


@dataclass(frozen=True)
class Agent:
    discount: float = 0.9
    learning_rate: float = 0.1
    final_rate: float = 0.5
    target_rate: float = 0.1
    planned_updates: int | None = None
    batch_size: int = 4
    hidden: tuple[int, ...] = (8,)
    noise: float = 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"discount": 1.0},
        {"learning_rate": float("nan")},
        {"batch_size": 0},
        {"noise": 2.0},
        {"target_rate": None},
        {"hidden": (0,)},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(change):
    check_hyperparameters(Agent(), noise=(0.0, 1.0))
    with pytest.raises(QomposeError, match=f"{next(iter(change))} is"):
        check_hyperparameters(replace(Agent(), **change), noise=(0.0, 1.0))


def test_rates_are_constant_and_then_fall_linearly_to_their_share():
    def first_step(optimiser, count):  # Adam's is its rate: m/√v is ±1 where all gradients are alike
        parameters = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
        gradient = {name: jnp.full_like(value, 0.5) for name, value in parameters.items()}
        state = optimiser.init(parameters)
        for _ in range(count + 1):
            step, state = optimiser.update(gradient, state)
        assert {name: value.shape for name, value in step.items()} == {"w": (2, 3), "b": (2,)}
        return -float(step["w"][1, 2])

    falling = adam(1e-2, 0.1, 10)
    np.testing.assert_allclose(
        [first_step(falling, count) for count in (0, 3, 7, 10, 14)],
        [1e-2, 1e-2, 1e-2 - 9e-3 * 4 / 7, 1e-3, 1e-3], rtol=1e-4,
    )  # fmt: skip
    assert first_step(adam(1e-2, 0.1, None), 20) == pytest.approx(1e-2, rel=1e-4)
    assert first_step(adam(1e-2, 1.0, 10), 20) == pytest.approx(1e-2, rel=1e-4)


def test_observations_are_measured_and_constant_ones_keep_their_unit():
    observations = jnp.array([[1.0, 5.0], [3.0, 5.0]])
    mean, deviation = measure_observations(observations)
    np.testing.assert_allclose(mean, [2.0, 5.0])
    np.testing.assert_allclose(deviation, [1.0, 1.0])


def test_the_unit_of_returns_is_the_deviation_of_a_discounted_sum_of_independent_rewards():
    rng = np.random.default_rng(0)
    rewards = rng.normal(2.0, 3.0, (20_000, 60)).astype(np.float32)
    returns = rewards @ (0.8 ** np.arange(60)).astype(np.float32)
    offset, unit = measure_returns(jnp.asarray(rewards[:, 0]), 0.8)
    assert float(offset) == pytest.approx(returns.mean(), rel=0.02)
    assert float(unit) == pytest.approx(returns.std(), rel=0.02)
    assert np.isfinite(float(measure_returns(jnp.ones(4), 0.8)[1]))
