"""The problems: models, observations and rewards, written once for every simulator."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import Any

from qompose.tasks.multigoal import MultiGoal
from qompose.tasks.pusher import PUSHERS
from qompose.tasks.task import Task
from qompose.types import QomposeError

__all__ = ["TASKS", "Task", "make_task"]

# Making a task imports no simulator: that happens when its model is asked for.
TASKS: dict[str, functools.partial[Any]] = {**PUSHERS, "MultiGoal": functools.partial(MultiGoal, "MultiGoal")}


def make_task(name: str, /, **options: Any) -> Task:
    """Return the task of that name, with or without its version (`PushLeft` or `PushLeft-v0`).

    Raises QomposeError for an unknown name or an option that the task does not have.
    """
    known = name.removesuffix("-v0")
    if known not in TASKS:
        near = difflib.get_close_matches(known, TASKS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise QomposeError(f"there is no task {name!r}: {hint}the tasks are {', '.join(TASKS)}")
    constructor = TASKS[known]
    fields = [field.name for field in dataclasses.fields(constructor.func) if field.name != "name"]  # type: ignore[arg-type]
    for option in options:
        if option not in fields:
            raise QomposeError(f"{known} has no option {option!r}: its options are {', '.join(fields)}")
    return constructor(**options)
