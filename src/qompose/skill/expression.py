"""Expressions of skills: `left & bottom`, `stack & ~(0.5 * obstacle)`, `(a | b) & c`. Pure trees; nothing is computed.

A number in front of a term is its *relative* weight within the `&` or `|` around it. The weights of what an `&` pursues
sum to one.

>>> a, b, c = Leaf("a"), Leaf("b"), Leaf("c")
>>> weights_of(a & b & c)
[(a, 0.3333333333333333), (b, 0.3333333333333333), (c, 0.3333333333333333)]
>>> weights_of(3 * a & b)
[(a, 0.75), (b, 0.25)]
>>> weights_of(7 * a)  # alone, a number says nothing but its sign
[(a, 1.0)]

Brackets without a number dissolve, so that `&` is associative; a number keeps its brackets together as one term.

>>> weights_of((3 * a & b) & 4 * c)
[(a, 0.375), (b, 0.125), (c, 0.5)]
>>> weights_of(1 * (a & b) & c)
[(a, 0.25), (b, 0.25), (c, 0.5)]
>>> weights_of(3 * (a & b) & c)
[(a, 0.375), (b, 0.375), (c, 0.25)]

`~` avoids: it makes a weight negative, `~a` is `-1 * a`. What is avoided does not count in the sum, so that it takes
nothing from what is pursued; its number says how much against all that. Avoided alone, weights sum to minus one.

>>> weights_of(a & ~(0.5 * b))
[(a, 1.0), (b, -0.5)]
>>> weights_of(a & b & ~(0.5 * c))
[(a, 0.5), (b, 0.5), (c, -0.25)]
>>> weights_of(1 * (a & b) & ~(0.5 * c))
[(a, 0.5), (b, 0.5), (c, -0.5)]
>>> weights_of(~a & ~b)
[(a, -0.5), (b, -0.5)]

`|`, `prefer` and `gpi` are terms of their own, with a weight like a skill's. Weights within an `|` are positive; they
sum to one.

>>> weights_of((a | 3 * b) & c)
[(a | 3*b, 0.5), (c, 0.5)]
>>> alternatives_of(a | 3 * b)
[(a, 0.25), (b, 0.75)]
>>> weights_of(2 * prefer(a, b, slack=0.5) & c)
[(prefer(a, b, slack=0.5, width=0.125, strength=1.25), 0.6666666666666666), (c, 0.3333333333333333)]

Weights that shall be used as they are, whatever their sum, are given by name.

>>> weights_of(from_weights({a: 0.7, b: 0.7, c: -0.2}))
[(a, 0.7), (b, 0.7), (c, -0.2)]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from qompose.types import QomposeError, show

# A composed network has at most so many leaves; it also bounds the depth of every tree.
MOST_LEAVES = 64
# Of `prefer`: the width as a share of the slack, and the price of one unit of high, in units of low, beyond the slack.
WIDTH, PRICE = 0.25, 10.0


class Expression:
    """Something that can be composed. A class that is none of the nodes below is a leaf: a skill."""

    __array_ufunc__ = None  # so that np.float64(2) * skill comes to __rmul__

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written; one that was written twice is there twice."""
        return (self,)

    def __and__(self, other: Any) -> Expression:
        """AND, all at once: Q = Σ w_i Q_i, for the task of reward Σ w_i r_i.

        With no weight negative an upper bound of that task's Q, if the temperature is not below Σ w_i α_i; exact only
        by chance. With `~` inside, see there.
        """
        return And(_terms(self, And) + _terms(other, And)) if isinstance(other, Expression) else NotImplemented

    def __or__(self, other: Any) -> Expression:
        """OR, any of them: Q = α log Σ w_i exp(Q_i/α), w_i relative to the sum of all, α the skills' common one.

        Exact where the rewards differ only on steps that end the episode, dynamics are deterministic and γ = 1. A lower
        bound where any dynamics and γ take their place, and for the task of reward max_i r_i; else a heuristic. All
        this at the skills' own temperature: below it the bound for max_i r_i is left, above it nothing.
        """
        return Or(_terms(self, Or) + _terms(other, Or)) if isinstance(other, Expression) else NotImplemented

    def __add__(self, other: Any) -> Expression:
        """Refused: it could mean the sum or the mean, which `&` is."""
        raise QomposeError(
            "skills are combined with & | ~, not + or -: a & b is the mean of their Q, {a: 1, b: 1} the sum"
        )

    __radd__ = __sub__ = __rsub__ = __add__

    def __invert__(self) -> Expression:
        """AVOID: a negative weight within an `&`, `stack & ~(0.5 * obstacle)`.

        No upper bound. A lower bound if one skill is pursued, all others are avoided and the temperature is not above
        Σ w_i α_i, or if all are avoided; neither with two pursued and one avoided: a heuristic.
        """
        return Scaled(-1.0, self)

    def __mul__(self, weight: Any) -> Expression:
        """The same term with another relative weight; a negative one avoids."""
        return Scaled(check_weight(weight), self)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        """Refused: `left and bottom` would silently be `bottom`."""
        raise QomposeError("a skill is neither true nor false; combine skills with & | ~ (not 'and', 'or', 'not')")


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Expression):
    """A named stand-in for a skill."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Expression):
    """A term with a relative weight, negative if it is to be avoided."""

    weight: float
    of: Expression

    def __post_init__(self) -> None:
        if isinstance(self.of, Weighted):
            raise QomposeError("weights given by name are final and cannot be scaled; change the numbers themselves")
        if isinstance(self.of, Scaled):
            object.__setattr__(self, "weight", check_weight(self.weight * self.of.weight))
            object.__setattr__(self, "of", self.of.of)

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return self.of.leaves

    def __repr__(self) -> str:
        inner = _bracketed(self.of)
        if self.weight > 0.0:
            return f"{self.weight:.12g}*{inner}"
        return f"~{inner}" if self.weight == -1.0 else f"~({-self.weight:.12g}*{inner})"


@dataclass(frozen=True, eq=False, repr=False)
class _Joined(Expression):
    """Terms with relative weights. A bracket of the same kind is a term only where a number holds it together."""

    sign: ClassVar[str]
    terms: tuple[tuple[float, Expression], ...]

    def __post_init__(self) -> None:
        if any(isinstance(term, Weighted) for _, term in self.terms):
            raise QomposeError("weights given by name are final; give the numbers of all skills at once")
        seen: set[int] = set()
        for term, _ in _share(self, 1.0, type(self)):
            if id(term) in seen:
                name = _bracketed(term)[:60]
                raise QomposeError(f"{name} appears twice in the expression; use a weight, as in 2 * {name}")
            seen.add(id(term))
        _check_count(self.leaves)

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return tuple(leaf for _, term in self.terms for leaf in term.leaves)

    def __repr__(self) -> str:
        def spell(weight: float, term: Expression) -> str:
            if weight != 1.0 or isinstance(term, type(self)):
                return repr(Scaled(weight, term))
            return _bracketed(term)

        return f" {self.sign} ".join(spell(*term) for term in self.terms)


class And(_Joined):
    """A conjunction; a negative weight avoids."""

    sign = "&"


class Or(_Joined):
    """A disjunction; every weight is positive."""

    sign = "|"

    def __post_init__(self) -> None:
        if any(weight < 0.0 for weight, _ in self.terms):
            raise QomposeError("a weight within | must be positive, since it is a share; ~ belongs into an &")
        super().__post_init__()


@dataclass(frozen=True, eq=False, repr=False)
class Prefer(Expression):
    """A lexicographic order: `high` first, and `low` among what is nearly best for it. Made by `prefer`."""

    high: Expression
    low: Expression
    slack: float
    width: float
    strength: float

    def __post_init__(self) -> None:
        _check_count(self.leaves)

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return self.high.leaves + self.low.leaves

    def __repr__(self) -> str:
        numbers = f"slack={self.slack:.12g}, width={self.width:.12g}, strength={self.strength:.12g}"
        return f"prefer({self.high!r}, {self.low!r}, {numbers})"


@dataclass(frozen=True, eq=False, repr=False)
class Weighted(Expression):
    """A linear form with final weights, used as they are."""

    terms: tuple[tuple[float, Expression], ...]

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return tuple(leaf for _, leaf in self.terms)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{leaf!r}: {weight:.12g}" for weight, leaf in self.terms) + "}"


@dataclass(frozen=True, eq=False, repr=False)
class Gpi(Expression):
    """The best of what following each skill is worth for the task of a linear form. Made by `gpi`."""

    of: Expression

    def __post_init__(self) -> None:
        _check_count(self.leaves)

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return self.of.leaves

    def __repr__(self) -> str:
        return f"gpi({self.of!r})"


def linear_weights_of(expression: Any) -> list[tuple[Any, float]]:
    """The weights of an expression that is a weighted sum of skills; raises QomposeError if it is anything else."""
    pairs = weights_of(expression)
    for term, _ in pairs:
        if isinstance(term, Or | Prefer | Gpi):
            raise QomposeError(f"{show(term)} is no weighted sum of skills: correction, certificate and gpi need one")
    return pairs


def gpi(of: Any) -> Gpi:
    """GPI: Q = max_i Q^{π_i}_w, the best of what it is worth to follow each skill for the task of reward Σ w_i r_i.

    `of` is a weighted sum of skills, `a & b` or `{a: 0.7, b: 0.3}`; π_i are the skills' own policies, at temperatures
    of their own, and Q^{π_i}_w is the soft Q of π_i at the temperature α = Σ w_i α_i: r_w + γ E[V^{π_i}_w],
    V^{π_i}_w = E_{π_i}[Q^{π_i}_w − α log π_i]. They are learned from the skills' replays and rewards by `compose`.
    A lower bound of Q* for any weights and temperatures, and of the value of its own policy exp(Q/α), which is worth
    at least what each skill is (Hunt et al. 2019, for one temperature). Exact where following one skill for ever is
    optimal. So for exact Q^{π_i}_w: learned ones are estimates.
    """
    if isinstance(of, Mapping):
        of = from_weights(of)
    linear_weights_of(of)
    return Gpi(of)


def prefer(high: Any, low: Any, *, slack: Any, width: Any = None, strength: Any = None) -> Prefer:
    """PREFER, first `high`, then `low`: Q = Q_low + β log σ((Q_high − max_a Q_high + ε)/τ), at the temperature of low.

    ε = `slack` is how much of high's value one decision may give up, in reward units: it has no default, since only
    the task says what matters. τ = `width`, a quarter of the slack unless given, is how soft that limit is. Beyond it a
    unit of Q_high costs β/τ units of Q_low, β = `strength`: 10 τ unless given, so 10 units. max_a Q_high is estimated
    as the highest among fixed actions, the same for everyone, which falls short of it in many dimensions and so widens
    the slack.
    More levels are nested: `prefer(a, prefer(b, c, slack=0.2), slack=0.5)`.
    A heuristic: the value of no task, and no bound; what is given up adds up over the decisions of an episode.
    """
    for member in (high, low):
        if not isinstance(member, Expression):
            raise QomposeError(f"{repr(member)[:60]} is not an expression of skills; prefer takes loaded skills")
    width = WIDTH * _positive(slack, "slack") if width is None else width
    strength = PRICE * _positive(width, "width") if strength is None else strength
    numbers = {"slack": slack, "width": width, "strength": strength}
    return Prefer(high, low, **{name: _positive(number, name) for name, number in numbers.items()})


def spell_sum(weights: Sequence[float], names: Sequence[str]) -> str:
    """Σ w_i Q_i for people: `0.5 Q[left] - 0.25 Q[tower]`."""
    terms = (f"{weight:.3g} Q[{name}]" for weight, name in zip(weights, names, strict=True))
    return " + ".join(terms).replace("+ -", "- ")


def _positive(number: Any, name: str) -> float:
    value = check_weight(number, name)
    if value < 0.0:
        raise QomposeError(f"{name} {value:g}: it must be positive, in reward units")
    return value


def _bracketed(term: Expression) -> str:
    return f"({term!r})" if isinstance(term, _Joined) else repr(term)


def _terms(expression: Expression, kind: type[_Joined]) -> tuple[tuple[float, Expression], ...]:
    if isinstance(expression, kind):
        return expression.terms
    if isinstance(expression, Scaled):
        return ((expression.weight, expression.of),)
    return ((1.0, expression),)


def _check_count(leaves: tuple[Expression, ...]) -> None:
    if len(leaves) > MOST_LEAVES:
        raise QomposeError(
            f"{len(leaves)} skills in one expression, at most {MOST_LEAVES} are allowed; compose in steps"
        )


def check_weight(weight: Any, what: str = "weight") -> float:
    """A finite number other than zero as a float; anything else raises QomposeError."""
    if isinstance(weight, bool) or type(weight).__name__ == "bool" or not isinstance(weight, Real):
        raise QomposeError(f"a {what} must be a number, not {repr(weight)[:60]}")
    try:
        value = float(weight)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or value == 0.0:
        raise QomposeError(f"{what} {value:g}: a {what} must be finite and not zero")
    return value


def from_weights(weights: Mapping[Any, Any]) -> Weighted:
    """The form Σ w_i Q_i with the weights exactly as given: finite, not zero, of either sign and any sum.

    A bound or a heuristic, by the signs of the weights, as `&` and `~` are; exact only by chance.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise QomposeError("weights must be a mapping from skills to numbers with at least one entry")
    for leaf in weights:
        if not isinstance(leaf, Expression) or isinstance(leaf, Scaled | _Joined | Prefer | Gpi | Weighted):
            raise QomposeError(f"{repr(leaf)[:60]} is not a skill; weights by name are given to single skills")
    _check_count(tuple(weights))
    return Weighted(tuple((check_weight(weight), leaf) for leaf, weight in weights.items()))


