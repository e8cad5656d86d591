"""Pictures of results, each with its numbers as JSON beside it. An earlier picture of the same name is replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qompose import store
from qompose.run import read_metrics
from qompose.skill.expression import spell_sum
from qompose.tasks.pusher import CORNER, CORNER_RADIUS, PUCK_X, PUCK_Y
from qompose.types import QomposeError

if TYPE_CHECKING:  # for an annotation alone: it imports every learner
    from qompose.explanation import Explanation

SUFFIXES = (".png", ".svg", ".pdf")
BASE_RADIUS = 0.12  # m
REACH = 1.4  # m: three links of 0.4 and the middle of the fork's opening, 0.2 further out
INK, FAINT = "#303036", "#8a8a86"
# Told apart by people of any colour vision (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
# Panel: its label, the figure while training, and the figure of the evaluations.
PANELS = (
    ("return", "rollout/ep_rew_mean", "eval/mean_reward"),
    ("distance to the goal (m)", "rollout/distance", "eval/distance"),
    ("share of successes", "rollout/success_rate", "eval/success_rate"),
)

Goal = tuple[float | None, float | None]


def draw_final_positions(
    path: str | os.PathLike[str],
    groups: Sequence[tuple[str, np.ndarray, str]],
    *,
    title: str,
    goals: Sequence[Goal],
    constituents: int = 2,
) -> dict[str, Any]:
    """Draw where the puck ended, as in Fig. 2 of the paper; return the numbers.

    groups: (label, positions (n, 2) in metres, colour). goals: (x, None) and (None, y) are lines, (x, y) is a point;
    a cross marks a point, and where two lines meet. Filled diamonds are the means. The first groups are the
    constituents of the others: if there are others, a hollow diamond shows the average of the constituents' means,
    which is where averaging would lead.
    """
    target = check_target(path)
    groups = [(label, np.asarray(positions, np.float64), colour) for label, positions, colour in groups]
    for label, positions, _ in groups:
        if positions.ndim != 2 or positions.shape[1] != 2 or not positions.size or not np.isfinite(positions).all():
            raise QomposeError(f"group {label!r}: positions must be finite (n, 2), not {list(positions.shape)}")
    average = None
    if len(groups) > constituents > 1:
        average = np.mean([positions.mean(axis=0) for _, positions, _ in groups[:constituents]], axis=0)
    figure = make_figure(6.4, 7.0)
    axes = figure.subplots()
    everything = np.concatenate([positions for _, positions, _ in groups] or [np.zeros((1, 2))])
    edge = max(1.55, float(np.abs(everything).max()) + 0.1)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xlabel="x (m)", ylabel="y (m)")
    axes.set_title(title, fontsize=11, color=INK)
    _draw_scene(axes)
    _draw_goals(axes, goals)
    for label, positions, colour in groups:
        axes.scatter(*positions.T, s=26, color=colour, alpha=0.55, linewidths=0, label=label, zorder=4)
    for _, positions, colour in groups:
        axes.scatter(*positions.mean(axis=0), s=70, marker="D", color=colour, edgecolors=INK, lw=1.0, zorder=6)
    if groups:
        axes.scatter([], [], s=70, marker="D", color="#c4c4c8", edgecolors=INK, lw=1.0, label="mean of each")
    if average is not None:
        names = "average of the constituents' means"
        axes.scatter(*average, s=75, marker="D", facecolors="none", edgecolors=INK, lw=1.5, label=names, zorder=7)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    numbers = {
        "title": title,
        "goals": [list(goal) for goal in goals],
        "groups": [
            {"label": label, "mean": positions.mean(axis=0).tolist(), "std": positions.std(axis=0).tolist(),
             "positions": positions.round(4).tolist()}
            for label, positions, _ in groups
        ],
        "average_of_constituents": None if average is None else average.tolist(),
    }  # fmt: skip
    return save_figure(figure, target, numbers)


def draw_learning_curves(path: str | os.PathLike[str], runs: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Draw return, distance and success against steps, whichever of them the runs have; return the numbers.

    Lines are the last 10 training episodes, dots are evaluations. Raises QomposeError for a run without metrics.
    """
    target = check_target(path)
    if not runs:
        raise QomposeError("there is nothing to draw; give the directory of at least one run")
    curves = [(label, read_metrics(Path(run))) for label, run in zip(_labels(runs), runs, strict=True)]
    for run, (_, lines) in zip(runs, curves, strict=True):
        if not lines:
            raise QomposeError(f"{run} has no metrics; give the directory of a run that has logged something")
    panels = [panel for panel in PANELS if any(_curve(lines, name) for _, lines in curves for name in panel[1:])]
    if not panels:
        raise QomposeError("no episode had ended when these runs logged their figures; train for longer")
    figure = make_figure(4.2 * len(panels), 3.9)
    figure.suptitle("training (lines: last 10 episodes, dots: evaluations)", fontsize=10, color=INK)
    for axes, (label, *names) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for index, (run, lines) in enumerate(curves):
            _draw_curves(axes, lines, names, COLOURS[index % len(COLOURS)], run)
        axes.set(xlabel="environment steps", ylabel=label)
        axes.xaxis.set_major_formatter(_thousands)
        axes.grid(color="#e8e8e5", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if "success" in label:
            axes.set_ylim(-0.03, 1.03)
        elif "distance" in label:
            axes.set_ylim(bottom=0.0)
    handles = {label: handle for axes in figure.axes
               for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(curves)), frameon=False,
        fontsize=9,
    )  # fmt: skip
    used = [name for panel in panels for name in panel[1:]]
    numbers = {
        "runs": [{"run": label, **{name: _curve(lines, name) for name in used if _curve(lines, name)}}
                 for label, lines in curves]
    }  # fmt: skip
    return save_figure(figure, target, numbers)


