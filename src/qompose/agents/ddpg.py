"""Deep deterministic policy gradient (Lillicrap et al. 2015).

Differs from the paper:
1. Independent Gaussian noise instead of an Ornstein-Uhlenbeck process: acting needs no memory of the last step.
2. The action enters the critic at the first layer, not the second; layer norm in the critic instead of batch norm.
3. Q is learned as offset + unit · network, both measured in the warm-up; observations are scaled likewise, once.
4. Actor and critic learn at rates that fall; no weight decay; networks of 128 units instead of 400 and 300.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from qompose.learning import RATE, adam, check_hyperparameters, measure_observations, measure_returns
from qompose.nets import Actor, QFunction, init_perceptron, set_observation_scale
from qompose.types import Transition

# An action component beyond this lies at the edge of the box, where tanh passes hardly any gradient.
EDGE = 0.99


@dataclass(frozen=True)
class DDPG:
    """Hyperparameters of DDPG. Frozen and hashable: a compiled update depends on nothing else."""

    algorithm: ClassVar[str] = "ddpg"

    noise: float = 0.2
    """Deviation of the Gaussian noise that is added to the action when exploring; an evaluated policy has none."""
    discount: float = 0.99
    """γ per control step."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer, critic and actor alike."""
    layer_norm: bool = True
    """Layer norm in the critic."""
    learning_rate: float = 1e-3
    """Adam's step for the critic."""
    actor_learning_rate: float = 3e-4
    """Adam's step for the actor."""
    final_rate: float = 0.05
    """Share of both learning rates that is left at the end of `planned_updates`; 1 keeps them constant."""
    planned_updates: int | None = None
    """Updates of the whole training, over which the rates fall linearly after the first 30 %; None: constant rates."""
    batch_size: int = 64
    """Transitions per update."""
    target_rate: float = 0.005
    """Share of critic and actor that enters their targets at each update."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_hyperparameters(self, noise=(0.0, 10.0), actor_learning_rate=RATE)

    def init(self, observation_size: int, action_size: int, *, key: PRNGKeyArray) -> DDPGState:
        """Fresh networks and optimisers. The key is consumed."""
        critic_key, actor_key = jax.random.split(key)
        network = init_perceptron(
            observation_size, action_size, 1, self.hidden, layer_norm=self.layer_norm, key=critic_key
        )
        critic = QFunction(network, offset=jnp.zeros(()), scale=jnp.ones(()))
        actor, actor_optimiser = self.init_policy(observation_size, action_size, key=actor_key)
        return DDPGState(
            critic=critic,
            target=jax.tree.map(jnp.copy, critic),
            actor=actor,
            target_actor=jax.tree.map(jnp.copy, actor),
            critic_optimiser=self._critic_optimiser.init(critic),
            actor_optimiser=actor_optimiser,
            updates=jnp.zeros((), jnp.int32),
        )

    @property
    def _critic_optimiser(self) -> Any:  # optax's types know no modules
        return adam(self.learning_rate, self.final_rate, self.planned_updates)

    @property
    def _actor_optimiser(self) -> Any:
        return adam(self.actor_learning_rate, self.final_rate, self.planned_updates)

    def init_policy(
        self, observation_size: int, action_size: int, *, key: PRNGKeyArray
    ) -> tuple[Actor, optax.OptState]:
        """A fresh actor and its optimiser, for `improve_policy`. The key is consumed."""
        actor = Actor(init_perceptron(observation_size, 0, action_size, self.hidden, key=key))
        return actor, self._actor_optimiser.init(actor)

    def calibrate(self, state: DDPGState, data: Transition) -> DDPGState:
        """Fix the networks' input and output scales from first data: once, before the first update.

        Offset and unit of Q are those of `measure_returns`. data: a few hundred transitions or more.
        """
        mean, deviation = measure_observations(data.observation)
        units = measure_returns(data.reward, self.discount)

        def fix(critic: QFunction) -> QFunction:
            return eqx.tree_at(lambda c: (c.offset, c.scale), set_observation_scale(critic, mean, deviation), units)

        actors = (set_observation_scale(actor, mean, deviation) for actor in (state.actor, state.target_actor))
        return eqx.tree_at(
            lambda s: (s.critic, s.target, s.actor, s.target_actor),
            state,
            (fix(state.critic), fix(state.target), *actors),
        )

    def act(self, state: DDPGState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """The actor's action with Gaussian noise, cut to the box: for exploration only. The key is consumed."""
        action = state.actor(observation)
        return jnp.clip(action + self.noise * jax.random.normal(key, action.shape), -1.0, 1.0)

    def policy(self, state: DDPGState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """The actor's action, without noise: what is evaluated and saved. The key is not used."""
        del key
        return state.actor(observation)

    def update(self, state: DDPGState, batch: Transition, *, key: PRNGKeyArray) -> tuple[DDPGState, dict[str, Array]]:
        """One step of the critic, the targets and the actor, in this order. The key is consumed."""
        state, critic_info = self.improve_critic(state, batch)
        state = self.improve_target(state)
        actor, optimiser, policy_info = self.improve_policy(
            state.critic, state.actor, state.actor_optimiser, batch.observation, key=key
        )
        state = eqx.tree_at(lambda s: (s.actor, s.actor_optimiser), state, (actor, optimiser))
        return state, critic_info | policy_info

    def improve_critic(self, state: DDPGState, batch: Transition) -> tuple[DDPGState, dict[str, Array]]:
        """Minimise ½ (Q(s,a) − y)², y = r + γ (1 − terminated) Q'(s', μ'(s')) (Lillicrap et al. 2015, eqs 4 and 5)."""
        value = jax.vmap(state.target)(batch.next_observation, jax.vmap(state.target_actor)(batch.next_observation))
        target = lax.stop_gradient(batch.reward + self.discount * (1.0 - batch.terminated) * value)

        def loss_of(critic: QFunction) -> tuple[Array, Array]:
            q = jax.vmap(critic)(batch.observation, batch.action)
            # In the network's own units, so that one learning rate serves every reward scale.
            error = (q - target) / lax.stop_gradient(critic.scale)
            return 0.5 * jnp.mean(jnp.square(error)), jnp.mean(q)

        (loss, mean_q), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.critic)
        step, optimiser = self._critic_optimiser.update(gradient, state.critic_optimiser)
        critic = eqx.apply_updates(state.critic, step)
        state = eqx.tree_at(lambda s: (s.critic, s.critic_optimiser), state, (critic, optimiser))
        return state, {"critic_loss": loss, "q": mean_q}

    def improve_target(self, state: DDPGState) -> DDPGState:
        """Move the target networks towards critic and actor."""
        old, new = (state.target, state.target_actor), (state.critic, state.actor)
        moved = jax.tree.map(lambda old, new: old + self.target_rate * (new - old), old, new)
        return eqx.tree_at(lambda s: (s.target, s.target_actor, s.updates), state, (*moved, state.updates + 1))

    def improve_policy(
        self,
        critic: Any,
        actor: Actor,
        optimiser: optax.OptState,
        observations: Float[Array, "batch obs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Actor, optax.OptState, dict[str, Array]]:
        """One step of the actor towards argmax_a Q(s, a) for any Q, composed or not (Lillicrap et al. 2015, eq 6).

        The same function trains online and extracts an actor from a fixed Q offline. The key is not used.
        """
        del key

        def loss_of(actor: Actor) -> tuple[Array, tuple[Array, Array]]:
            actions = jax.vmap(actor)(observations)
            q = jnp.mean(jax.vmap(critic)(observations, actions))
            return -q, (q, jnp.mean(jnp.abs(actions) > EDGE))

        (_, (q, saturation)), gradient = jax.value_and_grad(loss_of, has_aux=True)(actor)
        step, optimiser = self._actor_optimiser.update(gradient, optimiser)
        return eqx.apply_updates(actor, step), optimiser, {"policy_q": q, "saturation": saturation}


class DDPGState(eqx.Module):
    """Everything that DDPG learns."""

    critic: QFunction
    target: QFunction
    actor: Actor
    target_actor: Actor
    critic_optimiser: optax.OptState
    actor_optimiser: optax.OptState
    updates: Array

    @property
    def action_size(self) -> int:
        """Dimension of the action."""
        return self.actor.network.bias_out.shape[0]