def weights_of(expression: Any) -> list[tuple[Any, float]]:
    """The linear form: every term with its weight. A term is a skill, an `|`, a `prefer` or a `gpi`.

    The positive weights sum to one; where there is none, the negative ones sum to minus one; those of `from_weights`
    are as given. So what is pursued stays the mean of its Q's, in its units, whatever is avoided besides, and the
    numbers of what is avoided are measured against that mean. (Weights whose absolute values sum to one would dilute
    what is pursued and change its temperature with every `~`; those whose plain sum is one need not exist.)
    """
    if not isinstance(expression, Expression):
        raise QomposeError(f"{repr(expression)[:60]} is not an expression of skills; combine loaded skills with &")
    if isinstance(expression, Weighted):
        return [(leaf, weight) for weight, leaf in expression.terms]
    return _checked(_share(expression, 1.0, And))


def alternatives_of(expression: Or) -> list[tuple[Any, float]]:
    """The terms of an `|` with their shares, which sum to one."""
    return _checked(_share(expression, 1.0, Or))


def _checked(pairs: list[tuple[Any, float]]) -> list[tuple[Any, float]]:
    if not all(weight != 0.0 and math.isfinite(weight) for _, weight in pairs):
        raise QomposeError("the weights of the expression differ too much: one vanishes beside the others")
    return pairs


