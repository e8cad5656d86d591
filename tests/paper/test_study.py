import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from qompose.evaluation import Evaluation, evaluate
from qompose.paper.study import ALGORITHMS, CORNERS, Case, Study, expert_means, load_case, made_by, measure, positions
from qompose.shipped import load
from qompose.store import read_json, write_json
from qompose.tasks import make_task
from qompose.training.offline import Extraction, compose
from qompose.training.session import ALGORITHMS as KNOWN
from qompose.types import QomposeError

LEFT, BOTTOM = (Case("sql", task, 0) for task in CORNERS["PushBottomLeft"])
MERGED = Case("sql", "PushBottomLeft", 0, merged=True)


def test_a_corner_is_merged_from_the_lines_that_meet_there():
    assert set(ALGORITHMS) == set(KNOWN)
    for corner, (first, second) in CORNERS.items():
        x, y = make_task(first).options()["goal_x"], make_task(second).options()["goal_y"]
        options = make_task(corner).options()
        assert (options["goal_x"], options["goal_y"]) == (x, y) and None not in (x, y)


def test_a_training_goes_on_where_it_stopped_and_is_evaluated_thirty_times(tmp_path):
    job = Study(tmp_path, 1, 60_000).training_job(Case("ddpg", "PushRight", 4))
    words = list(job.arguments)
    flags = dict(itertools.pairwise(words))
    assert words[:2] == ["qompose", "train"] and "--resume" in words
    assert (flags["--env"], flags["--algo"], flags["--seed"]) == ("PushRight", "ddpg", "4")
    assert (flags["--total-steps"], flags["--eval-freq"]) == ("60000", "2000")
    assert flags["--output-dir"] == str(job.run) == str(tmp_path / "runs" / "ddpg-push-right-s4")
    assert job.file == job.run / "skill" / "manifest.json"


def test_measuring_waits_for_every_training_of_its_case(tmp_path):
    study = Study(tmp_path, 1, 2000)
    assert study.measuring_job(LEFT).needs == (study.training_job(LEFT).file,)
    assert study.measuring_job(MERGED).needs == tuple(study.training_job(case).file for case in (LEFT, BOTTOM))
    assert Case(**json.loads(study.measuring_job(MERGED).arguments[-1])) == MERGED


def test_every_training_is_run_once_however_often_it_is_needed(tmp_path, monkeypatch):
    study, seen = Study(tmp_path, 1, 2000), []

    def run(jobs, *_, **__):
        seen.extend(jobs)
        for case in (LEFT, MERGED):
            study.episodes_of(case).parent.mkdir(exist_ok=True)
            write_json(study.episodes_of(case), {})

    monkeypatch.setattr("qompose.paper.study.run_jobs", run)
    study.measure("runs", [LEFT, MERGED])
    assert [job.name for job in seen] == [
        *("sql-push-left-s0", "sql-push-bottom-s0"),
        *("sql-push-left-s0-episodes", "sql-push-bottom-left-merged-s0-episodes"),
    ]


def test_what_is_measured_needs_no_training_any_more(tmp_path, monkeypatch):
    study, seen = Study(tmp_path, 1, 2000), []
    monkeypatch.setattr("qompose.paper.study.run_jobs", lambda jobs, *_, **__: seen.extend(jobs))
    study.episodes_of(MERGED).parent.mkdir()
    write_json(study.episodes_of(MERGED), {"task": "merged"})
    assert study.measure("runs", [MERGED]) == {MERGED: {"task": "merged"}}
    assert [job.name for job in seen if not job.file.exists()] == []


def test_episodes_of_a_trained_skill_are_those_of_an_evaluation(tiny, trained):
    measure(trained, LEFT)
    record, skill = read_json(trained.episodes_of(LEFT)), load(trained.run_of(LEFT))
    assert (record["algorithm"], record["task"], record["seed"], record["merged"]) == ("sql", "PushLeft", 0, False)
    assert record["steps"] == 120 and record["episodes"] == 4 and "commit" in record["system"]
    assert record["trained_by"] == [read_json(trained.run_of(LEFT) / "system.json")]
    for mode in ("sample", "best"):
        result = evaluate(skill, "PushLeft", 3, mode=mode, seed=1000)
        for name in ("distance", "puck_x", "puck_y"):
            np.testing.assert_allclose(record[mode][name], result.values(name), atol=1e-5)
    np.testing.assert_array_equal(positions(record)[:, 1], record["sample"]["puck_y"])


