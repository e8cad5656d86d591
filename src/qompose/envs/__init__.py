"""The simulators: each written once, for every task."""

from __future__ import annotations

import gymnasium

from qompose.tasks import TASKS

__all__ = ["register"]


def register() -> None:
    """Register every task with Gymnasium as `<Name>-v0`. Doing so twice changes nothing.

    Entry points are strings: no simulator is imported until an environment is made.
    """
    for name, constructor in TASKS.items():
        env_id = f"{name}-v0"
        if env_id in gymnasium.registry:
            continue
        gymnasium.register(
            id=env_id,
            entry_point="qompose.envs.gym:TaskEnv",
            vector_entry_point="qompose.envs.gym:TaskVectorEnv",
            max_episode_steps=constructor.func.horizon,
            kwargs={"task": name},
        )
