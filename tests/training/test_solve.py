"""The learner behind corrections, certificates and gpi, on a finite problem whose answers are known."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.explanation import _measure, certify
from qompose.soft import finite
from qompose.soft.bounds import expect
from qompose.training.correct import Correction, Survey, Values, solve
from tests.soft.problems import ACTIONS, STATES, Problem

OPTIONS = Correction(steps=800, batch_size=32, hidden=(32,), learning_rate=1e-2, target_rate=0.05)
# Every action twice in a row, so that both halves of the draws are all actions.
DRAWS = np.repeat(np.arange(ACTIONS), 2)


@pytest.fixture(scope="module")
def problem():
    return Problem(0, deterministic=True)


def transitions(problem):
    """Every step (s, a, s') of a problem without chance once; states and actions are unit vectors."""
    following = problem.kernel.argmax(axis=-1).ravel()
    count = len(following)
    return Survey(
        observation=np.repeat(np.eye(STATES, dtype=np.float32), ACTIONS, axis=0),
        action=np.tile(np.eye(ACTIONS, dtype=np.float32), (STATES, 1)),
        discount=problem.kernel.sum(axis=-1).ravel().astype(np.float32),
        next_observation=np.eye(STATES, dtype=np.float32)[following],
        values=np.zeros((count, 3), np.float32),
        kappa=problem.kappa[following].astype(np.float32),
        error=np.linspace(0.1, 0.3, count, dtype=np.float32),
        next_actions=np.broadcast_to(np.eye(ACTIONS, dtype=np.float32)[DRAWS], (count, len(DRAWS), ACTIONS)),
        log_weight=(problem.log_weight[:, DRAWS] - np.log(2.0))[following].astype(np.float32),
        residual=np.zeros(count, np.float32),
    )


def exact_heads(problem):
    """C_w, C*, D* and the regret after a step, each (S, A)."""
    lemma = finite.lemma_bound(problem.kappa, problem.kernel)
    regret = finite.soft_regret(problem.total, problem.c, problem.kernel, problem.alpha)
    theorem = finite.theorem_bound(lemma, problem.kernel, problem.policy)
    return problem.c, lemma, theorem, finite.expect_next(problem.kernel, regret)


def test_what_is_learned_is_the_fixed_point(problem):
    seen, heads = transitions(problem), exact_heads(problem)
    rows = np.arange(len(seen.discount), dtype=np.int32)[None]
    units = [float(np.std(head)) for head in heads]
    values = jax.tree.map(lambda x: x[0], solve(certify, units, seen, rows, problem.alpha, OPTIONS))
    learned = np.asarray(values(jnp.asarray(seen.observation), jnp.asarray(seen.action)))
    for found, exact in zip(learned.T, heads, strict=True):
        goes_on = seen.discount > 0.0
        error = np.abs(found - exact.ravel())[goes_on].max()
        assert error < 0.1 * np.ptp(exact.ravel()[goes_on])


def test_every_member_learns_from_its_own_rows(problem):
    seen = transitions(problem)._replace(kappa=np.repeat([1.0, 5.0], 15).astype(np.float32))
    rows = np.stack([np.arange(15, 30), np.arange(15)]).astype(np.int32)

    def copy(batch, after, temperature):
        return batch.kappa[:, None]

    options = replace(OPTIONS, steps=300, hidden=(8,), learning_rate=0.05)
    values = solve(copy, (1.0,), seen, rows, problem.alpha, options)
    for member, expected in enumerate((5.0, 1.0)):
        mine = jax.tree.map(lambda x, member=member: x[member], values)
        found = np.asarray(mine(jnp.asarray(seen.observation), jnp.asarray(seen.action)))[rows[member], 0]
        np.testing.assert_allclose(found, expected, atol=0.5)


class Known(Values):
    """Heads (S, A, heads) that were not learned; of several members with a leading axis."""

    network: Any  # the table

    @staticmethod
    def of(*tables):
        """One member for each table."""
        table = jnp.asarray(np.stack(tables), jnp.float32)
        return Known(table, jnp.zeros((len(tables), 4)), jnp.ones((len(tables), 4)))

    def __call__(self, observation, actions):
        return jnp.einsum("bs,bka,sah->bkh", observation, actions, self.network)


def test_the_figures_are_those_of_the_oracle(problem):
    seen, heads = transitions(problem), np.stack(exact_heads(problem), axis=-1)
    # Two members that are wrong by as much, one above and one below: their means are right.
    apart = 0.1 * np.linspace(-1.0, 1.0, ACTIONS)[:, None] * np.array([1.0, 0.0, 0.0, 0.0])
    above_random = np.full((2, len(seen.discount)), [[1.0], [3.0]])
    found = _measure(Known.of(heads + apart, heads - apart), seen, problem.alpha, above_random)
    there = seen.next_observation.argmax(axis=-1)
    c, lemma, theorem, _ = np.moveaxis(heads, -1, 0)

    def soft_least(x):
        return -problem.alpha * np.log(np.mean(problem.policy * np.exp(-x / problem.alpha), axis=-1))

    assert found["lemma"].mean == pytest.approx(soft_least(lemma)[there].mean(), rel=1e-3)
    assert found["theorem"].mean == pytest.approx(np.mean(problem.policy * theorem, axis=-1)[there].mean(), rel=1e-3)
    assert found["lemma"].high - found["lemma"].low < 1e-3 * found["lemma"].mean  # the members agree on it
    assert found["divergence_error"] == pytest.approx(0.2)
    assert found["random"].mean == pytest.approx(2.0 - found["overestimate"].mean, rel=1e-5)
    # Disagreement of two members that differ by d everywhere is d/√2, of what they share the spread under π_Σ.
    log_weight = np.log(problem.policy / ACTIONS)
    difference = 2.0 * (apart[:, 0] - expect(np.broadcast_to(apart[:, 0], c.shape), log_weight)[:, None])
    middle = c - expect(c, log_weight)[:, None]
    doubt = [np.sqrt(expect(x**2, log_weight)[there].mean()) for x in (difference / 2**0.5, middle)]
    assert found["doubt"] == pytest.approx(doubt[0] / doubt[1], rel=1e-3)
    # Without what they differ by, overestimate and regret are exact.
    found = _measure(Known.of(heads, heads), seen, problem.alpha, np.zeros((2, len(seen.discount))))
    regret = finite.soft_regret(problem.total, problem.c, problem.kernel, problem.alpha)[there]
    assert found["overestimate"].mean == pytest.approx(soft_least(c)[there].mean(), rel=1e-3)
    assert found["regret"].mean == pytest.approx(regret.mean(), rel=1e-3)
    assert found["regret_high"].mean == pytest.approx(np.quantile(regret, 0.9), rel=1e-3)
    assert found["doubt"] < 1e-3