def test_a_merged_case_is_composed_and_measured_on_the_corner(tiny, trained, monkeypatch):
    monkeypatch.setattr("qompose.paper.study.EXTRACTION_STEPS", 5)
    monkeypatch.setattr("qompose.paper.study.Extraction", partial(Extraction, batch_size=8))
    measure(trained, MERGED)
    first, second = load_case(trained, LEFT), load_case(trained, BOTTOM)
    composed = compose(first & second, extraction=Extraction(steps=5, batch_size=8, seed=0))
    result = evaluate(composed, "PushBottomLeft", 3, seed=1000)
    record = read_json(trained.episodes_of(MERGED))
    np.testing.assert_allclose(record["sample"]["distance"], result.values("distance"), atol=1e-5)
    assert record["merged"] and "steps" not in record


def test_a_result_says_how_to_obtain_it_and_what_made_its_runs(tmp_path):
    study = Study(tmp_path, 2, 2000)
    records = [{"trained_by": [{"commit": "c"}], "system": {"commit": commit}} for commit in ("a", "b", "a")]
    path = study.write("table1", {"rows": []}, made_by(records))
    record = json.loads(path.read_text())
    assert path == tmp_path / "table1.json" and record["result"] == {"rows": []} and record["seed"] == [0, 1]
    assert record["command"] == "qompose reproduce table1 --seeds 2 --total-steps 2000"
    assert (
        record["runs_made_by"] == [{"commit": "c"}, {"commit": "a"}, {"commit": "b"}]
        and "jax" in record["machine"]["versions"]
    )


def test_a_study_goes_on_only_with_its_own_settings(tmp_path, fingerprint):
    Study(tmp_path / "out", 1, 2000).open()
    Study(tmp_path / "out", 5, 2000, workers=1).open()  # more seeds may be added
    before = fingerprint(tmp_path)
    with pytest.raises(QomposeError, match=r"begun with total_steps 2000, not 3000; give another --output-dir$"):
        Study(tmp_path / "out", 1, 3000).open()
    with pytest.raises(
        QomposeError, match=r"begun with flags \{\}, not \{'sql': \['--discount', '0.9'\]\}; give another"
    ):
        Study(tmp_path / "out", 1, 2000).open({"sql": ("--discount", "0.9")})
    assert fingerprint(tmp_path) == before


def test_a_study_of_before_flags_were_written_goes_on(tmp_path):
    Study(tmp_path / "out", 1, 2000).open()
    settings = read_json(tmp_path / "out" / "study.json")
    del settings["flags"]
    write_json(tmp_path / "out" / "study.json", settings)
    Study(tmp_path / "out", 5, 2000).open()
    with pytest.raises(QomposeError, match=r"begun with flags \{\}, not \{'all': \['--discount', '0.9'\]\}"):
        Study(tmp_path / "out", 5, 2000, settings=("--discount", "0.9")).open()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, fingerprint):
    (tmp_path / "thesis.tex").write_text("precious")
    before = fingerprint(tmp_path)
    with pytest.raises(QomposeError, match="holds other files; give another --output-dir"):
        Study(tmp_path, 1, 2000).open()
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 2000, None), "seeds is 0"),
        ((1, 500, None), "warmup_steps is 1000"),
        ((1, 2000, 0), "workers is 0"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_made(tmp_path, numbers, message):
    with pytest.raises(QomposeError, match=message):
        Study(tmp_path / "out", *numbers).open()
    assert not (tmp_path / "out").exists()


def test_the_expert_is_measured_on_the_task_itself():
    found = expert_means("SawyerReach", "distance", "success")
    assert list(found) == ["distance", "success"] and found["success"] == 1.0 and 0.0 < found["distance"] < 0.002


def test_another_seed_has_other_episodes_and_another_extraction(trained, monkeypatch):
    left, seen = load_case(trained, LEFT), []

    def compose(expression, *, name, extraction):
        seen.append(extraction.seed)
        return left

    def evaluate(skill, task, episodes, *, mode, seed):
        seen.append(seed)
        return Evaluation(task, [{"distance": 1.0}], mode, seed)

    for name, stub in (
        ("compose", compose),
        ("evaluate", evaluate),
        ("load", lambda path: replace(left, name=path.name)),
    ):
        monkeypatch.setattr(f"qompose.paper.study.{name}", stub)
    monkeypatch.setattr(Study, "write_episodes", lambda *_: None)
    measure(trained, replace(MERGED, seed=3))
    assert seen == [3, 1003, 1003]
