"""A study whose trainings take seconds, and one whose files are made up."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from qompose.cli import main
from qompose.paper import fig3, study
from qompose.paper.study import CORNERS, Case, Study
from qompose.store import write_json
from qompose.tasks.pusher import Pusher
from qompose.training.offline import Extraction
from qompose.training.online import Training

STEPS, WARMUP, HORIZON, EPISODES = 120, 80, 20, 3


def make_tiny(patch):
    for name in ("horizon", "training_horizon"):
        patch.setattr(Pusher, name, HORIZON)
    patch.setattr(study, "EPISODES", EPISODES)
    patch.setattr(fig3, "EPISODES", EPISODES)
    patch.setattr(study, "EXTRACTION_STEPS", 20)
    for module in (study, fig3):
        patch.setattr(module, "Training", partial(Training, warmup_steps=WARMUP, updates_per_step=1))
        patch.setattr(module, "Extraction", partial(Extraction, batch_size=8, hidden=(16,)))


@pytest.fixture
def tiny(monkeypatch, tiny_agent):
    make_tiny(monkeypatch)
    monkeypatch.setattr(fig3, "SQL", partial(replace, tiny_agent))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_flags):
    """A study of one seed with the two constituents of the corner, trained in this process by the study's commands."""
    flags = list(tiny_flags)
    for name in ("--total-steps", "--warmup-steps", "--eval-freq"):
        at = flags.index(name)
        del flags[at : at + 2]
    made = Study(tmp_path_factory.mktemp("study") / "out", 1, STEPS)
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        made.open()
        for task in CORNERS["PushBottomLeft"]:
            command = made.training_job(Case("sql", task, 0)).arguments
            assert command[0] == "qompose"
            assert main([*command[1:], *flags, "--warmup-steps", str(WARMUP), "--eval-episodes", "1"]) == 0
    return made


@pytest.fixture
def pretend(tmp_path):
    """Make the files of a study as if everything had been run; the figures are those of a function of the case."""

    def make(cases, record, seeds=2, total_steps=2000):
        made = Study(tmp_path / "out", seeds, total_steps)
        made.open()
        for case in cases:
            path = made.episodes_of(case)
            path.parent.mkdir(exist_ok=True)
            makers = {"trained_by": [{"commit": f"training {training.seed}"} for training in case.parts]}
            makers["system"] = {"commit": f"of seed {case.seed}"}
            write_json(path, {**vars(case), **makers, **record(case)})
        return made

    return make


def episodes_at(x, y, distance):
    """Episodes that all differ by the offsets -0.1, 0 and 0.1 in every figure."""
    offsets = np.array([-0.1, 0.0, 0.1])
    return {name: (value + offsets).tolist() for name, value in (("puck_x", x), ("puck_y", y), ("distance", distance))}
