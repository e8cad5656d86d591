"""One training of one yardstick, in the environment that has its library: qompose, Stable-Baselines3 or SBX.

    python -m benchmarks.yardstick_run train ENTRANT TASK SEED TOTAL_STEPS FILE
    python -m benchmarks.yardstick_run serve ENTRANT ID
    python -m benchmarks.yardstick_run in PYTHON ...

`benchmarks.yardsticks` starts it; an entrant is a word such as sb3-sac-2. `in` becomes the same process of another
interpreter. The clock, the episodes that judge, and the file are the same lines for all: only the learners differ.
No JAX and no PyTorch is imported before a learner needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import qompose
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.store import write_json
from qompose.tasks import make_task
from qompose.types import Policy

ROOT = Path(__file__).resolve().parent.parent
# What all entrants share. The rest is the default of each library.
HIDDEN, BATCH, WARMUP, NOISE = (128, 128), 64, 1000, 0.2
DISCOUNT, DISCOUNTS = 0.99, {"SawyerReach": 0.95}  # that of Fig. 4
EVALUATIONS, CLOSEST = 30, 500  # judged so many times in a training, but not more often than every so many steps
EPISODES, FINAL_EPISODES, LANES = 50, 100, 50
FOREIGN = ("stable-baselines3", "sbx-rl", "torch", "flax")
# Soft Q-learning with fewer particles, as an algorithm of entrants: do they suffice?
FEWER = {
    name: {"value_particles": 2 * n, "fit_particles": n, "fixed_particles": n, "updated_particles": n}
    for name, n in {"halfsql": 4, "quartersql": 2}.items()
}
SHARES = {"halfsql": "half the particles", "quartersql": "a quarter of the particles"}
LIBRARIES = {"qompose": "qompose", "sb3": "SB3", "sbx": "SBX"}


@dataclass(frozen=True)
class Entrant:
    """A library's algorithm, and how many updates it takes for each environment step."""

    library: str
    algorithm: str
    updates: int

    @staticmethod
    def parse(name: str) -> Entrant:
        library, algorithm, updates = name.split("-")
        return Entrant(library, algorithm, int(updates))

    @property
    def foreign(self) -> bool:
        """Whether it needs the other environment."""
        return self.library != "qompose"

    @property
    def label(self) -> str:
        """For people, without the updates."""
        if self.algorithm in FEWER:
            return f"{LIBRARIES[self.library]} SQL, {SHARES[self.algorithm]}"
        return f"{LIBRARIES[self.library]} {self.algorithm.upper()}"


@dataclass(frozen=True)
class Case:
    """An entrant, what it learns, from which seed, and for how long."""

    entrant: str
    task: str
    seed: int
    total_steps: int


class Ours:
    """A learner of qompose: the loop of `qompose train`, without checkpoints."""

    def __init__(self, entrant: Entrant, env_id: str, seed: int, total_steps: int | None, episode_steps: int | None):
        from qompose.training.online import EVALUATE, Loop, Training, stream
        from qompose.training.session import ALGORITHMS

        lanes = 1 if total_steps is None else Training.num_envs  # without an end: to measure the speed of single steps
        options = Training(
            total_steps=total_steps or 100_000, seed=seed, num_envs=lanes, warmup_steps=WARMUP,
            updates_per_step=entrant.updates,
        )  # fmt: skip
        planned = None if total_steps is None else entrant.updates * (total_steps - WARMUP)
        agent = ALGORITHMS["sql" if entrant.algorithm in FEWER else entrant.algorithm](
            hidden=HIDDEN, batch_size=BATCH, planned_updates=planned, discount=discount_of(env_id),
            **FEWER.get(entrant.algorithm, {}),
        )  # fmt: skip
        self.env = Lockstep.make(env_id, lanes, episode_steps=episode_steps)
        self.loop = Loop(self.env, agent, options)
        self._root = stream(seed, EVALUATE)

    @property
    def step(self) -> int:
        return self.loop.step

    def advance(self, until: int) -> None:
        """Act, store and learn up to a step, and wait for the last update."""
        import jax

        while self.loop.step < until:
            self.loop.advance()
        jax.block_until_ready(self.loop.learner.packed)

    def policy(self) -> Policy:
        """What is judged: without noise for exploration, but as random as the policy of soft Q-learning is."""
        from qompose.training.online import follow

        agent, state, root = self.loop.agent, self.loop.learner.state, self._root
        return lambda observations, step: follow(agent, state, observations, root, np.uint32(step))

    def best(self, seed: int) -> Policy | None:
        """Of soft Q-learning: the candidate of highest Q, as a saved skill acts."""
        from qompose.evaluation import skill_policy
        from qompose.training.export import describe_skill, export_skill
        from qompose.training.online import Trained

        loop = self.loop
        if loop.agent.algorithm != "sql":
            return None
        fields = describe_skill("yardstick", self.env, loop.agent, loop.options, {})
        state, experience = loop.learner.state, loop.learner.experience()
        trained = Trained(state, experience, loop.episodes, loop.step, loop.diverged, 0.0, [])
        return skill_policy(export_skill(fields, trained), "best", seed)


