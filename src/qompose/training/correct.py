"""Learn, off-policy from the union of the replays, what the later disagreement of skills does: C_w and its kin.

No reward, no environment and no new data: an equation of `soft.correct` or `soft.bounds` needs of a transition only
where it led, and of the next state s' only draws a_k, their weights under π_Σ, and the divergence κ(s'). These depend
on no learned number, so they are taken once for the whole replay (`survey`); then the fixed point is learned (`solve`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from qompose.learning import adam, check_hyperparameters, measure_observations
from qompose.nets import Perceptron, QFunction, init_perceptron
from qompose.skill.act import propose
from qompose.skill.algebra import critic_of, samplers_of
from qompose.skill.artifact import Skill
from qompose.soft.bounds import divergence
from qompose.soft.compose import combine_values
from qompose.soft.correct import correction_target
from qompose.soft.value import log_weights, soft_value
from qompose.tasks import task_named
from qompose.tasks.task import relabel
from qompose.training.rewards import task_of
from qompose.types import QomposeError, Transition

# Gradient steps unless others are given; and those in one compiled call, between two corrections of the level.
STEPS, CHUNK = 4_000, 100
# Rows of one compiled call of the survey and its like, and particles that shape each sampler's part of the proposal.
BLOCK, CENTRES, SMOOTHING = 512, 32, 0.4


@dataclass(frozen=True)
class Correction:
    """How the divergence correction is learned. Frozen and hashable: a compiled step depends on nothing else."""

    steps: int | None = None
    """Gradient steps; 4000 unless given, of a certificate 8000."""
    seed: int = 0
    """Seed of everything random."""
    batch_size: int = 64
    """Transitions per step, drawn from the union of the replays."""
    learning_rate: float = 1e-3
    """Adam's step at first; it falls linearly after 30 % of the steps."""
    final_rate: float = 0.05
    """Share of the learning rate that is left at the end."""
    target_rate: float = 0.02
    """Share of the network that enters the target at each step."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer."""
    candidates: int = 128
    """Draws per state from which the divergence is estimated, half of them uniform."""
    kept: int = 4
    """Every so manieth of the draws is kept for the expectation over actions."""
    residuals: bool = False
    """Take off the critics' own errors, too, the Bellman residuals: exact for critics that are not optimal. Needs the
    rewards of every skill on every transition, so tasks of qompose."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_hyperparameters(self, steps=(1, 10**9), seed=(0, 2**32 - 1), candidates=(8, 65536), kept=(1, 64))
        if self.candidates // self.kept < 4:
            raise QomposeError(
                f"kept is {self.kept}: too few of {self.candidates} candidates are left to be halved; lower it"
            )

    @property
    def gradient_steps(self) -> int:
        """Those that were given, or 4000; `explain` fills in more of its own."""
        return self.steps or STEPS


class Survey(NamedTuple):
    """What there is to know of N transitions before anything is learned. Reward units, actions in [-1, 1]."""

    observation: Any  # (N, obs)
    action: Any  # (N, act)
    discount: Any  # (N,), γ (1 − terminated)
    next_observation: Any  # (N, obs)
    values: Any  # (N, skills), V_i of the next state
    kappa: Any  # (N,), its divergence Σ w_i V_i − V_Σ
    error: Any  # (N,), its standard error
    next_actions: Any  # (N, K, act), draws in the next state
    log_weight: Any  # (N, K), their weights as a sample of π_Σ
    residual: Any  # (N,), Σ w_i δ_i of this transition, δ_i = r_i + γ V_i(s') − Q_i(s, a); 0 where it is not asked for


# A rule of learning: a batch of a survey, values (B, K, heads) at the next state's draws, α -> targets (B, heads)
Rule = Callable[[Any, Array, float], Array]


def check_correctable(skills: Sequence[Skill]) -> None:
    """Refuse what has no correction: skills without soft values, and skills that were themselves composed."""
    for skill in skills:
        if skill.algorithm != "sql":
            raise QomposeError(
                f"skill {skill.name!r} learned with {skill.algorithm}: no soft value, so no correction, no certificate"
            )
        if skill.critic.spec["kind"] != "critic":
            raise QomposeError(
                f"skill {skill.name!r} is itself composed; only sums of skills that were learned are corrected: "
                "compose those at once"
            )


def survey(
    skills: Sequence[Skill],
    weights: Sequence[float] | np.ndarray,
    temperature: float | np.ndarray,
    data: Transition,
    options: Correction,
    rewards: Sequence[np.ndarray] | None = None,
) -> Survey:
    """Draws, weights and divergence in the next state of every transition; the rewards of `data` are not looked at.

    weights, temperature: of all transitions, or of each its own (N, skills), (N,).
    `rewards`: for each skill its own rewards (N,) of these transitions, if Bellman residuals are wanted.

    The draws come from the defensive mixture over the skills' samplers and U, and V_1, V_2, ..., V_Σ all from the same
    draws, so that errors they share cancel (`soft.bounds.divergence`).
    """
    count = len(data.reward)
    critics = [critic_of(skill) for skill in skills]
    samplers = [sampler for skill in skills for sampler in samplers_of(skill)]
    temperatures = tuple(float(skill.temperature or 0.0) for skill in skills)
    root = jax.random.fold_in(jax.random.key(options.seed), 0)
    size = data.action.shape[1]
    shares = np.broadcast_to(np.asarray(weights, np.float32), (count, len(skills)))
    alphas = np.broadcast_to(np.asarray(temperature, np.float32), count)
    values, kappa, error, actions, log_weight = in_blocks(
        lambda numbers, *rows: _survey(
            critics, samplers, *rows, jax.random.fold_in(root, numbers[0]), size, temperatures, options.candidates,
            options.kept,
        ),
        np.arange(count, dtype=np.uint32), data.next_observation, shares, alphas,
    )  # fmt: skip
    discount = np.asarray(skills[0].discount * (1.0 - data.terminated), np.float32)
    residual = np.zeros(count, np.float32)
    for index, reward in enumerate(rewards or ()):
        q = skills[index].q(data.observation, data.action)
        residual += shares[:, index] * (reward + discount * values[:, index] - q)
    return Survey(
        data.observation, data.action, discount, data.next_observation, values, kappa, error, actions, log_weight,
        residual,
    )  # fmt: skip


def in_blocks(compute: Callable[..., Any], *columns: np.ndarray) -> Any:
    """What `compute` gives for columns of N rows, BLOCK rows at a time: NumPy arrays of N rows.

    A last, shorter block is filled up with its last row rather than compiled anew.
    """
    count, parts = len(columns[0]), []
    for begin in range(0, count, BLOCK):
        rows = np.minimum(np.arange(begin, begin + BLOCK), count - 1)
        parts.append(jax.tree.map(np.asarray, compute(*(column[rows] for column in columns))))
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


@partial(jax.jit, static_argnames=("size", "temperatures", "candidates", "kept"))
def _survey(
    critics: list[QFunction],
    samplers: list[Any],
    states: Array,
    weights: Array,
    temperature: Array,
    key: PRNGKeyArray,
    size: int,
    temperatures: tuple[float, ...],
    candidates: int,
    kept: int,
) -> tuple[Array, Array, Array, Array, Array]:
    *keys, uniform_key = jax.random.split(key, 2 * len(samplers) + 1)
    batch, half = states.shape[0], candidates // 2
    each = -(-half // len(samplers))
    draw = [
        sampler(states, jax.random.normal(k, (batch, CENTRES, size)))
        for k, sampler in zip(keys[::2], samplers, strict=True)
    ]
    noise = [jax.random.normal(k, (batch, each, size)) for k in keys[1::2]]
    uniform = jax.random.uniform(uniform_key, (batch, half, size), minval=-1.0 + 1e-6, maxval=1.0 - 1e-6)
    u, log_density = propose(draw, noise, uniform, SMOOTHING)
    actions = jnp.tanh(u)
    q = [critic(states, actions) for critic in critics]
    values = jnp.stack([soft_value(x, log_density, t) for x, t in zip(q, temperatures, strict=True)], axis=-1)
    # Strided, so that what is kept has the shares of the mixture that its density speaks of.
    some = slice(None, None, kept)

    def weigh(
        q: list[Array], log_density: Array, weights: Array, temperature: Array
    ) -> tuple[Array, Array, Array]:  # in one state
        kappa, error = divergence(q, list(weights), temperatures, temperature, log_density)
        return kappa, error, log_weights(combine_values(q, list(weights))[some], log_density[some], temperature)

    kappa, error, log_weight = jax.vmap(weigh)(q, log_density, weights, temperature)
    return values, kappa, error, actions[:, some], log_weight


class Values(eqx.Module):
    """Several functions of state and action, the heads of one network: level + scale · network, in reward units."""

    network: Perceptron
    level: Float[Array, " heads"]
    scale: Float[Array, " heads"]

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape heads"]:
        """All heads for any number of actions in one state, or in each state of a batch."""
        return lax.stop_gradient(self.level) + lax.stop_gradient(self.scale) * self.network(observation, action)


def _adam(options: Correction) -> Any:  # optax's types know no modules
    return adam(options.learning_rate, options.final_rate, options.gradient_steps)


class Learner(eqx.Module):
    """Everything that is learned; arrays have a leading axis of members that learn side by side."""

    values: Values
    target: Values
    optimiser: optax.OptState


def solve(
    rule: Rule,
    units: Sequence[float],
    survey: Any,
    rows: Int[np.ndarray, "members n"],
    temperature: float,
    options: Correction,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Values:
    """Learn the fixed point of a rule; member m sees the transitions `rows[m]`. Heads are measured in `units`.

    Every rule here passes a constant on: T(x + c) = T(x) + γ c. Temporal differences alone find that constant at the
    rate 1 − γ; so the mean residual e of every chunk moves the level by e/(1 − γ), which is where it vanishes.
    """
    root = jax.random.fold_in(jax.random.key(options.seed), 1)
    data = jax.tree.map(jnp.asarray, survey)
    mean, deviation = measure_observations(data.observation)
    adam = _adam(options)

    def start(key: PRNGKeyArray) -> Learner:
        network = init_perceptron(
            data.observation.shape[1], data.action.shape[1], len(units), options.hidden, layer_norm=True, key=key
        )
        network = eqx.tree_at(lambda n: (n.observation_mean, n.observation_scale), network, (mean, deviation))
        values = Values(network, level=jnp.zeros(len(units)), scale=jnp.asarray(units, jnp.float32))
        return Learner(values, jax.tree.map(jnp.copy, values), adam.init(values))

    learner = jax.vmap(start)(jax.random.split(jax.random.fold_in(root, 0), len(rows)))
    chosen, done, total = jnp.asarray(rows), 0, options.gradient_steps
    while done < total:
        # Their number is an argument of the loop, so that a last, shorter chunk is not compiled anew.
        count = min(CHUNK, total - done)
        learner = _improve(rule, learner, data, chosen, root, np.uint32(done), np.int32(count), temperature, options)
        done += count
        if on_progress is not None:
            jax.block_until_ready(learner)
            on_progress(done, total)
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(learner.values)):
        raise QomposeError("learning the correction diverged; lower its learning rate")
    return learner.values


@partial(jax.jit, static_argnames=("rule", "temperature", "options"))
def _improve(
    rule: Rule,
    learner: Learner,
    data: Any,
    rows: Array,
    root: PRNGKeyArray,
    done: Array,
    count: Array,
    temperature: float,
    options: Correction,
) -> Learner:
    adam = _adam(options)

    def step(learner: Learner, rows: Array, key: PRNGKeyArray) -> tuple[Learner, Array]:
        index = jax.random.randint(key, (options.batch_size,), 0, rows.shape[0])
        batch = jax.tree.map(lambda x: x[rows[index]], data)
        wanted = rule(batch, learner.target(batch.next_observation, batch.next_actions), temperature)

        def loss_of(values: Values) -> Array:
            error = (values(batch.observation, batch.action) - wanted) / lax.stop_gradient(values.scale)
            return 0.5 * jnp.mean(jnp.sum(jnp.square(error), axis=-1))

        change, optimiser = adam.update(jax.grad(loss_of)(learner.values), learner.optimiser)
        values = eqx.apply_updates(learner.values, change)
        target = jax.tree.map(lambda old, new: old + options.target_rate * (new - old), learner.target, values)
        # Of the target network itself: the learned one follows its target and shows no residual.
        residual = wanted - learner.target(batch.observation, batch.action)
        return Learner(values, target, optimiser), jnp.mean(residual, axis=0)

    def body(index: Array, carry: tuple[Learner, Array]) -> tuple[Learner, Array]:
        keys = jax.random.split(jax.random.fold_in(root, 1 + done + index.astype(jnp.uint32)), rows.shape[0])
        learner, residual = jax.vmap(step)(carry[0], rows, keys)
        return learner, carry[1] + residual

    learner, residual = lax.fori_loop(0, count, body, (learner, jnp.zeros_like(learner.values.level)))
    # Falls with the learning rate: each chunk knows the residual from a sample only.
    share = 0.5 * jnp.maximum(1.0 - done.astype(jnp.float32) / options.gradient_steps, options.final_rate)
    shift = share * residual / count.astype(jnp.float32) / (1.0 - jnp.mean(data.discount))
    levels = learner.values.level + shift, learner.target.level + shift
    return eqx.tree_at(lambda x: (x.values.level, x.target.level), learner, levels)


def unit_of(kappa: np.ndarray, temperature: float) -> float:
    """mean |κ| + α, for what adds up κ: where skills quarrel by many temperatures, α would leave too far to go."""
    return float(np.mean(np.abs(kappa))) + temperature


def correct(batch: Survey, after: Array, temperature: float) -> Array:
    """The rule of C_w alone: one head."""
    target = correction_target(batch.kappa, after[..., 0], batch.log_weight, batch.discount, temperature)
    return (target - batch.residual)[:, None]


def check_ends(skills: Sequence[Skill], data: Transition) -> bool:
    """Whether the skills are known to end in the same states of `data`; raises QomposeError if they do not.

    Correction, certificate and gpi are of one process: of transitions that end for one skill and go on for another
    they would be wrong. Only qompose's own tasks can be asked.
    """
    if not skills[0].terminates:
        return True
    learned = [skill for skill in skills if not skill.composition]  # a composed one does not say its options
    if len(learned) == len(skills) and all(skill.task == skills[0].task for skill in skills):
        return True
    known = [skill for skill in learned if task_named(str(skill.task["id"])) is not None]
    ends = [relabel(task_of(skill), data).terminated for skill in known]
    for skill, mine in zip(known[1:], ends[1:], strict=True):
        if not np.array_equal(mine, ends[0]):
            raise QomposeError(
                f"the tasks of skills {known[0].name!r} and {skill.name!r} end in different states, and corrections, "
                "certificates and gpi are of tasks that end alike; compose them without, or train on the sum"
            )
    return len(known) == len(skills)


def rewards_of(skills: Sequence[Skill], data: Transition) -> list[np.ndarray]:
    """The rewards (N,) of each skill's own task; raises QomposeError if it has none or ends elsewhere than `data`."""
    found = [relabel(task_of(skill), data) for skill in skills]
    for skill, anew in zip(skills, found, strict=True):
        if not np.array_equal(anew.terminated, data.terminated):
            raise QomposeError(f"the replays end in other states than the task of skill {skill.name!r}; train it again")
    return [anew.reward for anew in found]


