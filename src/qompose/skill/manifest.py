"""The manifest of a skill: a closed schema. Every field has a type and a range; any other field is refused.

A check takes the name of the field and a value, and returns the value or raises QomposeError naming the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from qompose.skill.expression import MOST_LEAVES
from qompose.skill.network import KINDS, check_spec
from qompose.types import QomposeError, show

FORMAT = "qompose-skill"
VERSION = 1
ALGORITHMS = tuple(KINDS)
FILES = ("critic.safetensors", "sampler.safetensors", "replay.safetensors")
MOST_TRANSITIONS = 100_000_000
MOST_PAIRS = 2**20  # particles times centres, whose distances one soft value holds at once
LARGEST_SIZE = 10_000
# Entries in all, and nesting, of the free-form parts.
MOST_ENTRIES = 2000
DEEPEST_FREE = 3

Check = Callable[[str, Any], Any]


def _refuse(field: str, wanted: str, value: Any) -> QomposeError:
    return QomposeError(f"{field}: must be {wanted}, not {show(value)}")


def integer(low: int, high: int) -> Check:
    """A whole number from low to high."""

    def check(field: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _refuse(field, f"an integer from {low} to {high}", value)
        return value

    return check


def number(low: float, high: float, strict: bool = False) -> Check:
    """A finite number from low to high, or strictly between them."""

    def check(field: str, value: Any) -> float:
        good = not isinstance(value, bool) and isinstance(value, int | float)
        if not good or not (low < value < high if strict else low <= value <= high):
            span = f"strictly between {low:g} and {high:g}" if strict else f"from {low:g} to {high:g}"
            raise _refuse(field, f"a number {span}", value)
        return float(value)

    return check


def weight(field: str, value: Any) -> float:
    """A number of either sign whose size is from 1e-9 to 1e9."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-9 <= abs(value) <= 1e9:
        raise _refuse(field, "a number from 1e-9 to 1e9, of either sign", value)
    return float(value)


