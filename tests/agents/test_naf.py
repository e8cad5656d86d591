from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.naf import NAF
from qompose.types import QomposeError
from tests.agents import probes
from tests.agents.probes import fresh, learn, make_transitions, make_two_steps, values

PROBE = NAF(hidden=(32, 32), batch_size=32, discount=0.8, learning_rate=3e-3, target_rate=0.05)


def test_update_compiles_once():
    probes.check_update_compiles_once(PROBE, {"critic_loss", "q", "value"})


def test_same_seed_gives_the_same_bits_in_every_process():
    probes.check_same_bits_in_every_process(PROBE)


def test_noise_is_for_exploration_only():
    probes.check_noise_is_for_exploration_only(PROBE)


def test_target_moves_by_its_rate():
    probes.check_target_moves_by_its_rate(PROBE, lambda state: (state.critic, state.target))


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_only_termination_cuts_the_bootstrap(terminated):
    probes.check_only_termination_cuts_the_bootstrap(PROBE, terminated)


def test_the_loss_is_the_bellman_error_of_the_target_network():
    data = make_transitions(terminated=0.0)
    other = PROBE.init(2, 1, key=jax.random.key(9)).critic
    state = replace(fresh(PROBE, data), target=other)

    @jax.jit
    def both(state, data):
        error = jax.vmap(state.critic)(data.observation, data.action) - data.reward
        error = error - PROBE.discount * jax.vmap(other.value)(data.next_observation)
        return 0.5 * jnp.mean(error**2), PROBE.improve_critic(state, data)[1]["critic_loss"]

    expected, found = both(state, data)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_constant_reward_of_one_step_is_learned():
    probes.check_constant_reward_is_learned(PROBE)


def test_reward_that_depends_on_the_observation_is_learned():
    probes.check_reward_of_the_observation_is_learned(PROBE)


def test_reward_of_the_second_step_is_discounted_once():
    probes.check_reward_of_the_second_step_is_discounted_once(PROBE)


def test_reward_of_the_action_gives_the_best_action():
    state = probes.check_reward_of_the_action_is_learned(PROBE, updates=800)
    assert probes.actions(PROBE.policy, state, [0.6, -0.8], 1)[0, 0] == pytest.approx(0.3, abs=0.05)
    # The curvature is the bowl's: Q = V − ½ · 8 (a − 0.3)².
    factor = state.critic.read(jnp.array([0.6, -0.8]))[2]
    assert float(state.critic.scale * factor[0, 0] ** 2) == pytest.approx(8.0, rel=0.15)


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


def test_calibration_survives_constant_observations_and_rewards():
    probes.check_calibration_survives_constant_observations_and_rewards(PROBE)


def test_units_of_q_are_constants_of_the_training():
    probes.check_units_of_q_are_constants_of_the_training(PROBE)


@pytest.mark.parametrize("change", [{"noise": -0.1}, {"noise": float("nan")}, {"target_rate": 0.0}, {"hidden": ()}])
def test_numbers_that_cannot_be_meant_are_refused(change):
    with pytest.raises(QomposeError, match=next(iter(change))):
        replace(PROBE, **change)
