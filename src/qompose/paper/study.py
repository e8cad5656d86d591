"""What the tables and figures share: trainings and compositions on the planar pusher, and 100 episodes of each.

Everything lies in one folder and is made once: a training in `runs/`, the episodes of a policy in `episodes/`. Where
the episodes of every policy of a training are there, the training itself may be deleted.
`python -m qompose.paper.study FOLDER CASE` is the process that measures one case.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.evaluation import Evaluation, evaluate
from qompose.paper.jobs import Job, choose_cores, run_jobs
from qompose.run import describe_system, read_metrics
from qompose.shipped import load
from qompose.skill.artifact import Skill
from qompose.tasks import make_task
from qompose.tasks.experts import make_expert
from qompose.training.offline import Extraction, compose
from qompose.training.online import Training
from qompose.training.session import SKILL, skill_name
from qompose.types import QomposeError

ALGORITHMS = ("sql", "ddpg", "naf")
CONSTITUENTS = ("PushLeft", "PushMiddle", "PushRight", "PushBottom")
CORNERS = {
    "PushBottomLeft": ("PushLeft", "PushBottom"),
    "PushBottomMiddle": ("PushMiddle", "PushBottom"),
    "PushBottomRight": ("PushRight", "PushBottom"),
}
EPISODES = 100
# Of every episode, as far as the task has them: metres, or 1 for yes.
FIGURES = ("distance", "puck_x", "puck_y", "success", "collided")
EVALUATIONS = 30  # in the course of a training
# Gradient steps of a merged policy. The default of `Extraction` is for a first look, in seconds.
EXTRACTION_STEPS = 10_000
SETTINGS = "study.json"


@dataclass(frozen=True)
class Case:
    """One policy of one seed: trained on its task, or merged from its constituents without an environment."""

    algorithm: str
    task: str
    seed: int
    merged: bool = False

    @property
    def name(self) -> str:
        """A word for files and people."""
        return f"{self.algorithm}-{skill_name(self.task)}{'-merged' if self.merged else ''}-s{self.seed}"

    @property
    def parts(self) -> tuple[Case, ...]:
        """The trainings that it consists of."""
        if not self.merged:
            return (self,)
        return tuple(Case(self.algorithm, task, self.seed) for task in CORNERS[self.task])


@dataclass(frozen=True)
class Study:
    """A folder of runs that differ in algorithm, task and seed, and in nothing else."""

    folder: Path
    seeds: int
    total_steps: int
    workers: int | None = None
    settings: tuple[str, ...] = ()
    """Further flags of every training."""

    def open(self, flags: Mapping[str, Sequence[str]] | None = None) -> None:
        """Make the folder, or go on with it; `flags` are those of the trainings that differ, by name.

        Raises QomposeError for impossible numbers, a folder that holds other files, or one of other settings.
        """
        if self.seeds < 1:
            raise QomposeError(f"seeds is {self.seeds}; it must be at least 1")
        Training(total_steps=self.total_steps)  # refuses what the trainings would
        choose_cores(self.workers)  # refuses too many
        flags = flags or ({"all": self.settings} if self.settings else {})
        settings = {
            "total_steps": self.total_steps, "episodes": EPISODES, "extraction_steps": EXTRACTION_STEPS,
            "flags": {name: list(words) for name, words in flags.items()},
        }  # fmt: skip
        path = self.folder / SETTINGS
        if path.exists():
            with store.naming(str(self.folder)):
                earlier = store.read_json(path)
            for name, value in settings.items():
                # Early folders do not say: it is taken that there were none.
                found = earlier.get(name, {} if name == "flags" else None) if isinstance(earlier, dict) else None
                if found != value:
                    raise QomposeError(
                        f"{self.folder} was begun with {name} {found}, not {value}; give another --output-dir"
                    )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise QomposeError(f"{self.folder} holds other files; give another --output-dir")
        store.write_json(path, settings)

    def run_of(self, case: Case) -> Path:
        """The directory of a training."""
        return self.folder / "runs" / case.name

    def episodes_of(self, case: Case) -> Path:
        """The file of a case's episodes."""
        return self.folder / "episodes" / f"{case.name}.json"

    def training_job(self, case: Case) -> Job:
        """Train a case; goes on where an interrupted training stopped."""
        run = self.run_of(case)
        command = (
            *("qompose", "train", "--env", case.task, "--algo", case.algorithm, "--seed", str(case.seed), "--resume"),
            *("--total-steps", str(self.total_steps), "--eval-freq", str(max(self.total_steps // EVALUATIONS, 1))),
            *("--track", "none", "--progress", "none", "--output-dir", str(run)),
            *self.settings,
        )
        return Job(case.name, command, run / SKILL / "manifest.json", run=run, total_steps=self.total_steps)

    def measuring_job(self, case: Case) -> Job:
        """Run the episodes of a case; a merged one is composed first."""
        command = ("qompose.paper.study", str(self.folder), json.dumps(dataclasses.asdict(case)))
        needs = tuple(self.training_job(training).file for training in case.parts)
        return Job(f"{case.name}-episodes", command, self.episodes_of(case), needs)

    def run(self, label: str, trainings: Iterable[Case], measurements: Iterable[Job]) -> None:
        """Do what is not done yet; see `run_jobs`."""
        self.run_jobs(label, [*(self.training_job(case) for case in dict.fromkeys(trainings)), *measurements])

    def run_jobs(self, label: str, jobs: Sequence[Job]) -> None:
        """Do what is not done yet; see `qompose.paper.jobs.run_jobs`."""
        run_jobs(jobs, self.folder / "logs", label=label, workers=self.workers)

    def measure(self, label: str, cases: Iterable[Case]) -> dict[Case, dict[str, Any]]:
        """Train, compose and evaluate what is missing; return what `measure` wrote of each case."""
        cases = list(cases)
        missing = [case for case in cases if not self.episodes_of(case).exists()]
        trainings = [training for case in missing for training in case.parts]
        self.run(label, trainings, [self.measuring_job(case) for case in cases])
        return {case: store.read_json(self.episodes_of(case)) for case in cases}

    def systems_of(self, trainings: Iterable[Case]) -> list[dict[str, Any]]:
        """What made each training: versions, machine, commit."""
        return [store.read_json(self.run_of(case) / "system.json") for case in trainings]

    def write_episodes(self, path: Path, record: dict[str, Any], trainings: Iterable[Case]) -> None:
        """Write what was measured of a policy, with what made it."""
        path.parent.mkdir(exist_ok=True)
        made = {"system": describe_system(), "trained_by": self.systems_of(trainings)}
        store.write_json(path, {**record, **made})

    def write(self, name: str, result: dict[str, Any], systems: Iterable[dict[str, Any]]) -> Path:
        """Write NAME.json: the figures, and all that is needed to obtain them again; `systems` made its parts."""
        path = self.folder / f"{name}.json"
        command = f"qompose reproduce {name} --seeds {self.seeds} --total-steps {self.total_steps}"
        store.write_json(path, {
            "command": command, "seed": list(range(self.seeds)), "machine": describe_system(),
            "runs_made_by": each_once(systems), "result": result,
        })  # fmt: skip
        return path


def load_case(study: Study, case: Case) -> Skill:
    """The skill of a case whose trainings are done; a merged one is composed here."""
    skills = [load(study.run_of(part)) for part in case.parts]
    if not case.merged:
        return skills[0]
    first, second = skills
    return compose(first & second, name=case.name, extraction=Extraction(steps=EXTRACTION_STEPS, seed=case.seed))


def measure(study: Study, case: Case) -> None:
    """Write the final distance and position of the puck in every episode, for each way of acting.

    Only the folder of the study matters here.
    """
    skill = load_case(study, case)
    record: dict[str, Any] = {}
    if not case.merged:
        record |= {name: skill.provenance[name] for name in ("steps", "episodes", "seconds")}
    for mode in modes_of(case):
        result = evaluate(skill, case.task, EPISODES, mode=mode, seed=1000 + case.seed)
        record[mode] = figures_of(result, *(name for name in FIGURES if name in result.episodes[0]))
    study.write_episodes(study.episodes_of(case), {**dataclasses.asdict(case), **record}, case.parts)


def modes_of(case: Case) -> tuple[str, ...]:
    """How the skill of a case acts when it is measured."""
    return ("sample", "best") if case.algorithm == "sql" else ("sample",)


def figures_of(result: Evaluation, *names: str) -> dict[str, list[float]]:
    """Some figures of every episode, as a file holds them."""
    return {name: result.values(name).round(5).tolist() for name in names}


def curve_of(run: Path, *names: str) -> list[list[Any]]:
    """[environment step, figures of these names ...] at each evaluation in the course of a training."""
    return _logged(run, "eval", names)


def training_curve_of(run: Path, *names: str) -> list[list[Any]]:
    """[environment step, means of these figures over the last ten episodes ...] of the training itself."""
    return _logged(run, "rollout", names)


def _logged(run: Path, where: str, names: Sequence[str]) -> list[list[Any]]:
    labels = [f"{where}/{name}" for name in names]
    lines = [line for line in read_metrics(run) if all(line.get(label) is not None for label in labels)]
    return [[line["step"], *(line[label] for label in labels)] for line in lines]


def first_step(curve: Iterable[Sequence[Any]], reached: Callable[[Any], bool]) -> int | None:
    """The step of the first point whose last figure is good enough; None if there is none."""
    return next((point[0] for point in curve if reached(point[-1])), None)


def robot_minutes(task: str, steps: Iterable[int | None]) -> str:
    """Robot time of so many control steps of each seed, for people."""
    period = make_task(task).control_period
    return ", ".join("never" if step is None else f"{step * period / 60.0:.1f}" for step in steps)


def expert_means(task: str, *names: str) -> dict[str, float]:
    """Means of some figures over 20 episodes of a task's scripted expert: the reference in the pictures.

    They are others than those on which the experts were tuned.
    """
    env = Lockstep.make(task, 20)
    try:
        episodes = run_episodes(make_expert(make_task(task)), env, 20, seed=1000)
    finally:
        env.close()
    return {name: float(np.mean([episode[name] for episode in episodes])) for name in names}


def each_once(systems: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The different ones: a folder that was worked on for weeks may hold runs of several commits and machines."""
    return list({json.dumps(system, sort_keys=True): system for system in systems}.values())


def made_by(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What made the trainings and the episodes of some cases."""
    return [system for record in records for system in (*record["trained_by"], record["system"])]


def positions(record: dict[str, Any], mode: str = "sample") -> np.ndarray:
    """Where the puck ended in each episode of a case (episodes, 2), in metres."""
    return np.stack([np.array(record[mode][name]) for name in ("puck_x", "puck_y")], axis=-1)


if __name__ == "__main__":
    folder, text = sys.argv[1:]
    measure(Study(Path(folder), 1, 1), Case(**json.loads(text)))
