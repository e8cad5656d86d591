import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from qompose.cli import main
from qompose.evaluation import Evaluation
from qompose.paper import operators
from qompose.paper.study import CORNERS, Study
from qompose.shipped import load
from qompose.skill.expression import prefer
from qompose.store import write_json
from qompose.training import offline
from qompose.training.correct import Correction

QUICK = Correction(steps=20, batch_size=16, hidden=(8,), candidates=16)


def test_heights_of_the_composed_task_are_those_of_the_weighted_sum():
    assert operators.composed_peaks("modes") == (((0.0, -3.0, 0.8), (-3.5, 3.0, 0.5), (3.5, 3.0, 0.5)), 0.1)
    assert operators.composed_peaks("modes, unequal temperatures")[1] == 0.065
    assert operators.composed_peaks("opposite")[0] == ((-4.0, 0.0, 0.5), (4.0, 0.0, 0.5))


def spare(flags, command):
    """The flags, each with its values, that a command does not have yet."""
    starts = [index for index, word in enumerate(flags) if word.startswith("--")]
    groups = [flags[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return [word for group in groups if group[0] not in command for word in group]


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_flags):
    """The skills of a problem with unequal temperatures and its reference, trained for a moment."""
    made = Study(tmp_path_factory.mktemp("operators") / "out", 1, 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "SETTINGS", ())
        for name in (*operators.PROBLEMS["modes, unequal temperatures"], "modes, unequal temperatures"):
            command = operators.training_job(made, name, 0).arguments
            assert command[0] == "qompose" and main([*command[1:], *spare(tiny_flags, command)]) == 0
    return made


def test_every_operator_is_measured_and_what_has_no_temperature_is_none(study, monkeypatch):
    monkeypatch.setattr(operators, "Correction", partial(replace, QUICK))
    monkeypatch.setattr(operators, "EPISODES", 3)
    record = json.loads(json.dumps(operators.measure(study, "modes, unequal temperatures", 0)))
    assert list(record["figures"]) == list(operators.OPERATORS)
    assert record["figures"]["or"] is None
    for name in ("mean", "half-corrected", "corrected", "gpi", "prefer", "constituents", "from scratch"):
        assert set(record["figures"][name]) == set(operators.FIGURES), name


def test_what_acts_uniformly_pays_for_it():
    # 30 steps of 0.05 ‖a‖², on average 2/3, and a hill of no height.
    found = operators._uniform_return("Peaks", {"peaks": [[0.0, 0.0, 1e-6]]}, 0)
    assert found == pytest.approx(-1.0, abs=0.05)


def test_a_loss_is_a_share_of_what_the_uniform_policy_loses():
    def record(mean):
        figures = {"mean": mean, "from scratch": 10.0}
        whole = {name: {"return": value, "success": 0.5, "distance": 1.0} for name, value in figures.items()}
        return {"figures": whole | {"or": None}, "uniform": 2.0}

    row = operators.summarise("modes", "mean", [record(6.0), record(8.0)])
    assert row["loss"]["seeds"] == [0.5, 0.25] and row["loss"]["mean"] == 0.375
    assert row["loss"]["half"] == pytest.approx(12.706 * 0.125, rel=1e-3)  # Student's t, one degree of freedom
    assert operators.summarise("modes", "or", [record(6.0)]) == {
        "problem": "modes", "operator": "or", "loss": None, "return": None, "success": None, "distance": None,
    }  # fmt: skip


def test_the_corners_of_the_pusher_are_a_command_of_their_own(tmp_path, capsys):
    made = Study(tmp_path / "out", 1, 60_000)
    made.open()
    figures = {name: {"return": 2.0, "success": 0.5, "distance": 0.25} for name in operators.OPERATORS}
    for problem in CORNERS:  # as if all had been measured
        path = operators.measuring_job(made, problem, 0).file
        path.parent.mkdir(exist_ok=True)
        system = {"commit": "c"}
        write_json(path, {"problem": problem, "seed": 0, "figures": figures, "uniform": 1.0, "system": system})
    assert main(["reproduce", "corners", "--seeds", "1", "--output-dir", str(made.folder)]) == 0
    assert "PushBottomRight: learned skills" in capsys.readouterr().out
    record = json.loads((made.folder / "corners.json").read_text())
    assert len(record["result"]["rows"]) == len(CORNERS) * len(operators.OPERATORS)
    assert (made.folder / "corners_operators.png").stat().st_size > 1000


def test_references_of_the_pusher_are_those_of_table_1(tmp_path):
    made = Study(tmp_path, 1, 60_000)
    assert operators.training_job(made, "PushBottomLeft", 2).file.parent.parent.name == "sql-push-bottom-left-s2"
    job = operators.measuring_job(made, "PushBottomLeft", 2)
    assert [need.parent.parent.name for need in job.needs] == [
        "sql-push-left-s2", "sql-push-bottom-s2", "sql-push-bottom-left-s2",
    ]  # fmt: skip


def test_each_operator_is_what_it_is_called(study, monkeypatch):
    made = {}

    def evaluate(skill, *_, **__):
        made.setdefault(skill.name, []).append(skill)
        return Evaluation("Peaks", [dict.fromkeys(operators.FIGURES, 0.0)])

    monkeypatch.setattr(operators, "Correction", partial(replace, QUICK))
    monkeypatch.setattr(operators, "evaluate", evaluate)
    operators.measure(study, "modes, unequal temperatures", 0)
    names = operators.PROBLEMS["modes, unequal temperatures"]
    first, second = (load(operators.training_job(study, name, 0).file.parent) for name in names)
    where = first.replay.observation[:40]
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32)

    def q(skill):
        return skill.q(where, actions)

    (mean,), (half,) = made["mean"], made["half"]
    corrected, with_residuals = made["corrected"]
    np.testing.assert_allclose(q(mean), 0.5 * (q(first) + q(second)), rtol=1e-5)
    np.testing.assert_allclose(q(half), 0.5 * (q(mean) + q(corrected)), rtol=1e-5)
    assert [skill.provenance["correction"]["residuals"] for skill in (corrected, with_residuals)] == [False, True]
    (preferred,) = made["prefer"]
    expected = offline.compose(prefer(first, second, slack=operators.SLACK), extract=False)
    np.testing.assert_array_equal(q(preferred), q(expected))
    reverse = offline.compose(prefer(second, first, slack=operators.SLACK), extract=False)
    assert not np.array_equal(q(preferred), q(reverse))
    assert made["gpi"][0].composition["expression"].startswith("gpi(")
