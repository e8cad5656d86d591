"""The main job from beginning to end: two skills from scratch, their composition, figures, a picture and a video."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.evaluation import Evaluation, evaluate
from qompose.paper.table1 import paper_figure
from qompose.run import describe_system, read_metrics
from qompose.shipped import load, shipped_skills
from qompose.skill.artifact import Skill
from qompose.training.offline import Extraction, compose
from qompose.training.online import Training
from qompose.training.refit import refit as learn_on
from qompose.training.session import SKILL, skill_name
from qompose.types import QomposeError
from qompose.view.console import Bars, bars, print_table

CONSTITUENTS = ("PushLeft", "PushBottom")
COMPOSED = "PushBottomLeft"
PAPER = {task: paper_figure("sql", task, merged=task == COMPOSED) for task in (*CONSTITUENTS, COMPOSED)}
MODES = ("sample", "best")
REFIT_UPDATES = 20_000
POLL = 0.5  # s between looks at the metrics of the runs
MARKER = ".qompose-demo"
# All that a demonstration writes.
WRITTEN = {
    *(f"{skill_name(task)}{suffix}" for task in (*CONSTITUENTS, COMPOSED) for suffix in ("", ".log")),
    "final_positions.png", "final_positions.json", "demo.mp4", "demo.gif", "report.json",
}  # fmt: skip


def run_demo(
    output_dir: Path, *, pretrained: bool, refit: bool, total_steps: int, episodes: int, seed: int, video: bool
) -> dict[str, Any]:
    """Run the demonstration; everything goes into `output_dir`, the figures into its report.json.

    With `refit` skills that were trained here learn on from each other's replays before they are composed.
    """
    if episodes < 1:
        raise QomposeError(f"episodes is {episodes}; it must be at least 1")
    Training(total_steps=total_steps, seed=seed)  # refuses what the trainings would, before anything is cleared
    skills = _load_pretrained() if pretrained else {}
    seconds = {"training": 0.0}
    # The trainings hold the lock, too: where this process was killed and they live on, nobody else may begin.
    with _hold(output_dir) as lock, bars() as shown:
        _prepare(output_dir)
        if not pretrained:
            skills = _timed(seconds, "training", lambda: _train_both(output_dir, total_steps, seed, shown, lock))
        parts = list(skills.values())
        if refit and not pretrained:
            parts = _timed(seconds, "refit", lambda: _refit(parts, seed, shown))
        composed = _timed(seconds, "extraction", lambda: _compose(parts, output_dir, seed, shown))
        everything = {**skills, COMPOSED: composed}
        results = _timed(seconds, "evaluation", lambda: _evaluate_all(everything, episodes, seed, shown))
        report = _report(everything, results, seed, pretrained)
        path = output_dir / "report.json"

        def save() -> None:
            report["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

        save()  # whatever becomes of picture and video
        report["picture"] = _timed(seconds, "picture", lambda: _draw(results, output_dir))
        if video:
            try:
                report["video"] = _timed(seconds, "video", lambda: _film(everything, output_dir, seed, shown))
            except QomposeError as error:
                report["video_note"] = f"none: {error}"
        save()
    return {**report, "report": str(path)}


def print_report(report: dict[str, Any]) -> None:
    """The table beside the paper's numbers, and where everything lies."""
    rows: dict[str, list[Any]] = {}
    for entry in report["skills"]:
        figures, x, y = entry["sample"], *entry["sample"]["mean_position"]
        column = {
            "environment steps": entry["environment_steps"],
            "distance (m)": f"{figures['mean']:.3f} ± {figures['std']:.3f}",
            "median": f"{figures['median']:.3f}",
            "best of several": f"{entry['best']['mean']:.3f} ± {entry['best']['std']:.3f}",
            "in the paper": f"{entry['paper'][0]:.2f} ± {entry['paper'][1]:.2f}",
            "mean position": f"({x:.2f}, {y:.2f})",
        }
        for name, cell in column.items():
            rows.setdefault(name, []).append(cell)
    title = f"final distance of the puck to its goal, {report['episodes']} episodes"
    # A column for each skill, so that it fits into 80 letters.
    print_table(title, ("", *(entry["name"] for entry in report["skills"])), [(name, *rows[name]) for name in rows])
    print("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in report["seconds"].items()))
    for name in ("picture", "video", "video_note", "report"):
        if report.get(name):
            print(f"{name.removesuffix('_note')}: {report[name]}")


@contextlib.contextmanager
def _hold(output_dir: Path) -> Iterator[int]:
    """Make the folder, or take that of an earlier demonstration, and keep every other process out of it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    earlier = {entry.name for entry in output_dir.iterdir()} - {store.LOCK}
    if earlier and MARKER not in earlier:
        raise QomposeError(f"{output_dir} holds other files; give another --output-dir")
    with store.hold(output_dir) as lock:
        (output_dir / MARKER).touch()
        yield lock


def _prepare(output_dir: Path) -> None:
    """Clear the folder of what an earlier demonstration wrote, and of nothing else."""
    # The folder itself stays: it may be the one the user stands in, or a volume that cannot be removed.
    for entry in sorted(output_dir.iterdir()):
        if entry.name not in WRITTEN:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _load_pretrained() -> dict[str, Skill]:
    names, shipped = {task: skill_name(task) for task in CONSTITUENTS}, shipped_skills()
    missing = [name for name in names.values() if name not in shipped]
    if missing:
        raise QomposeError(
            f"the shipped skill {missing[0]!r} is missing; reinstall qompose or train without --pretrained"
        )
    # By path: a folder of that name where the user stands is not meant.
    return {task: load(shipped[name]) for task, name in names.items()}


def _train_both(output_dir: Path, total_steps: int, seed: int, shown: Bars, lock: int) -> dict[str, Skill]:
    """Train each skill in a process of its own, on a core of its own where there are several."""
    runs = {task: output_dir / skill_name(task) for task in CONSTITUENTS}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    workers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for index, (task, run) in enumerate(runs.items()):
            command = [
                *(sys.executable, "-P", "-m", "qompose", "train", "--env", task, "--output-dir", str(run)),
                *("--total-steps", str(total_steps), "--seed", str(seed), "--progress", "none"),
                *("--eval-freq", "0", "--log-freq", str(max(total_steps // 60, 1))),
            ]
            core = cores[index % len(cores)] if len(cores) > 1 else None
            workers[task] = _start(command, core, output_dir / f"{skill_name(task)}.log", lock)
        while any(worker.poll() is None for worker in workers.values()):
            time.sleep(POLL)
            for run in runs.values():
                _show(run, total_steps, shown)
            _check_workers(workers, output_dir)
        _check_workers(workers, output_dir)
        for run in runs.values():
            _show(run, total_steps, shown)
    finally:
        for worker in workers.values():
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
    return {task: load(run / SKILL) for task, run in runs.items()}


def _show(run: Path, total_steps: int, shown: Bars) -> None:
    """Move the bar of a training to where its metrics are."""
    last = (read_metrics(run) or [{"step": 0}])[-1]
    figures = {name: float(value) for name, value in last.items() if value is not None}  # null: was not finite
    shown.update(run.name, min(last["step"], total_steps), total_steps, figures)


def _start(command: list[str], core: int | None, log: Path, lock: int) -> subprocess.Popen[bytes]:
    with open(log, "wb") as output:
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, pass_fds=(lock,)
        )
    if core is not None:
        # Before JAX counts the cores for its threads: one training on one core wastes nothing on synchronisation.
        os.sched_setaffinity(worker.pid, {core})
    return worker


def _check_workers(workers: dict[str, subprocess.Popen[bytes]], output_dir: Path) -> None:
    for task, worker in workers.items():
        if worker.poll():
            lines = (output_dir / f"{skill_name(task)}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            raise QomposeError(f"training {task} failed: {lines[-1] if lines else f'exit status {worker.returncode}'}")


def _refit(skills: list[Skill], seed: int, shown: Bars) -> list[Skill]:
    return list(learn_on(*skills, updates=REFIT_UPDATES, seed=seed, on_progress=shown.update))


def _compose(skills: list[Skill], output_dir: Path, seed: int, shown: Bars) -> Skill:
    first, second = skills
    composed = compose(
        first & second,
        name=skill_name(COMPOSED),
        extraction=Extraction(seed=seed),
        on_progress=shown.update,
    )
    composed.save(output_dir / skill_name(COMPOSED))
    return composed


def _evaluate_all(skills: dict[str, Skill], episodes: int, seed: int, shown: Bars) -> dict[str, dict[str, Evaluation]]:
    total = len(skills) * len(MODES) * episodes
    done = 0
    results: dict[str, dict[str, Evaluation]] = {}
    for task, skill in skills.items():
        results[task] = {}
        for mode in MODES:
            before = done
            results[task][mode] = evaluate(
                skill, task, episodes, mode=mode, seed=seed,
                on_step=lambda count, before=before: shown.update("evaluating", before + count, total),
            )  # fmt: skip
            done += episodes
    return results


def _report(
    skills: dict[str, Skill], results: dict[str, dict[str, Evaluation]], seed: int, pretrained: bool
) -> dict[str, Any]:
    entries = []
    for task, skill in skills.items():
        facts = skill.provenance
        entry: dict[str, Any] = {
            "name": skill.name, "task": task,
            "environment_steps": facts.get("steps", 0), "training_episodes": facts.get("episodes", 0),
            "training_seconds": facts.get("seconds", 0.0), "paper": PAPER[task],
        }  # fmt: skip
        entry |= {mode: _figures(evaluation) for mode, evaluation in results[task].items()}
        entries.append(entry)
    return {
        "episodes": len(results[COMPOSED]["sample"].episodes), "seed": seed, "pretrained": pretrained,
        "skills": entries, "system": describe_system(),
    }  # fmt: skip


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    distance = evaluation.values("distance")
    position = [float(evaluation.values(name).mean()) for name in ("puck_x", "puck_y")]
    return {
        "mean": float(distance.mean()), "std": float(distance.std()), "median": float(np.median(distance)),
        "mean_position": position, "return": float(evaluation.values("return").mean()),
    }  # fmt: skip


def _draw(results: dict[str, dict[str, Evaluation]], output_dir: Path) -> str:
    from qompose.view.pictures import draw_final_positions

    colours = {"PushLeft": "tab:blue", "PushBottom": "tab:orange", COMPOSED: "tab:green"}
    groups = []
    for task, evaluations in results.items():
        evaluation = evaluations["sample"]
        positions = np.stack([evaluation.values("puck_x"), evaluation.values("puck_y")], axis=-1)
        label = f"{skill_name(task)}{' (composed)' if task == COMPOSED else ''}"
        groups.append((f"{label}: {evaluation.values('distance').mean():.3f} m off", positions, colours[task]))
    path = output_dir / "final_positions.png"
    draw_final_positions(
        path, groups, title="Where the puck ends: two skills and their composition", goals=[(-1.0, None), (None, -1.0)]
    )
    return str(path)


def _film(skills: dict[str, Skill], output_dir: Path, seed: int, shown: Bars) -> str:
    from qompose.view.video import record_many

    try:
        import av  # noqa: F401

        path = output_dir / "demo.mp4"
    except ImportError:
        path = output_dir / "demo.gif"
    captions = {task: "left & bottom" if task == COMPOSED else skill.name for task, skill in skills.items()}
    record_many(
        [(skill, task, {}, captions[task]) for task, skill in skills.items()], path, seed=seed,
        on_step=lambda done, total: shown.update("filming", done, total),
    )  # fmt: skip
    return str(path)


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - begin
    return result
