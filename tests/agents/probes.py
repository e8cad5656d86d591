"""Problems whose answers are known, each isolating one kind of mistake, and claims that hold for any agent."""

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.types import Transition

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


def bowl(action, centre=0.3):
    return -4.0 * (action[..., 0] - centre) ** 2


def fresh(agent, data):
    return agent.init(data.observation.shape[-1], data.action.shape[-1], key=jax.random.key(0))


def step(agent, state, data, key):
    """One update on a random batch of the data."""
    return _learn(agent, state, data, 1, key)


def learn(agent, state, data, updates, seed=1):
    """Many updates; returns the state and the last diagnostics."""
    return _learn(agent, state, data, updates, jax.random.key(seed))


# Compiled once for each agent, whatever the number of updates and of tests.
@partial(jax.jit, static_argnums=0)
def _learn(agent, state, data, updates, key):
    def update(state, key):
        index_key, key = jax.random.split(key)
        index = jax.random.randint(index_key, (agent.batch_size,), 0, COUNT)
        return agent.update(state, jax.tree.map(lambda field: field[index], data), key=key)

    def body(index, carry):
        return update(carry[0], jax.random.fold_in(key, index))

    _, info = jax.eval_shape(update, state, key)
    info = jax.tree.map(lambda figure: jnp.zeros(figure.shape, figure.dtype), info)
    return jax.lax.fori_loop(0, updates, body, (state, info))


def values(critic, observation, action):
    return np.asarray(jax.vmap(critic)(jnp.asarray(observation, jnp.float32), jnp.asarray(action, jnp.float32)))


def actions(choose, state, observation, draws):
    """Draws of `agent.act` or `agent.policy` in one state."""
    keys = jax.random.split(jax.random.key(3), draws)
    return np.asarray(_actions(choose, state, jnp.asarray(observation, jnp.float32), keys))


@partial(jax.jit, static_argnums=0)
def _actions(choose, state, observation, keys):
    return jax.vmap(lambda key: choose(state, observation, key=key))(keys)


def digest_of_a_run(agent) -> str:
    data = make_transitions()
    state, _ = learn(agent, agent.calibrate(fresh(agent, data), data), data, 20)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()


# ------------------------------------------------------------------------------------------- the update as a programme


def check_update_compiles_once(agent, figures):
    data = make_transitions()
    traces = itertools.count()

    @jax.jit
    def update(state, batch, key):
        next(traces)
        return agent.update(state, batch, key=key)

    state = agent.calibrate(fresh(agent, data), data)
    for key in jax.random.split(jax.random.key(1), 3):
        state, info = update(state, data, key)
    assert next(traces) == 1
    assert int(state.updates) == 3
    assert set(info) == figures
    assert all(np.isfinite(value) for value in info.values())


