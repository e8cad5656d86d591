"""Q-learning with normalised advantage functions (Gu et al. 2016): Q is quadratic in the action, its maximum known.

Differs from the paper:
1. μ lies in the box through tanh, so that max_a Q over the box is V exactly; the diagonal of L is a softplus.
2. Layer norm; 128 instead of 200 units.
3. Q is learned as offset + unit · network, both measured in the warm-up; observations are scaled likewise, once.
4. The learning rate falls. No imagination rollouts: only the model-free part of the paper is here.
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

from qompose.learning import adam, check_hyperparameters, measure_observations, measure_returns
from qompose.nets import QuadraticQ, init_quadratic, set_observation_scale
from qompose.types import Transition


@dataclass(frozen=True)
class NAF:
    """Hyperparameters of NAF. Frozen and hashable: a compiled update depends on nothing else."""

    algorithm: ClassVar[str] = "naf"

    noise: float = 0.2
    """Deviation of the Gaussian noise that is added to the action when exploring; an evaluated policy has none."""
    discount: float = 0.99
    """γ per control step."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer."""
    layer_norm: bool = True
    """Layer norm in the critic."""
    learning_rate: float = 1e-3
    """Adam's step."""
    final_rate: float = 0.05
    """Share of the learning rate that is left at the end of `planned_updates`; 1 keeps it constant."""
    planned_updates: int | None = None
    """Updates of the whole training, over which the rate falls linearly after the first 30 %; None: a constant rate."""
    batch_size: int = 64
    """Transitions per update."""
    target_rate: float = 0.005
    """Share of the critic that enters the target at each update."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_hyperparameters(self, noise=(0.0, 10.0))

    def init(self, observation_size: int, action_size: int, *, key: PRNGKeyArray) -> NAFState:
        """Fresh networks and optimiser. The key is consumed."""
        critic = init_quadratic(observation_size, action_size, self.hidden, layer_norm=self.layer_norm, key=key)
        return NAFState(
            critic=critic,
            target=jax.tree.map(jnp.copy, critic),
            critic_optimiser=self._critic_optimiser.init(critic),
            updates=jnp.zeros((), jnp.int32),
        )

    @property
    def _critic_optimiser(self) -> Any:  # optax's types know no modules
        return adam(self.learning_rate, self.final_rate, self.planned_updates)

    def calibrate(self, state: NAFState, data: Transition) -> NAFState:
        """Fix the network's input and output scales from first data: once, before the first update.

        Offset and unit of Q are those of `measure_returns`. data: a few hundred transitions or more.
        """
        scale = measure_observations(data.observation)
        units = measure_returns(data.reward, self.discount)

        def fix(critic: QuadraticQ) -> QuadraticQ:
            return eqx.tree_at(lambda c: (c.offset, c.scale), set_observation_scale(critic, *scale), units)

        return eqx.tree_at(lambda s: (s.critic, s.target), state, (fix(state.critic), fix(state.target)))

    def act(self, state: NAFState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """μ(s) with Gaussian noise, cut to the box: for exploration only. The key is consumed."""
        action = state.critic.best(observation)
        return jnp.clip(action + self.noise * jax.random.normal(key, action.shape), -1.0, 1.0)

    def policy(self, state: NAFState, observation: Float[Array, " obs"], *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """μ(s), without noise: what is evaluated and saved. The key is not used."""
        del key
        return state.critic.best(observation)

    def update(self, state: NAFState, batch: Transition, *, key: PRNGKeyArray) -> tuple[NAFState, dict[str, Array]]:
        """One step of the critic and the target; the policy is the critic's own maximum. The key is not used."""
        del key
        state, info = self.improve_critic(state, batch)
        return self.improve_target(state), info

    def improve_critic(self, state: NAFState, batch: Transition) -> tuple[NAFState, dict[str, Array]]:
        """Minimise ½ (Q(s,a) − y)², y = r + γ (1 − terminated) V'(s') (Gu et al. 2016, algorithm 1)."""
        value = jax.vmap(state.target.value)(batch.next_observation)
        target = lax.stop_gradient(batch.reward + self.discount * (1.0 - batch.terminated) * value)

        def loss_of(critic: QuadraticQ) -> tuple[Array, Array]:
            q = jax.vmap(critic)(batch.observation, batch.action)
            # In the network's own units, so that one learning rate serves every reward scale.
            error = (q - target) / lax.stop_gradient(critic.scale)
            return 0.5 * jnp.mean(jnp.square(error)), jnp.mean(q)

        (loss, mean_q), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.critic)
        step, optimiser = self._critic_optimiser.update(gradient, state.critic_optimiser)
        critic = eqx.apply_updates(state.critic, step)
        state = eqx.tree_at(lambda s: (s.critic, s.critic_optimiser), state, (critic, optimiser))
        return state, {"critic_loss": loss, "q": mean_q, "value": jnp.mean(value)}

    def improve_target(self, state: NAFState) -> NAFState:
        """Move the target network towards the critic."""
        target = jax.tree.map(lambda old, new: old + self.target_rate * (new - old), state.target, state.critic)
        return eqx.tree_at(lambda s: (s.target, s.updates), state, (target, state.updates + 1))


class NAFState(eqx.Module):
    """Everything that NAF learns."""

    critic: QuadraticQ
    target: QuadraticQ
    critic_optimiser: optax.OptState
    updates: Array
