"""Corners composed of refitted lines: what is set beside what."""

import numpy as np
import pytest

from benchmarks import measurements, refit
from qompose import store
from qompose.paper.study import Study


def figures(mean):
    return {mode: {"mean": mean, "std": 0.0, "median": mean + 1.0} for mode in refit.MODES}


@pytest.fixture
def study(tmp_path):
    """Two seeds of every case; the distance tells which it is."""
    study = Study(tmp_path, 2, 10)
    for index, corner in enumerate(refit.CORNERS):
        for seed in range(2):
            for number, (way, steps) in enumerate(refit.WAYS.items()):
                own = 0.1 * index + 0.01 * seed + 0.001 * number
                record = {
                    "composed": {str(count): figures(own + (2.0 if count == refit.SHORT else 3.0)) for count in steps},
                    "lines": {task: figures(7.0 + own) for task in refit.CORNERS[corner]},
                    "seconds": None if way == refit.AS_THEY_ARE else 10.0 + seed,
                }
                path = refit.file_of(study, corner, seed, way)
                path.parent.mkdir(exist_ok=True)
                store.write_json(path, record)
    return study


def test_every_row_has_its_own_figures_of_each_seed(study):
    result = refit.summarise(study)
    for row in result["rows"]:
        number = list(refit.WAYS).index(row["learned_from"])
        base = 2.0 if row["steps"] == refit.SHORT else 3.0
        base += 0.1 * list(refit.CORNERS).index(row["corner"]) + 0.001 * number
        np.testing.assert_allclose(row["mean"], [base, base + 0.01])
        np.testing.assert_allclose(row["median"], [base + 1.0, base + 1.01])
        assert row["seconds"] == ([10.0, 11.0] if number else [None, None])
    assert len(result["rows"]) == 3 * 2 * 6 and len(result["lines"]) == 3 * 4 * 2 * 2
    left = {row["mean"][0] for row in result["lines"] if row["corner"] == "PushBottomLeft"}
    assert left == {7.0, 7.001, 7.002, 7.003}


def test_the_section_shows_every_row_and_the_picture_every_seed(study, tmp_path):
    result = refit.summarise(study)
    page = measurements.refit(result)
    behind = 2.005 - np.mean(refit.trained_on("PushBottomLeft"))
    row = "| PushBottomLeft | as they are | 2000 | sample | **2.005** | 2.000 2.010 | 3.000 3.010 | 0.11 ± 0.05 |"
    assert f"{row} **{behind:+.3f}** |  |" in page
    assert "| PushBottomLeft | both replays | 10000 | best | **3.007** | 3.002 3.012 |" in page
    near = {**result, "rows": [row | {"mean": [0.05]} for row in result["rows"]]}
    assert "| sample | 0.050 | 0.050 |" in measurements.refit(near)
    assert "| PushLeft | PushBottomLeft | own replay | 7.001 7.011 |" in page
    refit.draw(tmp_path / "refit.png", result["rows"])
    drawn = store.read_json(tmp_path / "refit.json")["panels"]
    assert drawn["PushBottomMiddle"]["own replay"] == pytest.approx([2.101, 2.111])
    assert {len(bars) for bars in drawn.values()} == {5} and len(drawn) == 3


def test_a_case_needs_the_trainings_of_its_lines(tmp_path):
    job = refit.measuring_job(Study(tmp_path, 1, 10), "PushBottomRight", 1, refit.ALL)
    assert [need.parts[-3] for need in job.needs] == ["sql-push-right-s1", "sql-push-bottom-s1"]
    assert job.arguments[-4:] == ("--measure", "PushBottomRight", "1", "both replays")


@pytest.mark.parametrize(
    ("way", "learned"),
    [(refit.AS_THEY_ARE, []), (refit.OWN, [1, 1]), (refit.ALL, [2]), (refit.GENTLE, [2])],
    ids=str,
)
def test_each_way_learns_from_what_it_says(tmp_path, monkeypatch, way, learned):
    study, calls = Study(tmp_path, 1, 10), []

    class Line:
        def __init__(self, name):
            self.name = name

        def __and__(self, other):
            return (self.name, other.name)

    def learn(*lines, updates, learning_rate, seed):
        calls.append(len(lines))
        assert (updates, learning_rate, seed) == (refit.UPDATES, 3e-4 if way == refit.GENTLE else 1e-3, 3)
        return tuple(Line(f"{line.name}, refitted") for line in lines)

    monkeypatch.setattr(refit, "load", lambda path: Line(path.name))
    monkeypatch.setattr(refit.qp, "refit", learn)
    monkeypatch.setattr(refit.qp, "compose", lambda expression, extraction: (*expression, extraction.steps))
    monkeypatch.setattr(
        refit, "judge", lambda skill, *_: {"sample": {"mean": str(skill if isinstance(skill, tuple) else skill.name)}}
    )
    monkeypatch.setattr(Study, "systems_of", lambda *_: [])
    refit.measure(study, "PushBottomLeft", 3, way)
    record = store.read_json(refit.file_of(study, "PushBottomLeft", 3, way))
    end = ", refitted" if learned else ""
    assert calls == learned and (record["seconds"] is None) == (not learned)
    for steps in refit.WAYS[way]:
        wanted = (f"sql-push-left-s3{end}", f"sql-push-bottom-s3{end}", steps)
        assert record["composed"][str(steps)]["sample"]["mean"] == str(wanted)
    assert record["lines"]["PushBottom"]["sample"]["mean"] == f"sql-push-bottom-s3{end}"
