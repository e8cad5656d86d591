"""What counts as the level of a training from scratch, and as reached."""

import math
import sys

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
    page = measurements.fine_tune({"rows": rows, "bar": 0.25})
    assert "| 4 | 20 | 0.20 |" in page and "| never | 20 |  |" in page
    assert "as they are: in 1 of 2 seeds; refitted: in 0 of 2 seeds" in page
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
