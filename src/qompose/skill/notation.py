"""Expressions as text, for the command line: `stack & ~(0.5 * obstacle)`, `gpi(a & b)`. A grammar of its own, no eval.

either := both { "|" both }      both := term { "&" term }      term := "~" term | NUMBER "*" term | atom
atom := NAME | "(" either ")" | "gpi" "(" either ")" | "prefer" "(" either "," either { "," OPTION "=" NUMBER } ")"
      | "{" NAME ":" NUMBER { "," NAME ":" NUMBER } "}"

A NAME is that of a skill or a path: letters, digits and `_ . / -`, beginning with a letter, `_`, `.` or `/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from qompose.skill.expression import Expression, from_weights, gpi, prefer
from qompose.types import QomposeError, show

LONGEST, DEEPEST = 4096, 50
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAME = r"[A-Za-z_./][\w./-]*"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER}(?![\w/]))|({_NAME})|([&|~*(),={{}}:]))", re.ASCII)
OPTIONS = ("slack", "width", "strength")


def read_expression(text: str, look_up: Callable[[str], Expression]) -> Expression:
    """The expression that a text says; `look_up` gives the skill of a name. Raises QomposeError for any other text."""
    return _Reader(text, look_up).read()


class _Reader:
    def __init__(self, text: str, look_up: Callable[[str], Expression]) -> None:
        if len(text) > LONGEST:
            raise QomposeError(f"an expression of {len(text)} characters is too long; at most {LONGEST}")
        self.text, self.look_up, self.at, self.depth, self.tokens = text, look_up, 0, 0, []
        self.known: dict[str, Expression] = {}
        end = 0
        text = text.rstrip()
        while end < len(text):
            match = _TOKEN.match(text, end)
            if match is None:
                rest = show(text[end:].strip())
                raise QomposeError(f"{rest} is not understood; combine names of skills with & | ~ *")
            self.tokens.append(match.groups())
            end = match.end()

    def read(self) -> Expression:
        result = self._either()
        if self.at < len(self.tokens):
            raise self._refuse("the end, & or |")
        return result

    def _peek(self) -> tuple[str | None, str | None, str | None]:
        return self.tokens[self.at] if self.at < len(self.tokens) else (None, None, None)

    def _take(self, sign: str) -> bool:
        found = self._peek()[2] == sign
        self.at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._refuse(f"'{sign}'")

    def _refuse(self, wanted: str) -> QomposeError:
        found = next((part for part in self._peek() if part), None)
        return QomposeError(f"{show(self.text)}: {wanted} should come where {show(found) if found else 'it ends'}")

    def _either(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise QomposeError(f"{show(self.text)}: is nested deeper than {DEEPEST}")
        result = self._both()
        while self._take("|"):
            result = result | self._both()
        self.depth -= 1
        return result

    def _both(self) -> Expression:
        result = self._term()
        while self._take("&"):
            result = result & self._term()
        return result

    def _term(self) -> Expression:
        signs = []  # a loop, so that no row of signs is too deep
        while True:
            if self._take("~"):
                signs.append(-1.0)
            elif (number := self._peek()[0]) is not None:
                self.at += 1
                self._expect("*")
                signs.append(float(number))
            else:
                break
        result = self._atom()
        for sign in reversed(signs):
            result = sign * result
        return result

    def _atom(self) -> Expression:
        if self._take("("):
            result = self._either()
            self._expect(")")
            return result
        if self._take("{"):
            return self._weighted()
        name = self._name()
        if name in ("gpi", "prefer") and self._take("("):
            first = self._either()
            result = gpi(first) if name == "gpi" else self._preference(first)
            self._expect(")")
            return result
        return self._skill(name)

    def _name(self) -> str:
        name = self._peek()[1]
        if name is None:
            raise self._refuse("a skill")
        self.at += 1
        return name

    def _number(self) -> float:
        number = self._peek()[0]
        if number is None:
            raise self._refuse("a number")
        self.at += 1
        return float(number)

    def _skill(self, name: str) -> Expression:
        if name not in self.known:
            self.known[name] = self.look_up(name)
        return self.known[name]

    def _weighted(self) -> Expression:
        weights: dict[Expression, float] = {}
        while True:
            skill = self._skill(self._name())
            if skill in weights:
                raise QomposeError(f"{show(self.text)}: {skill!r} is given twice; give one number for each skill")
            self._expect(":")
            weights[skill] = self._number()
            if not self._take(","):
                break
        self._expect("}")
        return from_weights(weights)

    def _preference(self, high: Expression) -> Expression:
        self._expect(",")
        low, numbers = self._either(), {}
        while self._take(","):
            option = self._peek()[1]
            if option not in OPTIONS or option in numbers:
                raise self._refuse(f"one of {', '.join(OPTIONS)}")
            self.at += 1
            self._expect("=")
            numbers[option] = self._number()
        if "slack" not in numbers:
            raise self._refuse("slack=NUMBER")
        return prefer(high, low, **numbers)
