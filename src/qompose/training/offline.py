"""Composition without an environment: a policy for a fixed, composed Q, from the states in the skills' replays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from qompose.agents.ddpg import DDPG
from qompose.agents.sql import SQL
from qompose.learning import check_hyperparameters, measure_observations
from qompose.nets import Actor, AnyQ, CorrectedQ, GpiQ, Sampler, SumQ, describe, set_observation_scale
from qompose.run import command_line, describe_system, now, plain
from qompose.skill.algebra import (
    LOWEST_TEMPERATURE,
    as_network,
    compose_critic,
    compose_temperature,
    critic_of,
    gather_samplers,
    gpis_of,
    linear_form,
    replay_of,
    skills_of,
    unite_replays,
)
from qompose.skill.artifact import Skill
from qompose.skill.expression import Expression, Scaled, from_weights, pursued, title_of, weights_of
from qompose.skill.manifest import FIELDS, NAME
from qompose.skill.network import check_spec
from qompose.training.correct import Correction, check_correctable, check_ends, learn_correction
from qompose.training.gpi import LONGER, learn_gpi
from qompose.training.rewards import task_of
from qompose.training.reweigh import Corrections
from qompose.types import QomposeError, check_settings, find_misfit, show

# Steps in one compiled call: short enough for a live progress bar.
CHUNK = 100


@dataclass(frozen=True)
class Extraction:
    """How a policy is extracted from a composed Q."""

    steps: int = 2_000
    """Gradient steps of the policy."""
    seed: int = 0
    """Seed of everything random."""
    batch_size: int = 128
    """States per step, drawn from the union of the replays."""
    learning_rate: float = 1e-3
    """Adam's step."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer of the policy."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_hyperparameters(self, steps=(1, 10**9), seed=(0, 2**32 - 1))


