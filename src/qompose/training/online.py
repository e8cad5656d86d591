"""One loop for every agent: act in lock-step, log, learn, evaluate, checkpoint.

Everything random is drawn with `fold_in(root, step)`, so a resumed run stores no key.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from qompose import store
from qompose.agents.sql import SQL
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep, Step
from qompose.log import LOG, Log, Place, Record, Sizes
from qompose.run import Run, read_metrics
from qompose.training.interrupt import delayed_interrupt
from qompose.training.learner import EVALUATE, EXPLORE, Form, Learner, Packed, Training, stream
from qompose.training.start import Start
from qompose.types import QomposeError, Transition

REMEMBERED_EPISODES = 10  # as in the paper's Fig. 4
# Figures of an episode that people know by another name.
EVALUATED = {"return": "mean_reward", "length": "mean_ep_length", "success": "success_rate"}


@dataclass
class Progress:
    """What the user watches; handed to `on_progress` after every logged round."""

    step: int
    total: int
    figures: dict[str, float]


@dataclass
class Trained:
    """What a training leaves behind: the agent's state, all experience, and how the work went."""

    state: Any
    transitions: Transition
    episodes: int
    steps: int
    diverged: int
    seconds: float
    evaluations: list[dict[str, Any]]


def explore(agent: Any, state: Any, observations: Array, root: PRNGKeyArray, step: Array) -> Array:
    """Exploring actions of a whole round (lanes, act)."""
    keys = jax.random.split(jax.random.fold_in(root, step), observations.shape[0])
    return jax.vmap(lambda observation, key: agent.act(state, observation, key=key))(observations, keys)


@partial(jax.jit, static_argnames=("agent", "form"))
def choose(agent: Any, form: Form, packed: Packed, observations: Array, root: PRNGKeyArray, step: Array) -> Array:
    """Exploring actions (lanes, act), of a state as `learner.learn` has it."""
    return explore(agent, form.unpack(packed), observations, root, step)


@partial(jax.jit, static_argnames="agent")
def follow(agent: Any, state: Any, observations: Array, root: PRNGKeyArray, step: Array) -> Array:
    """Actions (lanes, act) of the policy that is evaluated and saved: without noise for exploration."""
    keys = jax.random.split(jax.random.fold_in(root, step), observations.shape[0])
    return jax.vmap(lambda observation, key: agent.policy(state, observation, key=key))(observations, keys)