def learn_correction(
    skills: Sequence[Skill],
    weights: Sequence[float],
    temperature: float,
    data: Transition,
    options: Correction,
    *,
    rewards: Sequence[np.ndarray] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> QFunction:
    """C_w of a linear sum of skills as one more network: `Q*_w = Σ w_i Q_i − C_w`.

    The equation is exact for soft-optimal Q_i; what is learned of it is an estimate, and no bound.
    data: the union of the skills' replays. `rewards` (N,) of each skill on all of it: where critics are not optimal,
    their Bellman residuals are taken off as well, and the equation stays exact (`soft.finite.correction`). With
    `options.residuals` they are computed from the skills' tasks. Raises QomposeError for skills that have no
    correction, whose tasks end in different states, or whose rewards cannot be computed.
    """
    check_correctable(skills)
    check_ends(skills, data)
    if options.residuals and rewards is None:
        rewards = rewards_of(skills, data)
    seen = survey(skills, weights, temperature, data, options, rewards)
    rows = np.arange(len(data.reward), dtype=np.int32)[None]
    values = solve(
        correct, (unit_of(seen.kappa, temperature),), seen, rows, temperature, options, on_progress=on_progress
    )
    values = jax.tree.map(lambda x: x[0], values)
    return QFunction(values.network, offset=values.level[0], scale=values.scale[0])
