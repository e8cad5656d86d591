"""Skills that learn from each other's experience: every critic off-policy on all replays, with its own rewards."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from qompose.skill.algebra import as_network, unite_replays
from qompose.skill.artifact import Skill, check_compatible
from qompose.tasks.task import relabel
from qompose.training.logged import CHUNK, learn_from_log
from qompose.training.rewards import task_of
from qompose.training.start import agent_of, state_of
from qompose.types import QomposeError, Transition


class _Stopped(Exception):
    """Another skill has failed, or the user has interrupted."""


def share_experience(
    skills: Sequence[Skill],
    *,
    updates: int = 20_000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Skill]:
    """Train every skill further, off-policy, on the union of all replays. No environment is touched.

    A sum of critics is followed where none of the skills alone would go, and a critic knows only what its replay
    shows. The union holds what the others have seen; the rewards of each skill's own task are computed from the stored
    observations and actions (the paper reuses the union's states only, Section V-B). The update is that of soft
    Q-learning with its default settings at the skill's temperature and discount, with fresh optimisers; the skills keep
    their own replays. `on_progress(done, total)` counts the updates of all skills. Raises QomposeError for skills that
    are not fresh from soft Q-learning, have lost their replay, or whose task is not one of qompose's, and if the
    learning diverges.
    """
    skills = list(skills)
    check_compatible(skills)
    tasks = [task_of(skill) for skill in skills]
    union = unite_replays(skills)
    done, lock, stop = [0] * len(skills), threading.Lock(), threading.Event()

    def learn(index: int) -> Skill:
        def advance(count: int) -> None:
            if stop.is_set():
                raise _Stopped
            with lock:
                done[index] = count
                if on_progress is not None:
                    on_progress(sum(done), updates * len(skills))

        try:
            return _learn(skills[index], relabel(tasks[index], union), updates, seed, advance)
        except BaseException:
            stop.set()
            raise

    # JAX releases the interpreter while it computes.
    with ThreadPoolExecutor(len(skills)) as pool:
        learning = [pool.submit(learn, index) for index in range(len(skills))]
        try:
            results = [future.exception() for future in learning]
        except BaseException:  # an interrupt comes to this thread: the others end at their next mark
            stop.set()
            raise
    for error in sorted(filter(None, results), key=lambda error: isinstance(error, _Stopped)):
        raise error
    return [future.result() for future in learning]


def _learn(skill: Skill, data: Transition, updates: int, seed: int, advance: Callable[[int], None]) -> Skill:
    agent = dataclasses.replace(agent_of(skill), planned_updates=updates)
    state = state_of(agent, skill)
    marks = [*range(CHUNK, updates, CHUNK), updates]
    for count, latest, figures in learn_from_log(agent, data, marks, seed=seed, state=state):
        if not all(map(math.isfinite, figures.values())):
            raise QomposeError(
                f"skill {skill.name!r} diverged on the shared experience within {count} updates; "
                "give fewer updates, or compose without shared experience"
            )
        state = latest
        advance(count)
    return dataclasses.replace(
        skill,
        critic=as_network(state.critic),
        sampler=as_network(state.sampler),
        provenance={**skill.provenance, "shared_updates": updates},
    )
