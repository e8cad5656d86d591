"""The loop of `online` as a compiled program for many runs: simulation on MJX, replay and updates.

Evaluations are a second program. A run is a task and a seed. The runs of an agent go in step, vmapped over seeds and,
where tasks differ in nothing but what they reward, over tasks. Agents, keys and the schedule of warm-up and updates
are those of the ordinary loop: from the same transitions both learn the same. A program is compiled before it first
runs and can be compiled only once.

Differs from `online`: starts and the actions of the warm-up come from JAX's random numbers; of a lane whose
simulation diverged a copy of another lane's transition is stored, since what is stored has a fixed size; nothing is
logged or saved on the way, and whether rounds of updates were taken back is looked at when the runs are evaluated.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from qompose.envs.batch import PRECISION, Batch, Lane, Outcome, Simulator
from qompose.envs.lockstep import Lockstep
from qompose.replay import Replay, init_replay, unpack
from qompose.skill.artifact import Skill
from qompose.tasks import Task, make_task
from qompose.training.export import describe_skill
from qompose.training.learner import EVALUATE, EXPLORE, INIT, LEARN, MOST_ROLLBACKS, RESET, Training, improve, stream
from qompose.training.online import EVALUATED, Trained, explore, follow
from qompose.training.session import Agent, finish, plan_updates, skill_name
from qompose.types import QomposeError, Transition

STREAMS = RESET + 1
TRACING = threading.Lock()  # Python traces one program at a time anyway: who comes first is to be compiled first
LARGEST = 2**32 - 1  # number of the draw that evaluated episodes start from: no training has so many steps


class Case(NamedTuple):
    """One run."""

    task: str
    seed: int
    options: Mapping[str, Any] = MappingProxyType({})  # of the task


class Stretch(NamedTuple):
    """What the user watches: the work between two evaluations, over all runs."""

    step: int  # environment steps of each run so far
    steps: int  # those of this stretch, all runs together
    updates: int  # likewise
    compiling: float  # seconds: only the first stretch has any
    learning: float  # seconds of acting, simulating and updating
    evaluating: float  # seconds
    figures: list[dict[str, float]]  # of each run, as `online` logs them


class Runs(eqx.Module):
    """The state of one run; of several along a leading axis, but for the two counts that are the same in all."""

    state: Any  # of the agent
    replay: Replay  # its `inserted` is one of the two
    lanes: Lane
    roots: tuple[Array, ...]  # a key for each of the streams
    step: Array  # uint32, and this is the other
    episodes: Array
    diverged: Array
    rejected: Array  # rounds of updates that were taken back


class Fused:
    """The programs of an agent on some tasks."""

    def __init__(
        self, tasks: Sequence[Task], agent: Any, options: Training, runs: int, simulator: Simulator | None = None
    ) -> None:
        """Put the tasks on the device, for so many runs; nothing is compiled yet. Raises what `Batch` raises."""
        self.agent, self.options = agent, options
        steps = options.episode_steps or tasks[0].training_horizon
        self.batch = Batch(*tasks, episode_steps=steps, simulator=simulator, lanes=runs * options.num_envs)
        self.whole = Batch(*tasks, simulator=simulator, lanes=runs * options.eval_episodes)
        self.sizes = (tasks[0].observation_size, tasks[0].action_size)
        self.advance: Any = None  # (runs, rounds) -> runs; takes the memory of `runs` over
        self.evaluate: Any = None  # runs -> metrics (runs, eval_episodes)

    @property
    def rounds(self) -> int:
        """Lock-steps of a whole training."""
        return -(-self.options.total_steps // self.options.num_envs)

    @property
    def warm_rounds(self) -> int:
        """Those of the warm-up: what was stored in them fixes the scales, and the next one is followed by updates."""
        return -(-self.options.warmup_steps // self.options.num_envs)

    def begin(self, which: Array, seeds: Array) -> Runs:
        """Fresh networks, empty replays and first observations, from each run's task (runs,) and seed (runs,)."""
        runs = jax.jit(jax.vmap(self._begin))(which, seeds)
        return eqx.tree_at(_common, runs, tuple(count[0] for count in _common(runs)))

    def trace(self, runs: Runs) -> list[Any]:
        """What is to be compiled for as many runs as these are."""
        with jax.default_matmul_precision(PRECISION):
            programs: list[Any] = [jax.jit(self._advance, donate_argnums=0).lower(runs, jnp.int32(0))]
            if self.options.eval_freq:
                programs.append(jax.jit(self._evaluate).lower(runs))
        return programs

    def compile(self, programs: Sequence[Any]) -> None:
        """Make `advance` and `evaluate` of what was traced."""
        with ThreadPoolExecutor() as pool:
            self.advance, *others = pool.map(lambda program: program.compile(), programs)
        self.evaluate = others[0] if others else None

    def _begin(self, which: Array, seed: Array) -> Runs:
        options, zero = self.options, jnp.zeros((), jnp.int32)
        roots = tuple(stream(seed, purpose) for purpose in range(STREAMS))
        u = self._uniforms(roots[RESET], jnp.uint32(0), options.num_envs)
        capacity = -(-min(options.replay_size, options.total_steps + options.num_envs) // options.num_envs)
        return Runs(
            state=self.agent.init(*self.sizes, key=roots[INIT]),
            replay=init_replay(capacity * options.num_envs, *self.sizes),
            lanes=jax.vmap(self.batch.begin, in_axes=(0, None))(u, which),
            roots=roots, step=jnp.uint32(0), episodes=zero, diverged=zero, rejected=zero,
        )  # fmt: skip

    def _advance(self, runs: Runs, rounds: Array) -> Runs:
        # The counts stay one number for all runs: a round then goes into every replay as one slice.
        axes = eqx.tree_at(_common, jax.tree.map(lambda _: 0, runs), (None, None))
        step = jax.vmap(self._round, in_axes=(axes,), out_axes=axes)
        return lax.fori_loop(0, rounds, lambda _, runs: step(runs), runs)

    def _round(self, runs: Runs) -> Runs:
        """One lock-step of the lanes of one run, and what `Learner` makes of it."""
        options, agent = self.options, self.agent
        step = runs.step + jnp.uint32(options.num_envs)
        actions = lax.cond(runs.step < options.warmup_steps, self._try_anything, self._explore, runs)
        u = self._uniforms(runs.roots[RESET], step, options.num_envs)
        lanes, outcome = jax.vmap(self.batch.step)(runs.lanes, actions, u)
        replay = runs.replay.add(_transitions(runs.lanes, actions, outcome))

        def calibrate(state: Any) -> tuple[Any, Array]:
            rows = replay.rows[: self.warm_rounds * options.num_envs]
            return agent.calibrate(state, unpack(rows, *self.sizes)), jnp.zeros((), bool)

        def learn(state: Any) -> tuple[Any, Array]:
            updates = options.num_envs * options.updates_per_step
            state, figures = improve(agent, updates, state, replay, runs.roots[LEARN], step)
            return state, figures["rejected"]

        # Store until the warm-up is over, then fix the scales, and learn from the next round on.
        warm = (step >= options.warmup_steps).astype(jnp.int32) + (runs.step >= options.warmup_steps).astype(jnp.int32)
        branches = (lambda state: (state, jnp.zeros((), bool)), calibrate, learn)
        state, rejected = lax.switch(warm, branches, runs.state)
        return Runs(
            state=state, replay=replay, lanes=lanes, roots=runs.roots, step=step,
            episodes=runs.episodes + jnp.sum(outcome.done & ~outcome.diverged, dtype=jnp.int32),
            diverged=runs.diverged + jnp.sum(outcome.diverged, dtype=jnp.int32),
            rejected=runs.rejected + rejected.astype(jnp.int32),
        )  # fmt: skip

    def _try_anything(self, runs: Runs) -> Array:
        key = jax.random.fold_in(runs.roots[EXPLORE], runs.step)
        return jax.random.uniform(key, (self.options.num_envs, self.sizes[1]), minval=-1.0, maxval=1.0)

    def _explore(self, runs: Runs) -> Array:
        return explore(self.agent, runs.state, runs.lanes.observation, runs.roots[EXPLORE], runs.step)

    def _evaluate(self, runs: Runs) -> dict[str, Array]:
        return jax.vmap(self._judge)(runs.state, runs.lanes.which[:, 0], runs.roots[EVALUATE])

    def _judge(self, state: Any, which: Array, root: Array) -> dict[str, Array]:
        """Metrics (episodes,) at the end of the first whole episode of each of so many lanes."""
        u = self._uniforms(root, jnp.uint32(LARGEST), self.options.eval_episodes)
        lanes = jax.vmap(self.whole.begin, in_axes=(0, None))(u, which)

        def advance(lanes: Lane, step: Array) -> tuple[Lane, Outcome]:
            actions = follow(self.agent, state, lanes.observation, root, step.astype(jnp.uint32))
            return jax.vmap(self.whole.step)(lanes, actions, u)  # what follows the first episode does not count

        def body(carry: tuple[Lane, dict[str, Array], Array], step: Array) -> Any:
            lanes, outcome = advance(carry[0], step)
            over = carry[2]
            kept = {
                name: jnp.where(over, carry[1][name], new.astype(jnp.float32)) for name, new in outcome.metrics.items()
            }
            return (lanes, kept, over | outcome.done), None

        shapes = jax.eval_shape(lambda: advance(lanes, jnp.int32(0))[1].metrics)
        kept = {name: jnp.zeros(shape.shape) for name, shape in shapes.items()}
        start = (lanes, kept, jnp.zeros(len(u), bool))
        return lax.scan(body, start, jnp.arange(self.whole.episode_steps))[0][1]

    def _uniforms(self, root: Array, step: Array, count: int) -> Array:
        return jax.random.uniform(jax.random.fold_in(root, step), (count, self.batch.task.reset_uniforms))


def _common(runs: Runs) -> Any:
    return runs.step, runs.replay.inserted


def _transitions(lanes: Lane, actions: Array, outcome: Outcome) -> Transition:
    """What one step of one run's lanes taught."""
    new = Transition(
        lanes.observation, actions, outcome.reward, outcome.next_observation, outcome.terminated.astype(jnp.float32)
    )
    whole = jnp.where(outcome.diverged, jnp.argmin(outcome.diverged), jnp.arange(len(actions)))
    return jax.tree.map(lambda column: column[whole], new)


class Prepared(NamedTuple):
    """A training whose programs are compiled, before its first step; `run` takes its memory over, once."""

    cases: Sequence[Case]
    fused: Fused
    runs: Runs
    compiling: float  # seconds


def prepare(cases: Sequence[Case], agent: Agent, options: Training, *, simulator: Simulator | None = None) -> Prepared:
    """Compile what trains an agent on every case at once.

    Several may be prepared at a time, each in a thread; with Warp they come one after the other, and none may be
    prepared while another one runs, since nothing else may use the GPU while Warp captures what it does there.

    Of `options` seed, save_freq and log_freq have no meaning here. `simulator` is that of `Batch`. Raises QomposeError
    if MJX is missing or tasks differ in more than their rewards.
    """
    if not cases:
        raise QomposeError("there is nothing to train; give at least one case")
    start = time.perf_counter()
    chosen = [make_task(case.task, **case.options) for case in cases]
    tasks = list(dict.fromkeys(chosen))
    fused = Fused(tasks, plan_updates(agent, options), options, len(cases), simulator)
    which = jnp.asarray([tasks.index(task) for task in chosen], jnp.int32)
    with TRACING:
        runs = jax.block_until_ready(fused.begin(which, jnp.asarray([case.seed for case in cases], jnp.uint32)))
        programs = fused.trace(runs)
        if fused.batch.simulator == "warp":
            fused.compile(programs)
    if fused.batch.simulator != "warp":
        fused.compile(programs)
    return Prepared(cases, fused, runs, time.perf_counter() - start)


def train_fused(
    cases: Sequence[Case],
    agent: Agent,
    options: Training,
    *,
    simulator: Simulator | None = None,
    on_stretch: Callable[[Stretch], None] | None = None,
) -> list[Trained]:
    """Train an agent on every case at once; raises what `prepare` and `run` do."""
    return run(prepare(cases, agent, options, simulator=simulator), on_stretch=on_stretch)


def run(prepared: Prepared, *, on_stretch: Callable[[Stretch], None] | None = None) -> list[Trained]:
    """Train; `seconds` of what comes back are those of all cases together, without compiling.

    Raises QomposeError if a run diverges again and again, or if this was run before.
    """
    cases, fused, runs, compiling = prepared
    if runs.step.is_deleted():
        raise QomposeError("this training was run already; prepare another one")
    options, start = fused.options, time.perf_counter()
    lanes, done = options.num_envs, 0
    stretch = max((options.eval_freq or options.total_steps) // lanes, 1)
    evaluations: list[list[dict[str, Any]]] = [[] for _ in cases]
    while done < fused.rounds:
        rounds = min(stretch, fused.rounds - done)
        taught = max(done + rounds - max(done, fused.warm_rounds), 0)
        done += rounds
        begin = time.perf_counter()
        runs = jax.block_until_ready(fused.advance(runs, jnp.int32(rounds)))
        middle = time.perf_counter()
        _refuse_divergence(np.asarray(runs.rejected), cases)
        figures = _figures(fused, runs) if options.eval_freq else [{} for _ in cases]
        for line, new in zip(evaluations, figures, strict=True):
            line.extend([{"step": done * lanes, **new}] if new else [])
        rollbacks = [{"train/rollbacks": float(count)} if count else {} for count in runs.rejected.tolist()]
        figures = [{**new, **taken_back} for new, taken_back in zip(figures, rollbacks, strict=True)]
        if on_stretch is not None:
            steps, updates = (count * lanes * len(cases) for count in (rounds, taught * options.updates_per_step))
            times = (compiling, middle - begin, time.perf_counter() - middle)
            on_stretch(Stretch(done * lanes, steps, updates, *times, figures))
        compiling = 0.0
    seconds = time.perf_counter() - start
    return [_take(runs, index, fused, seconds, evaluations[index]) for index in range(len(cases))]


def fused_skill(case: Case, agent: Agent, options: Training, trained: Trained) -> Skill:
    """The skill that one run of `train_fused` has made: as one of `train`."""
    agent, options = plan_updates(agent, options), dataclasses.replace(options, seed=case.seed)
    lanes = Lockstep.make(case.task, 1, dict(case.options))
    try:
        fields = describe_skill(skill_name(case.task, dict(case.options)), lanes, agent, options, dict(case.options))
    finally:
        lanes.close()
    return finish(fields, agent, trained)


def _figures(fused: Fused, runs: Runs) -> list[dict[str, float]]:
    means = {name: np.asarray(value).mean(axis=-1) for name, value in fused.evaluate(runs).items()}
    return [
        {f"eval/{EVALUATED.get(name, name)}": float(value[index]) for name, value in means.items()}
        for index in range(len(runs.rejected))
    ]


def _refuse_divergence(rejected: np.ndarray, cases: Sequence[Case]) -> None:
    worst = int(rejected.argmax())
    if rejected[worst] >= MOST_ROLLBACKS:
        raise QomposeError(
            f"training diverged: {cases[worst].task}, seed {cases[worst].seed}: {rejected[worst]} rounds of "
            "updates were taken back; lower the learning rate"
        )


def _take(runs: Runs, index: int, fused: Fused, seconds: float, evaluations: list[dict[str, Any]]) -> Trained:
    """What one run left behind."""
    state = jax.tree.map(lambda leaf: leaf[index], runs.state)
    rows = np.asarray(runs.replay.rows[index, : int(min(runs.replay.inserted, runs.replay.rows.shape[1]))])
    episodes, diverged = int(runs.episodes[index]), int(runs.diverged[index])
    return Trained(state, unpack(rows, *fused.sizes), episodes, int(runs.step), diverged, seconds, evaluations)
