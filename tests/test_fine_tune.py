"""What counts as the level of a training from scratch, and as reached."""

import math
import sys

import numpy as np
import pytest

from benchmarks import fine_tune, measurements

SCRATCH = [[10, 1.0], [20, 0.2], [30, 0.5], [40, 0.3]]  # the last quarter is its last point


def test_the_level_is_that_of_the_last_quarter_and_the_first_evaluation_there_counts():
    record = {"composed": {"mean": 0.9}, "points": [[2, 0.4], [4, 0.3], [6, 0.1]]}
    found = fine_tune.count_steps(record, SCRATCH, 40)
    assert found == {"level": 0.3, "steps_to_level": 4, "scratch_steps_to_level": 20}
    there = fine_tune.count_steps({"composed": {"mean": 0.25}, "points": []}, SCRATCH, 40)
    never = fine_tune.count_steps({"composed": {"mean": 0.9}, "points": [[2, 0.4]]}, SCRATCH, 40)
    assert there["steps_to_level"] == 0 and never["steps_to_level"] is None


def test_the_page_says_never_where_the_level_was_not_reached():
    means = {"composed": {"mean": 0.9}, "further": {"mean": 0.4}}
    rows = [
        {"start": start, "seed": seed, **means, "level": 0.3, "steps_to_level": steps, "scratch_steps_to_level": 20}
        for start, counts in (("as they are", (4, None)), ("refitted", (6, 6))) for seed, steps in enumerate(counts)
    ]  # fmt: skip
    page = measurements.fine_tune({"rows": rows, "bar": 0.25, "seeds_at_bar": {"as they are": 1, "refitted": 0}})
    assert "| 4 | 20 | 0.20 |" in page and "| never | 20 |  |" in page
    assert "- lines as they are: at most 0.25 of the steps from scratch (1 of 2 seeds): **missed**" in page
    whole = measurements.fine_tune({"rows": rows[2:], "bar": 0.25, "seeds_at_bar": {"refitted": 2}})
    assert "- lines refitted: at most 0.25 of the steps from scratch (2 of 2 seeds): met" in whole
    assert [fine_tune.share_of(row) for row in rows] == [0.2, math.inf, 0.3, 0.3]


def test_a_seed_needs_its_two_lines_and_the_training_from_scratch(tmp_path, monkeypatch):
    seen = {}

    def stop(study, label, trainings, jobs):
        seen.update(trainings=list(trainings), jobs=list(jobs))
        raise SystemExit

    monkeypatch.setattr(fine_tune.Study, "run", stop)
    monkeypatch.setattr(sys, "argv", ["fine_tune", "--seeds", "1", "--study", str(tmp_path / "study")])
    with pytest.raises(SystemExit):
        fine_tune.main()
    assert [case.task for case in seen["trainings"]] == ["PushLeft", "PushBottom", "PushBottomLeft"]
    assert [job.file.name for job in seen["jobs"]] == ["s0-as-they-are.json", "s0-refitted.json"]
    for job in seen["jobs"]:
        assert [need.parent.parent.name for need in job.needs] == ["sql-push-left-s0", "sql-push-bottom-s0"]


@pytest.mark.parametrize("start", fine_tune.STARTS)
def test_only_refitted_lines_are_refitted(tmp_path, monkeypatch, start):
    study, calls = fine_tune.Study(tmp_path, 1, 8000), []

    class Skill:
        def __and__(self, other):
            return self

    def refit(*skills, seed):
        calls.append(("refit", len(skills), seed))
        return skills

    def train(task, *, start, output_dir, total_steps, seed, **more):
        calls.append(("train", task, total_steps, seed))
        return start

    class Figures:
        def values(self, name):
            return np.array([1.0, 3.0])

    monkeypatch.setattr(fine_tune, "load", lambda path: Skill())
    monkeypatch.setattr(
        fine_tune.qp, "refit", lambda *skills, seed: calls.append(("refit", len(skills), seed)) or skills
    )
    monkeypatch.setattr(fine_tune.qp, "compose", lambda expression, extraction: expression)
    monkeypatch.setattr(fine_tune.qp, "train", train)
    monkeypatch.setattr(fine_tune.qp, "evaluate", lambda *words, **more: Figures())
    monkeypatch.setattr(fine_tune, "curve_of", lambda run, name: [[2, 0.5]])
    (job,) = (job for job in jobs_of(study, monkeypatch) if job.arguments[-1] == start)
    job.file.parent.mkdir()
    monkeypatch.setattr(sys, "argv", list(job.arguments))
    fine_tune.main()
    refits = [("refit", 2, 0)] if start == fine_tune.REFITTED else []
    assert calls == [*refits, ("train", "PushBottomLeft", 2000, 0)]
    record = fine_tune.read_json(job.file)
    assert (record["start"], record["points"], record["further"]["mean"]) == (start, [[2, 0.5]], 2.0)
    assert record["system"]["commit"]


def jobs_of(study, monkeypatch):
    """Those that the benchmark would run of one seed."""
    seen = []

    def stop(self, label, trainings, jobs):
        seen.extend(jobs)
        raise SystemExit

    words = ["fine_tune", "--seeds", "1", "--total-steps", str(study.total_steps), "--study", str(study.folder)]
    with monkeypatch.context() as patch:
        patch.setattr(fine_tune.Study, "run", stop)
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            fine_tune.main()
    return seen
