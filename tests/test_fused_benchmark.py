"""Whether two sets of trainings differ: the test of benchmarks.fused against curves that are known to, or not to."""

import itertools
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco.mjx")

from benchmarks import fused, machine, measurements
from qompose.paper.study import Case, Study
from qompose.types import QomposeError

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
    (row,) = fused.compare_curves([{"algorithm": "naf", "curves": curves}], study)
    assert row["tasks"] == 1 and row["runs"] == [6, 6]
    assert low <= row["p"] <= high
    assert row["ratio"] == pytest.approx(level / 0.1, rel=0.4)


def test_simulators_are_compared_by_their_curves_task_by_task():
    rng = np.random.default_rng(0)

    def row(*levels):
        tasks = zip(("PushLeft", "PushRight"), levels, strict=True)
        curves = [{"task": task, "seed": n, "points": curve(level, rng)} for task, level in tasks for n in range(6)]
        return {"algorithm": "naf", "curves": curves}

    (same,) = fused.compare_simulators([row(0.1, 0.5)], [row(0.1, 0.5)])
    (apart,) = fused.compare_simulators([row(0.3, 1.5)], [row(0.1, 0.5)])
    assert same["runs"] == apart["runs"] == [12, 12] and same["algorithm"] == "naf"
    assert same["p"] > 0.05 and apart["p"] < 0.01 and apart["ratio"] == pytest.approx(3.0, rel=0.3)
    (alone,) = fused.compare_simulators([row(0.1, 0.5)], [{**row(0.1, 0.5), "algorithm": "sql"}])
    assert alone["tasks"] == 0


def test_a_run_that_was_cut_off_is_not_compared(tmp_path):
    study = Study(tmp_path, 1, 20)
    write_study(study, 0.1, np.random.default_rng(0), 1)
    curves = [{"task": "PushLeft", "seed": 0, "points": [[step, 0.1] for step in (*STEPS, 30)]}]
    assert fused.compare_curves([{"algorithm": "naf", "curves": curves}], study) == []


def test_the_page_takes_what_a_run_gives():
    row = {
        "algorithm": "naf", "runs": 2, "seconds": 3.0, "compiling": 9.0, "learning": 2.0, "evaluating": 1.0,
        "environment_steps_per_second": 10.0, "updates_per_second": 20.0, "curves": [],
    }  # fmt: skip
    line = {
        "algorithm": "naf", "task": "PushLeft", "merged": False, "seeds": [0.1, 0.3], "mean": 0.2,
        "paper": (0.06, 0.01),
    }  # fmt: skip
    faster = {**row, "algorithm": "sql", "environment_steps_per_second": 40.0, "learning": 4.0}
    result = {
        "rows": [row, faster], "table": [line], "seconds_to_trained": 12.0, "seconds": 15.0, "episodes": 100,
        "total_steps": 60000, "small": False, "device": "some GPU", "extraction_steps": 10_000,
    }  # fmt: skip
    page = measurements.fused(result)
    assert "| naf | PushLeft | trained | 0.200 | 0.100 0.300 | 0.06 ± 0.01 | **no** |" in page
    assert "- everything in 600 s: met" in page and "permutation" not in page
    assert "- 500000 environment steps/s, all algorithms together (30): **missed**" in page  # 180 steps in 6 s
    older = measurements.fused({**result, "extraction_steps": 2000})
    assert "- everything in 600 s, with 2000 steps of extraction, not 10000: met" in older
    warp = {"command": "c", "machine": {"commit": "abc"}, "rows": [row], "seconds": 9.0}
    page = measurements.fused({**result, "warp": {**warp, "against_jax": [{"ratio": 0.97, "p": 0.68}]}})
    assert "| naf | 2 | 3 | 2 | 1 | 10 | 20 | 0.97 | 0.68 |" in page and "Everything after 9 s." in page
    compared = {"algorithm": "naf", "what": "merged", "tasks": 1, "runs": [2, 3], "ratio": 1.1, "p": 0.5}
    about = {"command": "compare", "machine": {"processor": "some processor"}}
    for p, word in ((0.5, "none"), (0.01, "naf, merged")):
        page = measurements.fused({**result, "comparison": {"rows": [{**compared, "p": p}], **about}})
        assert f"| naf | merged | 1 | 2 | 3 | 1.10 | {p:.3f} |" in page and f"At p < 0.05: {word};" in page


