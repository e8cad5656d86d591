import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qompose.skill import expression as module
from qompose.skill.expression import Leaf, from_weights, weights_of
from qompose.types import QomposeError

a, b, c, d = (Leaf(name) for name in "abcd")


def test_examples_in_the_docstring_hold():
    result = doctest.testmod(module)
    assert result.attempted >= 6
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
    "weight", [True, np.True_, "2", None, 1j, [2.0], np.array([1.0, 2.0]), math.nan, math.inf, 0, -1.0, 10**400]
)
def test_a_weight_that_is_no_positive_finite_number_is_refused(weight):
    for form in (lambda: weight * a, lambda: a * weight, lambda: from_weights({a: weight})):
        with pytest.raises(QomposeError, match="weight") as caught:
            form()
        assert "\n" not in str(caught.value)


def test_negative_weights_say_what_is_allowed():
    with pytest.raises(QomposeError, match="must be positive"):
        -1 * a


def test_products_of_weights_may_not_overflow_or_vanish():
    with pytest.raises(QomposeError, match="finite"):
        1e200 * (1e200 * a)
    assert weights_of(1e308 * a & 1e308 * b) == [(a, 0.5), (b, 0.5)]
    with pytest.raises(QomposeError, match="vanishes"):
        weights_of(1e300 * a & 1e-300 * b)


@pytest.mark.parametrize("form", [lambda: a & a, lambda: 2 * (a & b) & 3 * a])
def test_a_skill_may_appear_once(form):
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


def test_named_weights_are_final():
    form = from_weights({a: 0.7, b: 0.7})
    for attempt in (lambda: 2 * form, lambda: form & c, lambda: c & form):
        with pytest.raises(QomposeError, match="final"):
            attempt()


@pytest.mark.parametrize("wrong", [{}, {a & b: 1.0}, {2 * a: 1.0}, {"a": 1.0}])
def test_named_weights_are_of_single_skills(wrong):
    with pytest.raises(QomposeError):
        from_weights(wrong)


def test_python_and_is_refused_instead_of_dropping_a_skill():
    with pytest.raises(QomposeError, match="combine skills with &"):
        bool(a)  # what `a and b` asks first


def test_only_expressions_have_weights():
    with pytest.raises(QomposeError, match="not an expression"):
        weights_of("a & b")
    with pytest.raises(TypeError):
        a & "b"
