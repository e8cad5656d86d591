"""Charts of measured figures beside published ones, curves, and shares; the numbers beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from qompose.view.pictures import COLOURS, INK, check_target, make_figure, save_figure

Figure = tuple[float, float]  # mean, standard deviation

PANELS_ABREAST = 3  # of a comparison


def draw_comparison(
    path: str | os.PathLike[str],
    panels: Mapping[str, Sequence[tuple[str, Figure, Figure]]],
    *,
    names: tuple[str, str],
    label: str,
) -> dict[str, Any]:
    """Draw pairs of figures, one below the other, a panel for each group; return the numbers.

    panels: title -> (name, figure, other figure), NaN leaves one out; all have the same names in the same order, which
    stand at the left only. names: what the figures and the other ones are; label: of the axis. Spreads that reach far
    beyond all figures are cut off at the edge.
    """
    target = check_target(path)
    columns = min(len(panels), PANELS_ABREAST)
    lines = -(-len(panels) // columns)
    figure = make_figure(3.4 * columns + 1.0, (0.42 * max(map(len, panels.values())) + 1.1) * lines + 0.4)
    axes = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for place in axes[len(panels) :]:
        place.remove()
    for index, (place, (title, rows)) in enumerate(zip(axes, panels.items(), strict=False)):
        height = -np.arange(len(rows), dtype=np.float64)
        for which, (name, marker) in enumerate(zip(names, ("o", "D"), strict=True)):
            means, spreads = np.array([row[1 + which] for row in rows]).T
            place.errorbar(
                means, height - 0.24 * which, xerr=spreads, fmt=marker, color=COLOURS[which], markersize=5, capsize=2,
                linewidth=1.2, label=name,
            )  # fmt: skip
        _dress(place, title)
        place.set_yticks(height - 0.12, [row[0] for row in rows] if index % columns == 0 else [""] * len(rows))
        place.set_xlabel(label, fontsize=9)
        means, spreads = np.array([pair for row in rows for pair in row[1:]]).T
        least, most = min(0.0, np.nanmin(means)), np.nanmax(means)
        # Intervals of few seeds may be many times as wide as all that is to be seen: they are cut off.
        reach = min(np.nanmax(means + spreads), most + 0.5 * (most - least))
        place.set_xlim(least - 0.03 * (most - least), reach + 0.03 * (most - least))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    numbers = {
        title: [[name, *([None if np.isnan(x) else x for x in pair] for pair in pairs)] for name, *pairs in rows]
        for title, rows in panels.items()
    }
    return save_figure(figure, target, {"names": list(names), "panels": numbers})


def draw_curves(
    path: str | os.PathLike[str],
    panels: Mapping[str, Mapping[str, Sequence[Sequence[Sequence[int | float]]]]],
    *,
    labels: tuple[str, str],
    logarithmic: Literal["x", "y"],
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Draw curves, one axis logarithmic: a thin line for each seed, dots where it was measured; return the numbers.

    panels: title -> name -> for each seed pairs (step, value); labels: of the axes; levels: title -> name -> a value
    to which a horizontal line is drawn.
    """
    target = check_target(path)
    figure = make_figure(1.0 + 5.5 * len(panels), 4.6)
    places = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for place, (title, curves) in zip(places, panels.items(), strict=True):
        _dress(place, title)
        for index, (name, seeds) in enumerate(curves.items()):
            for seed, points in enumerate(seeds):
                place.plot(
                    *zip(*points, strict=True), color=COLOURS[index % len(COLOURS)], linewidth=1.2, marker="o",
                    markersize=3, label=name if seed == 0 else None,
                )  # fmt: skip
        for name, level in (levels or {}).get(title, {}).items():
            place.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
            place.annotate(name, (0.01, level), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        (place.set_xscale if logarithmic == "x" else place.set_yscale)("log")
        if logarithmic == "x" and place.get_xlim()[1] < 10.0 * place.get_xlim()[0]:  # too few powers of ten for labels
            place.xaxis.set_major_formatter("{x:g}")
            place.xaxis.set_minor_formatter("{x:g}")
        place.set_xlabel(labels[0])
    places[0].set_ylabel(labels[1])
    if logarithmic == "x":
        places[0].set_ylim(bottom=0.0)  # after the last panel: it fixes the other end of the shared axis, too
    handles = places[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save_figure(figure, target, {
        "panels": {
            title: {name: [list(map(list, seed)) for seed in seeds] for name, seeds in curves.items()}
            for title, curves in panels.items()
        },
        "levels": {title: dict(lines) for title, lines in (levels or {}).items()},
    })  # fmt: skip


def draw_bars(
    path: str | os.PathLike[str], panels: Mapping[str, Mapping[str, Sequence[float]]], *, label: str, top: float = 1.05
) -> dict[str, Any]:
    """Draw shares, a panel for each group: a bar for the mean of the seeds, a dot for each; return the numbers.

    panels: title -> name -> the share of each seed; label: of the axis; top: where that ends, if they are no shares.
    """
    target = check_target(path)
    figure = make_figure(1.0 + 2.8 * len(panels), 3.4)
    places = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for place, (title, rows) in zip(places, panels.items(), strict=True):
        _dress(place, title, axis="y")
        for index, (name, shares) in enumerate(rows.items()):
            place.bar(name, float(np.mean(shares)), color=COLOURS[index % len(COLOURS)], width=0.6, alpha=0.6)
            place.plot([name] * len(shares), shares, "o", color=INK, markersize=4)
        place.set_ylim(0.0, top)
        place.set_axisbelow(True)
        for word in place.get_xticklabels():
            word.set(fontsize=9, rotation=40, horizontalalignment="right", rotation_mode="anchor")
    places[0].set_ylabel(label)
    return save_figure(figure, target, {
        "panels": {title: {name: list(shares) for name, shares in rows.items()} for title, rows in panels.items()},
    })  # fmt: skip


def _dress(axes: Any, title: str, *, axis: Literal["both", "y"] = "both") -> None:
    axes.set_title(title, fontsize=11, color=INK)
    axes.grid(axis=axis, color="#e8e8e5", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
