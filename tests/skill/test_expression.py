import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qompose.skill import expression as module
from qompose.skill.expression import Leaf, alternatives_of, from_weights, gpi, prefer, pursued, title_of, weights_of
from qompose.types import QomposeError

a, b, c, d = (Leaf(name) for name in "abcd")


def test_examples_in_the_docstring_hold():
    result = doctest.testmod(module)
    assert result.attempted >= 15
    assert result.failed == 0


def test_and_is_associative_and_shares_equally():
    expected = [(a, 1 / 3), (b, 1 / 3), (c, 1 / 3)]
    assert weights_of(a & b & c) == expected
    assert weights_of(a & (b & c)) == expected


def test_a_single_skill_has_weight_one_whatever_its_number():
    assert weights_of(a) == [(a, 1.0)]
    assert weights_of(7 * a) == [(a, 1.0)]


def test_numbers_are_relative_weights_from_either_side():
    assert weights_of(2 * a & b) == [(a, 2 / 3), (b, 1 / 3)]
    assert weights_of(a * 2 & b) == weights_of(2 * a & b)
    assert weights_of(2 * (3 * a) & 2 * b) == [(a, 0.75), (b, 0.25)]


@pytest.mark.parametrize("two", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), Fraction(2)])
def test_every_kind_of_real_number_is_a_weight(two):
    assert weights_of(two * a & b) == [(a, 2 / 3), (b, 1 / 3)]
    assert weights_of(a * two & b) == [(a, 2 / 3), (b, 1 / 3)]


def test_a_number_keeps_its_brackets_together():
    assert weights_of(0.5 * (a & b) & c) == [(a, 1 / 6), (b, 1 / 6), (c, 2 / 3)]
    assert weights_of((3 * a & b) & 4 * c) == [(a, 0.375), (b, 0.125), (c, 0.5)]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12), st.floats(1e-3, 1e3))
def test_weights_sum_to_one_and_keep_their_ratios(weights, common):
    leaves = [Leaf(str(index)) for index in range(len(weights))]
    whole = weights[0] * leaves[0]
    for weight, leaf in zip(weights[1:], leaves[1:], strict=True):
        whole = whole & weight * leaf
    found = [weight for _, weight in weights_of(common * whole)]
    assert math.isclose(sum(found), 1.0, rel_tol=1e-12)
    assert np.allclose(np.array(found) / found[0], np.array(weights) / weights[0], rtol=1e-12)


def test_named_weights_are_used_as_given():
    form = from_weights({a: 0.7, b: 3})
    assert weights_of(form) == [(a, 0.7), (b, 3.0)]
    assert repr(form) == "{a: 0.7, b: 3}"


def test_expressions_read_as_they_were_written():
    assert repr(2 * a & b) == "2*a & b"
    assert repr(0.5 * (a & b) & c) == "0.5*(a & b) & c"
    assert repr(a & (b & c)) == "a & b & c"
    assert repr(1 * (a & b) & c) == "1*(a & b) & c"


@pytest.mark.parametrize(
    "weight", [True, np.True_, "2", None, 1j, [2.0], np.array([1.0, 2.0]), math.nan, -math.inf, 0, -0.0, 10**400]
)
def test_a_weight_that_is_no_finite_number_or_zero_is_refused(weight):
    for form in (lambda: weight * a, lambda: a * weight, lambda: from_weights({a: weight})):
        with pytest.raises(QomposeError, match="weight") as caught:
            form()
        assert "\n" not in str(caught.value)


def test_products_of_weights_may_not_overflow_or_vanish():
    with pytest.raises(QomposeError, match="finite"):
        1e200 * (1e200 * a)
    assert weights_of(1e308 * a & 1e308 * b) == [(a, 0.5), (b, 0.5)]
    for lopsided in (1e300 * a & 1e-300 * b, 1e-300 * a & ~(1e300 * b), ~(1e-300 * a) & 1e300 * b):
        with pytest.raises(QomposeError, match="vanishes"):
            weights_of(lopsided)
    with pytest.raises(QomposeError, match="vanishes"):
        alternatives_of(1e300 * a | 1e-300 * b)


@pytest.mark.parametrize(
    "form",
    [lambda: a & a, lambda: 2 * (a & b) & 3 * a, lambda: a & ~a, lambda: a | a, lambda: 2 * (a | b) | a],
    ids=range(5),
)
def test_a_skill_may_appear_once_in_a_sum_and_once_in_an_or(form):
    with pytest.raises(QomposeError, match=r"a appears twice .* use a weight"):
        form()


def test_two_skills_of_one_name_are_two_skills():
    twin = Leaf("a")
    assert weights_of(a & twin) == [(a, 0.5), (twin, 0.5)]


