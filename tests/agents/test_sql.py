import hashlib
import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from qompose.agents.sql import SQL
from qompose.soft.stein import stein_direction
from qompose.types import Transition

SMALL = SQL(hidden=(32, 32), batch_size=32)
# For problems whose answer is known: hot enough that the soft value differs from the maximum, and quick to learn.
PROBE = replace(
    SMALL,
    temperature=0.5,
    discount=0.8,
    learning_rate=3e-3,
    target_rate=0.05,
    value_particles=64,
    fixed_particles=16,
    updated_particles=16,
)
COUNT = 1024


def make_transitions(*, reward=None, terminated=1.0, action_size=1):
    """Random states and actions; `reward(observation, action)`; the next state is another random state."""
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(COUNT, 2))
    action = generator.uniform(-1.0, 1.0, (COUNT, action_size))
    rewards = generator.normal(size=COUNT) if reward is None else reward(observation, action)
    return to_jax(observation, action, rewards, generator.normal(size=(COUNT, 2)), np.full(COUNT, terminated))


def make_two_steps(reward_of_second):
    """State (1, 0) leads to state (−1, 0) without reward; there `reward_of_second(action)` is paid and all ends."""
    generator = np.random.default_rng(0)
    action = generator.uniform(-1.0, 1.0, (COUNT, 1))
    is_first = np.arange(COUNT) % 2 == 0
    first, second = np.array([1.0, 0.0]), np.array([-1.0, 0.0])
    return to_jax(
        np.where(is_first[:, None], first, second),
        action,
        np.where(is_first, 0.0, reward_of_second(action)),
        np.tile(second, (COUNT, 1)),
        np.where(is_first, 0.0, 1.0),
    )


def to_jax(*fields):
    return Transition(*(jnp.asarray(field, jnp.float32) for field in fields))


def fresh(agent, data):
    return agent.init(data.observation.shape[-1], data.action.shape[-1], key=jax.random.key(0))


@partial(jax.jit, static_argnums=0)
def step(agent, state, data, key):
    """One update on a random batch of the data."""
    index_key, key = jax.random.split(key)
    index = jax.random.randint(index_key, (agent.batch_size,), 0, COUNT)
    return agent.update(state, jax.tree.map(lambda field: field[index], data), key=key)


def learn(agent, state, data, updates, seed=1):
    """Many updates; returns the state and the last diagnostics."""
    info = {}
    for key in jax.random.split(jax.random.key(seed), updates):
        state, info = step(agent, state, data, key)
    return state, info


def values(critic, observation, action):
    return np.asarray(jax.vmap(critic)(jnp.asarray(observation, jnp.float32), jnp.asarray(action, jnp.float32)))


def quadrature(q_of, temperature):
    action = ((np.arange(4000) + 0.5) / 2000 - 1.0)[:, None]
    return temperature * math.log(np.mean(np.exp(q_of(action) / temperature)))


# The update as a programme.


def test_update_compiles_once():
    data = make_transitions()
    traces = itertools.count()

    @jax.jit
    def update(state, batch, key):
        next(traces)
        return SMALL.update(state, batch, key=key)

    state = SMALL.calibrate(fresh(SMALL, data), data)
    for key in jax.random.split(jax.random.key(1), 3):
        state, info = update(state, data, key)
    assert next(traces) == 1
    assert int(state.updates) == 3
    assert set(info) == {"critic_loss", "q", "value", "sample_size", "stein_norm"}
    assert all(np.isfinite(value) for value in info.values())


def digest_of_a_run() -> str:
    data = make_transitions()
    state, _ = learn(SMALL, SMALL.calibrate(fresh(SMALL, data), data), data, 20)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()


