"""Expressions of skills as one composed Q, and trained modules as skills: where the artifact meets JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qompose.nets import AnyQ, Module, OrQ, PreferQ, Sampler, SumQ, describe, from_arrays, to_arrays
from qompose.skill.artifact import Skill, check_compatible
from qompose.skill.expression import (
    Expression,
    Gpi,
    Or,
    Prefer,
    alternatives_of,
    from_weights,
    linear_weights_of,
    weights_of,
)
from qompose.skill.network import Network
from qompose.soft.compose import combine_temperatures
from qompose.types import QomposeError, Transition, show

# Fixed actions among which `prefer` looks for the best of high: half of what an acting skill looks at itself.
CANDIDATES = 128
# Below this a temperature is taken for zero: the least that a manifest may hold.
LOWEST_TEMPERATURE = 1e-8


def linear_form(expression: Expression | Mapping[Skill, float]) -> tuple[list[Skill], list[float]]:
    """The skills of an expression and their weights; raises QomposeError if the skills cannot be summed."""
    if isinstance(expression, Mapping):
        expression = from_weights(expression)
    pairs = linear_weights_of(expression)
    skills = [skill for skill, _ in pairs]
    check_compatible(skills)
    return skills, [weight for _, weight in pairs]


def skills_of(expression: Expression) -> list[Skill]:
    """The skills of an expression, each once; raises QomposeError if they cannot be composed."""
    skills: list[Any] = list(dict.fromkeys(expression.leaves))
    check_compatible(skills)
    return skills


def critic_of(skill: Skill) -> AnyQ:
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


def compose_critic(expression: Expression, learned: Mapping[Expression, AnyQ] | None = None) -> AnyQ:
    """The whole expression as one more Q. The skills must fit together: `skills_of`.

    `learned` holds the Q of every `gpi` in it (`gpis_of`), which no Q of the skills gives.
    """
    if isinstance(expression, Skill):
        return critic_of(expression)
    if isinstance(expression, Gpi):
        return (learned or {})[expression]
    if isinstance(expression, Or):
        pairs = alternatives_of(expression)
        members, weights = [compose_critic(term, learned) for term, _ in pairs], tuple(weight for _, weight in pairs)
        return OrQ(members, weights, temperature=_common_temperature(expression))
    if isinstance(expression, Prefer):
        members = [compose_critic(part, learned) for part in (expression.high, expression.low)]
        return PreferQ(members, expression.slack, expression.width, expression.strength, CANDIDATES)
    pairs = weights_of(expression)
    return SumQ([compose_critic(term, learned) for term, _ in pairs], tuple(weight for _, weight in pairs))


def gpis_of(expression: Expression) -> list[Gpi]:
    """Every `gpi` in an expression."""
    if isinstance(expression, Skill):
        return []
    if isinstance(expression, Gpi):
        return [expression]
    if isinstance(expression, Prefer):
        return gpis_of(expression.high) + gpis_of(expression.low)
    pairs = alternatives_of(expression) if isinstance(expression, Or) else weights_of(expression)
    return list(dict.fromkeys(found for term, _ in pairs for found in gpis_of(term)))


def compose_temperature(expression: Expression) -> float | None:
    """The temperature that belongs to an expression; None where the skills have none.

    `&` and `gpi`: Σ w_i α_i, which `~` can make zero or negative. `|`: that of its terms, which must agree. `prefer`:
    that of low, whose Q stands in it with weight one.
    """
    if isinstance(expression, Skill):
        return expression.temperature
    if isinstance(expression, Or):
        return _common_temperature(expression)
    if isinstance(expression, Prefer):
        return compose_temperature(expression.low)
    if isinstance(expression, Gpi):
        return compose_temperature(expression.of)
    pairs = [(compose_temperature(term), weight) for term, weight in weights_of(expression)]
    known = [(temperature, weight) for temperature, weight in pairs if temperature is not None]
    return combine_temperatures(*zip(*known, strict=True)) if known else None


def _common_temperature(expression: Or) -> float:
    found = [compose_temperature(term) for term, _ in alternatives_of(expression)]
    temperatures = [temperature for temperature in found if temperature is not None]
    if not temperatures:
        raise QomposeError("| needs a temperature, and these skills have none; compose them with & or prefer")
    low, high = min(temperatures), max(temperatures)
    if not low >= LOWEST_TEMPERATURE:
        raise QomposeError(f"a term of {show(expression)} has temperature {low:g}; avoid less in it")
    if high - low > 1e-6 * high:
        raise QomposeError(
            f"the terms of {show(expression)} have temperatures from {low:g} to {high:g}, and | needs one; give "
            "each the same first: compose(skill, temperature=...)"
        )
    return temperatures[0]


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


def replay_of(skill: Skill, instead: str = "") -> Transition:
    """What a skill has seen; raises QomposeError, which ends with `instead`, if it was saved without."""
    if skill.replay is None:
        raise QomposeError(f"skill {skill.name!r} carries no replay to learn from; save it with its replay{instead}")
    return skill.replay


def join(parts: Sequence[Transition]) -> Transition:
    """Several pieces of experience as one, at least one."""
    return Transition(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def unite_replays(skills: Sequence[Skill], instead: str = "") -> Transition:
    """The union of the skills' replays (paper, Section V-B); raises QomposeError, see `replay_of`."""
    return join([replay_of(skill, instead) for skill in skills])
