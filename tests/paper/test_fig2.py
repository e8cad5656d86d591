import json
import os
import subprocess
import sys

import numpy as np
import pytest

import qompose
from qompose.cli import main
from qompose.paper import fig2, jobs
from qompose.paper.study import ALGORITHMS
from tests.paper.conftest import episodes_at

ENDS = {"PushLeft": (-1.0, 0.5), "PushBottom": (0.6, -0.9), "PushBottomLeft": (-0.9, -0.8)}
FLAGS = ("--seeds", "2", "--total-steps", "2000")


@pytest.fixture
def done(pretend, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("a job began"))
    cases = [case for algorithm in ALGORITHMS for seed in (0, 1) for case in fig2._group(algorithm, seed)]
    return pretend(cases, lambda case: {"sample": episodes_at(*ENDS[case.task], 0.1)})


def test_figures_tell_interpolation_from_averaging(done, capsys):
    assert main(["reproduce", "fig2", "--output-dir", str(done.folder), *FLAGS, "--json"]) == 0
    out = capsys.readouterr().out
    answer = json.loads(out[out.index("{\n") :])
    assert [row["algorithm"] for row in answer["rows"]] == list(ALGORITHMS)
    first, second = answer["rows"][0]["seeds"]
    assert first == second
    assert first["spread_of_left"] == first["spread_of_bottom"] == pytest.approx(0.1 * (2 / 3) ** 0.5)
    assert first["composed"] == pytest.approx([-0.9, -0.8]) and first["average"] == pytest.approx([-0.2, -0.2])
    assert first["composed_to_goal"] == pytest.approx(0.05**0.5)
    assert first["average_to_goal"] == pytest.approx(0.8 * 2**0.5)
    assert first["composed_to_average"] == pytest.approx((0.7**2 + 0.6**2) ** 0.5)
    written = json.loads((done.folder / "fig2.json").read_text())
    assert written["result"]["rows"] == answer["rows"] and written["command"].startswith("qompose reproduce fig2")
    for algorithm, picture in zip(ALGORITHMS, answer["pictures"], strict=True):
        assert picture == str(done.folder / f"fig2_{algorithm}.png")
        numbers = json.loads((done.folder / f"fig2_{algorithm}.json").read_text())
        assert numbers["average_of_constituents"] == pytest.approx([-0.2, -0.2])


def test_the_spread_is_that_along_the_free_coordinate():
    line = np.array([[0.0, 1.0], [0.0, -1.0]])
    assert fig2._summarise(line, line, line)["spread_of_left"] == 1.0
    assert fig2._summarise(line, line, line)["spread_of_bottom"] == 0.0


def test_the_table_fits_80_columns(done, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["reproduce", "fig2", "--output-dir", str(done.folder), *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[: -len(ALGORITHMS) - 1])) <= 80 and not any("…" in line for line in lines)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│ sql")]
    assert cells == [["sql", "0.082", "0.082", "-0.90, -0.80", "-0.20, -0.20", "0.224", "1.131"]]
    assert lines[-1] == str(done.folder / "fig2.json")


@pytest.mark.slow
def test_the_command_works_in_processes_of_its_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(qompose.__path__[0])}
    command = [sys.executable, "-m", "qompose", "reproduce", "fig2", "--seeds", "1", "--total-steps", "1100"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    result = json.loads((tmp_path / "reproduce" / "fig2.json").read_text())
    assert result["result"]["episodes"] == 100 and len(result["result"]["rows"]) == 3
    assert len(list((tmp_path / "reproduce" / "runs").iterdir())) == 6