def test_same_seed_gives_the_same_bits_in_every_process():
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('claims', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.digest_of_a_run())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.run(
        [sys.executable, "-c", code, __file__], env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.stdout.strip() == digest_of_a_run(), process.stderr


def test_different_keys_give_different_states():
    data = make_transitions()
    first, second = (learn(SMALL, fresh(SMALL, data), data, 1, seed)[0] for seed in (1, 2))
    assert not np.array_equal(first.sampler.network.weight_out, second.sampler.network.weight_out)


def test_agents_are_equal_by_their_hyperparameters():
    assert hash(SQL(temperature=0.2)) == hash(SQL(temperature=0.2))
    assert SQL(temperature=0.2) != SQL(temperature=0.3)


def test_action_lies_in_the_box_and_follows_the_key():
    data = make_transitions(action_size=3)
    state = fresh(SMALL, data)
    act = jax.jit(jax.vmap(lambda key: SMALL.act(state, data.observation[0], key=key)))
    actions = np.asarray(act(jax.random.split(jax.random.key(3), 64)))
    assert actions.shape == (64, 3)
    assert np.all(np.abs(actions) <= 1.0)
    assert np.all(actions.std(axis=0) > 0.0)


# The target network.


def test_target_moves_by_its_rate():
    data = make_transitions()
    before = fresh(PROBE, data)
    after, _ = learn(PROBE, before, data, 1)
    for old, critic, new in zip(*map(jax.tree.leaves, (before.target, after.critic, after.target)), strict=True):
        np.testing.assert_allclose(new, old + PROBE.target_rate * (critic - old), atol=1e-6)
    assert not np.allclose(before.critic.network.weight_out, after.critic.network.weight_out)


def test_target_is_copied_at_intervals():
    agent, data = replace(SMALL, target_rate=None, target_period=3), make_transitions()
    states = [fresh(agent, data)]
    for key in jax.random.split(jax.random.key(1), 6):
        states.append(step(agent, states[-1], data, key)[0])
    output = [(np.asarray(s.target.network.weight_out), np.asarray(s.critic.network.weight_out)) for s in states]
    for index, copied in ((1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, 6)):
        np.testing.assert_allclose(output[index][0], output[copied][1], atol=1e-7)
        assert index == copied or not np.allclose(*output[index], atol=1e-7)


# Probe problems: each isolates one kind of mistake, each with a value known beforehand.


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_only_termination_cuts_the_bootstrap(terminated):
    data = make_transitions(terminated=terminated)
    state = fresh(SMALL, data)
    improve = jax.jit(SMALL.improve_critic)
    moved = data._replace(next_observation=data.next_observation + 5.0)
    _, here = improve(state, data, key=jax.random.key(1))
    _, there = improve(state, moved, key=jax.random.key(1))
    assert (float(here["critic_loss"]) == float(there["critic_loss"])) == (terminated == 1.0)


def test_constant_reward_of_one_step_is_learned():
    data = make_transitions(reward=lambda o, a: np.full(len(o), -1.5))
    state, info = learn(PROBE, fresh(PROBE, data), data, 400)
    np.testing.assert_allclose(values(state.critic, data.observation, data.action), -1.5, atol=0.15)
    # A constant Q is its own soft value: nothing of the base measure is left over.
    assert float(info["value"]) == pytest.approx(-1.5, abs=0.1)


def test_reward_that_depends_on_the_observation_is_learned():
    data = make_transitions(reward=lambda o, a: np.sign(o[:, 0]))
    state, _ = learn(PROBE, fresh(PROBE, data), data, 500)
    q = values(state.critic, [[1.5, 0.0], [-1.5, 0.0]], np.zeros((2, 1)))
    np.testing.assert_allclose(q, [1.0, -1.0], atol=0.15)


def test_reward_of_the_second_step_is_discounted_once():
    data = make_two_steps(lambda action: 1.0)
    state, _ = learn(PROBE, fresh(PROBE, data), data, 600)
    q = values(state.critic, data.observation[:2], np.zeros((2, 1)))
    np.testing.assert_allclose(q, [PROBE.discount, 1.0], atol=0.06)


def bowl(action):
    return -4.0 * (action[..., 0] - 0.3) ** 2


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_reward_of_the_action_gives_the_soft_value_and_the_boltzmann_policy(proposal):
    agent = replace(PROBE, proposal=proposal)
    data = make_transitions(reward=lambda o, a: bowl(a))
    state, _ = learn(agent, fresh(agent, data), data, 1500)
    here = jnp.array([0.6, -0.8])
    line = np.linspace(-0.8, 1.0, 19)[:, None]
    np.testing.assert_allclose(values(state.critic, np.tile(here, (19, 1)), line), bowl(line), atol=0.35)

    estimate = jax.jit(lambda o, key: agent.estimate_value(state.critic, state.sampler, o, key=key))
    value, _ = estimate(jnp.tile(here, (512, 1)), jax.random.key(2))
    assert float(value.mean()) == pytest.approx(quadrature(bowl, agent.temperature), abs=0.1)

    # exp(Q/α) = exp(−8 (a − 0.3)²) is a Gaussian of mean 0.3 and deviation 0.25, cut at 1.
    act = jax.jit(jax.vmap(lambda key: agent.act(state, here, key=key)))
    actions = np.asarray(act(jax.random.split(jax.random.key(3), 5000)))
    assert actions.mean() == pytest.approx(0.3, abs=0.08)
    assert actions.std() == pytest.approx(0.25, abs=0.06)


def test_bootstrap_uses_the_soft_value_and_not_the_maximum():
    data = make_two_steps(bowl)
    state, _ = learn(PROBE, fresh(PROBE, data), data, 1200)
    q = values(state.critic, np.tile([1.0, 0.0], (9, 1)), np.linspace(-1.0, 1.0, 9)[:, None])
    expected = PROBE.discount * quadrature(bowl, PROBE.temperature)
    assert expected < -0.4  # the maximum would give 0
    assert q.mean() == pytest.approx(expected, abs=0.08)


# Units.


def test_calibration_starts_at_the_return_of_the_mean_reward():
    data = make_transitions(reward=lambda o, a: 5.0 + 0.5 * np.sign(a[:, 0]), terminated=0.0)
    state = PROBE.calibrate(fresh(PROBE, data), data)
    q = values(state.critic, data.observation, data.action)
    assert q.mean() == pytest.approx(5.0 / (1.0 - PROBE.discount), abs=2.5)
    np.testing.assert_array_equal(q, values(state.target, data.observation, data.action))


def test_calibration_keeps_raw_units():
    # All rewards and the temperature times 16: every Q and V times 16, and the same policy.
    data = make_transitions(terminated=0.0)
    results = []
    for factor in (1.0, 16.0):
        agent = replace(SMALL, temperature=factor * SMALL.temperature)
        scaled = data._replace(reward=factor * data.reward)
        state, info = learn(agent, agent.calibrate(fresh(agent, scaled), scaled), scaled, 30)
        q = values(state.critic, data.observation, data.action)
        results.append((q / factor, np.asarray(info["value"]) / factor, np.asarray(state.sampler.network.weight_out)))
    for once, scaled in zip(*results, strict=True):
        np.testing.assert_allclose(scaled, once, rtol=1e-4, atol=1e-4)


def test_calibration_makes_the_scale_of_observations_irrelevant():
    data = make_transitions(terminated=0.0)
    results = []
    for factor, shift in ((1.0, 0.0), (8.0, 4.0)):
        moved = data._replace(
            observation=factor * data.observation + shift, next_observation=factor * data.next_observation + shift
        )
        state = SMALL.calibrate(fresh(SMALL, moved), moved)
        results.append(values(state.critic, moved.observation, moved.action))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)


