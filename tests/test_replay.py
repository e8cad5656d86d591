import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.replay import init_replay, unpack
from qompose.types import Transition


def make(start, count):
    """Transitions that carry their own number in every field."""
    number = jnp.arange(start, start + count, dtype=jnp.float32)
    return Transition(
        observation=jnp.stack([number, number + 0.25], axis=-1),
        action=number[:, None] + 0.5,
        reward=number + 0.625,
        next_observation=jnp.stack([number + 0.75, number + 0.875], axis=-1),
        terminated=(number % 2.0),
    )


def rewards(replay):
    return unpack(replay.rows, 2, 1).reward - 0.625


def test_the_oldest_transitions_are_overwritten():
    replay = init_replay(8, 2, 1)
    assert int(replay.size) == 0
    for start, size, held in ((0, 4, {0, 1, 2, 3}), (4, 8, set(range(8))), (8, 8, {8, 9, 10, 11, 4, 5, 6, 7})):
        replay = replay.add(make(start, 4))
        assert int(replay.size) == size
        assert set(np.asarray(rewards(replay))[:size].astype(int)) == held
    assert int(replay.inserted) == 12
    assert replay.capacity == 8


def test_a_batch_that_does_not_divide_the_capacity_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        init_replay(8, 2, 1).add(make(0, 3))


def test_samples_are_whole_transitions_and_only_stored_ones():
    replay = init_replay(64, 2, 1).add(make(100, 16))
    batch = replay.sample(500, key=jax.random.key(0))
    number = np.asarray(batch.reward) - 0.625
    assert set(number.astype(int)) == set(range(100, 116))
    # Fields of one row belong together.
    np.testing.assert_array_equal(batch.observation[:, 0], number)
    np.testing.assert_array_equal(batch.action[:, 0], number + 0.5)
    np.testing.assert_array_equal(batch.next_observation[:, 1], number + 0.875)
    np.testing.assert_array_equal(batch.terminated, number % 2)


def test_samples_are_uniform_over_what_is_stored():
    replay = init_replay(64, 2, 1)
    for start in range(0, 96, 32):
        replay = replay.add(make(start, 32))
    number = np.asarray(replay.sample(64_000, key=jax.random.key(1)).reward) - 0.625
    counts = np.bincount(number.astype(int), minlength=96)
    assert counts[:32].sum() == 0
    assert counts[32:].min() > 850  # 1000 expected, standard deviation 31
    assert counts[32:].max() < 1150


def test_samples_follow_the_key():
    replay = init_replay(64, 2, 1).add(make(0, 32))
    first, again, other = (np.asarray(replay.sample(16, key=jax.random.key(seed)).reward) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_adding_and_sampling_compile_once():
    traces = itertools.count()

    @jax.jit
    def cycle(replay, transitions, key):
        next(traces)
        replay = replay.add(transitions)
        return replay, replay.sample(4, key=key)

    replay = init_replay(16, 2, 1)
    for step, key in enumerate(jax.random.split(jax.random.key(0), 7)):
        replay, batch = cycle(replay, make(4 * step, 4), key)
        assert np.all(np.asarray(batch.reward) >= 4 * step - 12)
    assert next(traces) == 1
    assert int(replay.inserted) == 28
