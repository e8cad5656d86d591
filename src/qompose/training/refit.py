"""Skills that learn on, offline, from what the others have seen, each for its own task: better parts of a composition.

A sum of critics is followed where none of the skills alone would go, and a critic knows only what its replay shows.
The replays of the others show more. Their transitions get the rewards of the skill's own task, as in offline
reinforcement learning of several tasks (Yu et al. 2021), and soft Q-learning goes on as it does online (Haarnoja et
al. 2018, eqs 2 to 4), critic and sampler, without an environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from qompose.agents.sql import SQLState
from qompose.run import command_line, describe_system, now
from qompose.skill.algebra import as_network, unite_replays
from qompose.skill.artifact import Skill, check_compatible
from qompose.tasks.task import relabel
from qompose.training.logged import CHUNK, learn_from_log
from qompose.training.rewards import task_of
from qompose.training.start import agent_of, digest_of, state_of
from qompose.types import QomposeError, Transition, find_misfit

MOST_UPDATES = 10**9


def refit(
    *skills: Skill, updates: int = 20_000, seed: int = 0, on_progress: Callable[[str, int, int], None] | None = None
) -> tuple[Skill, ...]:
    """Train skills further on the union of their replays, before they are composed: `refit(left, bottom)`.

    Each learns its own task with `updates` of critic and sampler, at its own temperature. Returned are new skills in
    the same order, named NAME-refit; each carries its own replay. `on_progress(what, done, total)` is told how far the
    work is. Raises QomposeError for skills that do not fit together, that are composed, not of soft Q-learning or
    without a replay, whose rewards cannot be computed anew (only those of qompose's tasks can), or that diverge.
    """
    if len(skills) < 2:
        raise QomposeError("refit needs at least two skills: each learns from what the others have seen")
    for name, value, least, most in (("updates", updates, 1, MOST_UPDATES), ("seed", seed, 0, 2**32 - 1)):
        if find_misfit("int", value) or not least <= value <= most:
            raise QomposeError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    check_compatible(skills)
    tasks = [task_of(skill) for skill in skills]
    union = unite_replays(skills)
    seen = [{"name": skill.name, "sha256": digest_of(skill)} for skill in skills]
    refitted = []
    for skill, task in zip(skills, tasks, strict=True):
        begin = time.perf_counter()
        tell = partial(on_progress, f"refitting {skill.name}") if on_progress else None
        state = _learn_on(skill, relabel(task, union), updates, seed, tell)
        record = {
            "command": command_line(), "created": now(), "updates": updates, "seed": seed, "skills": seen,
            "seconds": round(time.perf_counter() - begin, 2), "versions": describe_system()["versions"],
        }  # fmt: skip
        refitted.append(replace(
            skill, name=name_refitted(skill), critic=as_network(state.critic), sampler=as_network(state.sampler),
            provenance={**skill.provenance, "refit": record},
        ))  # fmt: skip
    return tuple(refitted)


def _learn_on(
    skill: Skill, data: Transition, updates: int, seed: int, on_progress: Callable[[int, int], None] | None
) -> SQLState:
    """The state of the skill's agent after so many updates on transitions with the skill's own rewards."""
    agent = replace(agent_of(skill), planned_updates=updates)
    state = state_of(agent, skill)
    marks = [*range(CHUNK, updates, CHUNK), updates]
    for done, learned, figures in learn_from_log(agent, data, marks, seed=seed, state=state):
        if not all(map(np.isfinite, figures.values())):
            raise QomposeError(f"skill {skill.name!r} diverged after {done} updates; give fewer, or another seed")
        if on_progress is not None:
            on_progress(done, updates)
        state = learned
    return state


def name_refitted(skill: Skill) -> str:
    """What a skill is called afterwards; names have at most 64 letters."""
    return f"{skill.name[:58]}-refit"