def test_calibration_survives_constant_observations_and_rewards():
    data = make_transitions(reward=lambda o, a: np.zeros(len(o)))
    data = data._replace(observation=jnp.ones_like(data.observation))
    state, _ = learn(SMALL, SMALL.calibrate(fresh(SMALL, data), data), data, 3)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_units_of_q_are_constants_of_the_training():
    data = make_transitions(terminated=0.0)
    before = SMALL.calibrate(fresh(SMALL, data), data)
    after, _ = learn(SMALL, before, data, 20)
    for name in ("offset", "scale"):
        assert float(getattr(after.critic, name)) == float(getattr(before.critic, name))
    np.testing.assert_array_equal(after.critic.network.observation_mean, before.critic.network.observation_mean)
    np.testing.assert_array_equal(after.sampler.network.observation_scale, before.sampler.network.observation_scale)


# Soft value and sampler for a Q that is known.


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_estimated_value_equals_quadrature(proposal):
    temperature = 0.4

    def critic(observation, action):
        return jnp.cos(3.0 * action[..., 0]) + observation[0] * action[..., 1]

    agent = replace(SMALL, temperature=temperature, proposal=proposal, value_particles=64)
    state = agent.init(1, 2, key=jax.random.key(0))
    estimate = jax.jit(lambda o, key: agent.estimate_value(critic, state.sampler, o, key=key))
    value, share = estimate(jnp.full((4000, 1), 0.5), jax.random.key(1))
    line = (np.arange(400) + 0.5) / 200 - 1.0
    q = np.cos(3.0 * line)[:, None] + 0.5 * line
    exact = temperature * math.log(np.mean(np.exp(q / temperature)))
    unbiased = temperature * math.log(np.mean(np.exp(np.asarray(value) / temperature)))
    assert unbiased == pytest.approx(exact, abs=0.01 * temperature)
    assert np.all((np.asarray(share) > 0.0) & (np.asarray(share) <= 1.0 + 1e-6))


