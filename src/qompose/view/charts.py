"""Charts of measured figures beside published ones, and curves on a logarithmic axis; numbers beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qompose.view.pictures import COLOURS, INK, check_target, make_figure, save_figure

Figure = tuple[float, float]  # mean, standard deviation


def draw_comparison(
    path: str | os.PathLike[str],
    panels: Mapping[str, Sequence[tuple[str, Figure, Figure]]],
    *,
    names: tuple[str, str],
    label: str,
) -> dict[str, Any]:
    """Draw pairs of figures, one below the other, a panel for each group; return the numbers.

    panels: title -> (name, figure, other figure); names: what the figures and the other ones are; label: of the axis.
    """
    target = check_target(path)
    figure = make_figure(3.4 * len(panels) + 1.0, 0.42 * max(map(len, panels.values())) + 1.5)
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=False))
    for index, (place, (title, rows)) in enumerate(zip(axes, panels.items(), strict=True)):
        height = -np.arange(len(rows), dtype=np.float64)
        for which, (name, marker) in enumerate(zip(names, ("o", "D"), strict=True)):
            means, spreads = np.array([row[1 + which] for row in rows]).T
            place.errorbar(
                means, height - 0.24 * which, xerr=spreads, fmt=marker, color=COLOURS[which], markersize=5, capsize=2,
                linewidth=1.2, label=name,
            )  # fmt: skip
        place.set_title(title, fontsize=11, color=INK)
        place.set_yticks(height - 0.12, [row[0] for row in rows] if index == 0 else [""] * len(rows))
        place.set_xlabel(label, fontsize=9)
        place.set_xlim(left=0.0)
        place.grid(color="#e8e8e5", linewidth=0.8)
        place.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    numbers = {title: [[name, list(one), list(other)] for name, one, other in rows] for title, rows in panels.items()}
    return save_figure(figure, target, {"names": list(names), "panels": numbers})


def draw_logarithmic(
    path: str | os.PathLike[str],
    curves: Mapping[str, Sequence[Sequence[Sequence[int | float]]]],
    *,
    title: str,
    labels: tuple[str, str],
) -> dict[str, Any]:
    """Draw curves over a logarithmic axis: a thin line for each seed, dots where it was measured; return the numbers.

    curves: name -> for each seed pairs (step, value); labels: of the axes.
    """
    target = check_target(path)
    figure = make_figure(7.0, 4.6)
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK)
    for index, (name, seeds) in enumerate(curves.items()):
        for seed, points in enumerate(seeds):
            axes.plot(
                *zip(*points, strict=True), color=COLOURS[index % len(COLOURS)], linewidth=1.2, marker="o",
                markersize=3, label=name if seed == 0 else None,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(color="#e8e8e5", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save_figure(figure, target, {
        "title": title, "curves": {name: [list(map(list, seed)) for seed in seeds] for name, seeds in curves.items()},
    })  # fmt: skip
