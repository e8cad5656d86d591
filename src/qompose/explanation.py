"""Is a composition worth running? Divergence, the paper's bounds and the regret certificate, from data already there.

Unless Bellman residuals are asked for, all figures presume that each skill's Q is the optimal one of its own reward;
how far it is from that is said beside them. They speak of the sum Σ w_i Q_i and its Boltzmann policy, uncorrected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import ndtri, stdtrit

from qompose.skill.algebra import critic_of, linear_form, unite_replays
from qompose.skill.artifact import Skill
from qompose.skill.expression import Expression, from_weights, spell_sum
from qompose.soft.bounds import expect, lemma_target, local_regret, regret_target, split_draws, theorem_target
from qompose.soft.compose import combine_values
from qompose.soft.correct import correction_target, soft_minimum
from qompose.training.correct import (
    Correction,
    Survey,
    Values,
    check_correctable,
    check_ends,
    in_blocks,
    rewards_of,
    solve,
    survey,
    unit_of,
)
from qompose.training.offline import choose_temperature
from qompose.training.rewards import has_rewards
from qompose.types import QomposeError, Transition, check_settings, find_misfit, show

MEMBERS = 3
# Of the cases, the share in which an interval should hold what it is an estimate of.
LEVEL = 0.9
# With half the steps and half the units the regret came out a fifth too small on a problem whose regret is known.
STEPS = 8_000
# The replay of each skill is cut into so many pieces in time; the last is held out, members leave out others.
PIECES = 10
# What acting at random loses is only a scale: a share of the steps, so many actions in each state.
SHARE_OF_STEPS, RANDOM_ACTIONS = 4, 32
# Rules of thumb of the verdict. A regret counts as small if it is below this share of what acting at random loses.
SMALL_REGRET = 0.1
LITTLE_COVERAGE = 0.1
# Largest disagreement of members on C, relative to what C differs by between actions, at which C is trusted.
LARGEST_DOUBT = 0.5
# Coordinates of an observation that make a map, if its names have them.
MAPS = (("puck_x", "puck_y"), ("brick_x", "brick_y"), ("x", "y"))
REFERENCE, PROBES = 4000, 500


@dataclass(frozen=True)
class Interval:
    """A mean over states, and an interval that should hold it in nine cases of ten.

    What networks learned: by the jackknife over them (`_interval`), on held-out states. Divergence: over stretches of
    time of all states (`_over_stretches`). Shares of states: Wilson's (`_share`). The bias that the divergence of one
    state has from few draws is not in it: it grows with the dimensions of the action and the sharpness of the policies,
    and more `Correction.candidates` lower it.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Explanation:
    """What is known of a composition before it is run. Values in reward units, of discounted sums."""

    names: list[str]
    weights: list[float]
    temperature: float
    discount: float
    divergence: Interval  # κ per step, mean over all states
    divergence_error: float  # mean standard error of one κ
    overestimate: Interval  # V_Σ − V*_w
    lemma: Interval  # at most this by Lemma 1: −α log E_{π_Σ} exp(−C*/α)
    theorem: Interval  # E_{π_Σ} D* of Theorem 1
    regret: Interval  # V*_w − V^{π_Σ}, the certificate
    regret_high: Interval  # the regret that one state in ten exceeds
    random: Interval  # V*_w − V^U, what acting at random would lose
    doubt: float  # disagreement of members on C(s, ·), relative to what it differs by
    bounds_hold: bool  # Σ w_i α_i ≤ α and w ≥ 0, critics presumed optimal: the paper's bounds are claimed
    coverage: dict[str, Interval]  # "a on b": share of b's states that lie where a has been
    residual: dict[str, float]  # RMS Bellman residual of each critic on its own replay, in its temperature
    own_errors: float  # Σ |w_i| RMS_i / (1 − γ), what these residuals could add up to
    axes: tuple[str, str]
    positions: np.ndarray  # (n, 2), where the states are
    held_out: np.ndarray  # rows of `positions` that no network has learned from
    kappa: np.ndarray  # (n,), divergence there
    judged_on: str  # the states over which values are averaged: held-out states, or given states
    residuals: bool  # whether the critics' own errors are taken off
    verdict: str  # compose, try, compose with correction, or train
    reason: str

    def regions(self, bins: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edges along both axes (bins + 1,) and the mean divergence in each cell (bins, bins), NaN where no state is.

        The edges span all but the outermost hundredth of the states at each side.
        """
        low, high = np.quantile(self.positions, [0.01, 0.99], axis=0)
        high = np.where(high > low, high, low + 1.0)
        x, y = (np.linspace(low[k], high[k], bins + 1) for k in range(2))
        count = np.histogram2d(*self.positions.T, bins=(x, y))[0]
        total = np.histogram2d(*self.positions.T, bins=(x, y), weights=self.kappa)[0]
        return x, y, np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)

    def summary(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        x, y, cells = self.regions()
        intervals = ("divergence", "overestimate", "lemma", "theorem", "regret", "regret_high", "random")
        plain = ("names", "weights", "temperature", "discount", "divergence_error", "doubt", "bounds_hold",
                 "residual", "own_errors", "judged_on", "residuals", "verdict", "reason")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain},
            **{name: vars(getattr(self, name)) for name in intervals},
            "coverage": {pair: vars(share) for pair, share in self.coverage.items()},
            "regions": {"axes": list(self.axes), "x": x.tolist(), "y": y.tolist(),
                        "divergence": [[None if np.isnan(c) else float(c) for c in row] for row in cells]},
        }  # fmt: skip

    def __str__(self) -> str:
        """The report for people."""
        alpha = self.temperature

        def line(name: str, interval: Interval) -> str:
            return f"{name:<36}{interval.mean:10.3g}   [{interval.low:.3g}, {interval.high:.3g}]"

        lines = [
            f"{spell_sum(self.weights, self.names)} at temperature {alpha:.3g}",
            "compatible: observations, actions and their limits, control period, discount and termination are alike",
            "",
            "over all states   [90 % interval]",
            line("divergence per step, temperatures", _scaled(self.divergence, 1.0 / alpha))
            + f"   (standard error of one state {self.divergence_error / alpha:.2g})",
            f"  by {self.axes[0]} (down) and {self.axes[1]} (across):",
            *self._table(),
            "",
            f"over {self.judged_on}, in units of the return   [90 % interval]",
            line("  V of the sum is too high by", self.overestimate),
            line("  at most, by Lemma 1", self.lemma),
            line("  Q of its policy loses at most (D*)", self.theorem)
            + ("" if self.bounds_hold else "   (not claimed here)"),
            line("  regret of its policy (certificate)", self.regret),
            line("    one state in ten loses more than", self.regret_high),
            line("  acting at random would lose", self.random),
            f"  networks disagree on C by {self.doubt:.0%} of what it differs by between actions",
            "",
            *(
                f"{mine} has been where {x.mean:.0%} [{x.low:.0%}, {x.high:.0%}] of the states of {theirs} are"
                for (mine, theirs), x in ((pair.split(" on "), share) for pair, share in self.coverage.items())
            ),
            *(f"critic of {name}: Bellman residual {rms:.2g} temperatures" for name, rms in self.residual.items()),
            *(["they are taken off, as far as the replays show them"] if self.residuals else []),
            "",
            f"verdict: {self.verdict}. {self.reason[:1].upper()}{self.reason[1:]}.",
        ]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        x, y, cells = self.regions()
        middle = [f"{(a + b) / 2:8.2f}" for a, b in pairwise(y)]
        rows = [" " * 12 + "".join(middle)]
        for (a, b), row in zip(pairwise(x), cells, strict=True):
            words = ["       -" if np.isnan(cell) else f"{cell / self.temperature:8.2f}" for cell in row]
            rows.append(f"    {(a + b) / 2:8.2f}" + "".join(words))
        return rows


def explain(
    expression: Expression | Mapping[Skill, float],
    *,
    temperature: float | None = None,
    states: np.ndarray | None = None,
    correction: Correction | None = None,
    members: int = MEMBERS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Say how much skills disagree and what their sum loses, offline: `print(explain(left & bottom))`.

    C_w, the paper's C* and D* and the regret of π_Σ are learned off-policy by `members` networks that leave out
    different parts of the replays, and reported on states that none of them has seen: their mean and a 90 % interval.
    It holds the errors of learning, not those of the skills' critics, whose residuals are reported instead; with
    `correction.residuals` these are taken off, as by `learn_correction`, as far as the replays show them: the regret is
    that against the optimum of the tasks' own rewards. The tasks must be qompose's, and D* is not claimed.
    `correction` says how they learn, in 8000 steps unless it says how many.
    `temperature`: of the composed policy, in reward units; the one that follows from the skills unless given.
    `states`: (n, obs), those over which C, C*, D* and the regret are averaged instead, such as where episodes begin.
    Raises QomposeError where there is no certificate: skills of DDPG and NAF, composed skills, skills without replay,
    tasks that end in different states.
    """
    if isinstance(expression, Mapping):
        expression = from_weights(expression)
    check_settings("correction", correction, Correction)
    skills, weights = linear_form(expression)
    check_correctable(skills)
    if find_misfit("int", members) or not 2 <= members < PIECES:
        raise QomposeError(f"members is {show(members)}; give 2, to see whether they agree, to {PIECES - 1}")
    correction = correction or Correction()
    steps = correction.steps or STEPS
    options, short = replace(correction, steps=steps), replace(correction, steps=-(-steps // SHARE_OF_STEPS))
    temperature = choose_temperature(expression, "sql", temperature)
    assert temperature is not None
    lengths = [0 if skill.replay is None else len(skill.replay.reward) for skill in skills]
    data = unite_replays(skills)
    if min(lengths) < 100 * PIECES:
        raise QomposeError(f"a replay has only {min(lengths)} transitions; it takes {100 * PIECES} to hold some out")
    given = None if states is None else _lead_to(states, skills[0])
    alike = check_ends(skills, data)
    rewards = rewards_of(skills, data) if options.residuals else None
    seen = survey(skills, weights, temperature, data, options, rewards)
    rows, held_out = _split(lengths, members)
    kappa = unit_of(seen.kappa, temperature)
    # Of C, C*, D* and the regret that is left after a step.
    units = (temperature, kappa, kappa / (1.0 - skills[0].discount ** 2) ** 0.5, temperature)
    total = steps + short.gradient_steps

    def tell(done: int, _: int, before: int = 0) -> None:
        if on_progress is not None:
            on_progress(before + done, total)

    values = solve(certify, units, seen, rows, temperature, options, on_progress=tell)
    over = jax.tree.map(lambda x: x[held_out], seen)
    if given is not None:
        over = survey(skills, weights, temperature, given, options)
    above_random = _beside_random(skills, weights, temperature, seen, over, rows, short, partial(tell, before=steps))
    figures = _measure(values, over, temperature, above_random)
    names = _number([skill.name for skill in skills])
    coverage = _cover(names, data, lengths)
    alphas, residuals = [skill.temperature or 1.0 for skill in skills], _residuals(skills, data, seen, lengths)
    own_errors = sum(abs(w) * rms for w, rms in zip(weights, residuals, strict=True)) / (1.0 - skills[0].discount)
    verdict, reason = judge(
        figures, coverage, own_errors, options.residuals, avoided=min(weights) < 0.0, alike=alike,
        known=all(map(has_rewards, skills)),
    )  # fmt: skip
    axes, columns = _choose_axes(skills[0])
    return Explanation(
        names=names,
        weights=list(weights),
        temperature=temperature,
        discount=skills[0].discount,
        divergence=_over_stretches(seen.kappa, lengths),
        bounds_hold=(
            min(weights) > 0.0
            and float(np.dot(weights, alphas)) <= temperature * (1.0 + 1e-9)
            and not options.residuals
        ),
        coverage=coverage,
        residual={name: rms / alpha for name, rms, alpha in zip(names, residuals, alphas, strict=True)},
        own_errors=own_errors,
        axes=axes,
        positions=data.next_observation[:, columns],
        held_out=held_out,
        kappa=seen.kappa,
        judged_on="held-out states" if states is None else "given states",
        residuals=options.residuals,
        verdict=verdict,
        reason=reason,
        **figures,
    )


def certify(batch: Survey, after: Array, temperature: float) -> Array:
    """The rule of four heads: C_w, C*, D*, and G, the regret after a step.

    Bellman residuals, where there are any, are in C_w and in C*, which stays its bound; of D* nothing is known then.
    """
    c, lemma, theorem, later = (after[..., head] for head in range(4))
    targets = (
        correction_target(batch.kappa, c, batch.log_weight, batch.discount, temperature) - batch.residual,
        lemma_target(batch.kappa, lemma, batch.discount) - batch.residual,
        theorem_target(lemma, theorem, batch.log_weight, batch.discount),
        regret_target(_lose_here(c, batch.log_weight, temperature), later, batch.log_weight, batch.discount),
    )
    return jnp.stack(targets, axis=-1)


def _lead_to(states: np.ndarray, skill: Skill) -> Transition:
    """Steps that lead to these states; of what else a step has nothing is asked."""
    size = skill.observation["size"]
    try:
        where = np.asarray(states, np.float64)
    except (TypeError, ValueError):
        raise QomposeError(f"states are no array of numbers; give finite observations (n, {size})") from None
    if where.ndim != 2 or where.shape[1] != size or not len(where) or not np.isfinite(where).all():
        raise QomposeError(f"states have shape {where.shape}; give finite observations (n, {size})")
    where, nothing = where.astype(np.float32), np.zeros(len(where), np.float32)
    return Transition(where, np.zeros((len(where), skill.action["size"]), np.float32), nothing, where, nothing)


def _lose_here(c: Any, log_weight: Any, temperature: float) -> Any:
    """α k without its bias, which would add up over the steps of an episode. (*batch, draws) -> (*batch,)"""
    return split_draws(partial(local_regret, temperature=temperature), c, log_weight)


def _split(lengths: Sequence[int], members: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each member (members, n), and rows that are held out. Pieces are in time: neighbours are alike."""
    piece = np.concatenate([np.arange(n) * PIECES // n for n in lengths])
    learned = [np.flatnonzero((piece != PIECES - 1) & (piece % members != m)) for m in range(members)]
    least = min(map(len, learned))
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(rows)[:least] for rows in learned]).astype(np.int32), np.flatnonzero(
        piece == PIECES - 1
    )


@jax.jit
def _evaluate(function: Any, observation: Array, actions: Array) -> Array:
    return function(observation, actions)


class Random(NamedTuple):
    """Transitions as the rule of what acting at random is worth reads them; U is uniform."""

    observation: Any  # (N, obs)
    action: Any  # (N, act), in [-1, 1]
    discount: Any  # (N,), γ (1 − terminated)
    next_observation: Any  # (N, obs)
    next_actions: Any  # (N, K, act), draws of U
    above: Any  # (N,), Σ w_i V_i − E_U Q_Σ of the next state
    residual: Any  # (N,), see `Survey`


def act_at_random(batch: Random, after: Array, temperature: float) -> Array:
    """The rule of D = Q_Σ − Q^U_w, one head: D(s,a) = γ' E_U[Σ w_i V_i(s') − Q_Σ(s',·) + D(s',·)] − Σ w_i δ_i."""
    return (batch.discount * (batch.above + after[..., 0].mean(axis=-1)) - batch.residual)[:, None]


def _beside_random(
    skills: Sequence[Skill],
    weights: Sequence[float],
    temperature: float,
    seen: Survey,
    over: Survey,
    rows: np.ndarray,
    options: Correction,
    on_progress: Callable[[int, int], None],
) -> np.ndarray:
    """V_Σ − V^U_w (members, n) in the states to which the transitions of `over` lead.

    Member m learns from the transitions `rows[m]` of `seen`.
    """
    critics, root = [critic_of(skill) for skill in skills], jax.random.fold_in(jax.random.key(options.seed), 3)
    size = seen.action.shape[1]

    def prepare(states: Survey) -> Random:
        actions, q = in_blocks(
            lambda some, where: _try_at_random(critics, list(weights), where, jax.random.fold_in(root, some[0]), size),
            np.arange(len(states.discount), dtype=np.uint32), states.next_observation,
        )  # fmt: skip
        above = states.values @ np.asarray(weights, np.float32) - q
        return Random(
            states.observation, states.action, states.discount, states.next_observation, actions, above, states.residual
        )

    data, judged = prepare(seen), prepare(over)
    unit = unit_of(data.above, temperature) / (1.0 - skills[0].discount ** 2) ** 0.5
    values = solve(act_at_random, (unit,), data, rows, temperature, options, on_progress=on_progress)
    later = _heads_of(values, judged.next_observation, judged.next_actions)[..., 0].mean(axis=-1)
    return judged.above - over.kappa + later


@partial(jax.jit, static_argnames="size")
def _try_at_random(critics: Any, weights: Any, states: Array, key: Array, size: int) -> tuple[Array, Array]:
    """Actions of U in every state, and the mean of Q_Σ over them."""
    actions = jax.random.uniform(key, (len(states), RANDOM_ACTIONS, size), minval=-1.0, maxval=1.0)
    return actions, combine_values([critic(states, actions) for critic in critics], weights).mean(axis=1)


def _heads_of(values: Values, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What each member says. (n, obs), (n, draws, act) -> (members, n, draws, heads)"""
    members = [jax.tree.map(itemgetter(m), values) for m in range(len(values.level))]
    return np.stack([in_blocks(partial(_evaluate, member), states, actions) for member in members])


def _measure(values: Values, states: Survey, temperature: float, above_random: np.ndarray) -> dict[str, Any]:
    """The figures over the states to which these transitions lead; `above_random`: what `_beside_random` found."""
    heads = _heads_of(values, states.next_observation, states.next_actions)
    c, lemma, theorem, later = (heads[..., head] for head in range(4))
    log_weight = np.broadcast_to(states.log_weight, c.shape)
    regret = _lose_here(c, log_weight, temperature) + expect(later, log_weight)
    overestimate = soft_minimum(c, log_weight, temperature)
    centred = c - expect(c, log_weight)[..., None]
    disagreement = np.sqrt(np.mean(expect(centred.std(axis=0, ddof=1) ** 2, states.log_weight)))
    signal = np.sqrt(np.mean(expect(centred.mean(axis=0) ** 2, states.log_weight)))
    return {
        "divergence_error": float(states.error.mean()),
        "overestimate": _interval(overestimate),
        "random": _interval(above_random - overestimate),
        "lemma": _interval(soft_minimum(lemma, log_weight, temperature)),
        "theorem": _interval(expect(theorem, log_weight)),
        "regret": _interval(regret, least=0.0),
        "regret_high": _interval(
            np.quantile(regret, 0.9, axis=1)[:, None], least=0.0, mean=float(np.quantile(regret.mean(axis=0), 0.9))
        ),
        "doubt": float(disagreement / max(signal, 1e-6 * temperature)),
    }


def _interval(x: np.ndarray, least: float = -np.inf, mean: float | None = None) -> Interval:
    """Of the mean over states; (members, states). By the jackknife: a member lacks the data that it left out.

    Its variance is (M − 1)/M Σ_m (x_m − x̄)². Members differ by their first weights and batches, too, so that it is
    rather too large; Student's t with M − 1 degrees of freedom takes it for what it is, an estimate from M numbers.
    `mean`: what the interval lies around, if not the members' own mean.
    """
    each = x.mean(axis=1)
    degrees = len(each) - 1
    reach = stdtrit(degrees, 0.5 + LEVEL / 2.0) * degrees * np.std(each, ddof=1) / (degrees + 1.0) ** 0.5
    middle = each.mean() if mean is None else mean
    return Interval(*(float(max(value, least)) for value in (middle, middle - reach, middle + reach)))


def _over_stretches(x: np.ndarray, lengths: Sequence[int]) -> Interval:
    """Of the mean of what several replays hold, one behind the other; within each neighbours in time are alike.

    The means of a replay's stretches are nearly independent if each has several episodes. How the replays differ is no
    error: each has a share of the mean. What changes in the course of a training makes the interval too wide.
    """
    variance = 0.0
    for part in np.split(x, np.cumsum(lengths)[:-1]):
        means = [stretch.mean() for stretch in np.array_split(part, PIECES)]
        variance += (len(part) / len(x)) ** 2 * float(np.var(means, ddof=1)) / PIECES
    reach = stdtrit((PIECES - 1) * len(lengths), 0.5 + LEVEL / 2.0) * variance**0.5
    return Interval(*(float(x.mean() + side * reach) for side in (0.0, -1.0, 1.0)))


def _share(hits: np.ndarray) -> Interval:
    """Of the share of hits among independent trials (Wilson)."""
    n, z = len(hits), float(ndtri(0.5 + LEVEL / 2.0))
    share = float(np.mean(hits))
    middle = (share + z**2 / (2.0 * n)) / (1.0 + z**2 / n)
    reach = z * (share * (1.0 - share) / n + z**2 / (4.0 * n**2)) ** 0.5 / (1.0 + z**2 / n)
    return Interval(share, max(middle - reach, 0.0), min(middle + reach, 1.0))


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(factor * interval.mean, factor * interval.low, factor * interval.high)


def _number(names: Sequence[str]) -> list[str]:
    """Names that differ: runs of one task have the same by default. `left`, `left#2`"""
    return [name if name not in names[:k] else f"{name}#{names[:k].count(name) + 1}" for k, name in enumerate(names)]


def _residuals(skills: Sequence[Skill], data: Transition, seen: Survey, lengths: Sequence[int]) -> list[float]:
    """RMS of r + γ' V_i(s') − Q_i(s,a) on each skill's own replay, which alone knows its reward."""
    result, begin = [], 0
    for index, (skill, length) in enumerate(zip(skills, lengths, strict=True)):
        own = slice(begin, begin + length)
        q = in_blocks(partial(_evaluate, critic_of(skill)), data.observation[own], data.action[own])
        delta = data.reward[own] + seen.discount[own] * seen.values[own, index] - q
        result.append(float(np.sqrt(np.mean(delta**2))))
        begin += length
    return result


def _cover(names: Sequence[str], data: Transition, lengths: Sequence[int]) -> dict[str, Interval]:
    """`a on b` -> share of b's states as near to a's as a's own later states are, by the nearest neighbour."""
    scale = np.maximum(data.observation.std(axis=0), 1e-3)
    rng = np.random.default_rng(0)
    # From the middle: squares of large means would leave no digits for the distances.
    replays = np.split((data.observation - data.observation.mean(axis=0)) / scale, np.cumsum(lengths)[:-1])

    def some(rows: np.ndarray, count: int) -> np.ndarray:
        return rows[rng.permutation(len(rows))[:count]]

    def nearest(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
        square = (rows**2).sum(axis=1)[:, None] + (among**2).sum(axis=1)[None, :] - 2.0 * rows @ among.T
        return np.sqrt(np.maximum(square.min(axis=1), 0.0))

    result = {}
    for mine, states in zip(names, replays, strict=True):
        at = len(states) * (PIECES - 1) // PIECES
        known = some(states[:at], REFERENCE)
        near = np.quantile(nearest(some(states[at:], PROBES), known), 0.95)
        for theirs, others in zip(names, replays, strict=True):
            if theirs != mine:
                result[f"{mine} on {theirs}"] = _share(nearest(some(others, PROBES), known) <= near)
    return result


def _choose_axes(skill: Skill) -> tuple[tuple[str, str], list[int]]:
    """Two coordinates of the observation for the map: those of a puck or a point, else the first ones."""
    names = skill.observation["names"] or [f"observation {k}" for k in range(skill.observation["size"])]
    for pair in MAPS:
        if all(name in names for name in pair):
            return pair, [names.index(name) for name in pair]
    last = min(1, len(names) - 1)
    return (names[0], names[last]), [0, last]


def judge(
    figures: Mapping[str, Any],
    coverage: Mapping[str, Interval],
    own_errors: float,
    residuals: bool = False,
    avoided: bool = False,
    alike: bool = True,
    known: bool = True,
) -> tuple[str, str]:
    """The verdict and its reason by the rules of thumb above; own_errors: what the critics' residuals may add up to.

    residuals: they were taken off, where the replays show them. avoided: some weight is negative. alike: the tasks are
    known to end in the same states. known: the tasks' rewards are.
    """
    regret, random = figures["regret"], figures["random"]
    caveats = []
    for pair, interval in coverage.items():
        mine, _, theirs = pair.partition(" on ")
        share = interval.mean
        if share >= LITTLE_COVERAGE:
            continue
        if coverage[f"{theirs} on {mine}"].mean < LITTLE_COVERAGE:
            return "train", (
                f"{mine} has been where only {share:.0%} of the states of {theirs} are, and the other way round, so "
                "what each says of the other's is a guess: train from scratch, or the skills for longer at a higher "
                "temperature, or with each other's experience"
            )
        caveats.append(
            f"{mine} has been where only {share:.0%} of the states of {theirs} are: what it says elsewhere is a guess"
        )
    if avoided:
        caveats.append("avoiding a skill leads to where no replay has been, and what is lost there is not in it")
    if not alike:
        caveats.append("it holds only if the tasks of all skills end in the same states, which is not known")
    little = SMALL_REGRET * max(random.low, 0.0)
    if own_errors > little and residuals:
        caveats.append(
            f"the critics' own errors, whose Bellman residuals could add up to {own_errors:.3g}, are taken off only as "
            "far as the replays show them"
        )
    elif own_errors > little:
        advice = " (`--residuals` takes them off as far as the replays show them)" if known else ""
        caveats.append(
            f"the critics' own errors are not in it: their Bellman residuals could add up to {own_errors:.3g}{advice}"
        )
    but = "".join(f". But {caveat}" for caveat in caveats)
    beside = f"beside the {random.low:.3g} to {random.high:.3g} of acting at random"
    trusted = own_errors <= little or (residuals and not avoided)  # what is avoided leads to where no replay has been
    if regret.high <= little and trusted:
        return "compose", f"the sum loses {regret.mean:.3g}, little {beside}{but}"
    if regret.high <= little:
        return "try", (
            f"were its critics right everywhere, the sum would lose {regret.mean:.3g}, little {beside}: compose, and "
            f"measure what comes of it before you rely on it{but}"
        )
    much = f"the sum loses {regret.mean:.3g}, much {beside}, and the networks"
    if regret.low <= little:  # the interval does not tell
        much = (
            f"the sum may lose {regret.low:.3g} to {regret.high:.3g}, and up to {little:.3g} would be little {beside}; "
            "the networks"
        )
    if figures["doubt"] <= LARGEST_DOUBT:
        how = ", residuals included (`--correct-residuals`)" if residuals else ""
        return "compose with correction", f"{much} agree on what to take off{how}{but}"
    return "train", f"{much} do not agree on what to take off{but}"
