"""What every agent does alike: ranges of hyperparameters, falling learning rates, the scale of observations."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from qompose.types import QomposeError, check_kinds

# Share of the planned updates before the learning rates begin to fall.
ANNEAL_AFTER = 0.3
RATE = (1e-12, 10.0)
# What hyperparameters of these names may be, in every agent.
RANGES = {
    "discount": (1e-9, 1.0 - 1e-9), "learning_rate": RATE, "final_rate": (0.0, 1.0), "target_rate": (1e-9, 1.0),
    "planned_updates": (1, 10**12), "batch_size": (1, 10**6),
}  # fmt: skip


def check_hyperparameters(agent: Any, **ranges: tuple[int | float, int | float]) -> None:
    """Refuse numbers that cannot be meant: those of `RANGES` that there are, of `ranges`, and the layers."""
    check_kinds(agent)
    types = {field.name: str(field.type) for field in dataclasses.fields(agent)}
    for name, (low, high) in ({name: RANGES[name] for name in RANGES if name in types} | ranges).items():
        value = getattr(agent, name)
        if value is None and "None" in types[name]:
            continue
        if value is None or not low <= value <= high:  # written so that NaN is refused
            raise QomposeError(f"{name} is {value}; it must be from {low} to {high}")
    if not 1 <= len(agent.hidden) <= 8 or not all(1 <= size <= 4096 for size in agent.hidden):
        raise QomposeError(f"hidden is {agent.hidden}; give 1 to 8 layers of 1 to 4096 units")


def adam(rate: float, final_rate: float, planned_updates: int | None) -> Any:  # optax's types know no modules
    """Adam at a rate constant at first, then linearly down: late noise of the optimiser is what unlearns rare states.

    Its moments are one vector each, whatever the parameters are: few large operations instead of many small ones.
    """
    schedule: float | optax.Schedule = rate
    if planned_updates is not None and final_rate != 1.0:
        begin = int(ANNEAL_AFTER * planned_updates)
        schedule = optax.linear_schedule(rate, final_rate * rate, max(planned_updates - begin, 1), begin)
    return optax.flatten(optax.adam(schedule))


def measure_observations(
    observations: Float[Array, "batch obs"],
) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
    """Mean and deviation of every dimension; those that vary by less than 1e-3 keep their unit.

    What hardly varies during the warm-up may vary later, and would be blown up by the little that was seen of it.
    """
    deviation = jnp.std(observations, axis=0)
    return jnp.mean(observations, axis=0), jnp.where(deviation < 1e-3, 1.0, deviation)


def measure_returns(rewards: Float[Array, " batch"], discount: float) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Offset and unit of Q without a temperature: mean(r)/(1−γ) and std(r)/√(1−γ²).

    The offset is the value of acting at random for ever. The unit is the deviation of `Σ γ^t r_t` if the rewards were
    independent, a lower estimate of what Q varies by: it keeps the network's outputs near one whatever the rewards are
    measured in, and a coarser unit, such as std(r)/(1−γ), would drown the differences between actions.
    """
    deviation = jnp.std(rewards)
    unit = jnp.where(deviation < 1e-6, 1.0, deviation) / (1.0 - discount**2) ** 0.5
    return jnp.mean(rewards) / (1.0 - discount), unit
