"""One loop for every agent: act in lock-step, store, update, evaluate, checkpoint.

Everything random is drawn with `fold_in(root, step)`, so a resumed run stores no key. Updates run in compiled calls of
one round each: the round's transitions go in, all of its updates come out, and nothing is compiled twice.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from qompose.agents.sql import SQL
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep, Step
from qompose.replay import Replay, init_replay, unpack
from qompose.run import Run, name_leaves, read_metrics, restore_leaves
from qompose.training.interrupt import delayed_interrupt
from qompose.training.start import Start, join
from qompose.types import QomposeError, Transition, check_kinds

# Streams of randomness that must never meet: each is folded into the seed's key before the step is.
INIT, EXPLORE, LEARN, EVALUATE = range(4)
REMEMBERED_EPISODES = 20
# ½ (Q − y)² in the network's own units: at an error of a million units float32 no longer tells one unit from two.
LARGEST_LOSS = 1e12
# Rounds of updates taken back before the training stops: one after the other, and in all.
MOST_ROLLBACKS_IN_A_ROW, MOST_ROLLBACKS = 3, 20
LARGEST_SEED = 2**32 - 1  # JAX would drop what is above, and two seeds would give the same networks


@dataclass(frozen=True)
class Training:
    """How long and how often, for any agent."""

    total_steps: int = 60_000
    """Environment steps, over all lanes."""
    seed: int = 0
    """Seed of everything random."""
    num_envs: int = 8
    """Environments stepped in lock-step."""
    warmup_steps: int = 1_000
    """Steps before the first update: with uniform actions, or those of the skill that the training starts from."""
    updates_per_step: int = 2
    """Gradient updates for each environment step."""
    replay_size: int = 1_000_000
    """Transitions kept; the oldest are overwritten."""
    eval_freq: int = 10_000
    """Steps between evaluations; 0 for none."""
    eval_episodes: int = 20
    """Episodes of each evaluation."""
    save_freq: int = 10_000
    """Steps between checkpoints; 0 for one at the end only."""
    episode_steps: int | None = None
    """Steps after which an episode of the training is cut, if sooner than its end; None: as the task prefers."""
    log_freq: int = 1_000
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_kinds(self)
        for name in ("total_steps", "num_envs", "warmup_steps", "updates_per_step", "replay_size", "log_freq"):
            if getattr(self, name) < 1:
                raise QomposeError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.episode_steps is not None and self.episode_steps < 1:
            raise QomposeError(f"episode_steps is {self.episode_steps}; it must be at least 1")
        for name in ("seed", "eval_freq", "eval_episodes", "save_freq"):
            if getattr(self, name) < 0:
                raise QomposeError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.seed > LARGEST_SEED:
            raise QomposeError(f"seed is {self.seed}; it must be at most {LARGEST_SEED}")
        if self.eval_freq and not self.eval_episodes:
            raise QomposeError("eval_episodes is 0; give at least 1, or eval_freq 0 for no evaluation")
        if self.warmup_steps >= self.total_steps:
            raise QomposeError(
                f"warmup_steps is {self.warmup_steps}, so {self.total_steps} steps leave nothing to learn; "
                "lower it or raise total_steps"
            )


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


def stream(seed: int, purpose: int) -> PRNGKeyArray:
    """The root key of one purpose."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


@partial(jax.jit, static_argnames=("agent", "observation_size", "action_size"))
def init(agent: Any, observation_size: int, action_size: int, key: PRNGKeyArray) -> Any:
    """A fresh state of the agent."""
    return agent.init(observation_size, action_size, key=key)


@partial(jax.jit, static_argnames="agent")
def explore(agent: Any, state: Any, observations: Array, root: PRNGKeyArray, step: Array) -> Array:
    """Exploring actions of a whole round (lanes, act)."""
    keys = jax.random.split(jax.random.fold_in(root, step), observations.shape[0])
    return jax.vmap(lambda observation, key: agent.act(state, observation, key=key))(observations, keys)


@partial(jax.jit, static_argnames="agent")
def follow(agent: Any, state: Any, observations: Array, root: PRNGKeyArray, step: Array) -> Array:
    """Actions (lanes, act) of the policy that is evaluated and saved: without noise for exploration."""
    keys = jax.random.split(jax.random.fold_in(root, step), observations.shape[0])
    return jax.vmap(lambda observation, key: agent.policy(state, observation, key=key))(observations, keys)


