from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.nets import describe, to_arrays
from qompose.shipped import load
from qompose.skill.algebra import (
    CANDIDATES,
    as_network,
    compose_critic,
    compose_temperature,
    critic_of,
    gather_samplers,
    linear_form,
    samplers_of,
    skills_of,
    unite_replays,
)
from qompose.skill.expression import from_weights, prefer
from qompose.skill.network import Sampler as NumpySampler
from qompose.soft.compose import spread_actions
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
    assert linear_form(left & ~(0.5 * bottom)) == ([left, bottom], [1.0, -0.5])


def test_an_or_and_a_preference_have_no_linear_form(left, bottom, make_skill):
    third = make_skill("third")
    for form in ((left | bottom) & third, prefer(left, bottom, slack=0.5)):
        with pytest.raises(QomposeError, match="is no weighted sum of skills"):
            linear_form(form)


def test_the_skills_of_an_expression_are_each_named_once_and_must_fit(left, bottom, make_skill):
    assert skills_of((left | bottom) & ~(left & bottom)) == [left, bottom]
    with pytest.raises(QomposeError, match="skills 'left' and 'other': discount"):
        skills_of(left | prefer(bottom, make_skill("other", discount=0.9), slack=0.5))


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
    both = as_network(compose_critic(from_weights({left: 0.7, bottom: 0.4})))
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


@pytest.mark.parametrize("second", [0.4, -0.2])
def test_a_composed_critic_is_the_weighted_sum(left, bottom, second):
    observations, actions = some_inputs()
    form = from_weights({left: 0.7, bottom: second})
    critic = compose_critic(form)
    expected = 0.7 * left.q(observations, actions) + second * bottom.q(observations, actions)
    assert np.allclose(values_of(critic, observations, actions), expected, rtol=0, atol=1e-4 * np.ptp(expected))
    assert compose_temperature(form) == pytest.approx(0.7 * 0.1 + second * 0.3)


def test_a_nested_expression_is_one_critic_that_follows_its_definition(left, bottom, make_skill):
    bottom = replace(bottom, temperature=0.1)
    third, fourth = make_skill("third", seed=2), make_skill("fourth", seed=3, temperature=0.7)
    form = (left | 3 * bottom) & 2 * prefer(~third, left & ~(0.5 * bottom), slack=0.5) & ~(0.25 * fourth)
    observations, actions = some_inputs()
    q = {skill.name: skill.q(observations, actions).astype(np.float64) for skill in (left, bottom, third, fourth)}
    either = 0.1 * np.log(0.25 * np.exp(q["left"] / 0.1) + 0.75 * np.exp(q["bottom"] / 0.1))
    fixed = np.tile(spread_actions(CANDIDATES, 2), (len(observations), 1))
    highest = (-third.q(np.repeat(observations, CANDIDATES, axis=0), fixed)).reshape(-1, CANDIDATES).max(axis=1)
    penalty = 1.25 * np.log1p(np.exp(-(-q["third"] - highest + 0.5) / 0.125))
    expected = (either + 2.0 * (q["left"] - 0.5 * q["bottom"] - penalty) - 0.25 * q["fourth"]) / 3.0
    found = values_of(compose_critic(form), observations, actions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))
    assert compose_temperature(form) == pytest.approx((0.1 + 2.0 * (0.1 - 0.05) - 0.25 * 0.7) / 3.0)
    whole = replace(left, critic=as_network(compose_critic(form)))
    np.testing.assert_allclose(whole.q(observations, actions), expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))


def test_temperatures_follow_the_operators(left, bottom, make_skill):
    twin = make_skill("twin")
    assert compose_temperature(left) == compose_temperature(left | 5 * twin) == 0.1
    assert compose_temperature(bottom & (left | twin)) == pytest.approx(0.2)
    assert compose_temperature(prefer(bottom, left, slack=1.0)) == 0.1
    assert compose_temperature(left & ~twin) == 0.0 and compose_temperature(~left) == -0.1


def test_an_or_of_two_temperatures_or_of_none_is_refused_with_advice(left, bottom, make_ddpg, make_skill):
    with pytest.raises(QomposeError, match=r"left \| bottom have temperatures from 0.1 to 0.3, .*compose\(skill, temp"):
        compose_critic(left | bottom)
    with pytest.raises(QomposeError, match=r"temperatures from 0\.1 to 0\.3"):
        compose_critic(left | replace(bottom, name="left"))
    with pytest.raises(QomposeError, match=r"\| needs a temperature, and these skills have none"):
        compose_critic(make_ddpg("a") | make_ddpg("b"))
    with pytest.raises(QomposeError, match="has temperature 0; avoid less in it"):
        compose_critic(left | make_skill("a") & ~make_skill("b"))
    # Equal but for rounding.
    parts = [make_skill(name, temperature=0.1) for name in "abc"]
    compose_critic(left | parts[0] & parts[1] & parts[2])


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
    with pytest.raises(QomposeError, match=r"skill 'bottom' carries no replay.*save it with its replay$"):
        unite_replays([left, bottom.strip()])


@pytest.fixture(params=["push-left", "sawyer-stack"])
def trained(request):
    """A skill that comes with the package, and many observations from all over the range of its replay."""
    skill = load(request.param)
    seen, rng = skill.replay.observation, np.random.default_rng(0)
    return skill, rng.uniform(seen.min(0), seen.max(0), (4096, seen.shape[1])).astype(np.float32)


def test_a_trained_skill_acts_in_numpy_as_in_jax(trained):
    """Some states are further apart than 1e-6: rounding in float32 puts either up to 4e-6 from the same in float64."""
    skill, observations = trained
    (sampler,) = samplers_of(skill)
    shape = (len(observations), skill.action["size"])
    noise = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    theirs = np.tanh(jax.jit(jax.vmap(sampler))(observations, noise))
    mine = skill.act(observations, rng=np.random.default_rng(1))
    apart = np.abs(mine - theirs).max(axis=-1)
    assert apart.max() <= {"push-left": 5e-6, "sawyer-stack": 1e-5}[skill.name]
    assert np.quantile(apart, 0.8) <= 1e-6
    alone = skill.act(observations[0], rng=np.random.default_rng(1))
    np.testing.assert_allclose(alone, theirs[0], rtol=0.0, atol=5e-6)


def test_a_trained_skill_values_actions_in_numpy_as_in_jax(trained):
    skill, observations = trained
    shape = (len(observations), skill.action["size"])
    actions = np.random.default_rng(1).uniform(-1.0, 1.0, shape).astype(np.float32)
    theirs = jax.jit(jax.vmap(critic_of(skill)))(observations, actions)
    np.testing.assert_allclose(skill.q(observations, actions), theirs, rtol=1e-5)
