import json

import numpy as np
import pytest

from qompose.cli import main
from qompose.paper import fig4, jobs
from qompose.paper.study import ALGORITHMS, Case, Study
from qompose.store import write_json


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A study in which everything is finished: 10 mm with soft Q-learning, ten times as much with the others."""
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("a job began"))
    monkeypatch.setattr(fig4, "expert_means", lambda task, name: {name: 0.001})
    made = Study(tmp_path / "out", 2, 2000)
    made.open(fig4.SETTINGS)
    for case in (Case(a, task, seed) for a in ALGORITHMS for task in fig4.TITLES for seed in (0, 1)):
        distances = (np.array([0.005, 0.01, 0.015]) * (1.0 if case.algorithm == "sql" else 10.0)).tolist()
        record = {"sample": {"distance": distances, "success": [0, 1, 1]}, "seconds": 1.0}
        if case.algorithm == "sql":
            record["best"] = {"distance": [0.002, 0.003, 0.004], "success": [1, 1, 1]}
        made.episodes_of(case).parent.mkdir(exist_ok=True)
        write_json(made.episodes_of(case), {**vars(case), **record, "trained_by": [{"commit": "a"}], "system": {}})
        skill = made.run_of(case) / "skill"
        skill.mkdir(parents=True)
        (skill / "manifest.json").write_text("{}", encoding="utf-8")
        lines = [{"step": step, "eval/distance": 60.0 * distances[1] / step} for step in (10, 30, 600)]
        lines += [{"step": 700, "rollout/distance": 0.04}, {"step": 800}]
        metrics = "".join(json.dumps(line) + "\n" for line in lines)
        (made.run_of(case) / "metrics.jsonl").write_text(metrics, encoding="utf-8")
    (made.folder / "fig4_reaching.mp4").write_bytes(b"a film that is there")
    return made


def command(study, *more):
    return ["reproduce", "fig4", "--output-dir", str(study.folder), "--seeds", "2", "--total-steps", "2000", *more]


def test_distances_and_robot_time_of_each_algorithm(done, capsys):
    assert main(command(done, "--json")) == 0
    out = capsys.readouterr().out
    answer = json.loads(out[out.index("{\n") :])
    assert [(row["task"], row["algorithm"]) for row in answer["rows"]] == [
        (t, a) for t in fig4.TITLES for a in ALGORITHMS
    ]
    sql, ddpg = answer["rows"][:2]
    assert sql["seeds"] == pytest.approx([0.01, 0.01]) and sql["steps_to_bar"] == [30, 30]
    assert sql["curves"][0][-1] == [600, pytest.approx(0.001)] and sql["training_curves"] == [[[700, 0.04]]] * 2
    assert sql["success"] == {"sample": pytest.approx([2 / 3, 2 / 3]), "best": [1.0, 1.0]}
    assert sql["best"] == pytest.approx([0.003, 0.003]) and ddpg["best"] is None and list(ddpg["success"]) == ["sample"]
    assert ddpg["seeds"] == pytest.approx([0.1, 0.1]) and ddpg["steps_to_bar"] == [600, 600]
    assert (done.folder / "fig4_reaching.png").stat().st_size > 10_000
    panels = json.loads((done.folder / "fig4_reaching.json").read_text())["panels"]
    assert [list(curves) for curves in panels.values()] == [["sql", "ddpg", "naf", "sql, in training"]] * 2
    assert panels["one target"]["sql, in training"] == [[[pytest.approx(700 / 1200), 0.04]]] * 2
    assert answer["film"] == str(done.folder / "fig4_reaching.mp4")
    assert json.loads((done.folder / "fig4.json").read_text())["result"]["experts"]["SawyerReach"] == 0.001


def test_the_table_fits_80_columns(done, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command(done)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-3])) <= 80 and not any("…" in line for line in lines)


def test_targets_that_differ_have_more_steps_and_more_updates(tmp_path):
    study = Study(tmp_path, 1, 2000)
    one, random = (fig4.part_of(study, task).training_job(Case("naf", task, 0)) for task in fig4.TITLES)
    assert one.total_steps == 2000 and one.arguments[-2:] == ("--discount", "0.95")
    assert random.total_steps == 3000
    assert random.arguments[-4:] == ("--discount", "0.95", "--updates-per-step", "4")
