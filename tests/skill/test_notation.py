import pytest

from qompose.skill.expression import Leaf
from qompose.skill.notation import read_expression
from qompose.types import QomposeError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a & b", "a & b"),
        ("stack & ~(0.5 * obstacle)", "stack & ~(0.5*obstacle)"),
        ("a|b&c", "a | (b & c)"),
        ("(a | 3*b) & -.5e0*c", "(a | 3*b) & ~(0.5*c)"),
        ("2 * ~a & b", "~(2*a) & b"),
        ("gpi(a & ~b)", "gpi(a & ~b)"),
        ("gpi & prefer", "gpi & prefer"),
        ("prefer(~a, b & c, slack=0.5, width=1, strength=2)", "prefer(~a, b & c, slack=0.5, width=1, strength=2)"),
        (" runs/push-left  &./skills/a.b_c ", "runs/push-left & ./skills/a.b_c"),
        ("1*(a & b) & c", "1*(a & b) & c"),
        ("{a: .5, runs/b:-1e-1}", "{a: 0.5, runs/b: -0.1}"),
        ("gpi({a: 1, b: 1})", "gpi({a: 1, b: 1})"),
    ],
)
def test_a_text_means_what_it_means_in_python(text, expected):
    assert repr(read_expression(text, Leaf)) == expected


def test_a_name_that_is_written_twice_is_one_skill():
    assert len(set(read_expression("(a | b) & ~(a & b)", Leaf).leaves)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a skill should come where it ends"),
        ("a &", "a skill should come where it ends"),
        ("a b", "the end, & or | should come where 'b'"),
        ("(a & b", r"'\)' should come where it ends"),
        ("2 a", r"'\*' should come where 'a'"),
        ("a & 3", r"'\*' should come where it ends"),
        ("a + b", r"'\+ b' is not understood"),
        ("__import__('os')", "is not understood"),
        ("a.b(c)", "the end, & or | should come"),
        ("prefer(a, b)", "slack=NUMBER should come"),
        ("prefer(a, b, slack=0.1, slack=0.2)", "one of slack, width, strength should come"),
        ("prefer(a, b, speed=1)", "one of slack, width, strength should come"),
        ("prefer(a)", "',' should come"),
        ("gpi(a | b)", "is no weighted sum of skills"),
        ("{a: 1, a: 2}", "a is given twice; give one number for each skill"),
        ("{a: 1, b}", "':' should come where '}'"),
        ("{a: b}", "a number should come where 'b'"),
        ("{a: 1", "'}' should come where it ends"),
        ("{}", "a skill should come where '}'"),
        ("{a: 0}", "weight 0: a weight must be finite"),
        ("{a: 1} & b", "weights given by name are final"),
        ("0 * a & b", "weight 0: a weight must be finite"),
        ("1e999 * a & b", "must be finite"),
        ("a & a", "appears twice"),
        ("(" * 60 + "a", "nested deeper"),
        ("a" * 5000, "too long"),
        ("a | ~b", r"within \| must be positive"),
    ],
)
def test_any_other_text_is_refused_in_one_line(text, message):
    with pytest.raises(QomposeError, match=message) as caught:
        read_expression(text, Leaf)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_long_row_of_signs_is_no_deep_tree():
    assert repr(read_expression("~" * 3000 + "a", Leaf)) == "1*a"
