"""The quick versions of `make chaos` and `make fuzz`, and the figures of the full ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import faults, fuzz, scenes, soak

ROOT = Path(__file__).parents[1]


def quick(name):
    """What a benchmark prints at last; its status must be zero."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_trainings_killed_five_times_end_with_the_same_bits():
    result = quick("chaos")
    assert result["kills"] == 5 and result["trainings_with_other_bits"] == 0


def test_nothing_is_lost_in_twenty_thousand_crash_states():
    result = quick("crashes")
    assert result["log"]["bad"] == result["checkpoint"]["bad"] == []
    assert result["log"]["states"] >= 20_000 and result["checkpoint"]["states"] > 150
    assert len(result["log"]["of_each_kind"]) == 6


def test_twenty_thousand_mutated_skills_load_or_are_refused_in_one_line():
    result = quick("fuzz")
    assert (result["mutations"], result["bad"], result["events"]) == (20_000, [], [])
    assert result["refused"] > 15_000 and result["loaded"] > 500


@pytest.mark.parametrize(
    ("megabytes", "threads", "compilations", "met"),
    [(0.5, 0, 0, True), (2.0, 0, 0, False), (0.5, 1, 0, False), (0.5, 0, 1, False)],
)
def test_a_soak_sees_what_grows_after_the_warm_up_and_only_then(megabytes, threads, compilations, met):
    steps = np.arange(0, 100_001, 1000)
    late = steps >= 90_000
    columns = [steps, 300.0 + megabytes * steps / 1e5, 9 + 0 * steps, 20 + threads * late, 30 + compilations * late]
    rows = np.stack(columns, axis=-1).astype(float)
    rows[steps < 40_000, 1:] = 0.0
    rows[steps < 50_000, 1] += 280.0  # given back at once
    found = soak.judge(rows, 40_000)
    assert found["met"] is met and abs(found["megabytes_per_100_000_steps"] - megabytes) < 1e-6


def test_a_scene_that_is_slow_or_large_or_says_two_lines_is_bad():
    fine = {"name": "x", "refusal": "no", "seconds": 1.0, "megabytes_until_now": 100.0}
    assert scenes.judge(fine) is None
    for change in (
        {"seconds": 11.0},
        {"megabytes_until_now": 2100.0},
        {"refusal": "a\nb"},
        {"name": "two geoms"},
        {"refusal": None},
    ):
        assert scenes.judge(fine | change)
    assert scenes.judge(fine | {"name": "a time step of zero", "refusal": None}) is None
    assert scenes.cases().keys() > scenes.ODD


def test_faults_count_only_what_every_agent_dealt_with():
    passed = faults.Passed()
    passed.cases[faults.BROKEN] = [f"{fault}-{algo}" for fault in "abcdefghijkl" for algo in ("sql", "ddpg", "naf")]
    passed.cases |= {faults.HOSTILE: ["x"] * 100, faults.DIVERGING: ["sql", "ddpg", "naf"]}
    assert all(section["met"] for section in faults.judge(passed, 14).values())
    passed.cases[faults.BROKEN].pop()
    passed.cases[faults.HOSTILE].pop()
    found = faults.judge(passed, 13)
    assert not any(section["met"] for section in found.values())
    assert found["R7"]["caught_and_nothing_stored"] == list("abcdefghijk")


def test_the_fuzzer_sees_a_file_that_is_opened_elsewhere(tmp_path):
    work = tmp_path / "w"
    assert fuzz.is_within(f"{work}/manifest.json", work) and fuzz.is_within(3, work)
    assert not any(fuzz.is_within(path, work) for path in ("/etc/passwd", f"{work}/../x", f"{work}2/x", b"/etc/hosts"))
