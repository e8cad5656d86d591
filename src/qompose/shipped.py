"""Skills that come with the package, and loading a skill by path or by name."""

from __future__ import annotations

import os
from pathlib import Path

from qompose import store
from qompose.skill.artifact import MANIFEST, Skill
from qompose.types import QomposeError, show

SHIPPED = Path(__file__).parent / "pretrained"


def shipped_skills() -> dict[str, Path]:
    """Name -> directory of every skill in the package."""
    return {folder.parent.name: folder.parent for folder in sorted(SHIPPED.glob(f"*/{MANIFEST}"))}


def find_skill(path: str | os.PathLike[str]) -> Path:
    """The directory of a skill, given itself, a run that made one, or the name of a shipped skill."""
    if not isinstance(path, str | os.PathLike):
        raise QomposeError(f"a skill is named by its directory, not by {show(path)}")
    given, shipped = Path(path), shipped_skills()
    try:
        for folder in (given, given / "skill"):
            if (folder / MANIFEST).exists():
                return folder
        if str(path) in shipped:
            return shipped[str(path)]
        if (given / "config.json").exists():
            raise QomposeError(
                f"{given} is a run that has not finished; give its command (command.txt) again with --resume"
            )
        if given.exists() or store.left_aside(given):
            return given  # loading it says what is missing
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise QomposeError(f"{show(str(path), 100)} cannot be looked into ({error.strerror})") from None
    known = f"; shipped skills: {', '.join(shipped)}" if shipped else ""
    raise QomposeError(f"there is no skill {str(path)!r}; give the directory of a skill or of a run{known}")


def load(path: str | os.PathLike[str], *, replay: bool = True) -> Skill:
    """Load a skill by directory, by the run that made it, or by the name of a shipped one. Runs no code from it.

    `replay=False` leaves its data on the disk. Raises QomposeError in one line for anything malformed.
    """
    return Skill.load(find_skill(path), replay=replay)
