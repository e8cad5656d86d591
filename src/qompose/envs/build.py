"""From an environment's id to a vector environment that an agent with continuous actions can learn in."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit

from qompose.envs.gym import TaskVectorEnv
from qompose.envs.watchdog import PATIENCE, check_timeout, within
from qompose.tasks import TASKS, make_task, task_named
from qompose.types import QomposeError


def build_vector_env(
    env_id: str, num_envs: int, options: dict[str, Any] | None = None, *, episode_steps: int | None = None,
    patience: float = PATIENCE,
) -> VectorEnv:  # fmt: skip
    """Return the vector environment of a task's name or of any Gymnasium id ("module:Name-v0" imports the module).

    `episode_steps` is the length of an episode of a task; those of another environment are cut if they would last
    longer. A foreign environment has `patience` seconds to be imported, and as many to be made. Raises QomposeError, in
    one line, for an unknown id, options that it does not take, or spaces that are not boxes.
    """
    check_timeout(patience)
    options = options or {}
    name = task_named(env_id)
    if name is not None:
        task = make_task(name, **options)
        return TaskVectorEnv(task, num_envs, episode_steps)
    spec = _find(env_id, patience)
    if spec.entry_point is None and episode_steps is not None:
        raise QomposeError(
            f"{env_id} steps its lanes by itself, so its episodes cannot be cut; leave episode_steps out"
        )
    wrappers = [] if episode_steps is None else [partial(TimeLimit, max_episode_steps=episode_steps)]
    with in_one_line(f"{env_id} cannot be made:"), within(patience):
        if spec.entry_point is None:
            env = gymnasium.make_vec(spec, num_envs, **options)
        else:
            # The checker would print what is checked here anyway, and slows down every step.
            options = {"disable_env_checker": True, **options}
            env = gymnasium.make_vec(spec, num_envs, vectorization_mode="sync", wrappers=wrappers, **options)
    check_spaces(env_id, env)
    return env


def check_spaces(env_id: str, env: VectorEnv) -> tuple[Box, Box]:
    """Return the spaces of one lane's observations and actions: a vector, and a bounded vector of reals.

    Raises QomposeError for any other spaces.
    """
    observation = _vector_box(env_id, "observations", env.single_observation_space)
    action = _vector_box(env_id, "actions", env.single_action_space)
    if not np.issubdtype(action.dtype, np.floating):
        raise QomposeError(f"{env_id}: its actions are {action.dtype}, only real numbers can be learned")
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise QomposeError(f"{env_id}: its actions are unbounded: wrap it so that every action has finite bounds")
    if not (action.low < action.high).all():
        raise QomposeError(f"{env_id}: an action whose lowest and highest value are equal cannot be learned")
    return observation, action


@contextlib.contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Whatever foreign code raises in the block becomes a QomposeError: `what`, and what was raised, on one line.

    Ctrl-C goes through, and so does a QomposeError.
    """
    try:
        yield
    except (QomposeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        try:
            text = " ".join(str(error).split())
        except Exception:  # a class of its own may fail here, too
            text = "which cannot say what it is"
        raise QomposeError(f"{what} {type(error).__name__}: {text}") from error


def _vector_box(env_id: str, kind: str, space: gymnasium.Space) -> Box:
    if not isinstance(space, Box):
        raise QomposeError(f"{env_id}: its {kind} are {type(space).__name__}, only Box can be learned from")
    if len(space.shape) != 1 or space.shape[0] < 1:
        raise QomposeError(f"{env_id}: its {kind} have shape {space.shape}, only vectors can be learned from")
    return space


def _find(env_id: str, patience: float) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module:
        with in_one_line(f"{env_id}: the module {module!r} cannot be imported:"), within(patience):
            importlib.import_module(module)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error:
        near = difflib.get_close_matches(name, [*TASKS, *gymnasium.registry], n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        tasks = ", ".join(TASKS)
        raise QomposeError(f"there is no environment {env_id!r}: {hint}the tasks are {tasks}") from None
