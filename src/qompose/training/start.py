"""Where a training begins if not from nothing: the Q, the sampler and the experience of a skill, composed or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qompose.agents.sql import SQL, SQLState
from qompose.envs.lockstep import Lockstep
from qompose.skill.algebra import critic_of, join, replay_of, samplers_of
from qompose.skill.artifact import Skill
from qompose.tasks.task import relabel
from qompose.types import QomposeError, Transition


class Start(NamedTuple):
    """What a training begins with in place of fresh networks and an empty replay."""

    state: SQLState | None = None
    # Experience from before, with the rewards of the new task: the skill's own, and that of others.
    own: Transition | None = None
    borrowed: Transition | None = None


def agent_of(skill: Skill) -> SQL:
    """Soft Q-learning at a skill's own temperature, from the first update on, and discount.

    Raises QomposeError for a skill of another algorithm, or one that was composed without a sampler of its own.
    """
    if skill.algorithm != "sql" or skill.sampler is None or skill.temperature is None:
        raise QomposeError(f"skill {skill.name!r} is of {skill.algorithm}; only skills of sql can be trained further")
    if skill.sampler.spec["kind"] != "sampler":
        raise QomposeError(f"skill {skill.name!r} has no sampler of its own; compose it with extraction to train it")
    hidden = tuple(skill.sampler.spec["hidden"])
    return SQL(temperature=skill.temperature, initial_heat=1.0, discount=skill.discount, hidden=hidden)


def state_of(agent: SQL, skill: Skill) -> SQLState:
    """The agent's state as far as the skill holds it: target and optimisers are fresh."""
    (sampler,) = samplers_of(skill)
    return agent.start(critic_of(skill), sampler)


def digest_of(skill: Skill) -> str:
    """SHA-256 of the skill's networks and experience: the same skill, the same start."""
    digest = hashlib.sha256()
    for network in (skill.critic, skill.sampler):
        if network is not None:
            network.feed(digest)
    for column in skill.replay or ():
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def begin_with(agent: Any, env: Lockstep, skill: Skill | None = None, experience: Sequence[Skill] = ()) -> Start:
    """What an agent begins with on an environment: a skill, and what other skills have seen.

    The critic of a composed skill goes on being the expression that it is, and all of its parts learn. Raises
    QomposeError if a skill does not fit the environment, or if the rewards of borrowed experience cannot be computed.
    """
    for each in (*experience, *([] if skill is None else [skill])):
        _check_fits(each, env)
    borrowed = []
    for each in experience:
        if env.task is None:
            raise QomposeError(f"{env.env_id}: its rewards for experience of others are not known; leave that out")
        borrowed.append(relabel(env.task, replay_of(each)))
    together = join(borrowed) if borrowed else None
    if skill is None:
        return Start(borrowed=together)
    own = relabel(env.task, skill.replay) if env.task is not None and skill.replay is not None else None
    return Start(state_of(agent, skill), own, together)


def _check_fits(skill: Skill, env: Lockstep) -> None:
    facts = {
        "observations": (int(skill.observation["size"]), env.observation_size),
        "observation names": (skill.observation["names"], list(env.observation_names) if env.task else None),
        "lowest actions": (list(skill.action["low"]), [float(x) for x in env.action_low]),
        "highest actions": (list(skill.action["high"]), [float(x) for x in env.action_high]),
        "control period": (skill.control_period, env.control_period),
    }
    for what, (own, wanted) in facts.items():
        if own != wanted:
            raise QomposeError(f"skill {skill.name!r} is of no use on {env.env_id}: its {what}: {own}, there: {wanted}")