class Theirs:
    """A learner of Stable-Baselines3 or SBX, which have the same interface."""

    def __init__(self, entrant: Entrant, env_id: str, seed: int, total_steps: int | None, episode_steps: int | None):
        import torch
        from stable_baselines3.common.logger import Logger
        from stable_baselines3.common.noise import NormalActionNoise

        torch.set_num_threads(1)
        if entrant.library == "sb3":
            import stable_baselines3 as library
        else:
            import sbx as library

        env = gymnasium.make(env_id, max_episode_steps=episode_steps, disable_env_checker=True)
        (size,) = env.action_space.shape  # type: ignore[misc]
        noise = {}
        if entrant.algorithm == "ddpg":  # by default it has none, and would not explore
            noise = {"action_noise": NormalActionNoise(np.zeros(size), np.full(size, NOISE))}
        self.model = getattr(library, entrant.algorithm.upper())(
            "MlpPolicy", env, seed=seed, batch_size=BATCH, learning_starts=WARMUP, train_freq=1,
            gamma=discount_of(env_id), gradient_steps=entrant.updates, buffer_size=total_steps or 100_000,
            policy_kwargs={"net_arch": list(HIDDEN)}, device="cpu", **noise,
        )  # fmt: skip
        self.model.set_logger(Logger(None, []))  # else every call of `learn` leaves an empty folder in /tmp

    @property
    def step(self) -> int:
        return self.model.num_timesteps

    def advance(self, until: int) -> None:
        """Act, store and learn up to a step; episodes go on where the last call left them."""
        self.model.learn(until - self.step, reset_num_timesteps=False)

    def policy(self) -> Policy:
        """What is judged: without noise for exploration; of SAC the middle of its distribution."""
        return lambda observations, step: self.model.predict(observations, deterministic=True)[0]

    def best(self, seed: int) -> None:
        """There is no other way to act."""


def discount_of(env_id: str) -> float:
    return DISCOUNTS.get(env_id.removesuffix("-v0"), DISCOUNT)


def make_learner(entrant: Entrant, env_id: str, seed: int, total_steps: int | None, cut: int | None) -> Ours | Theirs:
    learner = Theirs if entrant.foreign else Ours
    return learner(entrant, env_id, seed, total_steps, cut)


def distances(policy: Policy, env: Lockstep, episodes: int, seed: int) -> np.ndarray:
    """Final distance to the goal (m) in each episode: the same starts for every policy."""
    return np.array([episode["distance"] for episode in run_episodes(policy, env, episodes, seed=seed)])


def train(case: Case, file: Path) -> None:
    """Train, judge at intervals and at the end, and write what was found.

    Seconds are those of the processor, beside those of the clock; both stand still while a policy is judged.
    """
    metrics = file.parent / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text("", encoding="utf-8")  # an earlier run that was interrupted counts for nothing
    env_id, horizon = f"{case.task}-v0", make_task(case.task).training_horizon
    judge = Lockstep.make(env_id, LANES)
    begin = _times()
    learner = make_learner(Entrant.parse(case.entrant), env_id, case.seed, case.total_steps, horizon)
    spent = _times() - begin
    curve: list[dict[str, float]] = []
    count = max(1, min(EVALUATIONS, case.total_steps // CLOSEST))
    for index in range(count):
        begin = _times()
        learner.advance(case.total_steps * (index + 1) // count)
        spent += _times() - begin
        distance = float(distances(learner.policy(), judge, EPISODES, 1000 + case.seed).mean())
        seconds, clock = spent.round(2).tolist()
        curve.append({"step": learner.step, "seconds": seconds, "clock": clock, "distance": round(distance, 4)})
        with open(metrics, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(curve[-1]) + "\n")
    final = {}
    for name, policy in (("policy", learner.policy()), ("best", learner.best(case.seed))):
        if policy is None:
            continue
        values = distances(policy, judge, FINAL_EPISODES, 2000 + case.seed)
        final[name] = {"mean": float(values.mean()), "std": float(values.std()), "median": float(np.median(values))}
    write_json(file, {**asdict(case), "curve": curve, "final": final, "system": describe()})


def _times() -> np.ndarray:
    """Of the processor and of the clock (s)."""
    return np.array([time.process_time(), time.perf_counter()])


def serve(entrant: str, env_id: str) -> None:
    """Learn as many steps as each line of standard input says; answer with seconds of processor and clock."""
    learner = make_learner(Entrant.parse(entrant), env_id, 0, None, None)
    learner.advance(WARMUP + 200)  # everything is compiled
    print("ready", flush=True)
    for line in sys.stdin:
        busy, begin = time.process_time(), time.perf_counter()
        learner.advance(learner.step + int(line))
        print(time.process_time() - busy, time.perf_counter() - begin, flush=True)


def describe() -> dict[str, Any]:
    """What this process ran on, the versions of the foreign libraries included if they are here."""
    from benchmarks import machine

    system = machine.describe(FOREIGN)
    system["versions"]["qompose"] = qompose.__version__  # where it is not installed, its folder is on the path
    return system


def enter(python: str, words: list[str]) -> None:
    """Become a process of another environment, on the same core, which finds this qompose and nothing else of ours."""
    path = os.pathsep.join(str(folder) for folder in (ROOT / "src", ROOT))
    os.execve(python, [python, "-m", "benchmarks.yardstick_run", *words], {**os.environ, "PYTHONPATH": path})


def main(words: list[str]) -> None:
    what, *rest = words
    if what == "in":
        enter(rest[0], rest[1:])
    if what == "serve":
        serve(*rest)
        return
    entrant, task, seed, total_steps, file = rest
    train(Case(entrant, task, int(seed), int(total_steps)), Path(file))


if __name__ == "__main__":
    main(sys.argv[1:])
