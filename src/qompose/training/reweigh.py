"""One correction for all weights: C_w(s, a) with w as an input, so that a composition is weighted anew in no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from qompose.nets import QFunction
from qompose.skill.algebra import unite_replays
from qompose.skill.artifact import Skill, check_compatible
from qompose.soft.correct import soft_minimum
from qompose.training.correct import (
    Correction,
    Values,
    check_correctable,
    check_ends,
    rewards_of,
    solve,
    survey,
    unit_of,
)
from qompose.types import QomposeError, check_settings

# Weights are one more input of the network, and as many steps are shared by all of them.
LONGER = 4


@dataclass(frozen=True)
class Corrections:
    """C_w of some skills for every w ≥ 0, learned at once: `compose({a: 0.7, b: 0.3}, correct=corrections)`.

    Exact as far as the skills' Q are optimal and C_w is learned; at the sum's own temperature alone, and not saved.
    """

    skills: tuple[Skill, ...]
    values: Values
    options: Correction
    """As which they were learned."""

    def at(self, skills: Sequence[Skill], weights: Sequence[float], temperature: float) -> QFunction:
        """C_w as a network of its own, for α = Σ w_i α_i. Learns nothing.

        Weights need not sum to one: with c w, α is c times as high, rewards are, and so is C.
        Raises QomposeError for other skills, negative weights, or another temperature.
        """
        if len(skills) != len(self.skills) or {id(skill) for skill in skills} != {id(skill) for skill in self.skills}:
            raise QomposeError(
                f"these corrections are of {', '.join(skill.name for skill in self.skills)}, and of no other skills, "
                "nor of copies of them"
            )
        given = {id(skill): weight for skill, weight in zip(skills, weights, strict=True)}
        ordered = np.array([given[id(skill)] for skill in self.skills])
        own = float(ordered @ [skill.temperature or 0.0 for skill in self.skills])
        if ordered.min() < 0.0:
            raise QomposeError("corrections for all weights are learned for weights from 0 on; use correct=True")
        if abs(temperature - own) > 1e-6 * own:
            raise QomposeError(f"corrections for all weights hold at the sum's own temperature, {own:.3g}, alone")
        total = ordered.sum()
        count, network = len(ordered), self.values.network
        # What is the same in every state is a bias.
        shift = (ordered / total - network.observation_mean[-count:]) / network.observation_scale[-count:]
        network = eqx.tree_at(
            lambda n: (n.observation_mean, n.observation_scale, n.weight_observation, n.bias_input), network,
            (network.observation_mean[:-count], network.observation_scale[:-count], network.weight_observation[:-count],
             network.bias_input + shift @ network.weight_observation[-count:]),
        )  # fmt: skip
        return QFunction(network, offset=total * self.values.level[0], scale=total * self.values.scale[0])


class _Weighed(NamedTuple):
    """A `Survey` whose observations end with the weights; each transition has its own temperature."""

    observation: Any  # (N, obs + skills)
    action: Any  # (N, act)
    discount: Any  # (N,)
    next_observation: Any  # (N, obs + skills)
    kappa: Any  # (N,)
    next_actions: Any  # (N, K, act)
    log_weight: Any  # (N, K)
    residual: Any  # (N,)
    temperature: Any  # (N,)


def learn_corrections(
    *skills: Skill, correction: Correction | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Corrections:
    """Learn C_w of these skills for every w ≥ 0, from their replays: `learn_corrections(left, bottom)`.

    Every transition has weights of its own, drawn evenly from those that sum to one; they are inputs of the network.
    `correction`: how one is learned, here with four times as many steps. Raises QomposeError as `correct=True` does,
    and for fewer than two skills or one given twice.
    """
    check_settings("correction", correction, Correction)
    if len(skills) < 2:
        raise QomposeError("corrections are of at least two skills")
    check_compatible(skills)
    if len(set(skills)) < len(skills):
        raise QomposeError("a skill is given twice; corrections are of each once")
    check_correctable(skills)
    options, data = correction or Correction(), unite_replays(skills)
    options = replace(options, steps=LONGER * options.gradient_steps)
    check_ends(skills, data)
    rewards = rewards_of(skills, data) if options.residuals else None
    rng = np.random.default_rng([options.seed, 3])
    weights = rng.dirichlet(np.ones(len(skills)), len(data.reward)).astype(np.float32)
    temperature = weights @ np.array([skill.temperature or 0.0 for skill in skills], np.float32)
    seen = survey(skills, weights, temperature, data, options, rewards)
    weighed = _Weighed(
        np.concatenate([seen.observation, weights], axis=1), seen.action, seen.discount,
        np.concatenate([seen.next_observation, weights], axis=1), seen.kappa, seen.next_actions, seen.log_weight,
        seen.residual, temperature,
    )  # fmt: skip
    rows, mean = np.arange(len(data.reward), dtype=np.int32)[None], float(temperature.mean())
    units = (unit_of(seen.kappa, mean),)
    values = solve(correct_each, units, weighed, rows, mean, options, on_progress=on_progress)
    return Corrections(tuple(skills), jax.tree.map(lambda x: x[0], values), options)


def correct_each(batch: _Weighed, after: Array, temperature: float) -> Array:
    """The rule of `training.correct.correct`, each transition at its own temperature."""
    own = batch.temperature
    ahead = own * soft_minimum(after[..., 0] / own[:, None], batch.log_weight, 1.0)
    return (batch.discount * (batch.kappa + ahead) - batch.residual)[:, None]
