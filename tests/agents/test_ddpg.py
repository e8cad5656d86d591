from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.ddpg import DDPG
from qompose.types import QomposeError
from tests.agents import probes
from tests.agents.probes import fresh, learn, make_transitions, make_two_steps, values

PROBE = DDPG(
    hidden=(32, 32), batch_size=32, discount=0.8, learning_rate=3e-3, actor_learning_rate=3e-3, target_rate=0.05
)


def test_update_compiles_once():
    probes.check_update_compiles_once(PROBE, {"critic_loss", "q", "policy_q", "saturation"})


def test_same_seed_gives_the_same_bits_in_every_process():
    probes.check_same_bits_in_every_process(PROBE)


def test_noise_is_for_exploration_only():
    probes.check_noise_is_for_exploration_only(PROBE)


def test_target_of_the_critic_moves_by_its_rate():
    probes.check_target_moves_by_its_rate(PROBE, lambda state: (state.critic, state.target))


def test_target_of_the_actor_moves_by_its_rate():
    state = fresh(PROBE, make_transitions())
    moved = jax.tree.map(lambda leaf: leaf + 1.0, state.actor)
    state = PROBE.improve_target(replace(state, actor=moved))
    for target, actor in zip(jax.tree.leaves(state.target_actor), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(target, actor - 1.0 + PROBE.target_rate, atol=1e-6)


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_only_termination_cuts_the_bootstrap(terminated):
    probes.check_only_termination_cuts_the_bootstrap(PROBE, terminated)


loss_of = jax.jit(lambda state, data: PROBE.improve_critic(state, data)[1]["critic_loss"])


@jax.jit
def _bellman_error(state, data):
    value = jax.vmap(state.target)(data.next_observation, jax.vmap(state.target_actor)(data.next_observation))
    q = jax.vmap(state.critic)(data.observation, data.action)
    return 0.5 * jnp.mean((q - data.reward - PROBE.discount * value) ** 2)


def bellman_error(state, data):
    return float(_bellman_error(state, data))


@pytest.mark.parametrize("part", ["target", "target_actor", "critic", "actor"])
def test_the_loss_is_the_bellman_error_of_the_targets(part):
    data = make_transitions(terminated=0.0)._replace(reward=jnp.zeros(probes.COUNT))
    before = fresh(PROBE, data)
    other = PROBE.init(2, 1, key=jax.random.key(9))
    after = replace(before, **{part: getattr(other, part)})
    losses = [float(loss_of(state, data)) for state in (before, after)]
    # The critic enters by the Q(s, a) that is learned, and the actor not at all.
    assert (losses[0] != losses[1]) == (part != "actor")
    assert losses[0] == pytest.approx(bellman_error(before, data), rel=1e-4)
    assert losses[1] == pytest.approx(bellman_error(after, data), rel=1e-4)


def test_the_actor_follows_the_critic_and_not_its_target():
    probes.check_policy_follows_the_critic(PROBE, "actor")


def test_constant_reward_of_one_step_is_learned():
    probes.check_constant_reward_is_learned(PROBE)


def test_reward_that_depends_on_the_observation_is_learned():
    probes.check_reward_of_the_observation_is_learned(PROBE)


def test_reward_of_the_second_step_is_discounted_once():
    probes.check_reward_of_the_second_step_is_discounted_once(PROBE)


def test_reward_of_the_action_gives_the_best_action():
    state = probes.check_reward_of_the_action_is_learned(PROBE, updates=800)
    assert probes.actions(PROBE.policy, state, [0.6, -0.8], 1)[0, 0] == pytest.approx(0.3, abs=0.1)


def test_action_follows_the_observation():
    probes.check_action_follows_the_observation(PROBE)


def test_bootstrap_uses_the_maximum():
    data = make_two_steps(lambda action: 1.0 + probes.bowl(action))
    state, _ = learn(PROBE, fresh(PROBE, data), data, 1000)
    q = values(state.critic, np.tile([1.0, 0.0], (9, 1)), np.linspace(-1.0, 1.0, 9)[:, None])
    assert q.mean() == pytest.approx(PROBE.discount * 1.0, abs=0.1)


def test_calibration_starts_at_the_return_of_the_mean_reward():
    probes.check_calibration_starts_at_the_return_of_the_mean_reward(PROBE)


def test_calibration_keeps_raw_units():
    probes.check_calibration_keeps_raw_units(PROBE, PROBE, lambda state: state.critic.network.weight_out)


def test_calibration_makes_the_scale_of_observations_irrelevant():
    probes.check_calibration_makes_the_scale_of_observations_irrelevant(PROBE)


def test_calibration_reaches_the_target_actor():
    data = make_transitions(terminated=0.0)
    state = PROBE.calibrate(fresh(PROBE, data), data)
    for name in ("observation_mean", "observation_scale"):
        expected = getattr(state.actor.network, name)
        np.testing.assert_array_equal(getattr(state.target_actor.network, name), expected)
        assert np.any(np.asarray(expected) != np.asarray(getattr(fresh(PROBE, data).actor.network, name)))


def test_calibration_survives_constant_observations_and_rewards():
    probes.check_calibration_survives_constant_observations_and_rewards(PROBE)


def test_units_of_q_are_constants_of_the_training():
    probes.check_units_of_q_are_constants_of_the_training(PROBE)


def test_an_actor_climbs_any_q():
    def critic(observation, action):
        return -jnp.sum((action - jnp.array([0.4, -0.7])) ** 2, axis=-1) * (1.0 + observation[0] ** 2)

    agent = replace(PROBE, actor_learning_rate=3e-3)
    actor, optimiser = agent.init_policy(1, 2, key=jax.random.key(0))
    observations = jnp.linspace(-1.0, 1.0, 32)[:, None]
    improve = jax.jit(lambda a, o, key: agent.improve_policy(critic, a, o, observations, key=key))
    for key in jax.random.split(jax.random.key(1), 400):
        actor, optimiser, info = improve(actor, optimiser, key)
    np.testing.assert_allclose(jax.vmap(actor)(observations), np.tile([0.4, -0.7], (32, 1)), atol=0.05)
    assert float(info["policy_q"]) == pytest.approx(0.0, abs=0.01) and float(info["saturation"]) == 0.0


@pytest.mark.parametrize("change", [{"noise": -0.1}, {"noise": float("nan")}, {"target_rate": 0.0}, {"hidden": ()}])
def test_numbers_that_cannot_be_meant_are_refused(change):
    with pytest.raises(QomposeError, match=next(iter(change))):
        replace(PROBE, **change)