def compose(
    expression: Expression | Mapping[Skill, float],
    *,
    name: str | None = None,
    extract: bool = True,
    correct: bool | Corrections = False,
    temperature: float | None = None,
    extraction: Extraction | None = None,
    correction: Correction | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Skill:
    """Combine skills into one, offline (paper, Section IV): `compose(left & bottom)`, `compose((a | b) & ~(0.1 * c))`.

    `&` is `Q_Σ = Σ w_i Q_i` at `α = Σ w_i α_i`; w_i = 1/|C| for `a & b & ...`, relative for `2 * a & b`, as they are
    for `{a: 0.7, b: 0.3}`; `~` makes one negative. `|`, `prefer` and `gpi` are further Q's, alone or inside (see
    `skill.expression`); the whole is one Q. `temperature`, in reward units, is that of the composed policy, if the one
    that follows is not wanted. With `extract` a sampler (DDPG: an actor) is trained on the union of the skills'
    replays; without it the skill acts on Q directly, by importance resampling over uniform candidates and the samplers
    of the skills that are not avoided (not for DDPG). DDPG has no `|`; NAF has positive sums only, whose maximum is
    known in closed form. With `correct` the divergence correction C_w is learned first, as `correction` says, and the
    skill's Q is `Σ w_i Q_i − C_w`: only for weighted sums of skills of soft Q-learning that are not composed
    themselves, with their replays. What `learn_corrections` has learned for all weights may stand in place of True: no
    replay is needed then.
    `gpi` learns from the same replays, with the rewards of the skills' tasks, as `correction` says too. `extraction`
    says how the policy is extracted, `name` what the skill is called; `left-and-bottom` and the like unless given.
    `on_progress(what, done, total)` is told how far the work is. Raises QomposeError if the skills do not fit
    together, with the reason; `correct` and `gpi` besides if their tasks end in different states.
    """
    if isinstance(expression, Mapping):
        expression = from_weights(expression)
    if isinstance(expression, Scaled) and expression.weight > 0.0:
        expression = expression.of  # in front of the whole a number says nothing
    for switch, value in (("extract", extract), ("correct", isinstance(correct, Corrections) or correct)):
        if wanted := find_misfit("bool", value):
            raise QomposeError(f"{switch} is {show(value)}; give {wanted}")
    check_settings("extraction", extraction, Extraction)
    check_settings("correction", correction, Correction)
    terms = weights_of(expression)
    skills = skills_of(expression)
    extraction, correction = extraction or Extraction(), correction or Correction()
    gpis = gpis_of(expression)
    correction = replace(correction, steps=(LONGER if gpis else 1) * correction.gradient_steps)
    if correct:
        linear_form(expression)
        check_correctable(skills)
    if isinstance(correct, Corrections):
        correction = correct.options
    followers: list[Any] = [leaf for node in gpis for leaf in node.leaves]
    for skill in followers:
        replay_of(skill)
        task_of(skill)  # refuses what has no rewards
    algorithm = skills[0].algorithm
    linear = all(isinstance(term, Skill) for term, _ in terms)
    if algorithm == "naf" and not (linear and all(weight > 0.0 for _, weight in terms)):
        raise QomposeError("skills of naf compose by & with positive weights only: other sums may have no maximum")
    if algorithm == "ddpg" and not extract:
        raise QomposeError("skills of ddpg act by an actor only: compose them with extraction")
    extract = extract and algorithm != "naf"
    name = NAME("name", name or title_of(expression)[:64].rstrip("-._"))
    begin = time.perf_counter()
    composition = {
        "expression": repr(expression),
        "weights": [weight for _, weight in terms] if linear else None,
        "names": [skill.name for skill in skills],
    }

    def tell(what: str) -> Callable[[int, int], None] | None:
        return partial(on_progress, what) if on_progress else None

    temperature = choose_temperature(expression, algorithm, temperature)
    sampler = gather_samplers(pursued(expression)) if algorithm == "sql" and not extract else None
    # What a manifest may not hold is refused before anything is learned, which may take minutes.
    unlearned: dict[Expression, AnyQ] = {
        node: GpiQ([critic_of(skill) for skill in linear_form(node.of)[0]]) for node in gpis
    }
    draft = _build(expression, unlearned, critic_of(skills[0]) if correct else None)
    check_spec(describe(draft), "critic", algorithm)
    FIELDS["composition"]("composition", composition)
    if sampler is not None:
        check_spec(sampler.spec, "sampler", algorithm)
    agent = _extracting_agent(skills[0], temperature, extraction) if extract else None
    # What is known for all weights was learned before.
    learns = bool(gpis) or (bool(correct) and not isinstance(correct, Corrections))
    instead = "" if learns else ", or compose without extraction (--no-extract)"
    whole = all(skill.replay is not None for skill in skills)
    union = unite_replays(skills, instead) if extract or learns or whole else None
    for node in gpis:
        assert union is not None
        check_ends(linear_form(node.of)[0], union)
    learned = {}
    for node in gpis:
        assert union is not None
        own = temperature if node is expression else choose_temperature(node, algorithm, None)
        assert own is not None
        followed, shares = linear_form(node.of)
        learned[node] = learn_gpi(followed, shares, own, union, correction, on_progress=tell("following"))
    taken = None
    if correct:
        assert temperature is not None
        weights = [weight for _, weight in terms]
        if isinstance(correct, Corrections):
            taken = correct.at(skills, weights, temperature)
        else:
            assert union is not None
            taken = learn_correction(skills, weights, temperature, union, correction, on_progress=tell("correcting"))
    critic = _build(expression, learned, taken)
    corrected = time.perf_counter()
    if agent is not None:
        assert union is not None
        size = int(skills[0].action["size"])
        policy = extract_policy(agent, critic, union.observation, size, extraction, on_progress=tell("extracting"))
        sampler = as_network(policy)
    return replace(
        skills[0],
        name=name,
        critic=as_network(critic),
        sampler=sampler,
        temperature=temperature,
        task={"id": _list_tasks(skills), "options": {}},
        composition=composition,
        provenance={
            "command": command_line(),
            "created": now(),
            **({"correction": plain(correction) | {"seconds": round(corrected - begin, 2)}} if correct or gpis else {}),
            "extraction": {"steps": extraction.steps if extract else 0, "batch_size": extraction.batch_size,
                           "seed": extraction.seed, "seconds": round(time.perf_counter() - corrected, 2)},
            "versions": describe_system()["versions"],
        },
        replay=union,
    )  # fmt: skip


def _build(expression: Expression, learned: Mapping[Expression, AnyQ], correction: AnyQ | None) -> AnyQ:
    """The whole expression as one Q, less its correction if there is one."""
    critic = compose_critic(expression, learned)
    if correction is None:
        return critic
    return CorrectedQ([critic if isinstance(critic, SumQ) else SumQ([critic], (1.0,)), correction])


def choose_temperature(expression: Expression, algorithm: str, given: float | None) -> float | None:
    """The given temperature, or that of the expression if it has a policy."""
    if algorithm != "sql":
        if given is not None:
            raise QomposeError(f"skills of {algorithm} have no temperature; leave it out")
        return None
    if given is not None:
        if find_misfit("float", given) or not LOWEST_TEMPERATURE <= given <= 1.0 / LOWEST_TEMPERATURE:
            raise QomposeError(f"temperature is {show(given)}; it must be a number above 0, in reward units")
        return float(given)
    own = compose_temperature(expression)
    if own is not None and own < LOWEST_TEMPERATURE:
        raise QomposeError(
            f"the temperatures of the skills sum to {own:.3g}, since those avoided count negative; give a smaller "
            "weight to what is avoided, or a temperature (temperature=..., --temperature)"
        )
    return own


def _list_tasks(skills: Sequence[Skill]) -> str:
    """The tasks that came together, as far as they fit into the field."""
    text = " & ".join(dict.fromkeys(str(skill.task["id"]) for skill in skills))
    return text if len(text) <= 256 else text[:255] + "…"


def _extracting_agent(skill: Skill, temperature: float | None, options: Extraction) -> SQL | DDPG:
    """The agent whose `improve_policy` extracts: that of the skills."""
    shared: dict[str, Any] = {
        "discount": skill.discount, "hidden": options.hidden, "batch_size": options.batch_size,
    }  # fmt: skip
    if temperature is None:
        return DDPG(actor_learning_rate=options.learning_rate, **shared)
    return SQL(temperature=temperature, sampler_learning_rate=options.learning_rate, **shared)


def extract_policy(
    agent: SQL | DDPG,
    critic: Any,
    observations: np.ndarray,
    action_size: int,
    options: Extraction,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sampler | Actor:
    """Train a fresh policy for a fixed Q on states (n, obs): the agent's `improve_policy` and nothing else.

    Soft Q-learning gives a sampler of exp(Q/α), DDPG an actor that maximises Q.
    """
    root = jax.random.fold_in(jax.random.key(options.seed), 0)
    states = jnp.asarray(observations)
    policy, optimiser = agent.init_policy(states.shape[1], action_size, key=jax.random.fold_in(root, 0))
    policy = set_observation_scale(policy, *measure_observations(states))
    done = 0
    while done < options.steps:
        # Their number is an argument of the loop, so that a last, shorter chunk is not compiled anew.
        count = min(CHUNK, options.steps - done)
        policy, optimiser = _improve(agent, critic, policy, optimiser, states, root, np.uint32(done), np.int32(count))
        done += count
        if on_progress is not None:
            jax.block_until_ready(policy)
            on_progress(done, options.steps)
    return policy


@partial(jax.jit, static_argnames="agent")
def _improve(
    agent: Any,
    critic: Any,
    policy: Any,
    optimiser: Any,
    states: Array,
    root: PRNGKeyArray,
    done: Array,
    count: Array,
) -> tuple[Any, Any]:
    def body(index: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        batch_key, policy_key = jax.random.split(jax.random.fold_in(root, 1 + done + index.astype(jnp.uint32)))
        batch = states[jax.random.randint(batch_key, (agent.batch_size,), 0, states.shape[0])]
        policy, optimiser, _ = agent.improve_policy(critic, *carry, batch, key=policy_key)
        return policy, optimiser

    return jax.lax.fori_loop(0, count, body, (policy, optimiser))
