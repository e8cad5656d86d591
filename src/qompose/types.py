"""Words that every layer shares: errors, transitions, and what a policy is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, Protocol, runtime_checkable


class QomposeError(ValueError):
    """A mistake that the user can mend. Its message is one line: what is wrong and what to do."""


def show(value: object, limit: int = 80) -> str:
    """A value as a short piece of one line, whatever it holds."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


# What a setting may be, by the annotation of its field, and how to say so. Other annotations are not looked at.
_WHOLE, _REAL = "an integer", "a number"
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((Integral,), _WHOLE), "float": ((Real,), _REAL), "bool": ((bool,), "true or false"),
    "str": ((str,), "a word"), "Sequence[Any]": ((list, tuple), "a list"),
    "tuple[int, ...]": ((list, tuple), "integers"),
}  # fmt: skip


def find_misfit(annotation: str, value: Any) -> str | None:
    """Return what should be given instead of a value that is not of the annotated kind; None if it is."""
    kind = annotation.removesuffix(" | None")
    if kind not in KINDS or (value is None and kind != annotation):
        return None
    types, words = KINDS[kind]
    fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    if isinstance(value, list | tuple) and kind == "tuple[int, ...]":
        fits = all(find_misfit("int", item) is None for item in value)
    return None if fits else words


def as_plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON knows, also within lists; anything else as it is."""
    if type(value) in (list, tuple):  # a named one goes on being one
        return type(value)(as_plain(item) for item in value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def check_kinds(settings: Any) -> None:
    """Refuse a field of a frozen dataclass that is not of the kind its annotation says; make it plain.

    Lists become tuples, NumPy's numbers Python's. Raises QomposeError in place of the traceback that a number of the
    wrong kind would give much later.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        wanted = find_misfit(str(field.type), value)
        if wanted is not None:
            raise QomposeError(f"{field.name} is {show(value)}; give {wanted}")
        plain = as_plain(value)
        object.__setattr__(settings, field.name, tuple(plain) if isinstance(plain, list) else plain)


def check_settings(name: str, value: Any, kind: type) -> None:
    """Refuse settings that are neither left out nor of their kind."""
    if value is not None and not isinstance(value, kind):
        raise QomposeError(f"{name} is {show(value)}; give qp.{kind.__name__}(...)")


def check_options(options: Any) -> dict[str, Any]:
    """The options of an environment as a dictionary of their own, plain; raises QomposeError for what is none."""
    names = list(options) if isinstance(options, Mapping) else [] if options is None else [None]
    if not all(isinstance(name, str) for name in names):
        raise QomposeError(f"options is {show(options)}; give a dictionary: name of an option to its value")
    return {name: as_plain(value) for name, value in (options or {}).items()}


class Transition(NamedTuple):
    """One step of experience, or a batch of them along leading axes.

    `terminated` is 1.0 where the episode ended in a terminal state; a time limit never sets it, so that
    `discount = γ (1 − terminated)` keeps the bootstrap alive across time limits.
    """

    observation: Any  # (*batch, obs)
    action: Any  # (*batch, act), in [-1, 1]
    reward: Any  # (*batch,), raw units of the task
    next_observation: Any  # (*batch, obs)
    terminated: Any  # (*batch,), 0.0 or 1.0


@runtime_checkable
class Policy(Protocol):
    """Anything that maps a batch of observations to a batch of actions in [-1, 1]."""

    def __call__(self, observations: Any, step: int) -> Any:
        """Return actions (lanes, act) for observations (lanes, obs) at lock-step `step`."""
        ...
