"""Properties of the algebra of skills and of how they act, for any expression and any numbers."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qompose.skill import act
from qompose.skill.expression import Leaf, alternatives_of, from_weights, prefer, pursued, title_of, weights_of
from qompose.skill.network import Sampler
from qompose.skill.notation import read_expression
from qompose.soft.value import effective_sample_size
from qompose.types import QomposeError
from tests.skill.conftest import SAMPLER

LEAVES = [Leaf(name) for name in ("left", "bottom", "stack", "avoid", "runs/a-1", "b.c")]
NUMBERS = st.floats(1e-3, 1e3)
SIGNED = NUMBERS | NUMBERS.map(lambda number: -number)
SEEDS = st.integers(0, 2**32 - 1)


def joined(terms, sign):
    """Terms combined by one operator, from left to right."""
    whole = terms[0]
    for term in terms[1:]:
        whole = whole & term if sign == "&" else whole | term
    return whole


@st.composite
def recipes(draw, signed=True):
    """How to make an expression of a few different skills: a random tree over a random order of them."""
    parts = [*draw(st.permutations(range(len(LEAVES))))][: draw(st.integers(1, 5))]
    while len(parts) > 1:
        sign = draw(st.sampled_from(["&", "|", "prefer"]))
        count = 2 if sign == "prefer" else draw(st.integers(2, len(parts)))
        number = SIGNED if signed and sign == "&" else NUMBERS
        numbers = draw(st.lists(number if sign == "prefer" else st.none() | number, min_size=count, max_size=count))
        parts = [*parts[count:], (sign, numbers, parts[:count])]
    return parts[0]


def cook(recipe):
    """The expression of a recipe; made outside of the strategy, where nothing may be random."""
    if isinstance(recipe, int):
        return LEAVES[recipe]
    sign, numbers, parts = recipe
    made = [cook(part) for part in parts]
    if sign == "prefer":
        return prefer(*made, slack=numbers[0])
    return joined([part if n is None else n * part for part, n in zip(made, numbers, strict=True)], sign)


def linear(expression):
    return {id(term): weight for term, weight in weights_of(expression)}


def close(some, other):
    return some.keys() == other.keys() and all(math.isclose(some[k], other[k], rel_tol=1e-9) for k in some)


@given(st.lists(SIGNED, min_size=2, max_size=6), st.randoms())
def test_the_order_of_an_and_does_not_matter(weights, random):
    terms = [weight * leaf for weight, leaf in zip(weights, LEAVES, strict=False)]
    other = random.sample(terms, len(terms))
    assert close(linear(joined(terms, "&")), linear(joined(other, "&")))


@given(st.lists(SIGNED, min_size=3, max_size=6), st.data())
def test_brackets_without_a_number_dissolve(weights, data):
    terms = [weight * leaf for weight, leaf in zip(weights, LEAVES, strict=False)]
    cut = data.draw(st.integers(1, len(terms) - 1))
    split = joined(terms[:cut], "&") & joined(terms[cut:], "&")
    assert close(linear(split), linear(joined(terms, "&")))


@given(st.lists(NUMBERS, min_size=2, max_size=6), st.randoms())
def test_shares_of_an_or_are_positive_sum_to_one_and_know_no_order(weights, random):
    terms = [weight * leaf for weight, leaf in zip(weights, LEAVES, strict=False)]
    shares = {id(term): share for term, share in alternatives_of(joined(terms, "|"))}
    assert min(shares.values()) > 0.0 and math.isclose(sum(shares.values()), 1.0, rel_tol=1e-9)
    other = {id(term): share for term, share in alternatives_of(joined(random.sample(terms, len(terms)), "|"))}
    assert close(shares, other)


@given(st.lists(NUMBERS, min_size=1, max_size=4), NUMBERS)
def test_what_is_avoided_takes_nothing_from_what_is_pursued(weights, avoided):
    terms = [weight * leaf for weight, leaf in zip(weights, LEAVES, strict=False)]
    before, after = linear(joined(terms, "&")), linear(joined([*terms, ~(avoided * LEAVES[-1])], "&"))
    assert math.isclose(after.pop(id(LEAVES[-1])), -avoided / sum(weights), rel_tol=1e-9)
    assert close(before, after)


@given(recipes())
def test_avoiding_twice_is_pursuing(recipe):
    expression = cook(recipe)
    assert repr(~~expression) == repr(1.0 * expression)
    assert close(linear(~~expression), linear(1.0 * expression))


@given(st.lists(SIGNED, min_size=1, max_size=6))
def test_weights_by_name_stay_as_they_are(weights):
    given = dict(zip(LEAVES, weights, strict=False))
    assert dict(weights_of(from_weights(given))) == given


@given(recipes())
def test_what_is_written_is_read_again(recipe):
    expression = cook(recipe)
    again = read_expression(repr(expression), {leaf.name: leaf for leaf in LEAVES}.__getitem__)
    assert repr(again) == repr(expression)
    assert [leaf.name for leaf in again.leaves] == [leaf.name for leaf in expression.leaves]


@given(st.text("ab&|~*(),.=0123456789e-+ gpiprefslackwidth\n\0é", max_size=60))
def test_any_text_is_an_expression_or_refused_in_one_line(text):
    try:
        assert read_expression(text, Leaf).leaves
    except QomposeError as error:
        assert str(error).isprintable()


@given(recipes())
def test_what_is_pursued_is_some_of_the_leaves_each_once(recipe):
    expression = cook(recipe)
    found = pursued(expression)
    assert found and len({*map(id, found)}) == len(found) and {*map(id, found)} <= {*map(id, expression.leaves)}


@given(recipes(signed=False))
def test_the_title_tells_every_skill_in_its_order_and_no_number(recipe):
    expression = cook(recipe)
    title, at = title_of(expression), 0
    for leaf in expression.leaves:
        at = title.index(leaf.name, at) + len(leaf.name)
    rest = title
    for leaf in LEAVES:
        rest = rest.replace(leaf.name, "")
    assert set(rest.split("-")) <= {"", "and", "or", "over", "not"}


@given(SEEDS, st.integers(1, 3), st.floats(0.01, 10.0))
def test_candidates_are_in_the_box_and_no_rarer_than_their_uniform_half(seed, samplers, width):
    rng = np.random.default_rng(seed)
    particles = [np.asarray(width * rng.standard_normal((3, 8, 2)), np.float32) for _ in range(samplers)]
    actions, log_density = act.draw_candidates(particles, rng, 32)
    assert (np.abs(actions) <= 1.0).all() and np.isfinite(log_density).all()
    share = 16 / actions.shape[1]  # about half: the same number of each sampler may round the others up
    assert 0.45 < share <= 0.5 and (log_density >= math.log(share) - 1e-4).all()


@given(SEEDS, st.integers(1, 3), st.floats(-1.0, 1.0))
def test_the_best_action_is_no_worse_than_what_was_proposed(seed, samplers, peak):
    rng = np.random.default_rng(seed)
    particles = [rng.standard_normal((3, 8, 2)).astype(np.float32) for _ in range(samplers)]

    def q(action):
        return -np.square(action - peak).sum(axis=-1)

    chosen = act.best(q, particles, rng, candidates=8)
    proposed = np.concatenate([*map(np.tanh, particles)], axis=-2)
    assert (q(chosen) >= q(proposed).max(axis=-1)).all() and (np.abs(chosen) <= 1.0).all()
    assert (q(act.best_around(q, chosen, rng, candidates=8)) >= q(chosen)).all()


@given(SEEDS, st.floats(0.01, 1.0))
def test_a_flat_q_is_worth_its_height_whatever_the_samplers(seed, width):
    rng = np.random.default_rng(seed)
    particles = [np.asarray(width * rng.standard_normal((4, 8, 1)), np.float32)]
    actions, log_density = act.draw_candidates(particles, rng, 512)
    share = effective_sample_size(np.zeros(actions.shape[:-1]), log_density.astype(float), 1.0)
    values = act.estimate_value(lambda action: np.full(action.shape[:-1], 2.5), actions, log_density, 0.1)
    assert (np.abs(values - 2.5) < 0.1 * 5.0 / np.sqrt(512 * share)).all()


@given(SEEDS)
def test_a_policy_is_finite_for_any_observation_and_acts_on_each_alone(random_network, seed):
    sampler, rng = Sampler(random_network(SAMPLER, seed)), np.random.default_rng(seed)
    observations = np.float32(rng.choice([1.0, 1e3, 1e6])) * rng.standard_normal((5, 4)).astype(np.float32)
    (drawn,) = sampler.draw(observations, 3, np.random.default_rng(seed))
    assert drawn.shape == (5, 3, 2) and np.isfinite(drawn).all()
    (first,) = sampler.draw(observations[:1], 3, np.random.default_rng(seed))
    np.testing.assert_allclose(first, drawn[:1], rtol=1e-4, atol=1e-4)