@partial(jax.jit, static_argnames=("agent", "updates"), donate_argnames=("state", "replay"))
def learn(
    agent: Any, updates: int, state: Any, replay: Replay, new: Transition, root: PRNGKeyArray, step: Array
) -> tuple[Any, Replay, dict[str, Array]]:
    """Store a round of transitions, then take `updates` gradient steps; the figures are means over them.

    A round that diverges gives back the state from before it, and figures that say `rejected`.
    """
    replay, before = replay.add(new), state

    def body(state: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, replay.sample(agent.batch_size, key=batch_key), key=update_key)

    state, figures = jax.lax.scan(body, state, jax.random.split(jax.random.fold_in(root, step), updates))
    good = _finite((state, figures)) & (jnp.max(figures["critic_loss"]) <= LARGEST_LOSS)
    state = jax.tree.map(lambda old, new: jnp.where(good, new, old), before, state)
    return state, replay, {name: jnp.mean(value) for name, value in figures.items()} | {"rejected": ~good}


def _finite(tree: Any) -> Array:
    """Whether every real number of a tree is finite."""
    parts = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack(parts))


store = jax.jit(lambda replay, new: replay.add(new), donate_argnums=0)
calibrate = jax.jit(lambda agent, state, data: agent.calibrate(state, data), static_argnums=0, donate_argnums=1)


