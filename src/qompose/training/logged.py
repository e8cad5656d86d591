"""Learning from a log alone: the agent's whole update, critic and policy, on transitions that no longer grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from qompose.training.learner import INIT, LEARN, calibrate, init, stream
from qompose.types import Transition

# Updates in one compiled call: short enough to be interrupted.
CHUNK = 1_000


def learn_from_log(
    agent: Any, transitions: Transition, marks: Sequence[int], *, seed: int, state: Any = None
) -> Iterator[tuple[int, Any, dict[str, float]]]:
    """Yield (updates, state of the agent, figures of the last update) at each of the rising `marks`.

    The update is that of online training; only the data differ: a fixed set, drawn from uniformly. Randomness is
    numbered by update, so that the states do not depend on the marks. Without a `state` of the agent to begin with
    (from `agent.start`) the agent is fresh, and calibrated by the data.
    """
    data = Transition(*map(jnp.asarray, transitions))
    root, done, figures = stream(seed, LEARN), 0, {}
    if state is None:
        state = init(agent, data.observation.shape[-1], data.action.shape[-1], stream(seed, INIT))
        state = calibrate(agent, state, data)
    for mark in marks:
        while done < mark:
            count = min(CHUNK, mark - done)
            state, figures = _update(agent, state, data, root, np.uint32(done), np.int32(count))
            done += count
        yield done, state, {name: float(value) for name, value in figures.items()}


@partial(jax.jit, static_argnames="agent")
def _update(
    agent: Any, state: Any, data: Transition, root: PRNGKeyArray, done: Array, count: Array
) -> tuple[Any, dict[str, Array]]:
    def update(state: Any, step: Array) -> tuple[Any, dict[str, Array]]:
        batch_key, update_key = jax.random.split(jax.random.fold_in(root, step))
        index = jax.random.randint(batch_key, (agent.batch_size,), 0, data.reward.shape[0])
        return agent.update(state, jax.tree.map(lambda column: column[index], data), key=update_key)

    def body(index: Array, carry: tuple[Any, Any]) -> tuple[Any, dict[str, Array]]:
        return update(carry[0], done + index.astype(jnp.uint32))

    figures = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), jax.eval_shape(update, state, done)[1])
    return jax.lax.fori_loop(0, count, body, (state, figures))
