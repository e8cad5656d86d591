"""The benchmark of composition on the pusher: what each operator loses on the corners, against Table I's trainings."""

from __future__ import annotations

from typing import Any

from qompose.paper import operators
from qompose.paper.study import CORNERS, Study


def reproduce(study: Study) -> dict[str, Any]:
    """Train what Table I has not, compose in every way; write corners.json and a picture."""
    study.open()
    picture = study.folder / "corners_operators.png"
    learned, systems = operators.reproduce(study, tuple(CORNERS), picture)
    path = study.write("corners", learned, systems)
    return {**learned, "picture": str(picture), "file": str(path)}


print_report = operators.print_report
