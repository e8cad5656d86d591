"""The problems: models, observations and rewards, written once for every simulator."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import Any

from qompose.tasks.multigoal import MultiGoal
from qompose.tasks.peaks import Peaks
from qompose.tasks.pusher import PUSHERS
from qompose.tasks.reaching import SawyerReach, SawyerReachRandom
from qompose.tasks.stacking import SawyerAvoid, SawyerStack, SawyerStackAvoid
from qompose.tasks.task import Task
from qompose.types import QomposeError, as_plain, find_misfit, show

__all__ = ["TASKS", "Task", "make_task", "task_named"]

# Making a task imports no simulator: that happens when its model is asked for.
TASKS: dict[str, functools.partial[Any]] = {
    **PUSHERS,
    **{
        task.__name__: functools.partial(task, task.__name__)
        for task in (MultiGoal, Peaks, SawyerReach, SawyerReachRandom, SawyerStack, SawyerAvoid, SawyerStackAvoid)
    },
}


def task_named(env_id: str) -> str | None:
    """Return the name of the task that an environment's id stands for (`qompose:PushLeft-v0`), None for any other.

    Raises QomposeError for what is no id.
    """
    if not isinstance(env_id, str):
        raise QomposeError(f"env is {show(env_id)}; give the id of an environment")
    name = env_id.removeprefix("qompose:").removesuffix("-v0")
    return name if name in TASKS else None


def make_task(name: str, /, **options: Any) -> Task:
    """Return the task of that name, with or without its version (`PushLeft` or `PushLeft-v0`).

    Raises QomposeError for an unknown name, an option that the task does not have, or a value of the wrong kind.
    """
    known = name.removesuffix("-v0")
    if known not in TASKS:
        near = difflib.get_close_matches(known, TASKS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise QomposeError(f"there is no task {name!r}: {hint}the tasks are {', '.join(TASKS)}")
    constructor = TASKS[known]
    fields = {field.name: str(field.type) for field in dataclasses.fields(constructor.func) if field.name != "name"}  # type: ignore[arg-type]
    for option, value in options.items():
        if option not in fields:
            raise QomposeError(f"{known} has no option {option!r}: its options are {', '.join(fields)}")
        # Values come from command lines and from the skills of others.
        wanted = find_misfit(fields[option], value)
        if wanted is not None:
            raise QomposeError(f"{known}: {option}={show(value)}: give {wanted}")
    return constructor(**{option: as_plain(value) for option, value in options.items()})