class Loop:
    """The state of a training in progress, and one round of it at a time."""

    def __init__(self, env: Lockstep, agent: Any, options: Training, start: Start | None = None):
        """Fresh networks and an empty replay, or those of `start`; the first observations."""
        self.env, self.agent, self.options = env, agent, options
        state, own, borrowed = start or Start()
        earlier = join([part for part in (borrowed, own) if part is not None])
        count = 0 if earlier is None else len(earlier.reward)
        spare = count % env.num_envs  # a round goes into the replay as one slice: it must begin at a multiple of it
        self.borrowed = max(0 if borrowed is None else len(borrowed.reward) - spare, 0)
        self.replay = _init_replay(env, options, count)
        if earlier is not None:
            self.replay = self.replay.fill(Transition(*(column[spare:] for column in earlier)))
            self.borrowed = max(self.borrowed - max(count - spare - self.replay.capacity, 0), 0)
        if state is None:
            self.state = init(agent, env.observation_size, env.action_size, stream(options.seed, INIT))
        else:
            self.state = jax.tree.map(jnp.copy, state)  # updates take the memory over
        self.explore_root, self.learn_root = stream(options.seed, EXPLORE), stream(options.seed, LEARN)
        self.observations = env.reset(options.seed)
        self.pending = np.zeros((0, self.replay.rows.shape[1]), np.float32)
        self.step = self.stored = self.episodes = self.diverged = 0
        self.skilled = self.calibrated = state is not None
        self.recent: deque[dict[str, float]] = deque(maxlen=REMEMBERED_EPISODES)
        self.figures: dict[str, Array] = {}  # of the last round of updates that was kept
        self.latest: dict[str, Array] | None = None  # of a round that nobody has looked at yet
        self.rollbacks = self.in_a_row = 0
        self.seconds = 0.0
        self.whole = True  # False within a round, when environment, replay and networks do not fit together

    def advance(self) -> None:
        """One lock-step of all lanes, and the updates that belong to it."""
        actions = self._choose()
        self.judge()
        self.whole = False
        try:
            result = self.env.step(actions)
        except QomposeError:
            # Nothing of this step is stored, and a foreign environment begins anew after a resumption in any case.
            self.whole = self.env.get_state() is None
            raise
        self.step += self.env.num_envs
        self.observations = result.current
        self.diverged += result.diverged
        self.episodes += len(result.episodes)
        self.recent.extend(result.episodes)
        self.pending = np.concatenate([self.pending, _rows(result)])
        while len(self.pending) >= self.env.num_envs:
            rows, self.pending = self.pending[: self.env.num_envs], self.pending[self.env.num_envs :]
            self._take(unpack(rows, self.env.observation_size, self.env.action_size))
        self.whole = True

    def _choose(self) -> np.ndarray:
        if self.step < self.options.warmup_steps and not self.skilled:
            # Numbered by round, so that resumed and uninterrupted runs draw the same.
            rng = np.random.default_rng([self.options.seed, EXPLORE, self.step])
            return rng.uniform(-1.0, 1.0, (self.env.num_envs, self.env.action_size)).astype(np.float32)
        return np.asarray(explore(self.agent, self.state, self.observations, self.explore_root, np.uint32(self.step)))

    def _take(self, new: Transition) -> None:
        """Store one full round; learn from it once the warm-up is over."""
        self.stored += self.env.num_envs
        if self.stored < self.options.warmup_steps:
            self.replay = store(self.replay, new)
            return
        if not self.calibrated:
            self.replay = store(self.replay, new)
            self.state = calibrate(self.agent, self.state, self.experience())
            if not bool(_finite(self.state)):
                raise QomposeError(f"{self.env.env_id}: what the warm-up saw is too large for float32; scale it down")
            self.calibrated = True
            return
        updates = self.env.num_envs * self.options.updates_per_step
        self.state, self.replay, self.latest = learn(
            self.agent, updates, self.state, self.replay, new, self.learn_root, np.uint32(self.stored)
        )

    def experience(self) -> Transition:
        """All transitions held, oldest first where nothing was overwritten, as NumPy arrays."""
        rows = np.asarray(self.replay.rows)[: int(self.replay.size)]
        return unpack(rows, self.env.observation_size, self.env.action_size)

    def own(self) -> Transition:
        """The experience without what was borrowed and is still there: the oldest, so that it is overwritten first."""
        rows = self.experience()
        overwritten = max(int(self.replay.inserted) - self.replay.capacity, 0)
        kept = np.ones(len(rows.reward), bool)
        kept[min(overwritten, self.borrowed) : self.borrowed] = False
        return Transition(*(column[kept] for column in rows))

    def judge(self) -> None:
        """Count the last round of updates if it was taken back; raises QomposeError if that happens again and again.

        After `_choose`, whose actions needed the same round, looking costs no waiting.
        """
        if self.latest is None:
            return
        figures, self.latest = self.latest, None
        if not bool(figures.pop("rejected")):
            self.figures, self.in_a_row = figures, 0
            return
        self.rollbacks, self.in_a_row = self.rollbacks + 1, self.in_a_row + 1
        if self.in_a_row >= MOST_ROLLBACKS_IN_A_ROW or self.rollbacks >= MOST_ROLLBACKS:
            bad = [name for name, value in figures.items() if not np.isfinite(value)]
            if not bad and float(figures["critic_loss"]) > LARGEST_LOSS:
                bad = ["critic_loss"]
            where = ", ".join(f"train/{name}" for name in bad) or "the networks"
            often = f"{self.in_a_row} times in a row" if self.in_a_row > 1 else f"{self.rollbacks} times"
            self.in_a_row = 0
            raise QomposeError(
                f"training diverged: {where} not finite or too large at step {self.step}, {often}, each taken back; "
                f"lower --learning-rate{' or raise --temperature' if isinstance(self.agent, SQL) else ''}"
            )

    def summarise(self) -> dict[str, float]:
        """The figures of the moment, under the names people know."""
        self.judge()
        result = {f"train/{name}": float(value) for name, value in self.figures.items()}
        result["time/episodes"] = float(self.episodes)
        if self.rollbacks:
            result["train/rollbacks"] = float(self.rollbacks)
        if self.diverged:
            result["rollout/diverged"] = float(self.diverged)
        for name in sorted(set().union(*self.recent) - {"lane"}):
            label = {"return": "ep_rew_mean", "length": "ep_len_mean", "success": "success_rate"}.get(name, name)
            result[f"rollout/{label}"] = float(np.mean([episode[name] for episode in self.recent if name in episode]))
        return result

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the next round depends on: arrays, and plain facts."""
        arrays = {f"agent/{name}": array for name, array in name_leaves(self.state).items()}
        arrays["replay/rows"] = np.asarray(self.replay.rows)[: int(self.replay.size)]
        arrays["replay/inserted"] = np.asarray(self.replay.inserted)
        arrays["pending"] = self.pending
        environment = self.env.get_state()
        arrays |= {f"env/{name}": np.asarray(array) for name, array in (environment or {}).items()}
        names = ("step", "stored", "episodes", "diverged", "calibrated", "seconds", "rollbacks", "in_a_row")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        facts |= {"recent": [dict(episode) for episode in self.recent], "environment": environment is not None}
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bool:
        """Continue from what `save` returned. False if the environment starts new episodes: its state is not known."""
        self.state = restore_leaves(self.state, _under("agent/", arrays))
        rows = jnp.zeros_like(self.replay.rows).at[: len(arrays["replay/rows"])].set(arrays["replay/rows"])
        self.replay = dataclasses.replace(self.replay, rows=rows, inserted=jnp.array(arrays["replay/inserted"]))
        self.pending = np.array(arrays["pending"])
        self.step, self.stored = int(facts["step"]), int(facts["stored"])
        self.episodes, self.diverged = int(facts["episodes"]), int(facts["diverged"])
        self.calibrated, self.seconds = bool(facts["calibrated"]), float(facts.get("seconds", 0.0))
        self.rollbacks, self.in_a_row = int(facts.get("rollbacks", 0)), int(facts.get("in_a_row", 0))
        self.recent.extend(facts["recent"])
        if facts["environment"]:
            self.observations = self.env.set_state(_under("env/", arrays))
            return True
        self.observations = self.env.reset(self.options.seed + self.step)
        return False


def train_online(
    env: Lockstep,
    agent: Any = SQL(),  # noqa: B008  (frozen)
    options: Training = Training(),
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
    if resume and run is not None:
        found = run.load()
        if found is None:
            on_notice("no checkpoint to resume from; starting from the beginning")
        elif not loop.restore(*found[1:]):
            on_notice(f"resumed at step {loop.step}; {env.env_id} cannot restore its state, so new episodes start")
        if found is not None and (moved := run.moved()):
            on_notice(
                f"resumed on another system, so the bits may differ from an uninterrupted run: {'; '.join(moved)}"
            )
    begin, first = time.perf_counter() - loop.seconds, loop.step
    fresh = time.perf_counter()
    evaluations = _past_evaluations(run)

    def every(period: int) -> bool:
        return period > 0 and loop.step // period > (loop.step - env.num_envs) // period

    def checkpoint() -> None:
        try:
            loop.judge()
        finally:
            save()

    def save() -> None:
        loop.seconds = time.perf_counter() - begin
        if run is not None and loop.whole:
            run.save(loop.step, *loop.save())

    try:
        while loop.step < options.total_steps:
            with delayed_interrupt():
                loop.advance()
            finished = loop.step >= options.total_steps
            evaluating = evaluation_env is not None and options.eval_freq and (every(options.eval_freq) or finished)
            if every(options.log_freq) or evaluating or finished:
                figures = loop.summarise()
                figures["time/fps"] = (loop.step - first) / (time.perf_counter() - fresh)
                if evaluation_env is not None and evaluating:
                    figures |= _evaluate(loop, evaluation_env)
                    evaluations.append({"step": loop.step, **_only("eval/", figures)})
                if run is not None:
                    run.log(loop.step, figures)
                if on_progress is not None:
                    on_progress(Progress(loop.step, options.total_steps, figures))
            if every(options.save_freq) or finished:
                checkpoint()
    except QomposeError:
        save()  # what came before
        raise
    except KeyboardInterrupt:
        checkpoint()
        saved = f" (step {loop.step} is saved)" if loop.whole else ""
        where = f"; continue with --resume{saved}" if run is not None else ""
        raise QomposeError(f"interrupted at step {loop.step}{where}") from None
    return Trained(loop.state, loop.own(), loop.episodes, loop.step, loop.diverged, loop.seconds, evaluations)


def _init_replay(env: Lockstep, options: Training, earlier: int) -> Replay:
    """An empty replay with room for `earlier` transitions and those of the training, a multiple of a round."""
    wanted = min(options.replay_size, earlier + options.total_steps + env.num_envs)
    capacity = max(-(-wanted // env.num_envs), 1) * env.num_envs
    try:
        return jax.block_until_ready(init_replay(capacity, env.observation_size, env.action_size))
    except (jax.errors.JaxRuntimeError, OverflowError):
        raise QomposeError(f"there is no memory for {capacity} transitions; lower --replay-size") from None


def _past_evaluations(run: Run | None) -> list[dict[str, Any]]:
    """What a run that is continued has logged so far."""
    lines = [] if run is None else read_metrics(run.directory)
    lines = [{"step": line["step"], **_only("eval/", line)} for line in lines]
    return [line for line in lines if len(line) > 1]


def _evaluate(loop: Loop, env: Lockstep) -> dict[str, float]:
    """Figures of the policy, not of exploration, on fresh episodes; seeds are the same at every evaluation."""
    root = stream(loop.options.seed, EVALUATE)

    def policy(observations: np.ndarray, step: int) -> Any:
        return follow(loop.agent, loop.state, observations, root, np.uint32(step))

    episodes = run_episodes(policy, env, loop.options.eval_episodes, seed=loop.options.seed + 10_000_000)
    names = sorted(set.intersection(*(set(episode) for episode in episodes)) - {"lane"})
    label = {"return": "mean_reward", "length": "mean_ep_length", "success": "success_rate"}
    return {f"eval/{label.get(name, name)}": float(np.mean([e[name] for e in episodes])) for name in names}


def _rows(result: Step) -> np.ndarray:
    columns = [result.observation, result.action, result.reward[:, None], result.next_observation]
    return np.concatenate([*columns, result.terminated[:, None]], axis=-1, dtype=np.float32)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _only(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name.startswith(prefix)}
