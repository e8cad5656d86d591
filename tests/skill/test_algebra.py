from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from qompose.nets import describe, to_arrays
from qompose.skill.algebra import (
    as_network,
    compose_critic,
    compose_temperature,
    critic_of,
    gather_samplers,
    linear_form,
    samplers_of,
    unite_replays,
)
from qompose.skill.network import Sampler as NumpySampler
from qompose.types import QomposeError, Transition


@pytest.fixture
def left(make_skill):
    return make_skill("left")


@pytest.fixture
def bottom(make_skill):
    return make_skill("bottom", seed=1, temperature=0.3)


def some_inputs(count=20):
    rng = np.random.default_rng(5)
    observations = rng.standard_normal((count, 4)).astype(np.float32)
    return observations, rng.uniform(-1, 1, (count, 2)).astype(np.float32)


def values_of(critic, observations, actions):
    return np.array([critic(jnp.asarray(o), jnp.asarray(a)) for o, a in zip(observations, actions, strict=True)])


def same_arrays(first, second):
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and np.array_equal(first[name], second[name]) for name in first
    )


def test_the_linear_form_of_an_expression_and_of_a_mapping(left, bottom):
    assert linear_form(3 * left & bottom) == ([left, bottom], [0.75, 0.25])
    assert linear_form({left: 0.7, bottom: 0.7}) == ([left, bottom], [0.7, 0.7])
    assert linear_form(left) == ([left], [1.0])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"discount": 0.9}, "discount: 0.99 and 0.9 differ"),
        ({"terminates": True}, "terminates: False and True differ"),
        ({"control_period": 0.1}, "control_period: 0.05 and 0.1 differ"),
        ({"action": {"size": 2, "low": [-3.0, 0.0], "high": [3.0, 0.2]}}, "action.high"),
        ({"observation": {"size": 4, "names": ["y", "x", "dx", "dy"]}}, "observation.names: 'x' and 'y' differ"),
    ],
)
def test_skills_that_cannot_be_added_are_refused_naming_the_field(left, make_skill, change, field):
    with pytest.raises(QomposeError, match=f"skills 'left' and 'other': {field}"):
        linear_form(left & make_skill("other", **change))


def test_networks_go_to_modules_and_back_exactly(left, bottom):
    for skill in (left, bottom):
        critic, (sampler,) = critic_of(skill), samplers_of(skill)
        for module, network in ((critic, skill.critic), (sampler, skill.sampler)):
            assert describe(module) == network.spec and same_arrays(to_arrays(module), network.arrays)
            again = as_network(module)
            assert again.spec == network.spec and same_arrays(again.arrays, network.arrays)
    both = as_network(compose_critic([left, bottom], [0.7, 0.4]))
    assert both.spec["kind"] == "sum" and both.spec["weights"] == [0.7, 0.4]
    names = {f"{index}/{name}" for index, skill in enumerate((left, bottom)) for name in skill.critic.arrays}
    assert both.arrays.keys() == names
    assert np.array_equal(both.arrays["1/weight_out"], bottom.critic.arrays["weight_out"])


def test_the_critic_in_jax_equals_the_one_in_numpy(left):
    observations, actions = some_inputs()
    expected = left.q(observations, actions)
    assert np.allclose(
        values_of(critic_of(left), observations, actions), expected, rtol=0, atol=1e-4 * np.ptp(expected)
    )


def test_a_composed_critic_is_the_weighted_sum(left, bottom):
    observations, actions = some_inputs()
    critic = compose_critic([left, bottom], [0.7, 0.4])
    expected = 0.7 * left.q(observations, actions) + 0.4 * bottom.q(observations, actions)
    assert np.allclose(values_of(critic, observations, actions), expected, rtol=0, atol=1e-4 * np.ptp(expected))
    assert compose_temperature([left, bottom], [0.7, 0.4]) == pytest.approx(0.7 * 0.1 + 0.4 * 0.3)


def test_samplers_gather_and_come_apart_again_exactly(left, bottom, make_skill):
    network = gather_samplers([left, bottom])
    assert network.spec == {"kind": "candidates", "of": [left.sampler.spec, bottom.sampler.spec]}
    assert len(NumpySampler(network).parts) == 2
    both = replace(make_skill("both"), sampler=network)
    for module, skill in zip(samplers_of(both), (left, bottom), strict=True):
        assert same_arrays(to_arrays(module), skill.sampler.arrays)
    # A skill that has several itself adds them all, flat.
    third = make_skill("third", seed=2)
    assert [child["kind"] for child in gather_samplers([both, third]).spec["of"]] == ["sampler"] * 3


def test_replays_are_united_in_order(left, bottom):
    union = unite_replays([left, bottom])
    assert isinstance(union, Transition)
    for part, first, second in zip(union, left.replay, bottom.replay, strict=True):
        assert np.array_equal(part, np.concatenate([first, second])) and part.dtype == np.float32


def test_a_stripped_skill_is_named_with_advice(left, bottom):
    with pytest.raises(QomposeError, match=r"skill 'bottom' carries no replay.*save it with its replay, or compose"):
        unite_replays([left, bottom.strip()])
