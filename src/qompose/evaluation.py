"""Episodes in, numbers out: a policy run for a fixed number of episodes on lock-step environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.envs.watchdog import PATIENCE
from qompose.skill.artifact import Skill, check_skills
from qompose.tasks import task_named
from qompose.types import Policy, QomposeError, check_options, find_misfit, show

# More lanes than this gain nothing: the networks' cost per observation no longer falls. Somebody else's environment may
# take long to be made: as many of it as a training has by default.
LANES, FOREIGN_LANES = 50, 8


@dataclass(frozen=True)
class Evaluation:
    """What happened in each episode, in a fixed order, and the figures people compare."""

    env: str
    episodes: list[dict[str, float]] = field(repr=False)
    mode: str = "sample"
    seed: int = 0

    def values(self, name: str) -> np.ndarray:
        """One figure of every episode (episodes,): `return`, `length`, `success`, `distance` (m), `puck_x` (m), ...

        Raises QomposeError for a figure that not every episode has, with those there are.
        """
        if not all(name in episode for episode in self.episodes):
            raise QomposeError(f"not every episode has {show(name)}; all have {', '.join(self._shared())}")
        return np.array([episode[name] for episode in self.episodes], dtype=np.float64)

    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation (over episodes) and median of every figure, ready for JSON."""
        result: dict[str, Any] = {
            "env": self.env, "mode": self.mode, "seed": self.seed, "episodes": len(self.episodes),
        }  # fmt: skip
        for name in self._shared():
            values = self.values(name)
            result[name] = {
                "mean": float(values.mean()), "std": float(values.std()), "median": float(np.median(values)),
            }  # fmt: skip
        return result

    def _shared(self) -> list[str]:
        return sorted(set.intersection(*(set(episode) for episode in self.episodes)) - {"lane"})


def skill_policy(skill: Skill, mode: str, seed: int) -> Policy:
    """The skill's NumPy acting path as a policy of a batch of observations. Raises QomposeError for a bad seed."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise QomposeError(f"seed is {seed}; it must be from 0 to 2**63 - 1 and whole")
    rng = np.random.default_rng(seed)
    return lambda observations, step: skill.act(observations, mode=mode, rng=rng)


def choose_task(skill: Skill, env: str | None, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The environment to run a skill in, and its options: by default those it was trained with.

    A skill may come from a stranger, so an id that would import a module counts only if the caller gives it. Raises
    QomposeError if the skill alone does not say where to run.
    """
    check_skills([skill])
    options = check_options(options)
    if env is not None:
        return env, options
    if skill.composition is not None:
        raise QomposeError(f"skill {skill.name!r} is composed and has no task of its own; give one as env (--env)")
    home = str(skill.task["id"])
    if ":" in home.removeprefix("qompose:"):
        raise QomposeError(
            f"skill {skill.name!r} names the environment {home!r}; say so with env if you trust its module"
        )
    if skill.task["options"] and task_named(home) is None:
        raise QomposeError(
            f"skill {skill.name!r} gives options to the environment {home!r}, which may read files by them; say env "
            "and its options yourself if you trust it"
        )
    return home, {**skill.task["options"], **options}


def evaluate(
    skill: Skill,
    env: str | None = None,
    episodes: int = 100,
    *,
    mode: str = "sample",
    seed: int = 0,
    options: dict[str, Any] | None = None,
    episode_steps: int | None = None,
    env_timeout: float = PATIENCE,
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run a skill, by default on the task it was trained for.

    `mode` is how it acts: `sample` (one draw of the policy), `resample` (importance resampling, exact for the skill's Q
    as the candidates grow) or `best` (the candidate of highest Q: a heuristic). `episode_steps`: of an episode, those
    of the environment unless given; episodes of a foreign one are only cut. `env_timeout`: seconds that a foreign
    environment may take to be made, and as long for one step of all lanes. `on_step` is told how many episodes are
    done. Raises QomposeError for an unknown environment or one whose spaces, observations or action limits are not the
    skill's.
    """
    if not isinstance(episodes, Integral) or episodes < 1:
        raise QomposeError(f"episodes is {show(episodes)}; it must be at least 1 and whole")
    if episode_steps is not None and (find_misfit("int", episode_steps) or episode_steps < 1):
        raise QomposeError(f"episode_steps is {show(episode_steps)}; it must be at least 1 and whole")
    env, options = choose_task(skill, env, options)
    policy = skill_policy(skill, mode, seed)
    lanes = min(episodes, FOREIGN_LANES if task_named(env) is None else LANES)
    lockstep = Lockstep.make(env, lanes, options, episode_steps=episode_steps, patience=env_timeout)
    try:
        check_spaces(skill, lockstep)
        return Evaluation(env, run_episodes(policy, lockstep, episodes, seed=seed, on_step=on_step), mode, seed)
    finally:
        lockstep.close()


def check_spaces(skill: Skill, env: Lockstep) -> None:
    """Refuse an environment that the skill cannot act in, with the reason."""
    pairs = {
        "observations": (int(skill.observation["size"]), env.observation_size),
        "actions": (int(skill.action["size"]), env.action_size),
    }
    for what, (mine, theirs) in pairs.items():
        if mine != theirs:
            raise QomposeError(f"skill {skill.name!r} has {mine} {what}, the environment {theirs}; use another one")
    names = skill.observation["names"]
    if env.task is not None and names is not None:
        for own, there in zip(names, env.observation_names, strict=True):
            if own != there:
                raise QomposeError(f"skill {skill.name!r} observes {own}, the environment {there}; use another one")
    for what, there in (("low", env.action_low.tolist()), ("high", env.action_high.tolist())):
        own = list(skill.action[what])
        if own != there:
            raise QomposeError(f"skill {skill.name!r} acts to {own}, the environment to {there}; use another one")
