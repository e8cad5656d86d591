"""A run from its log alone: is the log whole, and do the networks of the run follow from it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.log import LOG, Place, Reading, Sizes, load_log
from qompose.run import Run
from qompose.skill.algebra import as_network
from qompose.skill.artifact import load
from qompose.training.export import policy_of
from qompose.training.learner import Learner, Training
from qompose.training.session import ALGORITHMS, SKILL
from qompose.types import QomposeError

Checkpoint = tuple[int, dict[str, np.ndarray], dict[str, Any]]


def verify_log(directory: str | Path) -> dict[str, Any]:
    """Check every record of a run's log, its schedule of updates, and that the last checkpoint lies on it; the counts.

    Raises QomposeError, in one line, if the run has no log, or if anything does not fit.
    """
    return _open(Path(directory))[3]


def replay_log(
    directory: str | Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Train once more on the log, without an environment, and compare every bit with the last checkpoint and the skill.

    Raises QomposeError if they differ, or if the run began with a skill or its experience, which the log does not hold.
    """
    directory = Path(directory)
    config, reading, found, counts = _open(directory)
    for name in ("start", "experience"):
        if name in config:
            raise QomposeError(f"{directory} began with the {name} of a skill, which its log does not hold")
    sizes, training = reading.sizes, Training(**config["training"])
    assert sizes is not None  # _open has looked
    try:
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in config["agent"].items()}
        agent = ALGORITHMS[config["algo"]](**settings)
    except (KeyError, TypeError, AttributeError):
        raise QomposeError(f"{directory}: config.json: its agent is not one of this version of qompose") from None
    learner, compared = Learner(agent, training, sizes), None
    for record in reading.records:
        learner.take(record)
        if found is not None and record.step == found[0]:
            _compare(f"checkpoint {found[0]}", _arrays(learner), found[1], directory)
            compared = found[0]
        if record.step % training.log_freq < sizes.lanes:
            on_progress(record.step, reading.records[-1].step)
    if found is not None and compared is None:
        raise QomposeError(f"{directory}: the log has no step {found[0]}, where the last checkpoint was written")
    finished = learner.step >= training.total_steps and (directory / SKILL).is_dir()
    if finished:
        skill, policy = load(directory / SKILL, replay=False), policy_of(learner.state)
        pairs = {"critic": (as_network(learner.state.critic), skill.critic), "policy": (policy, skill.sampler)}
        for name, (ours, theirs) in pairs.items():
            if ours is not None and theirs is not None:
                _compare(f"the skill's {name}", ours.arrays, theirs.arrays, directory)
    return {**counts, "checkpoint": compared, "skill": finished}


def _open(directory: Path) -> tuple[dict[str, Any], Reading, Checkpoint | None, dict[str, Any]]:
    if not (directory / "config.json").is_file():
        raise QomposeError(f"{directory} is not the directory of a run")
    if not (directory / LOG).is_file():
        raise QomposeError(f"{directory} has no log of transitions: it was begun by an older qompose")
    unreadable: list[str] = []
    with store.naming(str(directory)):
        config = store.read_json(directory / "config.json")
        # Before the log: one that is being written holds all that a checkpoint speaks of.
        found = Run(directory, config, resume=True, events=False).load(unreadable.append)
        reading = load_log(directory / LOG)
        try:
            training, known = Training(**config["training"]), config["algo"] in ALGORITHMS
        except (KeyError, TypeError):
            known = False
        if not known:
            raise QomposeError("config.json: is not that of a training")
        if reading.sizes is None:
            raise QomposeError(f"{LOG}: not even its first record is whole")
        if reading.sizes.lanes != training.num_envs:
            raise QomposeError(f"{LOG}: is of {reading.sizes.lanes} lanes, but the run of {training.num_envs}")
    if unreadable:
        raise QomposeError(f"{unreadable[0]}; to go on from the one before, continue the training with --resume")
    with store.naming(f"{directory}: {LOG}"):
        if found is not None and "log" not in found[2]:
            raise QomposeError(f"was given up as damaged: checkpoint {found[0]} was written without it")
        if found is not None and Place(*found[2]["log"]) not in reading.places:
            raise QomposeError(
                f"is damaged at byte {reading.places[-1].length}; checkpoint {found[0]} has seen {found[2]['log'][0]}"
            )
        counts = _check_schedule(reading, reading.sizes, training, calibrated="start" in config)
    return config, reading, found, counts


def _check_schedule(reading: Reading, sizes: Sizes, training: Training, *, calibrated: bool) -> dict[str, Any]:
    """Every step there once, and before each the updates that belong to the transitions before it."""
    seen = updates = rounds = 0
    for number, record in enumerate(reading.records, 1):
        if (record.step, record.updates) != (number * sizes.lanes, updates):
            raise QomposeError(
                f"record {number} is of step {record.step} after {record.updates} updates, "
                f"not of step {number * sizes.lanes} after {updates}"
            )
        if not np.isfinite(record.rows).all():
            raise QomposeError(f"record {number} holds NaN or infinity")
        seen += len(record.rows)
        while rounds < seen // sizes.lanes:
            rounds += 1
            if rounds * sizes.lanes >= training.warmup_steps:
                updates += sizes.lanes * training.updates_per_step if calibrated else 0
                calibrated = True
    step = reading.records[-1].step if reading.records else 0
    size = reading.places[-1].length
    return {"steps": step, "transitions": seen, "updates": updates, "bytes": size, "torn_bytes": reading.torn}


def _arrays(learner: Learner) -> dict[str, np.ndarray]:
    return learner.save()[0]


def _compare(what: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], directory: Path) -> None:
    """Refuse arrays that are not those of the run. What the environment alone knows is not in the log."""
    theirs = {name: array for name, array in theirs.items() if not name.startswith("env/")}
    different = [name for name in sorted(ours.keys() | theirs.keys()) if not _same(ours.get(name), theirs.get(name))]
    if different:
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise QomposeError(
            f"{directory}: {what} is not what the log gives: {different[0]}{more} differ; bits are promised only on "
            "the machine and versions of the run"
        )


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return False
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
