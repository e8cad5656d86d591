"""Expressions of skills: `left & bottom`, `2 * left & bottom`. Pure trees; nothing is computed here.

A number in front of a term is its *relative* weight within the `&` around it; the weights of an expression sum to one.

>>> a, b, c = Leaf("a"), Leaf("b"), Leaf("c")
>>> weights_of(a & b & c)
[(a, 0.3333333333333333), (b, 0.3333333333333333), (c, 0.3333333333333333)]
>>> weights_of(3 * a & b)
[(a, 0.75), (b, 0.25)]

Brackets without a number dissolve, so that `&` is associative; a number keeps its brackets together as one term.

>>> weights_of((3 * a & b) & 4 * c)
[(a, 0.375), (b, 0.125), (c, 0.5)]
>>> weights_of(1 * (a & b) & c)
[(a, 0.25), (b, 0.25), (c, 0.5)]
>>> weights_of(3 * (a & b) & c)
[(a, 0.375), (b, 0.375), (c, 0.25)]

Weights that shall be used as they are, whatever their sum, are given by name.

>>> weights_of(from_weights({a: 0.7, b: 0.7}))
[(a, 0.7), (b, 0.7)]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from qompose.types import QomposeError

# A composed network has at most so many leaves; it also bounds the depth of every tree.
MOST_LEAVES = 64


class Expression:
    """Something that can be composed. A class that is none of the nodes below is a leaf: a skill."""

    __array_ufunc__ = None  # so that np.float64(2) * skill comes to __rmul__

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return (self,)

    def __and__(self, other: Any) -> Expression:
        """Both at once: energies are added, weights are relative."""
        if not isinstance(other, Expression):
            return NotImplemented
        return And(_terms(self) + _terms(other))

    def __mul__(self, weight: Any) -> Expression:
        """The same term with another relative weight."""
        return Scaled(check_weight(weight), self)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        """Refused: `left and bottom` would silently be `bottom`."""
        raise QomposeError("a skill is neither true nor false; combine skills with & (not 'and')")


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Expression):
    """A named stand-in for a skill."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Expression):
    """A term with a relative weight."""

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
        inner = f"({self.of!r})" if isinstance(self.of, And) else repr(self.of)
        return f"{self.weight:.12g}*{inner}"


@dataclass(frozen=True, eq=False, repr=False)
class And(Expression):
    """A conjunction: terms with relative weights. A term is a leaf or a bracket that a number holds together."""

    terms: tuple[tuple[float, Expression], ...]

    def __post_init__(self) -> None:
        for _, term in self.terms:
            if isinstance(term, Weighted):
                raise QomposeError("weights given by name are final; give the numbers of all skills at once")
        _check_leaves(self.leaves)

    @property
    def leaves(self) -> tuple[Expression, ...]:
        """The skills in the order in which they were written."""
        return tuple(leaf for _, term in self.terms for leaf in term.leaves)

    def __repr__(self) -> str:
        return " & ".join(
            repr(term) if weight == 1.0 and not isinstance(term, And) else repr(Scaled(weight, term))
            for weight, term in self.terms
        )


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


def _terms(expression: Expression) -> tuple[tuple[float, Expression], ...]:
    if isinstance(expression, And):
        return expression.terms
    if isinstance(expression, Scaled):
        return ((expression.weight, expression.of),)
    return ((1.0, expression),)


def _check_leaves(leaves: tuple[Expression, ...]) -> None:
    if len(leaves) > MOST_LEAVES:
        raise QomposeError(
            f"{len(leaves)} skills in one expression, at most {MOST_LEAVES} are allowed; compose in steps"
        )
    seen: set[int] = set()
    for leaf in leaves:
        if id(leaf) in seen:
            raise QomposeError(f"{leaf!r} appears twice in the expression; use a weight, as in 2 * {leaf!r}")
        seen.add(id(leaf))


def check_weight(weight: Any) -> float:
    """A positive finite number as a float; anything else raises QomposeError."""
    if isinstance(weight, bool) or type(weight).__name__ == "bool" or not isinstance(weight, Real):
        raise QomposeError(f"a weight must be a number, not {repr(weight)[:60]}")
    try:
        value = float(weight)
    except OverflowError:
        value = math.inf
    if not (math.isfinite(value) and value > 0.0):
        raise QomposeError(f"weight {value:g}: a weight must be positive and finite")
    return value


def from_weights(weights: Mapping[Any, Any]) -> Weighted:
    """The form Σ w_i Q_i with the weights exactly as given: positive, finite, of any sum."""
    if not isinstance(weights, Mapping) or not weights:
        raise QomposeError("weights must be a mapping from skills to numbers with at least one entry")
    for leaf in weights:
        if not isinstance(leaf, Expression) or isinstance(leaf, Scaled | And | Weighted):
            raise QomposeError(f"{repr(leaf)[:60]} is not a skill; weights by name are given to single skills")
    _check_leaves(tuple(weights))
    return Weighted(tuple((check_weight(weight), leaf) for leaf, weight in weights.items()))


def weights_of(expression: Any) -> list[tuple[Any, float]]:
    """The linear form: every leaf with its weight. They sum to one, except where `from_weights` gave them."""
    if not isinstance(expression, Expression):
        raise QomposeError(f"{repr(expression)[:60]} is not an expression of skills; combine loaded skills with &")
    if isinstance(expression, Weighted):
        return [(leaf, weight) for weight, leaf in expression.terms]
    pairs = _share(expression, 1.0)
    if not all(weight > 0.0 for _, weight in pairs):
        raise QomposeError("the weights of the expression differ too much: one vanishes beside the others")
    return pairs


def _share(expression: Expression, share: float) -> list[tuple[Any, float]]:
    if isinstance(expression, Scaled):
        return _share(expression.of, share)
    if not isinstance(expression, And):
        return [(expression, share)]
    largest = max(weight for weight, _ in expression.terms)
    relative = [weight / largest for weight, _ in expression.terms]
    total = math.fsum(relative)
    return [
        pair
        for weight, (_, term) in zip(relative, expression.terms, strict=True)
        for pair in _share(term, share * (weight / total))
    ]
