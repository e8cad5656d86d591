"""One correction for all weights: C_w(s, a) with w as an input, so that a composition is weighted anew in no time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from qompose import store
from qompose.nets import QFunction, from_arrays
from qompose.run import plain
from qompose.skill.algebra import as_network, unite_replays
from qompose.skill.artifact import Skill, check_compatible
from qompose.skill.manifest import LARGEST_SIZE, MOST_LEAVES, NAME, choice, free, integer, record, sequence, text
from qompose.skill.network import Network, check_arrays, check_spec, expected_arrays
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
from qompose.types import QomposeError, check_settings, show

# Weights are one more input of the network, and as many steps are shared by all of them.
LONGER = 4
# What a directory of corrections holds.
WORDS, NUMBERS = "corrections.json", "corrections.safetensors"
CHECKS = record(
    format=choice("qompose.corrections"), version=choice(1),
    observation=integer(1, 2 * LARGEST_SIZE), action=integer(1, LARGEST_SIZE),
    skills=sequence(record(name=NAME, sha256=text(64, "[0-9a-f]{64}")), 2, MOST_LEAVES),
    critic=lambda field, value: value, options=free(1), sha256=text(64, "[0-9a-f]{64}"),
)  # fmt: skip


@dataclass(frozen=True)
class Corrections:
    """C_w of some skills for every w ≥ 0, learned at once: `compose({a: 0.7, b: 0.3}, correct=corrections)`.

    Exact as far as the skills' Q are optimal and C_w is learned; at the sum's own temperature alone.
    """

    skills: tuple[tuple[str, str], ...]
    """Name of each skill, and a digest of what C_w depends on: critic, temperature and discount."""
    values: Values
    options: Correction
    """As which they were learned."""

    def at(self, skills: Sequence[Skill], weights: Sequence[float], temperature: float) -> QFunction:
        """C_w as a network of its own, for α = Σ w_i α_i. Learns nothing.

        Weights need not sum to one: with c w, α is c times as high, rewards are, and so is C.
        Raises QomposeError for other skills, negative weights, or another temperature.
        """
        found = [_identify(skill) for skill in skills]
        if sorted(found) != sorted(self.skills):
            raise QomposeError(f"these corrections are of {', '.join(name for name, _ in self.skills)} as they were, "
                               "and of no other skills")  # fmt: skip
        given = dict(zip(found, weights, strict=True))
        ordered = np.array([given[skill] for skill in self.skills])
        own = float(np.dot(weights, [skill.temperature or 0.0 for skill in skills]))
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

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write a directory that appears whole or not at all; returns its path. An existing one is refused."""
        network = as_network(QFunction(self.values.network, offset=self.values.level[0], scale=self.values.scale[0]))

        def write(folder: Path) -> None:
            store.write_arrays(folder / NUMBERS, network.arrays)
            words = {
                "format": "qompose.corrections", "version": 1,
                "observation": len(network.arrays["observation_mean"]), "action": len(network.arrays["weight_input"]),
                "skills": [{"name": name, "sha256": digest} for name, digest in self.skills],
                "critic": network.spec, "options": plain(self.options), "sha256": store.sha256_of(folder / NUMBERS),
            }  # fmt: skip
            store.write_json(folder / WORDS, words)

        store.publish(directory, write)
        return Path(directory)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Corrections:
        """Read what `save` wrote; the skills are not part of it. Runs no code from it and writes nothing.

        Raises QomposeError, one line `corrections 'DIR': field: what is wrong`, for anything but whole and valid ones.
        """
        folder = Path(directory)
        with store.naming(f"corrections {show(str(directory), 200)}"):
            if missing := {WORDS, NUMBERS} - store.check_names(folder, (WORDS, NUMBERS)):
                raise QomposeError(f"{min(missing)}: is missing")
            words = store.read_json(folder / WORDS)
            with store.naming(WORDS):
                words = CHECKS("", words)
                spec, sizes = words["critic"], (words["observation"], words["action"])
                check_spec(spec, "critic", "sql")
                if spec["kind"] != "critic":
                    raise QomposeError(f"critic.kind: must be 'critic', not {show(spec['kind'])}")
                if unknown := set(words["options"]) - {field.name for field in fields(Correction)}:
                    raise QomposeError(f"options.{show(min(unknown))}: is unknown; remove it")
                given: dict[str, Any] = {
                    name: tuple(x) if isinstance(x, list) else x for name, x in words["options"].items()
                }
                options = Correction(**given)
            arrays = store.read_arrays(folder / NUMBERS, expected_arrays(spec, *sizes), sha256=words["sha256"])
            critic = from_arrays(spec, check_arrays(Network(spec, arrays), *sizes))
        values = Values(critic.network, level=critic.offset[None], scale=critic.scale[None])
        return cls(tuple((skill["name"], skill["sha256"]) for skill in words["skills"]), values, options)


def _identify(skill: Skill) -> tuple[str, str]:
    digest = hashlib.sha256(f"{skill.temperature} {skill.discount}".encode())
    skill.critic.feed(digest)
    return skill.name, digest.hexdigest()


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
    names = tuple(_identify(skill) for skill in skills)
    if len(set(names)) < len(skills):
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
    return Corrections(names, jax.tree.map(lambda x: x[0], values), options)


def correct_each(batch: _Weighed, after: Array, temperature: float) -> Array:
    """The rule of `training.correct.correct`, each transition at its own temperature."""
    own = batch.temperature
    ahead = own * soft_minimum(after[..., 0] / own[:, None], batch.log_weight, 1.0)
    return (batch.discount * (batch.kappa + ahead) - batch.residual)[:, None]