def test_an_expression_holds_at_most_64_skills():
    whole = Leaf("0")
    for index in range(1, 64):
        whole = 0.5 * (whole & Leaf(str(index)))
    assert len(weights_of(whole)) == 64
    with pytest.raises(QomposeError, match="at most 64"):
        whole & a
    for form in (lambda: whole | a, lambda: prefer(whole, a, slack=1)):
        with pytest.raises(QomposeError, match="at most 64"):
            form()


def test_named_weights_are_final():
    form = from_weights({a: 0.7, b: 0.7})
    for attempt in (lambda: 2 * form, lambda: ~form, lambda: form & c, lambda: c & form, lambda: c | form):
        with pytest.raises(QomposeError, match="final"):
            attempt()


@pytest.mark.parametrize("wrong", [{}, {a & b: 1.0}, {2 * a: 1.0}, {"a": 1.0}, {a | b: 1.0}, {a: 0.0}])
def test_named_weights_are_of_single_skills(wrong):
    with pytest.raises(QomposeError):
        from_weights(wrong)


def test_python_and_is_refused_instead_of_dropping_a_skill():
    with pytest.raises(QomposeError, match=r"combine skills with & \|"):
        bool(a)  # what `a and b` asks first


@pytest.mark.parametrize("combine", [lambda: a + b, lambda: a - b, lambda: sum([a, b]), lambda: 0.7 * a + 0.3 * b])
def test_plus_and_minus_are_refused_with_what_to_write_instead(combine):
    with pytest.raises(QomposeError, match=r"combined with & \| ~.*\{a: 1, b: 1\} the sum"):
        combine()


def test_only_expressions_have_weights():
    with pytest.raises(QomposeError, match="not an expression"):
        weights_of("a & b")
    with pytest.raises(TypeError):
        a & "b"


# ------------------------------------------------------------------------------------------------ AVOID, OR, PREFER


def test_avoiding_is_a_negative_weight_however_it_is_written():
    expected = [(a, 1.0), (b, -0.5)]
    for form in (a & ~(0.5 * b), a & 0.5 * ~b, a & -0.5 * b, ~(0.5 * b) & a, ~~a & b * -0.5, 3 * a & ~(1.5 * b)):
        assert sorted(weights_of(form), key=lambda pair: -pair[1]) == expected
    assert weights_of(from_weights({a: 1.0, b: -0.5})) == expected


def test_what_is_pursued_keeps_its_weights_whatever_is_avoided_beside_it():
    plain = dict(weights_of(3 * a & b))
    for number in (1e-6, 0.5, 100.0):
        avoiding = dict(weights_of(3 * a & b & ~(number * c)))
        assert {leaf: avoiding[leaf] for leaf in (a, b)} == plain
        assert avoiding[c] == pytest.approx(-number / 4.0)


def test_a_bracket_is_avoided_as_a_whole():
    assert weights_of(c & ~(a & b)) == [(c, 1.0), (a, -0.5), (b, -0.5)]
    assert weights_of(c & ~(a & ~(0.5 * b))) == [(c, 1.0), (a, -1.0), (b, 0.5)]
    assert weights_of((a & ~b) & c) == [(a, 0.5), (b, -0.5), (c, 0.5)]


def test_what_is_only_avoided_has_weights_that_sum_to_minus_one():
    assert weights_of(~a) == weights_of(-7 * a) == [(a, -1.0)]
    assert weights_of(~(3 * a) & ~b) == [(a, -0.75), (b, -0.25)]


@given(st.lists(st.floats(-1e3, 1e3).filter(lambda w: abs(w) > 1e-3), min_size=1, max_size=12), st.floats(1e-3, 1e3))
def test_positive_weights_sum_to_one_or_there_are_none(weights, common):
    leaves = [Leaf(str(index)) for index in range(len(weights))]
    whole = weights[0] * leaves[0]
    for weight, leaf in zip(weights[1:], leaves[1:], strict=True):
        whole = whole & weight * leaf
    found = np.array([weight for _, weight in weights_of(common * whole)])
    assert math.isclose(found[found > 0.0].sum() or -found.sum(), 1.0, rel_tol=1e-9)
    np.testing.assert_allclose(found / found[0], np.array(weights) / weights[0], rtol=1e-9)


def test_or_is_associative_and_a_number_keeps_its_brackets_together():
    assert alternatives_of((a | b) | c) == alternatives_of(a | (b | c)) == [(a, 1 / 3), (b, 1 / 3), (c, 1 / 3)]
    assert alternatives_of(1 * (a | b) | c) == [(a, 0.25), (b, 0.25), (c, 0.5)]


def test_and_binds_tighter_than_or_and_neither_dissolves_in_the_other():
    whole = a & b | c
    (conjunction, half), (last, _) = alternatives_of(whole)
    assert (half, last, weights_of(conjunction)) == (0.5, c, [(a, 0.5), (b, 0.5)])
    (disjunction, half), (last, _) = weights_of((a | b) & c)
    assert (half, last, alternatives_of(disjunction)) == (0.5, c, [(a, 0.5), (b, 0.5)])
    assert weights_of(whole) == [(whole, 1.0)]


