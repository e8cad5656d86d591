"""Whether two sets of trainings differ: the test of benchmarks.fused against curves that are known to, or not to."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco.mjx")

from benchmarks import fused, measurements
from qompose.paper.study import Case, Study

STEPS = (10, 20)


def curve(level, rng):
    return [[step, level * np.exp(0.3 * rng.normal())] for step in STEPS]


def write_study(study, level, rng, seeds):
    for seed in range(seeds):
        run = study.run_of(Case("naf", "PushLeft", seed))
        run.mkdir(parents=True)
        # one evaluation more often than there
        lines = [{"step": 5, "eval/distance": 1.0}] + [
            {"step": step, "eval/distance": distance} for step, distance in curve(level, rng)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("level", "low", "high"), [(0.1, 0.05, 1.0), (0.3, 0.0, 0.02)])
def test_a_permutation_test_sees_a_difference_and_none_where_there_is_none(tmp_path, level, low, high):
    rng = np.random.default_rng(0)
    study = Study(tmp_path, 6, 20)
    write_study(study, 0.1, rng, 6)
    curves = [{"task": "PushLeft", "seed": seed, "points": curve(level, rng)} for seed in range(6)]
    curves.append({"task": "PushRight", "seed": 0, "points": curve(9.0, rng)})  # no run there to compare with
    (row,) = fused.compare([{"algorithm": "naf", "curves": curves}], study)
    assert row["tasks"] == 1 and row["runs"] == [6, 6]
    assert low <= row["p"] <= high
    assert row["ratio"] == pytest.approx(level / 0.1, rel=0.4)


def test_a_run_that_was_cut_off_is_not_compared(tmp_path):
    study = Study(tmp_path, 1, 20)
    write_study(study, 0.1, np.random.default_rng(0), 1)
    curves = [{"task": "PushLeft", "seed": 0, "points": [[step, 0.1] for step in (*STEPS, 30)]}]
    assert fused.compare([{"algorithm": "naf", "curves": curves}], study) == []


def test_the_page_takes_what_a_run_gives():
    row = {
        "algorithm": "naf", "runs": 2, "seconds": 3.0, "compiling": 9.0, "learning": 2.0, "evaluating": 1.0,
        "environment_steps_per_second": 10.0, "updates_per_second": 20.0, "curves": [],
    }  # fmt: skip
    line = {
        "algorithm": "naf", "task": "PushLeft", "merged": False, "seeds": [0.1, 0.3], "mean": 0.2,
        "paper": (0.06, 0.01),
    }  # fmt: skip
    result = {
        "rows": [row], "table": [line], "seconds_to_trained": 12.0, "seconds": 15.0, "episodes": 100,
        "total_steps": 60000, "small": False, "device": "some GPU", "bars": {"everything in 600 s": True},
    }  # fmt: skip
    page = measurements.fused(result)
    assert "| naf | PushLeft | trained | 0.200 | 0.100 0.300 | 0.06 ± 0.01 | **no** |" in page
    assert "- everything in 600 s: met" in page and "permutation" not in page
    compared = {"rows": [{"algorithm": "naf", "tasks": 1, "runs": [2, 3], "ratio": 1.1, "p": 0.5}]}
    assert "2 runs here and 3 there" in measurements.fused({**result, "comparison": compared})
