"""Replay memory on the device: a ring of packed transitions."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from qompose.types import Transition


class Replay(eqx.Module):
    """The last `capacity` transitions, one row each: a batch is one gather, an insertion one slice."""

    rows: Float[Array, "capacity width"]
    inserted: Array  # transitions ever stored, int32
    observation_size: int = eqx.field(static=True)
    action_size: int = eqx.field(static=True)

    @property
    def capacity(self) -> int:
        """How many transitions fit."""
        return self.rows.shape[0]

    @property
    def size(self) -> Array:
        """How many transitions are held."""
        return jnp.minimum(self.inserted, self.capacity)

    def add(self, transitions: Transition) -> Replay:
        """Store a batch; its size must divide the capacity. Overwrites the oldest when full."""
        rows = pack(transitions)
        if self.capacity % rows.shape[0]:
            raise ValueError(f"capacity {self.capacity} is not a multiple of the batch of {rows.shape[0]}")
        position = self.inserted % self.capacity
        rows = lax.dynamic_update_slice(self.rows, rows, (position, jnp.zeros_like(position)))
        return eqx.tree_at(lambda r: (r.rows, r.inserted), self, (rows, self.inserted + transitions.reward.shape[0]))

    def fill(self, transitions: Transition) -> Replay:
        """The memory with the last of these transitions (n, ...), as many as fit, and nothing else in it."""
        rows = pack(Transition(*(jnp.asarray(column[-self.capacity :], jnp.float32) for column in transitions)))
        return eqx.tree_at(
            lambda r: (r.rows, r.inserted), self,
            (self.rows.at[: len(rows)].set(rows), jnp.asarray(len(rows), self.inserted.dtype)),
        )  # fmt: skip

    def sample(self, count: int, *, key: PRNGKeyArray) -> Transition:
        """Draw transitions uniformly with replacement. The key is consumed."""
        index = jax.random.randint(key, (count,), 0, self.size)
        return unpack(self.rows[index], self.observation_size, self.action_size)


def init_replay(capacity: int, observation_size: int, action_size: int) -> Replay:
    """An empty memory."""
    width = 2 * observation_size + action_size + 2
    return Replay(jnp.zeros((capacity, width)), jnp.zeros((), jnp.int32), observation_size, action_size)


def pack(transitions: Transition) -> Array:
    """Transitions -> rows (*batch, 2 obs + act + 2)."""
    return jnp.concatenate(
        [
            transitions.observation,
            transitions.action,
            transitions.reward[..., None],
            transitions.next_observation,
            transitions.terminated[..., None],
        ],
        axis=-1,
    )


def unpack(rows: Any, observation_size: int, action_size: int) -> Transition:
    """Rows (*batch, width) -> transitions."""
    at = observation_size + action_size
    return Transition(
        observation=rows[..., :observation_size],
        action=rows[..., observation_size:at],
        reward=rows[..., at],
        next_observation=rows[..., at + 1 : -1],
        terminated=rows[..., -1],
    )
