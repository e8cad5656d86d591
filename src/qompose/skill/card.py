"""The card of a skill, README.md in its directory: what the manifest says, for people. The package never reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ALGORITHMS = {"sql": "soft Q-learning", "ddpg": "DDPG", "naf": "NAF"}
# Parts of the provenance that are worth a line, and what they are called.
WORKS = {
    "start": "started from", "results": "at the end of its training", "refit": "refit",
    "extraction": "extraction of its policy (0 steps: it acts on Q itself, more slowly)", "correction": "correction",
}  # fmt: skip
LONGEST = 1000  # characters of one entry; the manifest has all of them


def write_card(fields: Mapping[str, Any], transitions: int | None) -> str:
    """Markdown: how to use the skill, and a table of what it is, of the checked fields of a manifest."""
    rows = "\n".join(f"| {what} | {words} |" for what, words in _rows(fields, transitions))
    return f"""# {fields["name"]}

A skill of qompose: networks and facts, no code. Load it by the path of this folder:

```python
import qompose as qp

skill = qp.load("path/to/this/folder")
action = skill.act(observation)  # in [-1, 1]; skill.to_environment(action) has the real limits
```

| | |
|---|---|
{rows}

`manifest.json` has every field. A policy can be bad, wherever it comes from: see what it does before it moves a robot.
"""


def _rows(fields: Mapping[str, Any], transitions: int | None) -> Iterator[tuple[str, str]]:
    past, composition = fields["provenance"], fields["composition"]
    yield "task", _code(" ".join([fields["task"]["id"], *_pairs(fields["task"]["options"])]))
    soft = f", temperature {fields['temperature']:g} in units of the reward" if fields["temperature"] else ""
    yield "algorithm", f"{ALGORITHMS[fields['algorithm']]}, discount {fields['discount']:g}{soft}"
    if composition:
        yield "composed of", _code(composition["expression"])
    names = fields["observation"]["names"]
    yield "observation", f"{fields['observation']['size']} numbers{': ' + _code(', '.join(names)) if names else ''}"
    limits = ", ".join(f"{low:g} to {high:g}" for low, high in zip(*_limits(fields["action"]), strict=True))
    yield "action", f"{fields['action']['size']} numbers, in the environment {_cut(limits)}"
    if fields["control_period"]:
        yield "control period", f"{fields['control_period']:g} s"
    for name in ("steps", "episodes", "seed"):
        if type(past.get(name)) is int:
            yield {"steps": "environment steps"}.get(name, name), f"{past[name]}"
    if isinstance(others := past.get("experience"), list) and others:
        yield "also learned from the experience of", _code(", ".join(_names(others)))
    for name, what in WORKS.items():
        if isinstance(past.get(name), dict) and (pairs := _pairs(past[name])):
            yield what, _code(", ".join(pairs))
    none = "none: it acts, but cannot be composed by extraction, corrected or explained"
    yield "experience", none if transitions is None else f"{transitions} transitions"
    if isinstance(versions := past.get("versions"), dict) and isinstance(versions.get("qompose"), str):
        yield "made with", _code(f"qompose {versions['qompose']}")
    for name in ("command", "created", "commit"):
        if isinstance(past.get(name), str):
            yield name, _code(past[name])


def _limits(action: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """The lowest and highest values: of all components, or one pair if they are alike."""
    low, high = action["low"], action["high"]
    return (low[:1], high[:1]) if len(set(low)) == len(set(high)) == 1 else (low, high)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    """Words and numbers by name; what is nested is left to the manifest."""
    plain = {name: value for name, value in values.items() if not isinstance(value, dict | list)}
    return [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in plain.items()]


def _names(skills: list[Any]) -> list[str]:
    return [str(skill.get("name")) for skill in skills if isinstance(skill, dict)]


def _code(text: str) -> str:
    """Words of anybody's as code in a cell of a table, which nothing in them can end."""
    return f"`{_cut(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
