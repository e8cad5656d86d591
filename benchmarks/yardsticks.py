"""Soft Q-learning, DDPG and NAF against SAC and DDPG of Stable-Baselines3 and SBX: how far, how soon, how fast.

    python -m benchmarks.yardsticks [--seeds 5] [--total-steps 60000] [--runs-dir runs/yardsticks]
    python -m benchmarks.yardsticks --reach [--seeds 5] [--total-steps 12000]
    python -m benchmarks.yardsticks --speed [--rounds 15]

`make yardsticks` sets up the environment of the other two. Finished trainings in the runs folder are kept, so an
interrupted benchmark continues; `--extend` keeps those of the results, too, and adds seeds to them. Writes
results/yardsticks.json and docs/yardsticks.png, of Sawyer's hand (Fig. 4) yardsticks_reach.json and .png, or
results/peers.json.
See docs/yardsticks.md for what is equal and what is not.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.foreign import PYTHON, check_python, command_of
from benchmarks.machine import read_results, write_results
from benchmarks.peers import measure_speed
from benchmarks.yardstick_run import EPISODES, FEWER, FINAL_EPISODES, ROOT, WARMUP, Case, Entrant
from qompose.paper.jobs import Job, run_jobs
from qompose.paper.operators import interval_of
from qompose.paper.study import each_once
from qompose.store import read_json, write_json
from qompose.types import QomposeError
from qompose.view.console import print_table
from qompose.view.pictures import COLOURS, INK, make_figure

PUSHING, REACHING = ("PushLeft", "PushBottom"), ("SawyerReach",)
BARS = {"PushLeft": 0.10, "PushBottom": 0.06, "SawyerReach": 0.02}  # m
STEPS = {PUSHING: 60_000, REACHING: 12_000}
OURS = ("qompose-sql", "qompose-ddpg", "qompose-naf")
THEIRS = ("sb3-sac", "sb3-ddpg", "sbx-sac", "sbx-ddpg")
# Their default is one update for each step, ours is two.
ENTRANTS = (*(f"{name}-2" for name in OURS), *(f"{name}-{updates}" for updates in (2, 1) for name in THEIRS))
FEWER_OURS = (*(f"qompose-{name}-2" for name in FEWER), "qompose-quartersql-1")  # only if they are asked for
RIVALS, OUR_DDPG = ("sb3-sac", "sbx-sac"), "qompose-ddpg-2"
PICTURES = ROOT / "docs"


def file_of(folder: Path, case: Case) -> Path:
    return folder / f"{case.entrant}-{case.task}-s{case.seed}" / "result.json"


def job_of(folder: Path, case: Case, python: Path) -> Job:
    file = file_of(folder, case)
    words = ("train", case.entrant, case.task, str(case.seed), str(case.total_steps), str(file))
    name = file.parent.name
    return Job(name, command_of(case.entrant, python, words), file, run=file.parent, total_steps=case.total_steps)


def read_run(folder: Path, case: Case) -> dict[str, Any]:
    """A finished training; raises QomposeError if it is one of another length, or was timed otherwise."""
    run = read_json(file_of(folder, case))
    if run["total_steps"] != case.total_steps:
        raise QomposeError(
            f"{file_of(folder, case).parent} has {run['total_steps']} steps, not {case.total_steps}; "
            "give another --runs-dir"
        )
    if "clock" not in run["curve"][0]:
        raise QomposeError(
            f"{file_of(folder, case).parent} has seconds of the clock, now those of the processor are counted; "
            "give another --runs-dir"
        )
    return run


def restore(folder: Path, name: str, cases: Sequence[Case]) -> int:
    """Put the trainings of results/<name>.json that are among these cases into the runs folder; how many.

    Those that the folder has already stay as they are.
    """
    published = read_results(name)["result"]
    wanted = {file_of(folder, case): case for case in cases if not file_of(folder, case).exists()}
    count = 0
    for run in published["runs"]:
        case = Case(*(run[field.name] for field in fields(Case)))
        file = file_of(folder, case)
        if "made_by" in run and wanted.get(file) == case:
            system = published["runs_made_by"][run.pop("made_by")]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**run, "system": system})
            count += 1
    return count


def reached(curve: Sequence[dict[str, float]], bar: float, name: str) -> float | None:
    """`step` or `seconds` of the first evaluation at or below the bar; None if there is none."""
    return next((point[name] for point in curve if point["distance"] <= bar), None)


def median_or_never(values: Sequence[float | None]) -> float | None:
    """The median, where never is later than everything; None if it is never."""
    median = float(np.median([math.inf if value is None else value for value in values]))
    return median if math.isfinite(median) else None


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and entrant, over its seeds."""
    rows = []
    for task, entrant in dict.fromkeys((run["task"], run["entrant"]) for run in runs):
        mine = [run for run in runs if (run["task"], run["entrant"]) == (task, entrant)]
        finals = [run["final"]["policy"]["mean"] for run in mine]
        when = {
            name: [reached(run["curve"], BARS[task], name) for run in mine] for name in ("step", "seconds")
        }  # fmt: skip
        row = {
            "task": task, "entrant": entrant, "seeds": [run["seed"] for run in mine], "bar": BARS[task],
            "final": finals, **spread(finals), "steps_to_bar": when["step"], "seconds_to_bar": when["seconds"],
            "reached_by": sum(step is not None for step in when["step"]),
            "median_steps_to_bar": median_or_never(when["step"]),
            "median_seconds_to_bar": median_or_never(when["seconds"]),
            "median_seconds": float(np.median([run["curve"][-1]["seconds"] for run in mine])),
        }  # fmt: skip
        best = [run["final"]["best"]["mean"] for run in mine if "best" in run["final"]]
        rows.append({**row, "best": {"final": best, **spread(best)}} if best else row)
    return rows


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over the seeds, their deviation, and half the 95 % confidence interval of the mean (Student's t)."""
    found = interval_of(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": found["mean"], "std_over_seeds": deviation, "interval": found["half"]}


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Soft Q-learning against the better SAC, task by task: ratios of medians, None where one of them is never."""
    found = []
    for ours in (row for entrant in (ENTRANTS[0], *FEWER_OURS) for row in rows if row["entrant"] == entrant):
        rivals = [
            row for row in rows if row["task"] == ours["task"] and row["entrant"].rpartition("-")[0] in RIVALS
        ]  # fmt: skip
        result: dict[str, Any] = {"task": ours["task"], "entrant": ours["entrant"]}
        for name in ("median_steps_to_bar", "median_seconds_to_bar"):
            better = min(rivals, key=lambda row, name=name: math.inf if row[name] is None else row[name], default=None)
            result[name] = {"sql": ours[name], "rival": None, "of_rival": None, "ratio": None}
            if better is not None and better[name] is not None:
                ratio = None if ours[name] is None else ours[name] / better[name]
                result[name] = {"sql": ours[name], "rival": better["entrant"], "of_rival": better[name], "ratio": ratio}
        found.append(result)
    return found


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Our DDPG within the interval of Stable-Baselines3's, or better; and half of the better SAC's steps and time."""
    bars = {}
    for theirs in rows:
        if theirs["entrant"].startswith("sb3-ddpg") and theirs["interval"] is not None:
            ours = next((row for row in rows if (row["task"], row["entrant"]) == (theirs["task"], OUR_DDPG)), None)
            if ours is not None:
                interval = f"{theirs['entrant']} ({theirs['mean']:.3f} ± {theirs['interval']:.3f})"
                what = f"{theirs['task']}: {OUR_DDPG} ({ours['mean']:.3f} m) within the interval of {interval}"
                bars[f"{what}, or better"] = ours["mean"] <= theirs["mean"] + theirs["interval"]
    for found in compare(rows):
        entrants = [row["entrant"] for row in rows if row["task"] == found["task"]]
        rivals = [entrant for entrant in entrants if entrant.rpartition("-")[0] in RIVALS]
        if not rivals:
            continue
        absent = [name for name in RIVALS if not any(rival.startswith(name) for rival in rivals)]
        unknown = f"; {' and '.join(absent)} not run" if absent else ""
        for name, what in (("median_steps_to_bar", "steps"), ("median_seconds_to_bar", "time")):
            ours, rival, ratio = (found[name][key] for key in ("sql", "rival", "ratio"))
            of_whom = f"half the {what} of {rival or ' and '.join(rivals)} to the bar"
            spelt = "never" if ours is None else f"{ratio:.2f} of them" if rival else "theirs: never in the median"
            who = "" if found["entrant"] == ENTRANTS[0] else f", {found['entrant']}"
            bars[f"{found['task']}{who}: {of_whom} ({spelt}{unknown})"] = ours is not None and (
                rival is None or ratio <= 0.5
            )
    return bars


def draw_curves(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Mean over the seeds and their range, against steps and against minutes; dashed with one update a step."""
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    figure = make_figure(5.6 * len(tasks), 7.6)
    grid = figure.subplots(2, len(tasks), squeeze=False, sharey="col")
    for column, task in enumerate(tasks):
        for entrant in dict.fromkeys(run["entrant"] for run in runs):
            mine = [run["curve"] for run in runs if (run["task"], run["entrant"]) == (task, entrant)]
            if mine:
                _draw_entrant(grid[:, column], Entrant.parse(entrant), mine)
        for axes, label in zip(grid[:, column], ("environment steps", "minutes of one core"), strict=True):
            axes.axhline(BARS[task], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
            axes.set(xlabel=label, ylim=(0.0, None))
            axes.grid(color="#e8e8e5", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        grid[0, column].set_title(f"{task}: distance to the goal (m)", fontsize=11, color=INK)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + len(tasks), frameon=False, fontsize=9)
    figure.savefig(path, dpi=90)


def _draw_entrant(places: Sequence[Any], entrant: Entrant, curves: Sequence[Sequence[dict[str, float]]]) -> None:
    fewer = entrant.algorithm in FEWER
    colour = COLOURS[(*OURS, *THEIRS).index(OURS[0] if fewer else f"{entrant.library}-{entrant.algorithm}")]
    steps, seconds, distance = (
        np.array([[point[name] for point in curve] for curve in curves]) for name in ("step", "seconds", "distance")
    )
    dots = {"halfsql": (0, (5, 1, 1, 1)), "quartersql": (0, (1, 1))}
    line = dots.get(entrant.algorithm, "-") if entrant.updates > 1 else (0, (4, 2))
    style: dict[str, Any] = {"color": colour, "linestyle": line}
    label = f"{entrant.label}, {entrant.updates} update{'s' if entrant.updates > 1 else ''} a step"
    for axes, values in zip(places, (steps, seconds / 60.0), strict=True):
        axes.plot(values.mean(axis=0), distance.mean(axis=0), linewidth=1.4, label=label, **style)
        axes.fill_between(
            values.mean(axis=0), distance.min(axis=0), distance.max(axis=0), color=colour, alpha=0.1, linewidth=0
        )


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """A table for each task."""

    def text(value: float | None, unit: float, digits: int) -> str:
        return "never" if value is None else f"{value / unit:.{digits}f}"

    for task in dict.fromkeys(row["task"] for row in rows):
        print_table(
            f"{task}: distance to the goal (m), {FINAL_EPISODES} episodes; steps and minutes to {BARS[task]:.2f} m",
            ("entrant", "mean ± 95 %", "best", "met by", "k steps", "min", "of all"),
            [
                (
                    row["entrant"],
                    f"{row['mean']:.3f}" + ("" if row["interval"] is None else f" ± {row['interval']:.3f}"),
                    f"{row['best']['mean']:.3f}" if "best" in row else "", f"{row['reached_by']}/{len(row['seeds'])}",
                    text(row["median_steps_to_bar"], 1000.0, 0), text(row["median_seconds_to_bar"], 60.0, 1),
                    text(row["median_seconds"], 60.0, 1),
                )
                for row in rows if row["task"] == task
            ],
        )  # fmt: skip


def learn(arguments: argparse.Namespace) -> None:
    """Train every entrant on every task from every seed, and write what came of it."""
    known, name = (REACHING, "yardsticks_reach") if arguments.reach else (PUSHING, "yardsticks")
    tasks = arguments.tasks or known
    if not set(tasks) <= set(known):
        raise QomposeError(f"the tasks are {' and '.join(known)}; Sawyer's hand has a table of its own, by --reach")
    folder, seeds, total_steps = arguments.runs_dir, arguments.seeds, arguments.total_steps or STEPS[known]
    if arguments.quick:
        folder, seeds, total_steps = folder.with_name(f"{folder.name}-quick"), 1, 3000
    if seeds < 1 or total_steps <= WARMUP:
        raise QomposeError(f"give at least 1 seed and more than {WARMUP} steps, which all act at random")
    cases = [
        Case(entrant, task, seed, total_steps)
        for seed in range(seeds) for task in tasks for entrant in arguments.entrants
    ]  # fmt: skip
    if arguments.extend:
        print(f"{restore(folder, name, cases)} trainings of results/{name}.json are kept")
    waiting = [case for case in cases if not file_of(folder, case).exists()]
    for case in set(cases) - set(waiting):
        read_run(folder, case)
    if any(Entrant.parse(case.entrant).foreign for case in waiting):
        check_python(arguments.python)
    jobs = [job_of(folder, case, arguments.python) for case in cases]
    run_jobs(jobs, folder / "logs", label="yardsticks", workers=arguments.workers)
    runs = [read_run(folder, case) for case in cases]
    rows = summarise(runs)
    systems = each_once([run["system"] for run in runs])
    for run in runs:
        run["made_by"] = systems.index(run.pop("system"))
    result = {
        "rows": rows, "bars": judge(rows), "sql_against_sac": compare(rows), "total_steps": total_steps,
        "episodes": EPISODES, "final_episodes": FINAL_EPISODES, "runs_made_by": systems, "runs": runs,
    }  # fmt: skip
    print_rows(rows)
    for bar, met in result["bars"].items():
        print(f"{bar}: {'met' if met else 'missed'}")
    if arguments.quick:
        write_json(folder / f"{name}.json", result)
        draw_curves(folder / f"{name}.png", runs)
        return
    command = ["python -m benchmarks.yardsticks", *(["--reach"] if arguments.reach else []), "--seeds", seeds]
    command += ["--total-steps", total_steps, "--tasks", *tasks, "--entrants", *arguments.entrants]
    write_results(name, result, command=" ".join(map(str, command)), seed=list(range(seeds)))
    draw_curves(PICTURES / f"{name}.png", runs)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--total-steps", type=int, help="60 000 unless given, with --reach 12 000")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/yardsticks"))
    parser.add_argument("--tasks", nargs="+", choices=BARS, help="both, unless given")
    parser.add_argument("--reach", action="store_true", help="Sawyer's hand to one target, as in Fig. 4")
    parser.add_argument("--entrants", nargs="+", choices=(*ENTRANTS, *FEWER_OURS), default=list(ENTRANTS),
                        metavar="NAME",
                        help=f"some of {', '.join((*ENTRANTS, *FEWER_OURS))}; the number is that of updates per step;"
                        f" {', '.join(FEWER_OURS)} only if they are named")  # fmt: skip
    parser.add_argument("--extend", action="store_true", help="keep the trainings that results/ holds, add the others")
    parser.add_argument("--workers", type=int, help="trainings at once, one core each; by default one for each core")
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the environment with the other libraries")
    parser.add_argument("--quick", action="store_true", help="one seed, 3000 steps: the machinery, not the figures")
    parser.add_argument("--speed", action="store_true", help="steps per second instead of learning")
    parser.add_argument("--speed-task", default="HalfCheetah-v5", metavar="ID", help="a Gymnasium id")
    parser.add_argument("--rounds", type=int, default=15, help="of 1000 steps of each, for --speed")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    try:
        if arguments.speed:
            rounds, steps = (2, 100) if arguments.quick else (arguments.rounds, 1000)
            measure_speed(arguments.speed_task, arguments.python, rounds, steps, write=not arguments.quick)
        else:
            learn(arguments)
    except QomposeError as error:
        raise SystemExit(f"yardsticks: {error}") from None


if __name__ == "__main__":
    main()