def test_a_share_of_an_or_is_positive():
    for form in (lambda: ~a | b, lambda: a | -0.5 * (b & c)):
        with pytest.raises(QomposeError, match=r"weight within \| must be positive"):
            form()
    assert len(alternatives_of(1 * (a & ~b) | c)) == 2  # to avoid inside a term is fine


def test_a_skill_may_appear_again_beyond_another_operator():
    either_not_both = (a | b) & ~(a & b)
    assert [weight for _, weight in weights_of(either_not_both)] == [1.0, -0.5, -0.5]
    assert either_not_both.leaves == (a, b, a, b)


def test_a_preference_has_numbers_that_follow_from_its_slack():
    form = prefer(a, b & c, slack=2)
    assert (form.slack, form.width, form.strength) == (2.0, 0.5, 5.0)
    form = prefer(~a, b, slack=2, width=0.1, strength=3)
    assert (form.slack, form.width, form.strength) == (2.0, 0.1, 3.0)
    assert prefer(a, b, slack=2, width=0.1).strength == 1.0
    assert prefer(a, prefer(b, c, slack=1), slack=2).leaves == (a, b, c)


@pytest.mark.parametrize("number", [0, -1.0, math.nan, math.inf, True, "1", None])
@pytest.mark.parametrize("name", ["slack", "width", "strength"])
def test_a_preference_with_a_number_that_is_not_positive_is_refused_by_name(name, number):
    if number is None and name != "slack":
        return
    with pytest.raises(QomposeError, match=name) as caught:
        prefer(a, b, **{"slack": 1.0, name: number})
    assert "\n" not in str(caught.value)


def test_only_expressions_are_joined():
    with pytest.raises(QomposeError, match="'b' is not an expression"):
        prefer(a, "b", slack=1.0)
    with pytest.raises(TypeError):
        a | "b"


def test_nested_expressions_read_as_they_were_written():
    for form, text in (
        (a & ~(0.5 * b), "a & ~(0.5*b)"),
        (a & ~b, "a & ~b"),
        (c & ~(a & b), "c & ~(a & b)"),
        (c & ~(0.5 * (a | b)), "c & ~(0.5*(a | b))"),
        ((a | 3 * b) & c, "(a | 3*b) & c"),
        (a & b | c, "(a & b) | c"),
        (1 * (a | b) | c, "1*(a | b) | c"),
        (2 * (a | b) & c, "2*(a | b) & c"),
        (gpi(a & ~(0.5 * b)) & c, "gpi(a & ~(0.5*b)) & c"),
        (prefer(~a, b | c, slack=0.5), "prefer(~a, b | c, slack=0.5, width=0.125, strength=1.25)"),
    ):
        assert repr(form) == text
        assert repr(eval(text, {"a": a, "b": b, "c": c, "prefer": prefer, "gpi": gpi})) == text


def test_titles_are_words():
    for form, title in (
        (a & 2 * b & ~c, "a-and-b-and-not-c"),
        (1 * (a | b) | c, "a-or-b-or-c"),
        (prefer(~a, b, slack=1), "not-a-over-b"),
        (gpi(a & ~b), "gpi-a-and-not-b"),
        (from_weights({a: 0.7, b: -0.2}), "a-and-not-b"),
        (a, "a"),
    ):
        assert title_of(form) == title


def test_what_is_pursued_is_found_through_every_operator():
    assert pursued(a & ~b) == [a]
    assert pursued(~(a & ~b) & c) == [b, c]
    assert pursued(gpi(a & ~b) & ~c) == [a, b] and pursued(a & ~gpi(b & c)) == [a]
    assert pursued(~(a | b) & prefer(~c, d, slack=1)) == [d]
    assert pursued((a | b) & ~(a & b)) == [a, b]
    assert pursued(from_weights({a: 0.7, b: -0.2})) == [a]
    assert pursued(~a & ~b) == [a, b]  # nothing is pursued


def test_gpi_takes_a_weighted_sum_and_is_a_term():
    form = gpi({a: 0.7, b: -0.2})
    assert form.leaves == (a, b) and repr(form) == "gpi({a: 0.7, b: -0.2})"
    assert [weight for _, weight in weights_of(3 * form & c)] == [0.75, 0.25]
    for wrong in (a | b, prefer(a, b, slack=1), gpi(a & b), (a | b) & c):
        with pytest.raises(
            QomposeError, match="is no weighted sum of skills: correction, certificate and gpi need one"
        ):
            gpi(wrong)
    with pytest.raises(QomposeError, match="is not an expression of skills"):
        gpi("a & b")