def draw_divergence(path: str | os.PathLike[str], explanation: Explanation, *, bins: int = 14) -> dict[str, Any]:
    """Draw where the skills disagree: mean divergence κ/α over two coordinates of the state.

    Returns the numbers of the picture, with all else that the explanation says.
    """
    target = check_target(path)
    x, y, cells = explanation.regions(bins)
    ratio = cells / explanation.temperature
    figure = make_figure(6.0, 5.2)
    axes = figure.subplots()
    axes.set_title(f"divergence in {spell_sum(explanation.weights, explanation.names)}", fontsize=11, color=INK)
    axes.set_facecolor("#e4e4e0")
    # Skills that are avoided make κ negative.
    low, high = min(0.0, np.nanmin(ratio)), max(0.0, np.nanmax(ratio))
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(ratio).T, cmap="viridis", vmin=low, vmax=high)
    figure.colorbar(mesh, ax=axes, label="κ per step (temperatures); grey: no data")
    axes.set(xlabel=explanation.axes[0], ylabel=explanation.axes[1])
    axes.spines[:].set_color("#c0c0bc")
    plain = [[None if np.isnan(cell) else round(float(cell), 5) for cell in row] for row in ratio]
    numbers = {**explanation.summary(), "axes": list(explanation.axes), "x": x.tolist(), "y": y.tolist(),
               "shown": [float(low), float(high)],
               "divergence_in_temperatures": plain}  # fmt: skip
    return save_figure(figure, target, numbers)


def _draw_scene(axes: Any) -> None:
    """Where the puck starts, and how far the arm reaches."""
    from matplotlib.patches import Circle, Rectangle

    # The true region lacks a corner; a white disc, clipped to the rectangle, takes it away.
    start = Rectangle(
        (PUCK_X[0], PUCK_Y[0]), PUCK_X[1] - PUCK_X[0], PUCK_Y[1] - PUCK_Y[0],
        facecolor="#f0ece0", zorder=0,
    )  # fmt: skip
    axes.add_patch(start)
    missing = Circle(CORNER, CORNER_RADIUS, facecolor="white", zorder=0)
    axes.add_patch(missing)
    missing.set_clip_path(start)
    axes.add_patch(Circle((0, 0), REACH, fill=False, edgecolor="#d4d4d0", linewidth=1.0, zorder=1))
    axes.add_patch(Circle((0, 0), BASE_RADIUS, facecolor="#c4c4c8", zorder=1))
    for x, y, words in ((0, 0.15, "arm"), (0, REACH + 0.02, "reach of the fork"), (0.65, -0.39, "start of the puck")):
        axes.text(x, y, words, color=FAINT, fontsize=8, ha="center", va="bottom")
    axes.spines[:].set_color("#c0c0bc")
    axes.tick_params(color="#c0c0bc", labelsize=9)


def _draw_goals(axes: Any, goals: Sequence[Goal]) -> None:
    style = {"color": FAINT, "linestyle": (0, (5, 4)), "linewidth": 1.3, "zorder": 2}
    lines = [(x, y) for x, y in goals if (x is None) != (y is None)]
    for index, (x, y) in enumerate(lines):
        draw, at = (axes.axhline, y) if x is None else (axes.axvline, x)
        draw(at, **style, label=None if index else "goal of a skill")
    points = [goal for goal in goals if None not in goal]
    points += [(x, y) for x, free in goals if free is None for other, y in goals if other is None]
    for index, (x, y) in enumerate(dict.fromkeys(points)):
        label = None if index else "both goals" if lines else "goal"
        axes.scatter(x, y, s=130, marker="x", color=INK, linewidths=1.8, zorder=5, label=label)


def _draw_curves(axes: Any, lines: list[dict[str, Any]], names: Sequence[str], colour: str, run: str) -> None:
    rollout, evaluation = (_curve(lines, name) for name in names)
    if rollout:
        axes.plot(*zip(*rollout, strict=True), color=colour, linewidth=1.4, label=run)
    if evaluation:
        label = None if rollout else run
        axes.plot(*zip(*evaluation, strict=True), color=colour, linestyle="none", marker="o", ms=4.5, label=label)


def _curve(lines: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(int(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]


def _labels(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The names of the runs, each with as much of its path as tells it from the others."""
    parts = [Path(run).absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(Path(run)) for run in runs]


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g} k" if value else "0"


def make_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    # Without pyplot there is no global state, no window and no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)  # inches
    return figure


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path, if a picture of that suffix can be written; raises QomposeError otherwise."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise QomposeError(f"{target}: cannot draw {target.suffix or 'without a suffix'}; use {', '.join(SUFFIXES)}")
    numbers = target.with_suffix(".json")
    drawn = any(target.with_suffix(suffix).exists() for suffix in SUFFIXES)
    if numbers.exists() and not (drawn or target.exists()):
        raise QomposeError(f"{numbers} exists and would be overwritten by the picture's numbers; choose another name")
    return target


def save_figure(figure: Any, path: Path, numbers: dict[str, Any]) -> dict[str, Any]:
    """Write the figure whole or not at all, and its numbers as JSON beside it; return the numbers."""
    new = path.with_name(f".{path.stem}.new{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(new)
        os.replace(new, path)
    except OSError as error:
        raise QomposeError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        new.unlink(missing_ok=True)
    store.write_json(path.with_suffix(".json"), numbers)
    return numbers
