import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.training import logged
from qompose.training.logged import learn_from_log
from qompose.types import Transition

SMALL = {"hidden": (16,), "batch_size": 8}


def log_of(count=400, reward=lambda action: -np.square(action - 0.5).sum(axis=-1)):
    """Random actions in random states; the best action is 0.5 everywhere."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, count, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    return Transition(states[0], actions, reward(actions).astype(np.float32), states[1], np.ones(count, np.float32))


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_states_do_not_depend_on_the_marks_or_on_the_chunks(monkeypatch):
    agent, data = NAF(**SMALL), log_of()
    one = {step: leaves(state) for step, state, _ in learn_from_log(agent, data, [3, 25], seed=5)}
    monkeypatch.setattr(logged, "CHUNK", 7)
    other = {step: leaves(state) for step, state, _ in learn_from_log(agent, data, [1, 25], seed=5)}
    assert sorted(one) == [3, 25] and sorted(other) == [1, 25]
    assert all(np.array_equal(a, b) for a, b in zip(one[25], other[25], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one[3], one[25], strict=True))


def test_chunks_and_another_log_of_the_same_length_compile_nothing_anew(compiled, monkeypatch):
    agent = NAF(**SMALL)
    monkeypatch.setattr(logged, "CHUNK", 7)
    list(learn_from_log(agent, log_of(count=398), [1, 25], seed=0))
    assert compiled[logged._update.__name__] == 1
    compiled.clear()
    other = log_of(count=398, reward=lambda action: action.sum(axis=-1))
    list(learn_from_log(agent, other, [3, 30], seed=1))
    assert not compiled


def test_another_seed_gives_other_networks():
    agent, data = NAF(**SMALL), log_of()
    first, second = (next(learn_from_log(agent, data, [3], seed=seed))[1].critic.network for seed in (0, 1))
    assert not np.array_equal(first.weight_out, second.weight_out)


def test_the_log_teaches_what_its_rewards_say():
    agent = NAF(hidden=(32,), batch_size=64, learning_rate=1e-2, discount=0.01)
    for wanted in (0.5, -0.5):
        data = log_of(reward=lambda action, wanted=wanted: -np.square(action - wanted).sum(axis=-1))
        *_, (steps, state, figures) = learn_from_log(agent, data, [1, 600], seed=0)
        assert steps == 600 and figures["critic_loss"] < 1.0
        best = np.asarray(jax.vmap(state.critic.best)(jnp.asarray(data.observation[:20])))
        assert np.abs(best - wanted).mean() < 0.15


def test_the_critic_sees_the_log_and_the_sampler_is_trained_with_it(tiny_agent):
    runs = learn_from_log(tiny_agent, log_of(), [1, 20], seed=0)
    (_, before, _), (_, after, figures) = runs
    assert isinstance(tiny_agent, SQL) and int(after.updates) == 20
    assert not np.array_equal(before.sampler.network.weight_out, after.sampler.network.weight_out)
    assert set(figures) >= {"q", "critic_loss", "stein_norm"} and all(map(np.isfinite, figures.values()))


def test_scales_are_measured_on_the_whole_log():
    data = log_of()
    state = next(learn_from_log(NAF(**SMALL), data, [1], seed=0))[1]
    np.testing.assert_allclose(state.critic.network.observation_mean, data.observation.mean(axis=0), atol=1e-5)
    assert float(state.critic.offset) == pytest.approx(data.reward.mean() / (1 - 0.99), rel=1e-4)