def check_same_bits_in_every_process(agent):
    name = type(agent).__name__
    code = (
        f"from {type(agent).__module__} import {name}; from tests.agents.probes import digest_of_a_run;"
        f"print(digest_of_a_run({agent!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert process.stdout.strip() == digest_of_a_run(agent), process.stderr


def check_policy_follows_the_critic(agent, part):
    """An update moves the policy by the critic that it has just improved, whatever the target network is."""
    data = make_transitions()
    state = replace(fresh(agent, data), target=agent.init(2, 1, key=jax.random.key(9)).critic)

    @jax.jit
    def both(state, data, key, policy_key):
        after, _ = agent.update(state, data, key=key)
        policy, optimiser = getattr(state, part), getattr(state, f"{part}_optimiser")
        return getattr(after, part), agent.improve_policy(
            after.critic, policy, optimiser, data.observation, key=policy_key
        )[0]

    found, expected = both(state, data, jax.random.key(1), jax.random.split(jax.random.key(1))[1])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def check_target_moves_by_its_rate(agent, part):
    """`part(state)`: the networks and their targets."""
    data = make_transitions()
    before = fresh(agent, data)
    after, _ = learn(agent, before, data, 1)
    # A target is moved before its policy is, but after its critic.
    for old, new, target in zip(*map(jax.tree.leaves, (part(before)[1], part(after)[0], part(after)[1])), strict=True):
        np.testing.assert_allclose(target, old + agent.target_rate * (new - old), atol=1e-6)
    assert not np.allclose(before.critic.network.weight_out, after.critic.network.weight_out)


def check_only_termination_cuts_the_bootstrap(agent, terminated):
    data = make_transitions(terminated=terminated)
    state = fresh(agent, data)
    moved = data._replace(next_observation=data.next_observation + 5.0)
    _, here = step(agent, state, data, jax.random.key(1))
    _, there = step(agent, state, moved, jax.random.key(1))
    assert (float(here["critic_loss"]) == float(there["critic_loss"])) == (terminated == 1.0)


# ---------------------------------------------------------------------------------------------------------- the probes


def check_constant_reward_is_learned(agent):
    data = make_transitions(reward=lambda o, a: np.full(len(o), -1.5))
    state, info = learn(agent, fresh(agent, data), data, 400)
    np.testing.assert_allclose(values(state.critic, data.observation, data.action), -1.5, atol=0.15)
    return state, info


def check_reward_of_the_observation_is_learned(agent):
    data = make_transitions(reward=lambda o, a: np.sign(o[:, 0]))
    state, _ = learn(agent, fresh(agent, data), data, 500)
    q = values(state.critic, [[1.5, 0.0], [-1.5, 0.0]], np.zeros((2, 1)))
    np.testing.assert_allclose(q, [1.0, -1.0], atol=0.15)


def check_reward_of_the_second_step_is_discounted_once(agent):
    data = make_two_steps(lambda action: 1.0)
    state, _ = learn(agent, fresh(agent, data), data, 600)
    q = values(state.critic, data.observation[:2], np.zeros((2, 1)))
    np.testing.assert_allclose(q, [agent.discount, 1.0], atol=0.06)


def check_reward_of_the_action_is_learned(agent, updates=1500):
    data = make_transitions(reward=lambda o, a: bowl(a))
    state, _ = learn(agent, fresh(agent, data), data, updates)
    line = np.linspace(-0.8, 1.0, 19)[:, None]
    np.testing.assert_allclose(values(state.critic, np.tile([0.6, -0.8], (19, 1)), line), bowl(line), atol=0.35)
    return state


def check_action_follows_the_observation(agent, draws=1, updates=1000):
    """The best action is tanh(o_0)/2: critic and policy must see both of their inputs."""
    data = make_transitions(reward=lambda o, a: bowl(a, 0.5 * np.tanh(o[:, 0])))
    state, _ = learn(agent, fresh(agent, data), data, updates)
    for side in (1.0, -1.0):
        chosen = actions(agent.policy, state, [1.2 * side, 0.3], draws)
        assert chosen.mean() == pytest.approx(0.42 * side, abs=0.12)


# --------------------------------------------------------------------------------------------------------------- units


def check_calibration_starts_at_the_return_of_the_mean_reward(agent):
    data = make_transitions(reward=lambda o, a: 5.0 + 0.5 * np.sign(a[:, 0]), terminated=0.0)
    state = agent.calibrate(fresh(agent, data), data)
    q = values(state.critic, data.observation, data.action)
    assert q.mean() == pytest.approx(5.0 / (1.0 - agent.discount), abs=2.5)
    np.testing.assert_array_equal(q, values(state.target, data.observation, data.action))


def check_calibration_keeps_raw_units(agent, scaled_agent, weights):
    """All rewards times 16: every Q times 16, and the same networks."""
    data = make_transitions(terminated=0.0)
    results = []
    for factor, each in ((1.0, agent), (16.0, scaled_agent)):
        scaled = data._replace(reward=factor * data.reward)
        state, info = learn(each, each.calibrate(fresh(each, scaled), scaled), scaled, 30)
        q = values(state.critic, data.observation, data.action)
        results.append((q / factor, np.asarray(info["q"]) / factor, np.asarray(weights(state))))
    for once, scaled in zip(*results, strict=True):
        np.testing.assert_allclose(scaled, once, rtol=1e-4, atol=1e-4)


def check_calibration_makes_the_scale_of_observations_irrelevant(agent):
    data = make_transitions(terminated=0.0)
    results = []
    for factor, shift in ((1.0, 0.0), (8.0, 4.0)):
        moved = data._replace(
            observation=factor * data.observation + shift, next_observation=factor * data.next_observation + shift
        )
        state = agent.calibrate(fresh(agent, moved), moved)
        policy = [actions(agent.policy, state, observation, 1)[0] for observation in moved.observation[:3]]
        results.append((values(state.critic, moved.observation, moved.action), np.array(policy)))
    for once, scaled in zip(*results, strict=True):
        np.testing.assert_allclose(once, scaled, rtol=1e-3, atol=1e-5)


def check_calibration_survives_constant_observations_and_rewards(agent):
    data = make_transitions(reward=lambda o, a: np.zeros(len(o)))
    data = data._replace(observation=jnp.ones_like(data.observation))
    state, _ = learn(agent, agent.calibrate(fresh(agent, data), data), data, 3)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def check_units_of_q_are_constants_of_the_training(agent):
    data = make_transitions(terminated=0.0)
    before = agent.calibrate(fresh(agent, data), data)
    after, _ = learn(agent, before, data, 20)
    for name in ("offset", "scale"):
        assert float(getattr(after.critic, name)) == float(getattr(before.critic, name))
    np.testing.assert_array_equal(after.critic.network.observation_mean, before.critic.network.observation_mean)
    np.testing.assert_array_equal(after.critic.network.observation_scale, before.critic.network.observation_scale)


# --------------------------------------------------------------------------------------------------------- exploration


def check_noise_is_for_exploration_only(agent):
    data = make_transitions(action_size=3)
    state = fresh(agent, data)
    explored = actions(agent.act, state, data.observation[0], 2000)
    followed = actions(agent.policy, state, data.observation[0], 64)
    assert explored.shape == (2000, 3) and np.all(np.abs(explored) <= 1.0)
    # A fresh policy is near the middle of the box, where the noise is not cut.
    np.testing.assert_allclose(explored.std(axis=0), agent.noise, rtol=0.1)
    np.testing.assert_allclose(explored.mean(axis=0), followed[0], atol=0.02)
    np.testing.assert_array_equal(followed, np.tile(followed[0], (64, 1)))