def test_final_distances_are_compared_row_by_row_and_those_that_one_side_lacks_are_not():
    def row(task, merged, seeds, **more):
        return {"algorithm": "naf", "task": task, "merged": merged, "seeds": seeds, **more}

    here = [row("PushLeft", False, [0.1, 0.2]), row("PushBottomLeft", True, [0.4]), row("PushTo", True, [0.1])]
    there = [
        row("PushLeft", False, [0.05, 0.1, 0.2], mode="sample"),
        row("PushLeft", False, [9.0], mode="best"),
        row("PushBottomLeft", True, [0.2], mode="sample"),
    ]
    trained, merged = fused.compare_ends(here, there)
    assert (trained["what"], trained["runs"], trained["tasks"]) == ("trained", [2, 3], 1)
    assert trained["ratio"] == pytest.approx(2**0.5)  # geometric means 0.141 and 0.1
    assert (merged["what"], merged["runs"], merged["tasks"]) == ("merged", [1, 1], 1)
    assert merged["ratio"] == pytest.approx(2.0) and merged["p"] == 1.0  # one run each: either order is as far


@pytest.mark.parametrize("simulator", ["jax", "warp"])
def test_everything_is_trained_measured_and_summarised_once(simulator, tmp_path, monkeypatch):
    """With stand-ins for the program and the processes: what goes where. With Warp nothing trains while another
    program is compiled."""
    trained, measured, started, numbers = [], [], threading.Event(), itertools.count()

    def prepare(cases, agent, options, *, simulator):
        if next(numbers) > 0:  # the second is compiled while the first trains, or the first waits for it
            assert started.wait(0.2 if simulator == "warp" else 60) == (simulator == "jax")
        return fused.fused.Prepared(cases, None, None, 1)

    class Skill:
        def save(self, path, overwrite):
            path.mkdir(parents=True)

    def run(prepared, *, on_stretch):
        started.set()
        trained.append(prepared.cases)
        on_stretch(fused.fused.Stretch(10, 20, 40, 1.0, 2.0, 0.5, []))
        return [SimpleNamespace(evaluations=[{"step": 10, "eval/distance": 0.5}]) for _ in prepared.cases]

    def measure(self, label, cases):
        measured.extend(cases)
        return {case: {"sample": {"distance": [0.1 * case.seed, 0.3]}} for case in cases}

    monkeypatch.setattr(fused.fused, "prepare", prepare)
    monkeypatch.setattr(fused.fused, "run", run)
    monkeypatch.setattr(fused.fused, "fused_skill", lambda *_: Skill())
    monkeypatch.setattr(Study, "measure", measure)
    study = Study(tmp_path / "study", 2, 2000)
    tasks = ("PushLeft", "PushBottom", "PushRight")
    plan = fused.Plan(tasks, 2, (8,), fused.Training(total_steps=2000), study, simulator)
    result = fused.reproduce(["naf", "ddpg"], plan)
    assert [len(cases) for cases in trained] == [6, 6] and len(set(measured)) == len(measured) == 20
    assert (study.run_of(Case("ddpg", "PushRight", 1)) / "skill").is_dir()
    merged = [line for line in result["table"] if line["merged"]]
    assert [line["task"] for line in merged] == ["PushBottomLeft", "PushBottomRight"] * 2
    assert merged[0]["seeds"] == pytest.approx([0.15, 0.2]) and merged[0]["paper"] == (0.16, 0.0)
    assert result["rows"][0]["updates_per_second"] == 20.0
    (study.folder / "episodes").mkdir()
    with pytest.raises(QomposeError, match="holds what was measured of earlier runs; give another --runs-dir"):
        fused.reproduce(["naf"], plan)


def test_a_small_run_leaves_the_figures_of_a_gpu_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    machine.write_results("fused", {"small": True, "figure": 1}, command="c")
    machine.write_results("fused", {"small": False, "figure": 2}, command="c")
    machine.write_results("fused", {"small": True, "figure": 3}, command="c")
    assert machine.read_results("fused")["result"]["figure"] == 2 and "stays as it is" in capsys.readouterr().out
    machine.add_result("fused", "comparison", {"rows": []}, command="d")
    found = machine.read_results("fused")["result"]
    assert found["figure"] == 2 and found["comparison"]["command"] == "d"


def test_a_file_of_results_names_the_simulator_of_batches():
    from importlib import metadata

    assert machine.describe()["versions"]["mujoco-mjx"] == metadata.version("mujoco-mjx")
    assert "mujoco" in machine.describe()["versions"]
