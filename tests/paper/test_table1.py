import json

import numpy as np
import pytest

from qompose.cli import main
from qompose.paper import jobs, table1
from qompose.paper.study import ALGORITHMS, CONSTITUENTS, CORNERS, Case
from tests.paper.conftest import episodes_at

SEEDS = (0, 1)


@pytest.fixture
def done(pretend, monkeypatch):
    """A study in which everything is finished: nothing may be started."""
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("a job began"))
    cases = [Case(a, task, seed, merged) for a in ALGORITHMS for task, merged in table1.TABLE_I for seed in SEEDS]

    def record(case):
        at = episodes_at(-0.5, -1.0 + case.seed, 0.3 + 0.2 * case.seed)
        return {"sample": at} | ({"best": episodes_at(0.0, 0.0, 1.0)} if case.algorithm == "sql" else {})

    return pretend(cases, record)


def command(study, *more):
    return ["reproduce", "table1", "--output-dir", str(study.folder), "--seeds", "2", "--total-steps", "2000", *more]


def test_the_rows_are_those_of_the_paper():
    tasks = [*CONSTITUENTS, *(corner for corner in CORNERS for _ in range(2))]
    assert [task for task, _ in table1.TABLE_I] == tasks and sum(merged for _, merged in table1.TABLE_I) == 3
    assert all(len(figures) == len(ALGORITHMS) for figures in table1.TABLE_I.values())
    assert table1.paper_figure("naf", "PushBottomRight", True) == (0.43, 0.21)
    assert table1.paper_figure("sql", "PushBottomLeft", True) == (0.11, 0.05)


def test_figures_are_over_episodes_and_over_seeds(done, capsys):
    assert main(command(done, "--json")) == 0
    out = capsys.readouterr().out
    answer = json.loads(out[out.index("{\n") :])
    assert len(answer["rows"]) == 10 * 4  # sql acts in two ways
    row = answer["rows"][0]
    assert (row["task"], row["algorithm"], row["mode"], row["merged"]) == ("PushLeft", "sql", "sample", False)
    assert row["seeds"] == pytest.approx([0.3, 0.5]) and row["mean"] == pytest.approx(0.4)
    assert row["std_over_episodes"] == pytest.approx(0.1 * np.sqrt(2 / 3))
    assert row["std_over_seeds"] == pytest.approx(0.02**0.5)
    assert row["median"] == pytest.approx(0.4) and row["medians"] == pytest.approx([0.3, 0.5])
    assert row["puck"] == pytest.approx([-0.5, -0.5]) and row["puck_of_seeds"][1] == pytest.approx([-0.5, 0.0])
    assert row["paper"] == [0.13, 0.06] and answer["rows"][1]["mean"] == pytest.approx(1.0)
    written = json.loads((done.folder / "table1.json").read_text())
    assert written["result"] == {"rows": answer["rows"], "episodes": 3} and written["seed"] == [0, 1]
    assert [made["commit"] for made in written["runs_made_by"]] == [
        *("training 0", "of seed 0", "training 1", "of seed 1")
    ]
    assert (done.folder / "table1_distances.png").stat().st_size > 10_000


def test_the_table_stands_beside_the_papers_figures_on_80_columns(done, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command(done)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-2])) <= 80  # the last two are paths
    whole = [line.replace("… merged", "") for line in lines]
    assert not any("…" in line for line in whole)  # nothing is cut off
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells[0] == ["left", "0.400 ± 0.082 ± 0.141", "0.400", "-0.50, -0.50", "0.13 ± 0.06"]
    assert [cell[0] for cell in cells] == [
        *("left", "middle", "right", "bottom"),
        *(name for corner in ("left", "middle", "right") for name in (f"bottom-{corner}", "… merged")),
    ] * 3
    assert cells[-1][-1] == "0.43 ± 0.21"
    assert lines[-2:] == [str(done.folder / name) for name in ("table1_distances.png", "table1.json")]


def test_one_seed_says_nothing_about_the_spread_over_seeds(done, capsys):
    assert main([*command(done)[:5], "1", "--total-steps", "2000", "--json"]) == 0
    out = capsys.readouterr().out
    row = json.loads(out[out.index("{\n") :])["rows"][0]
    assert row["std_over_seeds"] is None and table1._spreads(row) == "0.300 ± 0.082"