def text(limit: int, pattern: str = "") -> Check:
    """A printable string of at most `limit` characters, all of it matching `pattern`."""

    def check(field: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit or not value.isprintable():
            raise _refuse(field, f"a printable string of at most {limit} characters", value)
        if pattern and not re.fullmatch(pattern, value):
            raise _refuse(field, f"of the form {pattern}", value)
        return value

    return check


def choice(*options: Any) -> Check:
    """One of the options."""

    def check(field: str, value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in options):
            raise _refuse(field, " or ".join(map(repr, options)), value)
        return value

    return check


def optional(inner: Check) -> Check:
    """Null, or what `inner` takes."""
    return lambda field, value: None if value is None else inner(field, value)


def sequence(inner: Check, low: int, high: int) -> Check:
    """A list of low to high items."""

    def check(field: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            raise _refuse(field, f"a list of {low} to {high} items", value)
        return [inner(f"{field}[{index}]", item) for index, item in enumerate(value)]

    return check


def record(**fields: Check) -> Check:
    """An object with exactly these fields."""

    def check(field: str, value: Any) -> dict[str, Any]:
        prefix = f"{field}." if field else ""
        if not isinstance(value, dict):
            raise _refuse(field or "manifest", "an object", value)
        for name in value:
            if name not in fields:
                raise QomposeError(f"{prefix}{show(name) if not _plain(name) else name}: is unknown; remove it")
        for name in fields:
            if name not in value:
                raise QomposeError(f"{prefix}{name}: is missing")
        return {name: inner(prefix + name, value[name]) for name, inner in fields.items()}

    return check


def _plain(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"\w{1,40}", name, re.ASCII) is not None


def free(depth: int) -> Check:
    """An object of scalars (depth 0), or also of lists and objects nested at most `depth` deep: words for people."""

    def check(field: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _refuse(field, "an object", value)
        return _free(field, value, depth, [MOST_ENTRIES])

    return check


KEY = text(128, r".+")
FREE_TEXT = text(4096)
FREE_INTEGER = integer(-(2**63), 2**63 - 1)
FREE_NUMBER = number(-1.8e308, 1.8e308, strict=True)


def _free(field: str, value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise QomposeError(f"{field}: holds more than {MOST_ENTRIES} entries")
    if isinstance(value, dict) and depth >= 0:
        inner = {KEY(f"{field} (a name in it)", name): item for name, item in value.items()}
        return {name: _free(f"{field}.{name}", item, depth - 1, left) for name, item in inner.items()}
    if isinstance(value, list | tuple) and depth >= 0:
        return [_free(f"{field}[{index}]", item, depth - 1, left) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return FREE_TEXT(field, value)
    if isinstance(value, int):
        return FREE_INTEGER(field, value)
    if isinstance(value, float):
        return FREE_NUMBER(field, value)
    raise _refuse(field, "a string, a number, true, false or null" if depth < 0 else "JSON", value)


NAME = text(64, r"[a-z0-9][a-z0-9_.-]{0,63}")
LIMIT = number(-1e9, 1e9)

FIELDS: dict[str, Check] = {
    "name": NAME,
    "algorithm": choice(*ALGORITHMS),
    "temperature": optional(number(1e-8, 1e8)),
    "discount": number(0.0, 1.0, strict=True),
    "observation": record(
        size=integer(1, LARGEST_SIZE),
        names=optional(sequence(text(64, r".+"), 1, LARGEST_SIZE)),
    ),
    "action": record(
        size=integer(1, LARGEST_SIZE),
        low=sequence(LIMIT, 1, LARGEST_SIZE),
        high=sequence(LIMIT, 1, LARGEST_SIZE),
    ),
    "control_period": optional(number(1e-6, 1e6)),
    "horizon": optional(integer(1, 10**12)),
    "terminates": choice(True, False),
    "task": record(id=text(256, r".+"), options=free(2)),
    "estimator": optional(
        record(
            proposal=choice("mixture", "uniform"),
            particles=integer(1, 65536),
            centres=integer(2, 65536),
            smoothing=number(1e-3, 1.0),
        )
    ),
    "composition": optional(
        record(
            expression=text(8192),
            weights=optional(sequence(weight, 1, MOST_LEAVES)),
            names=sequence(NAME, 1, MOST_LEAVES),
        )
    ),
    "provenance": free(DEEPEST_FREE),
}

_FILE = record(bytes=integer(0, 2**48), sha256=text(64, r"[0-9a-f]{64}"))
_MANIFEST = record(
    format=choice(FORMAT),
    version=choice(VERSION),
    **FIELDS,
    critic=lambda field, value: value,
    sampler=lambda field, value: value,
    transitions=optional(integer(1, MOST_TRANSITIONS)),
    files=lambda field, value: value,
)


def check_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a skill other than its networks and data, each checked, and checked against each other."""
    checked = record(**FIELDS)("", fields)
    soft = checked["algorithm"] == "sql"
    for name in ("temperature", "estimator"):
        if (checked[name] is not None) != soft:
            wanted = "must not be null" if soft else "must be null: there is no soft value"
            raise QomposeError(f"{name}: {wanted} with algorithm {checked['algorithm']}")
    names, size = checked["observation"]["names"], checked["observation"]["size"]
    if names is not None and (len(names) != size or len(set(names)) != size):
        raise QomposeError(f"observation.names: must be {size} different names, one for each number")
    action = checked["action"]
    for name in ("low", "high"):
        if len(action[name]) != action["size"]:
            raise QomposeError(f"action.{name}: must be {action['size']} numbers, not {len(action[name])}")
    if not all(low < high for low, high in zip(action["low"], action["high"], strict=True)):
        raise QomposeError("action.high: must be above action.low in every component")
    estimator = checked["estimator"]
    if estimator is not None and estimator["particles"] * estimator["centres"] > MOST_PAIRS:
        raise QomposeError(f"estimator: particles times centres must be at most {MOST_PAIRS}")
    composition = checked["composition"]
    weights = composition and composition["weights"]
    if composition and weights and len(weights) != len(composition["names"]):
        raise QomposeError("composition.weights: must be as many as composition.names")
    return checked


def check_manifest(manifest: Any) -> dict[str, Any]:
    """The whole manifest, every field checked. Raises QomposeError naming the first field that is wrong."""
    if isinstance(manifest, dict) and type(version := manifest.get("version")) is int and version > VERSION:
        raise QomposeError(f"version: {show(version)} is newer than {VERSION}, all this release reads; upgrade qompose")
    checked = _MANIFEST("", manifest)
    checked |= check_fields({name: checked[name] for name in FIELDS})
    for role in ("critic", "sampler"):
        check_spec(checked[role], role, checked["algorithm"])
    parts = zip(FILES, ("critic", "sampler", "transitions"), strict=True)
    wanted = [file for file, part in parts if checked[part] is not None]
    files = checked["files"]
    if not isinstance(files, dict) or set(files) != set(wanted):
        raise QomposeError(f"files: must be an object with exactly {', '.join(wanted)}")
    checked["files"] = {name: _FILE(f"files.{name}", files[name]) for name in wanted}
    return checked