def flat(observation, action):
    return 0.0 * action[..., 0]


def improve_with_the_known_fault(agent, critic, sampler, optimiser, observations, *, key):
    """Public codes' mistake: the Jacobian is added, but gradient, kernel and motion are those of a, not of u."""
    noise = jax.random.normal(key, (observations.shape[0], 32, sampler.network.bias_out.shape[0]))
    fixed = lax.stop_gradient(jnp.tanh(jax.vmap(sampler)(observations, noise[:, :16])))

    def log_target(action):
        energy = jax.vmap(critic)(observations, action) / agent.temperature
        return jnp.sum(energy + jnp.sum(jnp.log(1.0 - action**2 + 1e-6), axis=-1))

    gradient = jax.grad(log_target)(fixed)

    def surrogate(sampler):
        updated = jnp.tanh(jax.vmap(sampler)(observations, noise[:, 16:]))
        return -jnp.mean(jnp.sum(lax.stop_gradient(stein_direction(fixed, updated, gradient)) * updated, axis=(-2, -1)))

    step, optimiser = optax.adam(1e-3).update(jax.grad(surrogate)(sampler), optimiser)
    return optax.apply_updates(sampler, step), optimiser, {}


def share_near_the_edge(improve):
    """Train a sampler on a flat Q; the share of its actions with |a_i| > 0.9, which is 0.1 for the uniform policy."""
    agent = replace(PROBE, temperature=1.0, hidden=(128, 128))
    state = agent.init(1, 2, key=jax.random.key(0))
    observations = jnp.zeros((16, 1))

    def step(carry, key):
        sampler, optimiser, _ = improve(agent, flat, *carry, observations, key=key)
        return (sampler, optimiser), None

    start = (state.sampler, state.sampler_optimiser)
    keys = jax.random.split(jax.random.key(1), 1000)
    (sampler, _), _ = jax.jit(lambda start, keys: lax.scan(step, start, keys))(start, keys)
    u = eqx.filter_jit(sampler)(jnp.zeros(1), jax.random.normal(jax.random.key(2), (50_000, 2)))
    return float(np.mean(np.abs(np.tanh(u)) > 0.9))


def test_sampler_of_a_flat_q_is_uniform_up_to_the_edge():
    assert share_near_the_edge(SQL.improve_policy) == pytest.approx(0.1, abs=0.03)


def test_the_known_squashing_fault_would_fail_that_test():
    # It targets exp(Q/α) Π (1 − a²), which puts 1.45 % there.
    assert share_near_the_edge(improve_with_the_known_fault) < 0.03