class Loop:
    """The state of a training in progress, and one round of it at a time."""

    def __init__(self, env: Lockstep, agent: Any, options: Training, start: Start | None = None):
        """Fresh networks and an empty replay, or those of `start`; the first observations."""
        self.env, self.agent, self.options = env, agent, options
        sizes = Sizes(env.num_envs, env.observation_size, env.action_size)
        self.learner = Learner(agent, options, sizes, start)
        self.log: Log | None = None
        self.explore_root = stream(options.seed, EXPLORE)
        self.observations = env.reset(options.seed)
        self.episodes = self.diverged = 0
        self.skilled = self.learner.calibrated
        self.recent: deque[dict[str, float]] = deque(maxlen=REMEMBERED_EPISODES)
        self.seconds = 0.0
        self.whole = True  # False within a round, when environment, replay and networks do not fit together

    @property
    def step(self) -> int:
        """Environment steps so far, over all lanes."""
        return self.learner.step

    def advance(self) -> None:
        """One lock-step of all lanes, and the updates that belong to it."""
        actions = self._choose()
        self.learner.judge()
        self.whole = False
        try:
            result = self.env.step(actions)
        except QomposeError:
            # Nothing of this step is stored, and a foreign environment begins anew after a resumption in any case.
            self.whole = self.env.get_state() is None
            raise
        self.observations = result.current
        self.diverged += result.diverged
        self.episodes += len(result.episodes)
        self.recent.extend(result.episodes)
        record = Record(self.step + self.env.num_envs, self.learner.updates, self.episodes, _rows(result))
        if self.log is not None:
            self.log.append(record)
        with store.naming(self.env.env_id):
            self.learner.take(record)
        self.whole = True

    def catch_up(self) -> None:
        """Learn from what the log holds already: of an environment that cannot give it again. New episodes start."""
        if self.log is None:
            return
        for record in self.log.remaining(self.learner.sizes):
            self.episodes = record.episodes
            self.learner.take(record)
            self.learner.judge()
        self.observations = self.env.reset(self.options.seed + self.step)

    def _choose(self) -> np.ndarray:
        if self.step < self.options.warmup_steps and not self.skilled:
            # Numbered by round, so that resumed and uninterrupted runs draw the same.
            rng = np.random.default_rng([self.options.seed, EXPLORE, self.step])
            return rng.uniform(-1.0, 1.0, (self.env.num_envs, self.env.action_size)).astype(np.float32)
        learner, step = self.learner, np.uint32(self.step)
        return np.asarray(choose(self.agent, learner.form, learner.packed, self.observations, self.explore_root, step))

    def summarise(self) -> dict[str, float]:
        """The figures of the moment, under the names people know."""
        self.learner.judge()
        result = {f"train/{name}": float(value) for name, value in self.learner.figures.items()}
        result["time/episodes"] = float(self.episodes)
        if self.learner.rollbacks:
            result["train/rollbacks"] = float(self.learner.rollbacks)
        if self.diverged:
            result["rollout/diverged"] = float(self.diverged)
        for name in sorted(set().union(*self.recent) - {"lane"}):
            label = {"return": "ep_rew_mean", "length": "ep_len_mean", "success": "success_rate"}.get(name, name)
            result[f"rollout/{label}"] = float(np.mean([episode[name] for episode in self.recent if name in episode]))
        return result

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the next round depends on: arrays, and plain facts."""
        arrays, facts = self.learner.save()
        environment = self.env.get_state()
        arrays |= {f"env/{name}": np.asarray(array) for name, array in (environment or {}).items()}
        facts |= {name: getattr(self, name) for name in ("episodes", "diverged", "seconds")}
        facts |= {"recent": [dict(episode) for episode in self.recent], "environment": environment is not None}
        if self.log is not None:
            self.log.sync()  # before a checkpoint speaks of it
            facts["log"] = list(self.log.place)
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bool:
        """Continue from what `save` returned. False if the environment starts new episodes: its state is not known."""
        self.learner.restore(arrays, facts)
        self.episodes, self.diverged = int(facts["episodes"]), int(facts["diverged"])
        self.seconds = float(facts.get("seconds", 0.0))
        self.recent.extend(facts["recent"])
        if facts["environment"]:
            self.observations = self.env.set_state(
                {name.removeprefix("env/"): array for name, array in arrays.items() if name.startswith("env/")}
            )
            return True
        self.observations = self.env.reset(self.options.seed + self.step)
        return False


def train_online(
    env: Lockstep,
    agent: Any = SQL(),  # noqa: B008  (frozen)
    options: Training = Training(),  # noqa: B008
    *,
    start: Start | None = None,
    evaluation_env: Lockstep | None = None,
    run: Run | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_notice: Callable[[str], None] = print,
) -> Trained:
    """Train an agent on an environment, from nothing or from what `start` holds.

    With a run directory the metrics are logged and checkpoints written; `resume` continues the latest one. Raises
    QomposeError if the environment misbehaves or the training diverges again and again; a checkpoint of the last good
    state remains.
    """
    loop = Loop(env, agent, options, start)
    try:
        if run is not None:
            _begin_or_continue(loop, run, resume, on_notice)
        return _train(loop, evaluation_env, run, on_progress)
    finally:
        if loop.log is not None:
            loop.log.close()


def _begin_or_continue(loop: Loop, run: Run, resume: bool, on_notice: Callable[[str], None]) -> None:
    """Open the log; with `resume` go back to the last checkpoint, and from there to the end of the log if need be.

    A simulator whose state is in the checkpoint gives the same transitions again, which the log compares. Those of any
    other environment are not to be had again: they are taken from the log.
    """
    found = run.load(on_notice) if resume else None
    restored = loop.restore(*found[1:]) if found is not None else loop.env.get_state() is not None
    place = None if found is None else found[2].get("log")
    if found is None or place is not None:  # else the run began without a log
        try:
            loop.log = Log(run.directory / LOG, loop.learner.sizes, None if place is None else Place(*place))
        except QomposeError as error:
            if found is None:
                raise
            on_notice(f"{error}; the training goes on from its checkpoint, without a log")
    if not restored:
        loop.catch_up()
    run.forget_after(loop.step)
    if not resume:
        return
    if loop.step == 0:
        on_notice(f"{run.directory} has no checkpoint to resume from; starting from the beginning")
    elif not restored:
        on_notice(f"resumed at step {loop.step}; {loop.env.env_id} cannot restore its state, so new episodes start")
    if loop.step and (moved := run.moved()):
        on_notice(f"resumed on another system, so the bits may differ from an uninterrupted run: {'; '.join(moved)}")


def _train(
    loop: Loop, evaluation_env: Lockstep | None, run: Run | None, on_progress: Callable[[Progress], None] | None
) -> Trained:
    env, options = loop.env, loop.options
    begin, first = time.perf_counter() - loop.seconds, loop.step
    fresh = time.perf_counter()
    evaluations = _past_evaluations(run)

    def every(period: int) -> bool:
        return period > 0 and loop.step // period > (loop.step - env.num_envs) // period

    def checkpoint() -> None:
        try:
            loop.learner.judge()
        finally:
            save()

    def save() -> None:
        loop.seconds = time.perf_counter() - begin
        if run is not None and loop.whole:
            run.save(loop.step, *loop.save())

    def finished() -> bool:
        return loop.step >= options.total_steps

    def report() -> None:
        evaluating = evaluation_env is not None and options.eval_freq and (every(options.eval_freq) or finished())
        if every(options.log_freq) or evaluating or finished():
            figures = loop.summarise()
            if loop.step > first:
                figures["time/fps"] = (loop.step - first) / (time.perf_counter() - fresh)
            if evaluation_env is not None and evaluating:
                figures |= _evaluate(loop, evaluation_env)
                evaluations.append({"step": loop.step, **_only("eval/", figures)})
            if run is not None:
                run.log(loop.step, figures)
            if on_progress is not None:
                on_progress(Progress(loop.step, options.total_steps, figures))

    try:
        if run is not None and first and all(line["step"] != first for line in read_metrics(run.directory)):
            report()  # what is due at this step, if the training was stopped before or while it was done
        while not finished():
            with delayed_interrupt():
                loop.advance()
            report()
            if every(options.save_freq) or finished():
                checkpoint()
    except QomposeError:
        save()  # what came before
        raise
    except KeyboardInterrupt:
        checkpoint()
        saved = f" (step {loop.step} is saved)" if loop.whole else ""
        where = f"; the same command with --resume goes on{saved}" if run is not None else ""
        raise QomposeError(f"interrupted at step {loop.step}{where}") from None
    state, own = loop.learner.state, loop.learner.own()
    return Trained(state, own, loop.episodes, loop.step, loop.diverged, loop.seconds, evaluations)


def _past_evaluations(run: Run | None) -> list[dict[str, Any]]:
    """What a run that is continued has logged so far."""
    lines = [] if run is None else read_metrics(run.directory)
    lines = [{"step": line["step"], **_only("eval/", line)} for line in lines]
    return [line for line in lines if len(line) > 1]


def _evaluate(loop: Loop, env: Lockstep) -> dict[str, float]:
    """Figures of the policy, not of exploration, on fresh episodes; seeds are the same at every evaluation."""
    root, state = stream(loop.options.seed, EVALUATE), loop.learner.state

    def policy(observations: np.ndarray, step: int) -> Any:
        return follow(loop.agent, state, observations, root, np.uint32(step))

    episodes = run_episodes(policy, env, loop.options.eval_episodes, seed=loop.options.seed + 10_000_000)
    names = sorted(set.intersection(*(set(episode) for episode in episodes)) - {"lane"})
    return {f"eval/{EVALUATED.get(name, name)}": float(np.mean([e[name] for e in episodes])) for name in names}


def _rows(result: Step) -> np.ndarray:
    columns = [result.observation, result.action, result.reward[:, None], result.next_observation]
    return np.concatenate([*columns, result.terminated[:, None]], axis=-1, dtype=np.float32)


def _only(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name.startswith(prefix)}
