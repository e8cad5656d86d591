"""What a training makes of its transitions: a function of its settings and of the transitions in their order alone.

Whatever the environment was, feeding the same transitions again gives the same networks, bit for bit. Updates run in
compiled calls of one round each: the round's transitions go in, all of its updates come out, and nothing is compiled
twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from qompose.agents.sql import SQL
from qompose.log import Record, Sizes
from qompose.replay import Replay, init_replay, unpack
from qompose.run import name_leaves, restore_leaves
from qompose.skill.algebra import join
from qompose.training.start import Start
from qompose.types import QomposeError, Transition, check_kinds

# Streams of randomness that must never meet: each is folded into the seed's key before the step is.
INIT, EXPLORE, LEARN, EVALUATE, RESET = range(5)  # RESET: where the environment draws its starts from keys
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


def stream(seed: int | Array, purpose: int) -> PRNGKeyArray:
    """The root key of one purpose."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


@partial(jax.jit, static_argnames=("agent", "observation_size", "action_size"))
def init(agent: Any, observation_size: int, action_size: int, key: PRNGKeyArray) -> Any:
    """A fresh state of the agent."""
    return agent.init(observation_size, action_size, key=key)


class Form(NamedTuple):
    """How a state is put together again from what `pack` makes of it."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    real: tuple[bool, ...]  # which leaves are part of the vector

    @staticmethod
    def of(state: Any) -> Form:
        """The form of this state and of all others of its networks."""
        leaves, structure = jax.tree.flatten(state)
        return Form(structure, tuple(x.shape for x in leaves), tuple(x.dtype == jnp.float32 for x in leaves))

    def unpack(self, packed: Packed) -> Any:
        """The state."""
        sizes = [math.prod(shape) for shape, real in zip(self.shapes, self.real, strict=True) if real]
        parts, others = iter(jnp.split(packed.vector, np.cumsum(sizes)[:-1].tolist())), iter(packed.others)
        leaves = [
            next(parts).reshape(shape) if real else next(others)
            for shape, real in zip(self.shapes, self.real, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)


class Packed(NamedTuple):
    """A state as one vector: to hand over fifty arrays with every call takes a good part of a small update's time."""

    vector: Array  # all numbers in single precision
    others: list[Array]


def pack(state: Any) -> Packed:
    """Every leaf in single precision goes into one vector, in their order; see `Form`."""
    leaves = jax.tree.leaves(state)
    vector = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves if leaf.dtype == jnp.float32])
    return Packed(vector, [leaf for leaf in leaves if leaf.dtype != jnp.float32])


@partial(jax.jit, static_argnames=("agent", "updates", "form"), donate_argnames=("packed", "replay"))
def learn(
    agent: Any, updates: int, form: Form, packed: Packed, replay: Replay, rows: Array, root: PRNGKeyArray, step: Array
) -> tuple[Packed, dict[str, Array], Replay]:
    """Store a round of transitions, then take `updates` gradient steps; the figures are means over them.

    A round that diverges gives back the state from before it, and figures that say `rejected`.
    """
    replay = replay.add(unpack(rows, replay.observation_size, replay.action_size))
    state, figures = take_steps(agent, updates, form.unpack(packed), replay, root, step)
    return *_keep_good(packed, pack(state), figures), replay


def improve(
    agent: Any, updates: int, state: Any, replay: Replay, root: PRNGKeyArray, step: Array
) -> tuple[Any, dict[str, Array]]:
    """Take the gradient steps of one round, numbered `step`; see `learn`."""
    return _keep_good(state, *take_steps(agent, updates, state, replay, root, step))


def take_steps(
    agent: Any, updates: int, state: Any, replay: Replay, root: PRNGKeyArray, step: Array
) -> tuple[Any, dict[str, Array]]:
    """The gradient steps of one round, numbered `step`, wherever they lead; figures of each."""

    def body(state: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, replay.sample(agent.batch_size, key=batch_key), key=update_key)

    return jax.lax.scan(body, state, jax.random.split(jax.random.fold_in(root, step), updates))


