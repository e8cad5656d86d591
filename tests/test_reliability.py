"""The quick versions of `make chaos` and `make fuzz`, and the figures of the full ones."""

import json
import subprocess
import sys
from pathlib import Path

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
