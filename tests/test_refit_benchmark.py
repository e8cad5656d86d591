"""Corners composed of refitted lines: what is set beside what."""

import numpy as np
import pytest

from benchmarks import measurements, refit
from benchmarks.machine import read_results
from qompose import store
from qompose.paper.study import Study


@pytest.fixture
def study(tmp_path):
    """Two seeds of every case; the distance tells which it is."""
    study = Study(tmp_path, 2, 10)
    for index, corner in enumerate(refit.CORNERS):
        for seed in range(2):
            for updates in refit.UPDATES:

                def figures(value, corner=index, seed=seed, updates=updates):
                    mean = value + 0.1 * corner + 0.01 * seed + 0.001 * bool(updates)
                    return {mode: {"mean": mean, "std": 0.0, "median": mean + 1.0} for mode in refit.MODES}

                lines = {task: figures(7.0) for task in refit.CORNERS[corner]}
                composed = {str(steps): figures(2.0 if steps == refit.STEPS[0] else 3.0) for steps in refit.STEPS}
                path = refit.file_of(study, corner, seed, updates)
                path.parent.mkdir(exist_ok=True)
                store.write_json(path, {"composed": composed, "lines": lines, "seconds": float(seed)})
    return study


def test_every_row_has_its_own_figures_of_each_seed(study):
    result = refit.summarise(study)
    for row in result["rows"]:
        corner = list(refit.CORNERS).index(row["corner"])
        base = (2.0 if row["steps"] == refit.STEPS[0] else 3.0) + 0.1 * corner + 0.001 * bool(row["updates"])
        np.testing.assert_allclose(row["mean"], [base, base + 0.01])
        np.testing.assert_allclose(row["median"], [base + 1.0, base + 1.01])
        assert row["seconds"] == [0.0, 1.0]
    assert len(result["rows"]) == 3 * len(refit.UPDATES) * len(refit.STEPS) * len(refit.MODES)
    assert len(result["lines"]) == 3 * len(refit.UPDATES) * 2 * len(refit.MODES)
    assert {row["mean"][0] for row in result["lines"] if row["corner"] == "PushBottomLeft"} == {7.0, 7.001}


def test_the_section_shows_every_row_and_the_picture_every_seed(study, tmp_path):
    result = refit.summarise(study)
    page = measurements.refit(result)
    assert (
        f"| PushBottomLeft | none | {refit.STEPS[0]} | sample | 2.005 | 2.000 2.010 | 3.000 3.010 | 0.11 ± 0.05 |"
        in page
    )
    assert f"| PushBottomLeft | {refit.UPDATES[1]} | {refit.STEPS[1]} | best | 3.006 | 3.001 3.011 |" in page
    assert f"| PushLeft | PushBottomLeft | {refit.UPDATES[1]} | 7.001 7.011 |" in page
    refit.draw(tmp_path / "refit.png", result["rows"], 2)
    assert (tmp_path / "refit.png").stat().st_size > 1_000


def test_a_case_needs_the_trainings_of_its_lines(tmp_path):
    job = refit.measuring_job(Study(tmp_path, 1, 10), "PushBottomRight", 1, 20_000)
    assert [need.parts[-3] for need in job.needs] == ["sql-push-right-s1", "sql-push-bottom-s1"]
    assert job.arguments[-4:] == ("--measure", "PushBottomRight", "1", "20000")


def test_the_level_is_that_of_the_policies_trained_on_the_corner():
    rows = read_results("table1")["result"]["rows"]
    found = [row["seeds"] for row in rows if (row["algorithm"], row["task"], row["mode"]) == (
        "sql", "PushBottomLeft", "sample") and not row["merged"]]  # fmt: skip
    assert refit.trained_on("PushBottomLeft") == pytest.approx(np.mean(found[0])) and len(found) == 1
