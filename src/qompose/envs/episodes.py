"""Whole episodes of a policy on lock-step environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qompose.envs.lockstep import Lockstep
from qompose.types import Policy, QomposeError

# Steps of an episode where the environment names no limit; what takes longer is taken to last for ever.
LONGEST_EPISODE = 10_000


def run_episodes(
    policy: Policy, env: Lockstep, episodes: int, *, seed: int, on_step: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Run exactly `episodes` episodes, shared out to the lanes beforehand.

    Taking the first to finish would favour short episodes; each lane's share is fixed instead, so the result is a
    function of policy and seed alone. Returned in the order lane, then time.
    Raises QomposeError if the episodes do not end.
    """
    lanes = env.num_envs
    quota = [episodes // lanes + (lane < episodes % lanes) for lane in range(lanes)]
    finished: list[list[dict[str, Any]]] = [[] for _ in range(lanes)]
    observations = env.reset(seed)
    step = 0
    most = 2 * max(quota) * ((env.horizon or LONGEST_EPISODE) + 1)
    while any(len(done) < share for done, share in zip(finished, quota, strict=True)):
        result = env.step(np.asarray(policy(observations, step)))
        observations = result.current
        for episode in result.episodes:
            finished[int(episode["lane"])].append(episode)
        step += 1
        if step > most:
            raise QomposeError(
                f"{env.env_id}: after {step} steps only {sum(map(len, finished))} of {episodes} episodes have ended; "
                "give the environment a time limit, or see why its simulation diverges"
            )
        if on_step is not None:
            on_step(sum(min(len(done), share) for done, share in zip(finished, quota, strict=True)))
    return [episode for done, share in zip(finished, quota, strict=True) for episode in done[:share]]
