"""Learn, off-policy from the union of the replays, what following each skill is worth for a composed task: max-ent GPI.

For the reward r_w = Σ w_i r_i and the temperature α the soft Q of a policy π_j is the fixed point of

    Q^{π_j}_w(s,a) = r_w + γ (1 − terminated) E_{s'}[ E_{a'~π_j} Q^{π_j}_w(s',a') + α H_j(s') ], H_j = −E_{π_j} log π_j,

(Haarnoja et al. 2018, eqs 2 and 3), log π_j = A_j/α_j being that of the skill at its *own* temperature. exp(max_j Q/α)
is worth at least max_j Q in every state and action, for any policies: its soft value is at least each V^{π_j}_w, so
that max_j Q lies below its own Bellman backup (Hunt et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qompose.nets import GpiQ, QFunction
from qompose.skill.algebra import critic_of
from qompose.skill.artifact import Skill
from qompose.soft.compose import combine_values
from qompose.soft.value import log_weights
from qompose.training.correct import Correction, check_correctable, check_ends, in_blocks, rewards_of, solve, survey
from qompose.types import Transition

LONGER = 4  # times as many steps as a correction suffice: values reach as far as the discount does


class Followed(NamedTuple):
    """What there is to know of N transitions before anything is learned. Reward units, actions in [-1, 1]."""

    observation: Any  # (N, obs)
    action: Any  # (N, act)
    reward: Any  # (N,), Σ w_i r_i
    discount: Any  # (N,), γ (1 − terminated)
    next_observation: Any  # (N, obs)
    next_actions: Any  # (N, K, act), draws in the next state
    log_weight: Any  # (N, K, skills), their weights as a sample of each skill's policy
    entropy: Any  # (N, skills), α H_j of the next state


def learn_gpi(
    skills: Sequence[Skill],
    weights: Sequence[float],
    temperature: float,
    data: Transition,
    options: Correction,
    *,
    rewards: Sequence[np.ndarray] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> GpiQ:
    """max_j Q^{π_j}_w over the skills' own policies as one more network.

    data: the union of the skills' replays. `rewards`: each skill's own (N,) on all of it, computed from the skills'
    tasks unless given. `options` are those of a correction; `LONGER` times its steps are wanted. Raises QomposeError
    for skills without a soft value, whose tasks end in different states, or whose rewards cannot be computed.
    """
    check_correctable(skills)
    check_ends(skills, data)
    if rewards is None:
        rewards = rewards_of(skills, data)
    followed = _follow(skills, weights, temperature, data, options, rewards)
    rows = np.arange(len(data.reward), dtype=np.int32)[None]
    # What a policy is worth spans up to the spread of the rewards for ever, far more than the temperature, which as a
    # unit leaves the networks too far to go.
    units = (max(float(np.std(followed.reward)) / (1.0 - skills[0].discount), temperature),) * len(skills)
    values = solve(evaluate, units, followed, rows, temperature, options, on_progress=on_progress)
    values = jax.tree.map(lambda x: x[0], values)
    members: list[Any] = []
    for head in range(len(skills)):
        network = eqx.tree_at(
            lambda n: (n.weight_out, n.bias_out), values.network,
            (values.network.weight_out[:, head : head + 1], values.network.bias_out[head : head + 1]),
        )  # fmt: skip
        members.append(QFunction(network, offset=values.level[head], scale=values.scale[head]))
    return GpiQ(members)


def evaluate(batch: Followed, after: Array, temperature: float) -> Array:
    """The rule of one head for each policy; the temperature is in `entropy` already."""
    expected = jnp.sum(jnp.exp(batch.log_weight) * after, axis=-2)
    return batch.reward[:, None] + batch.discount[:, None] * (expected + batch.entropy)


def _follow(
    skills: Sequence[Skill],
    weights: Sequence[float],
    temperature: float,
    data: Transition,
    options: Correction,
    rewards: Sequence[np.ndarray],
) -> Followed:
    seen = survey(skills, weights, temperature, data, options)
    critics = [critic_of(skill) for skill in skills]
    numbers = weights, [skill.temperature or 0.0 for skill in skills], temperature
    log_weight, entropy = in_blocks(
        partial(_weigh, critics, *(np.asarray(number, np.float32) for number in numbers)),
        seen.next_observation, seen.next_actions, seen.log_weight, seen.values,
    )  # fmt: skip
    reward = np.asarray(combine_values(list(rewards), weights), np.float32)
    return Followed(
        seen.observation, seen.action, reward, seen.discount, seen.next_observation, seen.next_actions, log_weight,
        entropy,
    )  # fmt: skip


@jax.jit
def _weigh(
    critics: list[QFunction],
    weights: Array,
    temperatures: Array,
    temperature: Array,
    states: Array,
    actions: Array,
    log_weight: Array,
    values: Array,
) -> tuple[Array, Array]:
    q = [critic(states, actions) for critic in critics]
    total = combine_values(q, list(weights))
    # The survey's weights are those of exp(Q_Σ/α)/q: what the density of the draws was follows from them.
    log_density = (total - jnp.max(total, axis=-1, keepdims=True)) / temperature - log_weight
    own = [log_weights(x, log_density, alpha) for x, alpha in zip(q, temperatures, strict=True)]
    mean = jnp.stack([jnp.sum(jnp.exp(w) * x, axis=-1) for w, x in zip(own, q, strict=True)], axis=-1)
    entropy = temperature * (values - mean) / temperatures
    return jnp.stack(own, axis=-1), entropy
