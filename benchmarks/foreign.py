"""The environment of the other libraries: where it is, whether it is there, and how a process of it begins."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.yardstick_run import FOREIGN, ROOT, Entrant
from qompose.types import QomposeError

PYTHON = ROOT / ".venv-yardsticks" / "bin" / "python"
ADVICE = "set it up with make yardsticks, or name another one with --python"


def check_python(python: Path) -> dict[str, str]:
    """The versions of the other libraries; raises QomposeError, in one line, if they are not there."""
    ask = "import importlib.metadata as m, sys\nfor name in sys.argv[1:]: print(m.version(name))"
    try:
        found = subprocess.run([python, "-c", ask, *FOREIGN], capture_output=True, text=True)
    except OSError:
        raise QomposeError(f"there is no environment of the other libraries ({_short(python)}): {ADVICE}") from None
    if found.returncode:
        missing = found.stderr.strip().splitlines()[-1].rpartition(" ")[2]
        raise QomposeError(f"{_short(python)} has no {missing}: {ADVICE}")
    return dict(zip(FOREIGN, found.stdout.split(), strict=True))


def command_of(entrant: str, python: Path, words: Sequence[str]) -> tuple[str, ...]:
    """What follows `python -m`: with the other interpreter for the other libraries."""
    where = ("in", str(python)) if Entrant.parse(entrant).foreign else ()
    return ("benchmarks.yardstick_run", *where, *words)


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
