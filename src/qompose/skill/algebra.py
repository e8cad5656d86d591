"""Expressions of skills as one composed Q, and trained modules as skills: where the artifact meets JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qompose.nets import Module, QFunction, QuadraticQ, Sampler, SumQ, describe, from_arrays, to_arrays
from qompose.skill.artifact import Skill, check_compatible
from qompose.skill.expression import Expression, from_weights, weights_of
from qompose.skill.network import Network
from qompose.soft.compose import combine_temperatures
from qompose.types import QomposeError, Transition


def linear_form(expression: Expression | Mapping[Skill, float]) -> tuple[list[Skill], list[float]]:
    """The skills of an expression and their weights; raises QomposeError if the skills cannot be summed."""
    if isinstance(expression, Mapping):
        expression = from_weights(expression)
    pairs = weights_of(expression)
    skills = [skill for skill, _ in pairs]
    check_compatible(skills)
    return skills, [weight for _, weight in pairs]


def critic_of(skill: Skill) -> QFunction | QuadraticQ | SumQ:
    """A skill's Q as a JAX module."""
    return from_arrays(skill.critic.spec, dict(skill.critic.arrays))


def samplers_of(skill: Skill) -> list[Sampler]:
    """The samplers of a soft skill as JAX modules: one, or several if it was composed without extraction."""
    assert skill.sampler is not None
    spec, arrays = skill.sampler.spec, skill.sampler.arrays
    if spec["kind"] != "candidates":
        return [from_arrays(spec, dict(arrays))]
    return [
        from_arrays(child, {name.removeprefix(f"{index}/"): array for name, array in arrays.items()
                            if name.startswith(f"{index}/")})
        for index, child in enumerate(spec["of"])
    ]  # fmt: skip


def compose_critic(skills: Sequence[Skill], weights: Sequence[float]) -> SumQ:
    """Q_Σ = Σ w_i Q_i (paper, eq 6) as one more Q."""
    return SumQ(members=[critic_of(skill) for skill in skills], weights=tuple(weights))


def compose_temperature(skills: Sequence[Skill], weights: Sequence[float]) -> float | None:
    """α = Σ w_i α_i, the temperature of the composed policy; None where the skills have none."""
    temperatures = [skill.temperature for skill in skills if skill.temperature is not None]
    return combine_temperatures(temperatures, weights) if temperatures else None


def as_network(module: Module) -> Network:
    """A trained module as a skill holds it."""
    return Network(describe(module), to_arrays(module))


def gather_samplers(skills: Sequence[Skill]) -> Network:
    """The samplers of several skills side by side, as proposals for acting without extraction."""
    children: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for sampler in (sampler for skill in skills for sampler in samplers_of(skill)):
        arrays |= {f"{len(children)}/{name}": array for name, array in to_arrays(sampler).items()}
        children.append(describe(sampler))
    return Network({"kind": "candidates", "of": children}, arrays)


def unite_replays(skills: Sequence[Skill]) -> Transition:
    """The union of the skills' replays (paper, Section V-B); raises QomposeError if one was stripped."""
    replays = []
    for skill in skills:
        if skill.replay is None:
            raise QomposeError(
                f"skill {skill.name!r} carries no replay, and extraction needs its states; "
                "save it with its replay, or compose without extraction"
            )
        replays.append(skill.replay)
    return Transition(*(np.concatenate(parts) for parts in zip(*replays, strict=True)))
