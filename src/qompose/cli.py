"""The command line. Flags are the fields of the configuration; nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

from qompose.types import QomposeError

COMMANDS = {
    "train": "train a skill on a task or on any Gymnasium environment with boxes in and out",
    "refit": "let skills learn on, offline, from what the others have seen, before they are composed",
    "compose": "combine skills into one that does all at once, offline",
    "explain": "say how much skills disagree and what their composition would lose, offline",
    "eval": "run a skill for a number of episodes and report the figures",
    "record": "write a video of a skill",
    "plot": "draw the learning curves of one or several runs",
    "log": "check the log of a run, or rebuild its networks from it and compare every bit",
    "list": "list the tasks, the shipped skills and the skills in a folder",
    "demo": "train two skills, compose them, evaluate all three, draw and film them",
    "reproduce": "make a table or figure of the paper again: trainings, figures, picture",
    "doctor": "check what this machine has and whether it all works",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 for what the user has to mend, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from qompose import __version__

        print(f"qompose {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"qompose: unknown command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _run(name, rest)
    except QomposeError as error:
        print(f"qompose: {error}", file=sys.stderr)
        # A training that is interrupted says in its own words what is saved.
        return 130 if isinstance(error.__context__, KeyboardInterrupt) else 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"qompose: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qompose: interrupted", file=sys.stderr)
        return 130


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"""qompose: train robot skills and combine them by adding their Q-functions

usage: qompose COMMAND [OPTIONS]

{lines}

  qompose COMMAND --help    options of a command
  qompose --version         the version

Start with: qompose demo"""


def _run(name: str, arguments: list[str]) -> int:
    from qompose import commands

    if name == "train":
        function = commands.choose_train(arguments)
    else:
        function = getattr(commands, "list_" if name == "list" else name)
    call = _parse(name, function, arguments)
    answer = call()
    if answer is not None:
        print(json.dumps(answer, indent=2))
        return 2 if isinstance(answer, dict) and answer.get("ok") is False else 0
    return 0


def _parse(name: str, function: Callable[..., Any], arguments: list[str]) -> Callable[[], Any]:
    """The command with its arguments, ready to be called. A mistake in them becomes one line."""
    import tyro

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **kwargs)

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(bind, prog=f"qompose {name}", args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as error:
        if not error.code:
            raise
    # The first paragraph of the framed message says what is wrong; a rule or an empty line ends it.
    lines = (line.strip("│|").strip(" \t─-╭╮╰╯+") for line in complaint.getvalue().splitlines()[1:])
    lines = itertools.dropwhile(lambda line: not line, lines)
    what = " ".join(itertools.takewhile(bool, lines)) or "the arguments are not understood"
    raise QomposeError(f"{what}; see: qompose {name} --help")