def _share(expression: Expression, share: float, kind: type[_Joined]) -> list[tuple[Any, float]]:
    if not isinstance(expression, Scaled | kind):
        return [(expression, share)]
    terms = _terms(expression, kind)
    largest = max(abs(weight) for weight, _ in terms)
    relative = [weight / largest for weight, _ in terms]
    total = math.fsum(weight for weight in relative if weight > 0.0) or -math.fsum(relative)
    return [
        pair
        for weight, (_, term) in zip(relative, terms, strict=True)
        for pair in _share(term, share * (weight / total), kind)
    ]


def pursued(expression: Expression) -> list[Any]:
    """The skills that somewhere in the expression are not avoided, each once; all of them, if there is none."""

    def walk(node: Expression, sign: float) -> list[Expression]:
        if isinstance(node, Prefer):
            return walk(node.high, sign) + walk(node.low, sign)
        if isinstance(node, Gpi):  # the policies of all of them are followed, also of those avoided
            return list(node.leaves) if sign > 0.0 else []
        if isinstance(node, Scaled | _Joined | Weighted):
            terms = node.terms if not isinstance(node, Scaled) else ((node.weight, node.of),)
            return [leaf for weight, term in terms for leaf in walk(term, math.copysign(sign, weight * sign))]
        return [node] if sign > 0.0 else []

    return list(dict.fromkeys(walk(expression, 1.0) or expression.leaves))


def title_of(expression: Expression) -> str:
    """The expression in words, without its numbers: `a-and-not-b`, `a-or-b`, `a-over-b`, `gpi-a-and-b`."""
    if isinstance(expression, Gpi):
        return f"gpi-{title_of(expression.of)}"
    if isinstance(expression, Prefer):
        return f"{title_of(expression.high)}-over-{title_of(expression.low)}"
    if isinstance(expression, Scaled):
        return ("not-" if expression.weight < 0.0 else "") + title_of(expression.of)
    if isinstance(expression, _Joined | Weighted):
        word = "-or-" if isinstance(expression, Or) else "-and-"
        return word.join(title_of(Scaled(*term)) for term in expression.terms)
    return getattr(expression, "name", repr(expression))
