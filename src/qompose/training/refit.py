"""Skills that learn on, offline, from what the others have seen, each for its own task: better parts of a composition.

A sum of critics is followed where none of the skills alone would go, and a critic knows only what its replay shows.
The replays of the others show more. Their transitions get the rewards of the skill's own task, and soft Q-learning goes
on: the critic and the policy of Haarnoja et al. 2018, eqs 2 to 4, the sampler of Haarnoja et al. 2017, eqs 13 and 14.

Differs from what is known of sharing data between offline tasks (Yu et al. 2021, Conservative Data Sharing): all
transitions are shared, and nothing makes the critic cautious about actions that no replay holds. It may overestimate.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

import numpy as np

from qompose.agents.sql import SQL, SQLState
from qompose.run import command_line, describe_system, now, plain
from qompose.skill.algebra import as_network, unite_replays
from qompose.skill.artifact import Skill, check_compatible
from qompose.tasks.task import Task, relabel
from qompose.training.learner import LARGEST_LOSS
from qompose.training.logged import CHUNK, learn_from_log
from qompose.training.rewards import task_of
from qompose.training.start import agent_of, digest_of, state_of
from qompose.types import QomposeError, Transition, find_misfit

MOST_UPDATES = 10**9


def refit(
    *skills: Skill,
    updates: int = 20_000,
    learning_rate: float = 1e-3,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Skill, ...]:
    """Let each skill learn on, for its own task, from the replays of all, before they are composed: `refit(a, b)`.

    `updates` of critic and sampler each, at the skill's temperature and discount and with SQL's other defaults: fresh
    optimisers, rates that begin at `learning_rate` and fall once more. Only rewards are computed anew; where an
    action leads is taken as it was seen, so that all skills must come from the same physics. All draw the same
    transitions and noise. Returned are new skills in the same order, named NAME-refit, each with its own replay. They
    learn side by side, in a thread each: `on_progress(name, done, total)` is told from there how far one is. Raises
    QomposeError for no skill, impossible numbers, skills that do not fit together, that are composed, not of soft
    Q-learning or without a replay, tasks whose rewards cannot be computed anew (only those of qompose can), and for a
    skill that diverges.
    """
    for name, value, least, most in (("updates", updates, 1, MOST_UPDATES), ("seed", seed, 0, 2**32 - 1)):
        if find_misfit("int", value) or not least <= value <= most:
            raise QomposeError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    check_compatible(skills)
    tasks = [task_of(skill) for skill in skills]
    union = unite_replays(skills)
    seen = [{"name": skill.name, "sha256": digest_of(skill)} for skill in skills]
    rates = {"learning_rate": learning_rate, "sampler_learning_rate": learning_rate}
    agents = [replace(agent_of(skill), planned_updates=updates, **rates) for skill in skills]
    stop = threading.Event()

    def learn_on(skill: Skill, agent: SQL, task: Task, name: str) -> Skill:
        if stop.is_set():
            return skill
        begin = time.perf_counter()
        tell = partial(on_progress, name) if on_progress else None
        state = _learn_on(agent, skill, relabel(task, union), seed, stop, tell)
        record = {
            "command": command_line(), "created": now(), "updates": updates, "seed": seed, "skills": seen,
            "hyperparameters": plain(agent), "seconds": round(time.perf_counter() - begin, 2),
            "versions": describe_system()["versions"],
        }  # fmt: skip
        earlier = {key: value for key, value in skill.provenance.items() if key != "results"}  # of other networks
        return replace(
            skill, name=name, critic=as_network(state.critic), sampler=as_network(state.sampler),
            provenance={**earlier, "refit": record},
        )  # fmt: skip

    # One update keeps one core busy; a thread for each skill takes them all.
    with ThreadPoolExecutor(min(len(skills), os.cpu_count() or 1)) as pool:
        try:
            work = zip(skills, agents, tasks, name_refitted(skills), strict=True)
            learning = [pool.submit(learn_on, *one) for one in work]
            wait(learning, return_when=FIRST_EXCEPTION)
        finally:  # where one failed, nobody waits for the others
            stop.set()
        return tuple(one.result() for one in learning)


def name_refitted(skills: Sequence[Skill]) -> list[str]:
    """What the skills are called afterwards: no two alike, at most 64 letters each."""
    names: list[str] = []
    for skill in skills:
        plain_name = f"{skill.name[:54]}-refit"
        numbered = (f"{plain_name}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([plain_name], numbered) if name not in names))
    return names


def _learn_on(
    agent: SQL,
    skill: Skill,
    data: Transition,
    seed: int,
    stop: threading.Event,
    on_progress: Callable[[int, int], None] | None,
) -> SQLState:
    """The state of the agent, begun with the skill, after its planned updates on data with the skill's own rewards."""
    state, updates = state_of(agent, skill), agent.planned_updates or 0
    marks = [*range(CHUNK, updates, CHUNK), updates]
    for done, learned, figures in learn_from_log(agent, data, marks, seed=seed, state=state):
        if not all(map(np.isfinite, figures.values())) or figures["critic_loss"] > LARGEST_LOSS:
            raise QomposeError(f"skill {skill.name!r} diverged after {done} updates; give fewer, or another seed")
        if on_progress is not None:
            on_progress(done, updates)
        state = learned
        if stop.is_set():
            break
    return state
