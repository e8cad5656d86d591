"""Soft Q-learning (Haarnoja et al. 2017; paper, Section III-C) with a Stein-trained sampler.

Differs from the original code:
1. The whole Stein step is in pre-squash space (see `soft.stein`).
2. Soft values use a mixture of uniform and policy-following particles with exact weights; `proposal="uniform"` is the
   paper's choice.
3. The temperature is explicit and rewards keep their units; Q is learned as offset + scale · network.
4. Layer norm in the critic and an averaged target network; `layer_norm=False, target_rate=None` is the original.
5. All soft quantities are relative to the uniform measure on the box (see `soft.squash`).
6. Learning rates fall after the first 30 % of a planned training; `final_rate=1` is the original.
7. A planned training begins hotter than it ends, so that its replay covers more than the way to the goal;
   `initial_heat=1` is the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from qompose.learning import RATE, adam, check_hyperparameters, measure_observations
from qompose.nets import AnyQ, QFunction, Sampler, init_perceptron, set_observation_scale
from qompose.soft.squash import log_jacobian
from qompose.soft.stein import stein_direction
from qompose.soft.value import effective_sample_size, mixture_proposal, soft_value
from qompose.types import QomposeError, Transition

PARTICLES = (2, 65536)
# Share of the planned updates after which the temperature is down at α.
COOLED_AFTER = 0.5


@dataclass(frozen=True)
class SQL:
    """Hyperparameters of soft Q-learning. Frozen and hashable: a compiled update depends on nothing else."""

    algorithm: ClassVar[str] = "sql"

    temperature: float = 0.1
    """α, in reward units."""
    initial_heat: float = 5.0
    """How many times α the temperature is at first; see `heat`. 1 keeps it constant."""
    critic_unit: float | None = None
    """Unit in which the critic's network learns Q, in reward units; α unless given. See `calibrate`."""
    discount: float = 0.99
    """γ per control step."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer, critic and sampler alike."""
    layer_norm: bool = True
    """Layer norm in the critic."""
    learning_rate: float = 1e-3
    """Adam's step for the critic."""
    sampler_learning_rate: float = 1e-3
    """Adam's step for the sampler."""
    final_rate: float = 0.05
    """Share of both learning rates that is left at the end of `planned_updates`; 1 keeps them constant."""
    planned_updates: int | None = None
    """Updates of the whole training, over which the rates fall linearly after the first 30 %; None: constant rates."""
    batch_size: int = 64
    """Transitions per update."""
    target_rate: float | None = 0.005
    """Share of the critic that enters the target at each update; None copies it every `target_period` updates."""
    target_period: int = 1000
    """Updates between hard copies, if `target_rate` is None."""
    proposal: Literal["mixture", "uniform"] = "mixture"
    """Where the particles of the soft value come from."""
    value_particles: int = 16
    """Particles of the soft value."""
    fit_particles: int = 8
    """Sampler particles that shape the mixture proposal; never weighted themselves."""
    fixed_particles: int = 8
    """Stein particles that exert forces."""
    updated_particles: int = 8
    """Stein particles that are moved."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.proposal not in ("mixture", "uniform"):
            raise QomposeError(f"proposal is {self.proposal!r}; choose mixture or uniform")
        check_hyperparameters(
            self, temperature=(1e-8, 1e8), critic_unit=(1e-8, 1e8), initial_heat=(1.0, 1e3), sampler_learning_rate=RATE,
            target_period=(1, 10**9), value_particles=PARTICLES, fit_particles=PARTICLES, fixed_particles=PARTICLES,
            updated_particles=(1, 65536),
        )  # fmt: skip

    def init(self, observation_size: int, action_size: int, *, key: PRNGKeyArray) -> SQLState:
        """Fresh networks and optimisers. The key is consumed."""
        critic_key, sampler_key = jax.random.split(key)
        network = init_perceptron(
            observation_size, action_size, 1, self.hidden, layer_norm=self.layer_norm, key=critic_key
        )
        critic = QFunction(network, offset=jnp.zeros(()), scale=jnp.ones(()))
        sampler, _ = self.init_policy(observation_size, action_size, key=sampler_key)
        return self.start(critic, sampler)

    def start(self, critic: AnyQ, sampler: Sampler) -> SQLState:
        """The state before the first update from networks that exist: target and optimisers are fresh."""
        return SQLState(
            critic=critic,
            target=jax.tree.map(jnp.copy, critic),
            sampler=sampler,
            critic_optimiser=self._critic_optimiser.init(critic),
            sampler_optimiser=self._sampler_optimiser.init(sampler),
            updates=jnp.zeros((), jnp.int32),
        )

    @property
    def _critic_optimiser(self) -> Any:  # optax's types know no modules
        return adam(self.learning_rate, self.final_rate, self.planned_updates)

    @property
    def _sampler_optimiser(self) -> Any:
        return adam(self.sampler_learning_rate, self.final_rate, self.planned_updates)

    def init_policy(
        self, observation_size: int, action_size: int, *, key: PRNGKeyArray
    ) -> tuple[Sampler, optax.OptState]:
        """A fresh sampler and its optimiser, for `improve_policy`. The key is consumed."""
        sampler = Sampler(init_perceptron(observation_size, action_size, action_size, self.hidden, key=key))
        return sampler, self._sampler_optimiser.init(sampler)

    def calibrate(self, state: SQLState, data: Transition) -> SQLState:
        """Fix the networks' input and output scales from first data: once, before the first update.

        Observations are centred and scaled per dimension; Q = mean(r)/(1−γ) + unit · network. The offset is the value
        of acting at random for ever; the unit is α unless given, since differences of a few α are what the policy
        resolves: a coarser unit drowns them in the noise of the optimiser. Where the temperature falls by an order of
        magnitude, as for the last millimetre of an insertion, Q would span ten thousands of units of the last α, which
        the network does not reach: give the first α. data: a few hundred transitions or more.
        """
        mean, deviation = measure_observations(data.observation)
        offset = jnp.mean(data.reward) / (1.0 - self.discount)
        scale = jnp.asarray(self.temperature if self.critic_unit is None else self.critic_unit, jnp.float32)

        def fix(critic: Any) -> Any:
            critic = set_observation_scale(critic, mean, deviation)
            return eqx.tree_at(lambda c: (c.offset, c.scale), critic, (offset, scale))

        sampler = set_observation_scale(state.sampler, mean, deviation)
        return eqx.tree_at(
            lambda s: (s.critic, s.target, s.sampler), state, (fix(state.critic), fix(state.target), sampler)
        )

    def act(self, state: SQLState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """The policy itself: it explores by being stochastic. The key is consumed."""
        return self.policy(state, observation, key=key)

    def policy(self, state: SQLState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """One draw of the sampler, in [-1, 1]. The key is consumed."""
        noise = jax.random.normal(key, (state.action_size,))
        return jnp.tanh(state.sampler(observation, noise))

    def update(self, state: SQLState, batch: Transition, *, key: PRNGKeyArray) -> tuple[SQLState, dict[str, Array]]:
        """One step of the critic, the target and the sampler, in this order. The key is consumed."""
        critic_key, policy_key = jax.random.split(key)
        temperature = self.heat(state.updates)
        state, critic_info = self.improve_critic(state, batch, temperature=temperature, key=critic_key)
        state = self.improve_target(state)
        sampler, optimiser, policy_info = self.improve_policy(
            state.critic, state.sampler, state.sampler_optimiser, batch.observation,
            temperature=temperature, key=policy_key,
        )  # fmt: skip
        state = eqx.tree_at(lambda s: (s.sampler, s.sampler_optimiser), state, (sampler, optimiser))
        return state, {**critic_info, **policy_info, "temperature": jnp.asarray(temperature, jnp.float32)}

    def heat(self, updates: Array) -> Array | float:
        """The temperature at an update: from initial_heat · α geometrically down to α at half of `planned_updates`."""
        if self.planned_updates is None or self.initial_heat == 1.0:
            return self.temperature
        left = jnp.clip(1.0 - updates.astype(jnp.float32) / (COOLED_AFTER * self.planned_updates), 0.0, 1.0)
        return self.temperature * self.initial_heat**left

    def improve_critic(
        self, state: SQLState, batch: Transition, *, temperature: Array | float | None = None, key: PRNGKeyArray
    ) -> tuple[SQLState, dict[str, Array]]:
        """Minimise ½ (Q(s,a) − y)², y = r + γ (1 − terminated) V_target(s') (paper, eqs 3 and 4).

        `temperature` is α unless given, here and below.
        """
        value, sample_size = self.estimate_value(
            state.target, state.sampler, batch.next_observation, temperature=temperature, key=key
        )
        target = batch.reward + self.discount * (1.0 - batch.terminated) * value
        target = lax.stop_gradient(target)

        def loss_of(critic: AnyQ) -> tuple[Array, Array]:
            q = critic(batch.observation, batch.action)
            # In the network's own units, so that one learning rate serves every reward scale.
            error = (q - target) / lax.stop_gradient(critic.scale)
            return 0.5 * jnp.mean(jnp.square(error)), jnp.mean(q)

        (loss, mean_q), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.critic)
        step, optimiser = self._critic_optimiser.update(gradient, state.critic_optimiser)
        critic = eqx.apply_updates(state.critic, step)
        state = eqx.tree_at(lambda s: (s.critic, s.critic_optimiser), state, (critic, optimiser))
        info = {"critic_loss": loss, "q": mean_q, "value": jnp.mean(value), "sample_size": jnp.mean(sample_size)}
        return state, info

    def improve_target(self, state: SQLState) -> SQLState:
        """Move the target network towards the critic, or copy it at intervals."""
        updates = state.updates + 1
        if self.target_rate is None:
            rate = jnp.where(updates % self.target_period == 0, 1.0, 0.0)
        else:
            rate = self.target_rate
        target = jax.tree.map(lambda old, new: old + rate * (new - old), state.target, state.critic)
        return eqx.tree_at(lambda s: (s.target, s.updates), state, (target, updates))

    def estimate_value(
        self,
        critic: Any,
        sampler: Sampler,
        observations: Float[Array, "batch obs"],
        *,
        temperature: Array | float | None = None,
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        """Soft values of a batch of states and the effective sample size of each estimate. The key is consumed."""
        temperature = self.temperature if temperature is None else temperature
        action_size = sampler.network.bias_out.shape[0]
        fit_key, noise_key, uniform_key = jax.random.split(key, 3)
        batch = observations.shape[0]
        count = self.value_particles if self.proposal == "uniform" else self.value_particles // 2
        uniform = jax.random.uniform(uniform_key, (batch, count, action_size), minval=-1.0 + 1e-6, maxval=1.0 - 1e-6)
        if self.proposal == "uniform":
            actions, log_density = uniform, jnp.zeros((batch, count))
        else:
            fit = sampler(observations, jax.random.normal(fit_key, (batch, self.fit_particles, action_size)))
            noise = jax.random.normal(noise_key, (batch, self.value_particles - count, action_size))
            drawn, log_density = mixture_proposal(lax.stop_gradient(fit), noise, uniform)
            actions = jnp.tanh(drawn)
        q = critic(observations, actions)
        return (
            soft_value(q, log_density, temperature),
            effective_sample_size(q, log_density, temperature),
        )

    def improve_policy(
        self,
        critic: Any,
        sampler: Sampler,
        optimiser: optax.OptState,
        observations: Float[Array, "batch obs"],
        *,
        temperature: Array | float | None = None,
        key: PRNGKeyArray,
    ) -> tuple[Sampler, optax.OptState, dict[str, Array]]:
        """One amortised Stein step towards exp(Q/α) for any Q, composed or not (Haarnoja et al. 2017, eqs 13, 14).

        The same function trains online and extracts a policy from a fixed Q offline. The key is consumed.
        """
        temperature = self.temperature if temperature is None else temperature
        action_size = sampler.network.bias_out.shape[0]
        count = self.fixed_particles + self.updated_particles
        noise = jax.random.normal(key, (observations.shape[0], count, action_size))
        noise_fixed, noise_updated = noise[:, : self.fixed_particles], noise[:, self.fixed_particles :]
        fixed = lax.stop_gradient(sampler(observations, noise_fixed))

        def log_target(u: Array) -> Array:
            # Summed over independent particles: the gradient holds each particle's own.
            energy = critic(observations, jnp.tanh(u)) / temperature
            return jnp.sum(energy + log_jacobian(u))

        gradient = jax.grad(log_target)(fixed)

        def surrogate(sampler: Sampler) -> tuple[Array, Array]:
            updated = sampler(observations, noise_updated)
            direction = lax.stop_gradient(stein_direction(fixed, updated, gradient))
            return -jnp.mean(jnp.sum(direction * updated, axis=(-2, -1))), direction

        (_, direction), sampler_gradient = jax.value_and_grad(surrogate, has_aux=True)(sampler)
        step, optimiser = self._sampler_optimiser.update(sampler_gradient, optimiser)
        info = {"stein_norm": jnp.sqrt(jnp.mean(jnp.square(direction)))}
        return eqx.apply_updates(sampler, step), optimiser, info


class SQLState(eqx.Module):
    """Everything that soft Q-learning learns."""

    critic: AnyQ  # a QFunction, or the expression of several that a composed skill starts with
    target: AnyQ
    sampler: Sampler
    critic_optimiser: optax.OptState
    sampler_optimiser: optax.OptState
    updates: Array

    @property
    def action_size(self) -> int:
        """Dimension of the action."""
        return self.sampler.network.bias_out.shape[0]
