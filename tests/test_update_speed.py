"""The operations that the benchmark counts, against those that XLA finds in the same programs."""

import jax
import pytest

from benchmarks import same_bits, update_speed
from benchmarks.update_speed import ACTION, OBSERVATION, baseline_flops, needed_flops, random_batch
from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL


@pytest.mark.parametrize("make", [SQL, DDPG, NAF])
def test_the_counted_products_are_most_of_an_update_and_no_more(make):
    agent, key = make(batch_size=64), jax.random.key(0)
    state = jax.eval_shape(lambda key: agent.init(OBSERVATION, ACTION, key=key), key)
    batch = jax.eval_shape(lambda key: random_batch(64, key), key)
    # One update, not a round of them: XLA counts the body of a loop once.
    program = jax.jit(lambda state, batch, key: agent.update(state, batch, key=key)).lower(state, batch, key).compile()
    counted = sum(needed_flops(agent, 64).values()) if make is SQL else baseline_flops(agent, 64)
    assert 0.85 <= counted / program.cost_analysis()["flops"] <= 1.0  # the rest is elementwise


def test_the_calls_that_are_timed_are_those_of_the_loop_and_learn(monkeypatch):
    agent = NAF(hidden=(8,), batch_size=8)
    monkeypatch.setattr(update_speed, "ROWS", 64)
    seconds, state = update_speed.seconds_per_update(agent, seed=0, windows=1)
    assert seconds > 0.0 and int(state.updates) >= update_speed.UPDATES
    monkeypatch.setattr(same_bits, "ROUNDS", 6)
    assert same_bits.time_updates() > 0.0


def test_the_counted_products_are_most_of_each_part_that_is_timed(monkeypatch):
    monkeypatch.setattr(
        update_speed, "best_seconds", lambda call, windows: jax.jit(call).lower().cost_analysis()["flops"]
    )
    agent = SQL(batch_size=64)
    state = agent.init(OBSERVATION, ACTION, key=jax.random.key(0))
    found = update_speed.seconds_of_parts(agent, state, seed=1, windows=1)
    found["critic"] = found.pop("critic with value") - found["value"]
    counted = needed_flops(agent, 64)
    assert counted.keys() == found.keys()
    assert all(0.85 <= counted[part] / found[part] <= 1.0 for part in found), (counted, found)
