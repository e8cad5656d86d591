"""The films beside the figures: one episode of each policy, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qompose.skill.artifact import Skill
from qompose.types import QomposeError
from qompose.view import video
from qompose.view.console import bars

# A policy, the task and its options, and what is written above.
Scene = tuple[Skill, str, dict[str, Any], str]


SEED = 1000  # the first of the episodes that are measured; those of a training have smaller seeds


def make_film(
    path: Path, scenes: Callable[[], Sequence[Scene]], *, episode_steps: int | None = None, seed: int = SEED
) -> dict[str, str]:
    """Film each policy by its best candidate, unless the film is there; return what a figure's result says of it.

    A figure does without a film where none can be written, and says why: `film_note`.
    """
    if not path.exists():
        try:
            with bars() as shown:
                video.record_many(
                    scenes(), path, mode="best", seed=seed, episode_steps=episode_steps,
                    on_step=lambda done, total: shown.update("filming", done, total),
                )  # fmt: skip
        except QomposeError as error:
            return {"film_note": f"no film: {error}"}
    return {"film": str(path)}