def _keep_good(before: Any, after: Any, figures: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """What the steps made of a state, or the state itself if they diverged; the figures' means, and which it was."""
    good = _finite(after) & _finite(figures) & (jnp.max(figures["critic_loss"]) <= LARGEST_LOSS)
    state = jax.tree.map(lambda old, new: jnp.where(good, new, old), before, after)
    return state, {name: jnp.mean(value) for name, value in figures.items()} | {"rejected": ~good}


def _finite(tree: Any) -> Array:
    """Whether every real number of a tree is finite: if so, 0 times all of them adds up to 0 and not to NaN."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    numbers = jnp.concatenate(leaves)
    return jnp.isfinite(numbers @ jnp.zeros_like(numbers))


_pack = jax.jit(pack)
_unpack = jax.jit(Form.unpack, static_argnums=0)


@partial(jax.jit, donate_argnums=0)
def store(replay: Replay, rows: Array) -> Replay:
    """Store a round of transitions, and learn nothing."""
    return replay.add(unpack(rows, replay.observation_size, replay.action_size))


calibrate = jax.jit(lambda agent, state, data: agent.calibrate(state, data), static_argnums=0, donate_argnums=1)


class Learner:
    """The networks and the replay of a training, and what waits to be stored."""

    def __init__(self, agent: Any, options: Training, sizes: Sizes, start: Start | None = None):
        """Fresh networks and an empty replay, or those of `start`."""
        self.agent, self.options, self.sizes = agent, options, sizes
        state, own, borrowed = start or Start()
        parts = [part for part in (borrowed, own) if part is not None]
        earlier = join(parts) if parts else None
        count = 0 if earlier is None else len(earlier.reward)
        spare = count % sizes.lanes  # a round goes into the replay as one slice: it must begin at a multiple of it
        self.borrowed = max(0 if borrowed is None else len(borrowed.reward) - spare, 0)
        self.replay = _init_replay(sizes, options, count)
        if earlier is not None:
            self.replay = self.replay.fill(Transition(*(column[spare:] for column in earlier)))
            self.borrowed = max(self.borrowed - max(count - spare - self.replay.capacity, 0), 0)
        fresh = state is None
        self.state = (
            init(agent, sizes.observation_size, sizes.action_size, stream(options.seed, INIT)) if fresh else state
        )
        self.root = stream(options.seed, LEARN)
        self.pending = np.zeros((0, sizes.width), np.float32)
        self.step = self.stored = self.updates = 0
        self.calibrated = not fresh
        self.figures: dict[str, Any] = {}  # of the last round of updates that was kept
        self.latest: dict[str, Any] | None = None  # of a round that nobody has looked at yet
        self.rollbacks = self.in_a_row = 0

    @property
    def state(self) -> Any:
        """The agent's networks and optimisers, put together from what `learn` works on."""
        return _unpack(self.form, self.packed)

    @state.setter
    def state(self, state: Any) -> None:
        self.form, self.packed = Form.of(state), _pack(state)

    def take(self, record: Record) -> None:
        """Store the rounds that are whole with what one step of all lanes gave, and learn from each."""
        self.step = record.step
        self.pending = np.concatenate([self.pending, record.rows])
        while len(self.pending) >= self.sizes.lanes:
            rows, self.pending = self.pending[: self.sizes.lanes], self.pending[self.sizes.lanes :]
            self._take(rows)

    def _take(self, rows: np.ndarray) -> None:
        """Store one full round; learn from it once the warm-up is over."""
        self.stored += self.sizes.lanes
        if self.stored < self.options.warmup_steps:
            self.replay = store(self.replay, rows)
            return
        if not self.calibrated:
            self.replay = store(self.replay, rows)
            self.state = calibrate(self.agent, self.state, self.experience())
            if not bool(_finite(self.state)):
                raise QomposeError("what the warm-up saw is too large for float32; scale it down")
            self.calibrated = True
            return
        updates = self.sizes.lanes * self.options.updates_per_step
        self.updates += updates
        self.packed, self.latest, self.replay = learn(
            self.agent, updates, self.form, self.packed, self.replay, rows, self.root, np.uint32(self.stored)
        )

    def experience(self) -> Transition:
        """All transitions held, oldest first where nothing was overwritten, as NumPy arrays."""
        rows = np.asarray(self.replay.rows)[: int(self.replay.size)]
        return unpack(rows, self.sizes.observation_size, self.sizes.action_size)

    def own(self) -> Transition:
        """The experience without what was borrowed and is still there: the oldest, so that it is overwritten first."""
        rows = self.experience()
        overwritten = max(int(self.replay.inserted) - self.replay.capacity, 0)
        kept = np.ones(len(rows.reward), bool)
        kept[min(overwritten, self.borrowed) : self.borrowed] = False
        return Transition(*(column[kept] for column in rows))

    def judge(self) -> None:
        """Count the last round of updates if it was taken back; raises QomposeError if that happens again and again.

        After the next round's actions, which needed the same updates, looking costs no waiting.
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

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the next round depends on: arrays, and plain facts."""
        arrays = {f"agent/{name}": array for name, array in name_leaves(self.state).items()}
        arrays["replay/rows"] = np.asarray(self.replay.rows)[: int(self.replay.size)]
        arrays["replay/inserted"] = np.asarray(self.replay.inserted)
        arrays["pending"] = self.pending
        names = ("step", "stored", "updates", "calibrated", "rollbacks", "in_a_row")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        return arrays, facts | {"figures": {name: float(value) for name, value in self.figures.items()}}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Continue from what `save` returned."""
        held = {name.removeprefix("agent/"): array for name, array in arrays.items() if name.startswith("agent/")}
        self.state = restore_leaves(self.state, held)
        rows = jnp.zeros_like(self.replay.rows).at[: len(arrays["replay/rows"])].set(arrays["replay/rows"])
        self.replay = dataclasses.replace(self.replay, rows=rows, inserted=jnp.array(arrays["replay/inserted"]))
        self.pending = np.array(arrays["pending"])
        self.step, self.stored = int(facts["step"]), int(facts["stored"])
        self.calibrated, self.figures = bool(facts["calibrated"]), dict(facts.get("figures", {}))
        names = ("updates", "rollbacks", "in_a_row")  # which older checkpoints lack
        self.updates, self.rollbacks, self.in_a_row = (int(facts.get(name, 0)) for name in names)


def _init_replay(sizes: Sizes, options: Training, earlier: int) -> Replay:
    """An empty replay with room for `earlier` transitions and those of the training, a multiple of a round."""
    wanted = min(options.replay_size, earlier + options.total_steps + sizes.lanes)
    capacity = max(-(-wanted // sizes.lanes), 1) * sizes.lanes
    try:
        return jax.block_until_ready(init_replay(capacity, sizes.observation_size, sizes.action_size))
    except (jax.errors.JaxRuntimeError, OverflowError):
        raise QomposeError(f"there is no memory for {capacity} transitions; lower --replay-size") from None
