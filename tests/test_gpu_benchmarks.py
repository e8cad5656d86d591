"""The benchmarks for a GPU, as small as they go, so that no first error is met where the time is paid for."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco.mjx")

from benchmarks import machine, measurements
from benchmarks.update_speed import UPDATES, needed_flops
from qompose.agents.sql import SQL
from qompose.shipped import load

ROOT = Path(__file__).parents[1]
# What is compiled runs only a moment: optimising takes longer.
FAST_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
FAST_COMPILER += " --xla_cpu_use_fusion_emitters=false"
# The second of particles and of units is that of the default: the program of one run, compiled once.
SIZES = {"runs": (1, 2), "halved": (1, 2), "particles": (2, 8), "units": (8, 128), "environments": (1, 2)}


def run_benchmark(name, folder, *arguments, changes=""):
    """Run a benchmark in a process of its own, as a user does, but for the folder of its results; return its result."""
    code = f"""
from pathlib import Path
from benchmarks import machine, {name}
folder = machine.RESULTS = Path({str(folder)!r})
{changes}
{name}.main()
"""
    environment = {
        **os.environ, "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILER}",
    }  # fmt: skip
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / f"{name}.json").read_text())["result"]


@pytest.mark.slow  # compiles six programs, two of them of MJX
def test_the_scaling_study_goes_from_the_first_program_to_the_picture(tmp_path):
    changes = f"""
best_seconds, machine.best_seconds = machine.best_seconds, lambda call, windows: best_seconds(call, windows=2)
scaling.PICTURE = folder / "scaling.png"
scaling.SIZES = {{axis: ((), sizes) for axis, sizes in {SIZES}.items()}}
"""
    result = run_benchmark("scaling", tmp_path, changes=changes)
    found = {axis: found["rows"] for axis, found in result["axes"].items()}
    assert {axis: tuple(row["size"] for row in rows) for axis, rows in found.items()} == SIZES
    assert found["runs"][0].items() - found["units"][1].items() == {("size", 1)}
    flops = sum(needed_flops(SQL(), 64).values())
    for row in found["runs"]:
        assert row["updates_per_second"] == pytest.approx(row["size"] * UPDATES / row["seconds"])
        assert row["gigaflop_per_second"] == pytest.approx(1e-9 * flops * row["updates_per_second"])
        assert 0.8 <= row["size"] * flops / row["xla_flops"] <= 1.0  # of one update: XLA counts a loop's body once
    for row in found["environments"]:
        assert row["steps_per_second"] == pytest.approx(row["size"] / row["seconds"]) and row["xla_flops"] > 0
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert "not yet measured" in measurements.scaling(result)


@pytest.mark.slow  # compiles three programs of MJX, and measures 300 episodes
def test_a_small_table_1_goes_from_the_programs_to_the_episodes_of_every_policy(tmp_path):
    result = run_benchmark("fused", tmp_path, "--small", "--algorithms", "naf", "--runs-dir", str(tmp_path / "runs"))
    (row,) = result["rows"]
    assert (row["algorithm"], row["runs"]) == ("naf", 2) and row["updates_per_second"] > 0
    for curve in row["curves"]:
        ((step, distance),) = curve["points"]
        assert step == result["total_steps"] and math.isfinite(distance)
    policies = [("PushLeft", False), ("PushBottom", False), ("PushBottomLeft", True)]
    assert [(line["task"], line["merged"]) for line in result["table"]] == policies
    assert all(len(line["seeds"]) == 1 and math.isfinite(line["mean"]) for line in result["table"])
    assert result["small"] and "bars" not in result
    assert "not yet measured" in measurements.fused(result)
    skill = load(tmp_path / "runs-small" / "runs" / "naf-push-left-s0")
    assert skill.algorithm == "naf" and len(skill.replay.reward) == result["total_steps"]


def test_matrix_rates_are_operations_over_seconds(monkeypatch):
    best_seconds, found = machine.best_seconds, {}

    def take_two(call, windows):
        return found.setdefault(call().shape, best_seconds(call, windows=2))

    monkeypatch.setattr(machine, "best_seconds", take_two)
    for name, rate in machine.matrix_rates().items():
        rows, inner, columns = map(int, name.split("x"))
        assert rate == pytest.approx(2e-9 * rows * inner * columns / found[rows, columns])
