import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.nets import (
    Actor,
    CorrectedQ,
    OrQ,
    PreferQ,
    QFunction,
    Sampler,
    SumQ,
    describe,
    from_arrays,
    init_perceptron,
    init_quadratic,
    set_observation_scale,
    to_arrays,
)
from qompose.soft.compose import spread_actions
from qompose.types import QomposeError


def make_critic(seed=0, layer_norm=True, hidden=(16, 12)):
    network = init_perceptron(3, 2, 1, hidden, layer_norm=layer_norm, key=jax.random.key(seed))
    return QFunction(network, offset=jnp.array(5.0), scale=jnp.array(2.0))


def make_sampler(seed=0):
    return Sampler(init_perceptron(3, 2, 2, (16, 12), key=jax.random.key(seed)))


def make_actor(seed=0):
    return Actor(init_perceptron(3, 0, 2, (16, 12), key=jax.random.key(seed)))


def make_quadratic(seed=0):
    return init_quadratic(3, 2, (16, 12), layer_norm=True, key=jax.random.key(seed))


def randomise(module, seed=1):
    """Every number of the module drawn anew, so that no zero or one hides a mistake; scales stay positive."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 + generator.random(leaf.shape), jnp.float32), module)


def plain_perceptron(network, observation, inputs):
    """The definition, step by step; the layer norm subtracts the mean of the units and divides by their deviation."""

    def normalise(hidden):
        if not network.layer_norm:
            return hidden
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)

    scaled = (observation - network.observation_mean) / network.observation_scale
    weight = np.concatenate([network.weight_observation, network.weight_input])
    both = np.concatenate([np.broadcast_to(scaled, (*inputs.shape[:-1], 3)), inputs], axis=-1)
    hidden = np.maximum(normalise(both @ weight + network.bias_input) + network.biases[0], 0.0)
    for matrix, bias in zip(network.weights, network.biases[1:], strict=True):
        hidden = np.maximum(normalise(hidden @ np.asarray(matrix)) + np.asarray(bias), 0.0)
    return hidden @ np.asarray(network.weight_out) + np.asarray(network.bias_out)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_perceptron_equals_its_definition(layer_norm):
    network = init_perceptron(3, 2, 4, (16, 12, 8), layer_norm=layer_norm, key=jax.random.key(0))
    network = eqx.tree_at(
        lambda n: (n.observation_mean, n.observation_scale, n.biases, n.bias_out),
        network,
        randomise((network.observation_mean, network.observation_scale, network.biases, network.bias_out)),
    )
    generator = np.random.default_rng(2)
    observation, inputs = (generator.normal(size=shape).astype(np.float32) for shape in ((3,), (5, 2)))
    expected = plain_perceptron(jax.tree.map(np.asarray, network), observation, inputs)
    np.testing.assert_allclose(network(jnp.asarray(observation), jnp.asarray(inputs)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [make_critic, make_sampler])
def test_particles_of_a_state_are_independent(make):
    module = make()
    inputs = jax.random.normal(jax.random.key(3), (4, 5, 2))
    together = module(jnp.ones(3), inputs)
    alone = jax.vmap(jax.vmap(lambda row: module(jnp.ones(3), row)))(inputs)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [make_critic, make_sampler])
@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 1)])
def test_a_batch_of_states_equals_one_state_at_a_time(make, shape):
    module = randomise(make())
    observation_key, input_key = jax.random.split(jax.random.key(3))
    observation, inputs = jax.random.normal(observation_key, (4, 3)), jax.random.normal(input_key, (*shape, 2))
    together, alone = module(observation, inputs), jax.vmap(module)(observation, inputs)
    assert together.shape == alone.shape
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_critic_returns_one_number_and_sampler_one_action_for_each_particle():
    assert make_critic()(jnp.ones(3), jnp.ones((5, 2))).shape == (5,)
    assert make_critic()(jnp.ones(3), jnp.ones(2)).shape == ()
    assert make_sampler()(jnp.ones(3), jnp.ones((5, 2))).shape == (5, 2)
    assert make_sampler()(jnp.ones(3), jnp.ones(2)).shape == (2,)


def test_layer_norm_does_not_hide_the_size_of_its_inputs():
    # Without a bias before the norm, Q(k o, k a) = Q(o, a), and at the mean observation only the action's direction.
    critic = make_critic()
    inputs = jnp.array([[0.2, 0.1], [0.4, 0.2], [0.8, 0.4]])
    q = critic(jnp.zeros(3), inputs)
    assert float(jnp.min(jnp.abs(jnp.diff(q)))) > 1e-3
    assert abs(float(critic(jnp.ones(3), inputs[0]) - critic(2.0 * jnp.ones(3), 2.0 * inputs[0]))) > 1e-3


def test_units_of_q_and_scales_of_observations_get_no_gradient():
    critic = set_observation_scale(make_critic(), jnp.full(3, 0.3), jnp.full(3, 1.7))
    gradient = jax.grad(lambda c: jnp.sum(c(jnp.ones(3), jnp.ones((5, 2)))))(critic)
    for name in ("observation_mean", "observation_scale"):
        np.testing.assert_array_equal(getattr(gradient.network, name), np.zeros(3))
    assert float(gradient.offset) == float(gradient.scale) == 0.0
    learned = [gradient.network.weight_input, gradient.network.bias_input, *gradient.network.weights]
    assert all(np.any(np.asarray(leaf)) for leaf in learned)


def test_q_is_offset_plus_scale_times_the_network():
    critic = make_critic()
    observation, action = jnp.ones(3), jnp.ones((5, 2))
    expected = 5.0 + 2.0 * critic.network(observation, action)[:, 0]
    np.testing.assert_allclose(critic(observation, action), expected, rtol=1e-6)


def test_observation_scale_centres_and_scales():
    mean, scale = jnp.array([1.0, -2.0, 0.5]), jnp.array([2.0, 0.5, 3.0])
    observation, action = jnp.array([0.3, 0.7, -1.0]), jnp.ones((5, 2))
    for module in (make_critic(), make_sampler()):
        scaled = set_observation_scale(module, mean, scale)
        np.testing.assert_allclose(
            scaled(mean + scale * observation, action), module(observation, action), rtol=1e-4, atol=1e-5
        )


def test_an_actor_stays_in_the_box_and_sees_its_observation():
    actor = make_actor()
    near, far = (actor(scale * jnp.array([1.0, -1.0, 2.0])) for scale in (1.0, 1000.0))
    assert near.shape == (2,) and np.all(np.abs(near) < 1.0) and np.all(np.abs(far) <= 1.0)
    assert not np.allclose(near, far)


def test_a_quadratic_q_is_highest_at_its_own_best_action_and_there_equals_its_value():
    critic = randomise(make_quadratic())
    observation, actions = jnp.array([0.3, -0.5, 0.8]), jax.random.uniform(jax.random.key(2), (200, 2), minval=-1.0)
    best = critic.best(observation)
    assert np.all(np.abs(best) <= 1.0)
    np.testing.assert_allclose(critic(observation, best), critic.value(observation), rtol=1e-6)
    assert np.all(np.asarray(critic(observation, actions)) <= float(critic.value(observation)))


def test_a_quadratic_q_equals_its_formula():
    critic = randomise(make_quadratic())
    observation, actions = jnp.array([0.3, -0.5, 0.8]), jax.random.uniform(jax.random.key(2), (4, 3, 2), minval=-1.0)
    value, mean, factor = map(np.asarray, critic.read(observation))
    moved = np.asarray(actions) - mean
    advantage = -0.5 * np.einsum("abi,ij,abj->ab", moved, factor @ factor.T, moved)
    expected = float(critic.offset) + float(critic.scale) * (value + advantage)
    np.testing.assert_allclose(critic(observation, actions), expected, rtol=1e-5)


def test_composed_q_is_the_weighted_sum():
    first, second = make_critic(0), make_critic(1)
    observation, action = jnp.ones(3), jax.random.normal(jax.random.key(2), (5, 2))
    expected = 0.25 * first(observation, action) - 2.0 * second(observation, action)
    composed = SumQ([first, second], (0.25, -2.0))
    np.testing.assert_allclose(composed(observation, action), expected, rtol=1e-5)
    nested = SumQ([composed, first], (0.5, 0.5))
    expected = 0.5 * expected + 0.5 * first(observation, action)
    np.testing.assert_allclose(nested(observation, action), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda a, b: OrQ([a, b], (0.3, 0.7), 0.2), lambda a, b: PreferQ([a, b], 0.5, 0.1, 1.0, 16)]
)
@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 1)])
def test_a_batch_of_states_of_a_composed_q_equals_one_state_at_a_time(make, shape):
    critic = make(make_critic(0), SumQ([make_critic(1), make_critic(2)], (1.0, -0.5)))
    observation_key, action_key = jax.random.split(jax.random.key(3))
    observation, action = jax.random.normal(observation_key, (4, 3)), jax.random.uniform(action_key, (*shape, 2))
    together, alone = critic(observation, action), jax.vmap(critic)(observation, action)
    assert together.shape == shape
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_or_and_preference_equal_their_formulas():
    first, second = make_critic(0), make_critic(1)
    observation, action = jnp.ones(3), jax.random.uniform(jax.random.key(2), (5, 2), minval=-1.0)
    q = np.array([first(observation, action), second(observation, action)], np.float64)
    either = OrQ([first, second], (0.3, 0.7), 0.2)(observation, action)
    np.testing.assert_allclose(either, 0.2 * np.log(0.3 * np.exp(q[0] / 0.2) + 0.7 * np.exp(q[1] / 0.2)), rtol=1e-5)
    fixed = jnp.asarray(spread_actions(16, 2), jnp.float32)
    gap = q[0] - float(jnp.max(first(observation, fixed))) + 0.05
    expected = q[1] - 1.5 * np.log1p(np.exp(-gap / 0.02))
    found = PreferQ([first, second], 0.05, 0.02, 1.5, 16)(observation, action)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_preference_has_the_gradient_of_its_formula_with_the_highest_value_held():
    first, second = make_critic(0), make_critic(1)
    observation, action = jnp.ones(3), jnp.array([0.3, -0.4])
    critic = PreferQ([first, second], 0.05, 0.02, 1.5, 16)
    highest = float(jnp.max(first(observation, jnp.asarray(spread_actions(16, 2), jnp.float32))))
    closed = jax.nn.sigmoid((highest - first(observation, action) - 0.05) / 0.02)
    slopes = [jax.grad(lambda a, member=member: member(observation, a))(action) for member in (first, second)]
    expected = slopes[1] + 1.5 / 0.02 * closed * slopes[0]
    np.testing.assert_allclose(jax.grad(lambda a: critic(observation, a))(action), expected, rtol=1e-4)


def test_corrected_q_is_the_sum_less_the_correction():
    total, correction = SumQ([make_critic(0), make_critic(1)], (0.5, 0.7)), make_critic(2)
    observation, action = jnp.ones(3), jax.random.normal(jax.random.key(2), (5, 2))
    expected = total(observation, action) - correction(observation, action)
    np.testing.assert_allclose(CorrectedQ([total, correction])(observation, action), expected)


def modules():
    return {
        "critic": randomise(make_critic()),
        "plain critic": randomise(make_critic(layer_norm=False, hidden=(7,))),
        "sampler": randomise(make_sampler()),
        "actor": randomise(make_actor()),
        "quadratic": randomise(make_quadratic()),
        "sum of quadratics": SumQ([make_quadratic(0), make_quadratic(1)], (0.5, 0.5)),
        "or": OrQ([make_critic(0), SumQ([make_critic(1), make_critic(2)], (1.0, -0.5))], (0.25, 0.75), 0.1),
        "prefer": PreferQ([make_critic(0), OrQ([make_critic(1), make_critic(2)], (0.5, 0.5), 1.0)], 0.5, 0.1, 1.0, 8),
        "corrected": CorrectedQ([SumQ([make_critic(0), make_critic(1)], (0.5, 0.7)), make_critic(2)]),
        "sum": SumQ([make_critic(0), SumQ([make_critic(1), make_critic(2)], (0.5, 0.5))], (2.0, -1.0)),
    }


@pytest.mark.parametrize("name", modules())
def test_arrays_of_a_skill_rebuild_the_module_bit_for_bit(name):
    module = modules()[name]
    arrays = to_arrays(module)
    assert all(isinstance(array, np.ndarray) and array.dtype == np.float32 for array in arrays.values())
    rebuilt = from_arrays(describe(module), arrays)
    assert jax.tree.structure(rebuilt) == jax.tree.structure(module)
    for ours, theirs in zip(jax.tree.leaves(module), jax.tree.leaves(rebuilt), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Nothing is left out: as many numbers go into the file as the module holds.
    assert sum(array.size for array in arrays.values()) == sum(leaf.size for leaf in jax.tree.leaves(module))


def test_unknown_kind_is_refused_by_name():
    with pytest.raises(QomposeError, match="'transformer'"):
        from_arrays({"kind": "transformer"}, {})


def test_fresh_weights_follow_the_key_and_their_fan_in():
    first, again, other = (init_perceptron(6, 3, 1, (64, 64), key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.weights[0], again.weights[0])
    assert not np.array_equal(first.weights[0], other.weights[0])
    for weight, fan_in in ((first.weight_observation, 9), (first.weight_input, 9), (first.weights[0], 64)):
        assert 0.8 * fan_in**-0.5 < float(jnp.max(jnp.abs(weight))) <= fan_in**-0.5
