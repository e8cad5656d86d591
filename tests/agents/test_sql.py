import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from qompose.agents.sql import SQL
from qompose.learning import adam
from qompose.soft.stein import stein_direction
from tests.agents import probes
from tests.agents.probes import bowl, fresh, learn, make_transitions, make_two_steps, step, values

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


def quadrature(q_of, temperature):
    action = ((np.arange(4000) + 0.5) / 2000 - 1.0)[:, None]
    return temperature * math.log(np.mean(np.exp(q_of(action) / temperature)))


# The update as a programme.


def test_update_compiles_once():
    probes.check_update_compiles_once(SMALL, {"critic_loss", "q", "value", "sample_size", "stein_norm", "temperature"})


def test_same_seed_gives_the_same_bits_in_every_process():
    probes.check_same_bits_in_every_process(SMALL)


def test_different_keys_give_different_states():
    data = make_transitions()
    first, second = (learn(SMALL, fresh(SMALL, data), data, 1, seed)[0] for seed in (1, 2))
    assert not np.array_equal(first.sampler.network.weight_out, second.sampler.network.weight_out)


def test_agents_are_equal_by_their_hyperparameters():
    assert hash(SQL(temperature=0.2)) == hash(SQL(temperature=0.2))
    assert SQL(temperature=0.2) != SQL(temperature=0.3)


@pytest.mark.parametrize(("updates", "factor"), [(0, 4.0), (25, 2.0), (50, 1.0), (90, 1.0)])
def test_a_planned_training_cools_down_to_its_temperature(updates, factor):
    cold = replace(SMALL, temperature=0.5, initial_heat=1.0, planned_updates=100)
    cooling = replace(cold, initial_heat=4.0)
    constant = replace(cooling, temperature=0.5 * factor, initial_heat=1.0)
    data = make_transitions()
    state = fresh(constant, data)
    state = eqx.tree_at(lambda s: s.updates, state, jnp.asarray(updates, jnp.int32))
    cooled, expected = (step(agent, state, data, jax.random.key(0))[0] for agent in (cooling, constant))
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=0, atol=1e-6), cooled, expected))
    colder, value = (step(agent, state, data, jax.random.key(0))[1]["value"] for agent in (cold, cooling))
    assert (value < colder - 1e-3) == (factor != 1.0)  # the hotter, the nearer to the mean of Q


def test_without_a_plan_the_temperature_is_constant():
    assert replace(SMALL, initial_heat=4.0).heat(jnp.zeros((), jnp.int32)) == SMALL.temperature


def test_action_lies_in_the_box_and_follows_the_key():
    data = make_transitions(action_size=3)
    state = fresh(SMALL, data)
    actions = probes.actions(SMALL.act, state, data.observation[0], 64)
    assert actions.shape == (64, 3)
    assert np.all(np.abs(actions) <= 1.0)
    assert np.all(actions.std(axis=0) > 0.0)
    # What explores is the very policy that is evaluated.
    np.testing.assert_array_equal(actions, probes.actions(SMALL.policy, state, data.observation[0], 64))


@pytest.mark.parametrize(("given", "unit"), [(None, 0.1), (0.3, 0.3)])
def test_the_critics_unit_is_the_temperature_unless_given(given, unit):
    agent, data = replace(SMALL, critic_unit=given), make_transitions()
    state = agent.calibrate(fresh(agent, data), data)
    assert float(state.critic.scale) == float(state.target.scale) == pytest.approx(unit)
    expected = float(data.reward.mean()) / (1.0 - agent.discount)
    assert float(state.critic.offset) == float(state.target.offset) == pytest.approx(expected, rel=1e-4)


# The target network.


def test_target_moves_by_its_rate():
    probes.check_target_moves_by_its_rate(PROBE, lambda state: (state.critic, state.target))


def test_the_loss_is_the_bellman_error_of_the_target_network():
    data = make_transitions(terminated=0.0)
    other = SMALL.init(2, 1, key=jax.random.key(9)).critic
    state = replace(fresh(SMALL, data), target=other)

    @jax.jit
    def both(state, data, key, again):
        value, _ = SMALL.estimate_value(other, state.sampler, data.next_observation, key=key)
        error = state.critic(data.observation, data.action) - data.reward - SMALL.discount * value
        return 0.5 * jnp.mean(error**2), SMALL.improve_critic(state, data, key=again)[1]["critic_loss"]

    expected, found = both(state, data, jax.random.key(1), jax.random.key(1))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_the_sampler_follows_the_critic_and_not_its_target():
    probes.check_policy_follows_the_critic(SMALL, "sampler")


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
    probes.check_only_termination_cuts_the_bootstrap(SMALL, terminated)


def test_constant_reward_of_one_step_is_learned():
    _, info = probes.check_constant_reward_is_learned(PROBE)
    # A constant Q is its own soft value: nothing of the base measure is left over.
    assert float(info["value"]) == pytest.approx(-1.5, abs=0.1)


def test_reward_that_depends_on_the_observation_is_learned():
    probes.check_reward_of_the_observation_is_learned(PROBE)


def test_reward_of_the_second_step_is_discounted_once():
    probes.check_reward_of_the_second_step_is_discounted_once(PROBE)


def test_action_follows_the_observation():
    probes.check_action_follows_the_observation(PROBE, draws=2000)


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_reward_of_the_action_gives_the_soft_value_and_the_boltzmann_policy(proposal):
    agent = replace(PROBE, proposal=proposal)
    state = probes.check_reward_of_the_action_is_learned(agent)
    here = jnp.array([0.6, -0.8])
    estimate = jax.jit(lambda o, key: agent.estimate_value(state.critic, state.sampler, o, key=key))
    value, _ = estimate(jnp.tile(here, (512, 1)), jax.random.key(2))
    assert float(value.mean()) == pytest.approx(quadrature(bowl, agent.temperature), abs=0.1)

    # exp(Q/α) = exp(−8 (a − 0.3)²) is a Gaussian of mean 0.3 and deviation 0.25, cut at 1.
    actions = probes.actions(agent.policy, state, here, 5000)
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
    probes.check_calibration_starts_at_the_return_of_the_mean_reward(PROBE)


def test_calibration_keeps_raw_units():
    # All rewards and the temperature times 16: every Q and V times 16, and the same policy.
    hotter = replace(SMALL, temperature=16.0 * SMALL.temperature)
    probes.check_calibration_keeps_raw_units(SMALL, hotter, lambda state: state.sampler.network.weight_out)


def test_calibration_makes_the_scale_of_observations_irrelevant():
    probes.check_calibration_makes_the_scale_of_observations_irrelevant(SMALL)


def test_calibration_survives_constant_observations_and_rewards():
    probes.check_calibration_survives_constant_observations_and_rewards(SMALL)


def test_units_of_q_are_constants_of_the_training():
    probes.check_units_of_q_are_constants_of_the_training(SMALL)


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

    step, optimiser = adam(1e-3, 1.0, None).update(jax.grad(surrogate)(sampler), optimiser)
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
