"""The rewards of a skill's own task for transitions that others have seen."""

from __future__ import annotations

from qompose.skill.artifact import Skill
from qompose.tasks import make_task, task_named
from qompose.tasks.task import Task
from qompose.types import QomposeError


def task_of(skill: Skill) -> Task:
    """The task whose rewards a skill learned: one of qompose's own, since only they can recompute rewards.

    Raises QomposeError, in one line, for any other skill, and for one whose manifest contradicts its task.
    """
    sampler = skill.sampler
    if skill.algorithm != "sql" or skill.composition or sampler is None or sampler.spec["kind"] != "sampler":
        kind = "composed" if skill.composition else f"of {skill.algorithm}"
        raise QomposeError(
            f"skill {skill.name!r} is {kind}; only the rewards of single skills of sql can be computed anew"
        )
    name = task_named(str(skill.task["id"]))
    if name is None:
        raise QomposeError(
            f"skill {skill.name!r} learned {skill.task['id']!r}, whose rewards cannot be computed from stored "
            "transitions; do without them"
        )
    task = make_task(name, **skill.task["options"])
    facts = {
        "observations": (skill.observation["size"], len(task.observation_names)),
        "observation names": (skill.observation["names"] or list(task.observation_names), list(task.observation_names)),
        "actions": (skill.action["size"], task.action_size),
        "terminal states": (skill.terminates, task.terminates),
    }
    for what, (own, expected) in facts.items():
        if own != expected:
            raise QomposeError(
                f"skill {skill.name!r} says that it learned {name}, but its {what} are {own}, not {expected}"
            )
    return task


def has_rewards(skill: Skill) -> bool:
    """Whether the rewards of a skill's task can be computed for transitions of others."""
    try:
        task_of(skill)
    except QomposeError:
        return False
    return True
