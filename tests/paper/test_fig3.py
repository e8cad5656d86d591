import json

import numpy as np
import pytest

from qompose.agents.sql import SQL
from qompose.cli import main
from qompose.evaluation import evaluate
from qompose.paper import fig3, jobs
from qompose.paper.study import Case, load_case
from qompose.store import read_json, write_json
from qompose.tasks import make_task
from qompose.training.offline import Extraction, compose

FLAGS = ("--seeds", "2", "--total-steps", "2000")
SLOW, FAST = [[100, 1.0], [1000, 0.5], [2000, 0.2]], [[1, 0.9], [10, 0.4], [100, 0.3]]


def test_steps_are_spaced_by_their_logarithm_and_end_with_the_last():
    assert fig3.log_spaced(1) == [1]
    assert fig3.log_spaced(30) == [1, 2, 5, 10, 20, 30]
    assert fig3.log_spaced(2000) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]


def test_curves_are_compared_where_both_have_been():
    found = fig3.compare(FAST, SLOW)
    assert found["level"] == pytest.approx(0.36) and (found["steps_to_level"], found["online_steps_to_level"]) == (
        100,
        2000,
    )
    assert found["ratio"] == 20.0 and (found["steps"], found["end"]) == (100, 0.3)
    found = fig3.compare([[1, 0.9], [10, 0.7], [100, 0.8]], SLOW)  # the first point there counts
    assert (found["steps_to_level"], found["online_steps_to_level"]) == (10, 1000)
    nearer = fig3.compare([[1, 0.9], [10, 0.1]], SLOW)
    assert nearer["online_steps_to_level"] is None and nearer["ratio"] is None
    assert found["late"] == pytest.approx(0.8) and found["online_late"] == pytest.approx(1.7 / 3)


def test_online_steps_are_gradient_steps_after_the_warm_up(tmp_path):
    lines = [
        {"step": 1000, "eval/distance": 1.5}, {"step": 1008, "rollout/distance": 1.4},
        {"step": 1800, "eval/distance": 0.7}, {"step": 2000, "eval/distance": None},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert fig3.online_points(tmp_path) == [[1600, 0.7]]


def test_a_short_extraction_is_the_beginning_of_a_long_one(tiny, trained, monkeypatch):
    monkeypatch.setattr(fig3, "log_spaced", lambda last: [2, 5])
    fig3.measure(trained.folder, "extraction, sql", 0, 40)
    record = read_json(trained.folder / "curves" / "extraction-sql-s0.json")
    assert record["curve"] == "extraction, sql" and "commit" in record["system"]
    first, second = (load_case(trained, Case("sql", task, 0)) for task in ("PushLeft", "PushBottom"))
    arrays = {}
    for steps, point in zip((2, 5), record["points"], strict=True):
        options = Extraction(steps=steps, batch_size=8, hidden=(16,))
        skill = compose(first & second, extraction=options)
        distance = evaluate(skill, "PushBottomLeft", 3, seed=10_000_000).values("distance")
        assert point == [steps, pytest.approx(distance.mean()), None]
        arrays[steps] = skill.sampler.arrays["weight_out"]
    assert 0 < np.abs(arrays[5] - arrays[2]).max() < 0.1


def test_offline_sql_learns_from_the_union_with_the_rewards_of_the_corner(tiny, trained, monkeypatch):
    seen = []

    def learn(agent, data, marks, *, seed):
        seen.append((agent, data, marks, seed))
        return learn_from_log(agent, data, marks, seed=seed)

    learn_from_log = fig3.learn_from_log
    monkeypatch.setattr(fig3, "learn_from_log", learn)
    fig3.measure(trained.folder, fig3.OFFLINE, 0, 10)
    ((agent, data, marks, seed),) = seen
    assert isinstance(agent, SQL) and agent.planned_updates == 10 and (marks, seed) == ([1, 2, 5, 10], 0)
    left, bottom = (load_case(trained, Case("sql", task, 0)).replay for task in ("PushLeft", "PushBottom"))
    np.testing.assert_array_equal(data.observation, np.concatenate([left.observation, bottom.observation]))
    # r_C is the mean of the two rewards (eq 5), so each half must be worth this to the other constituent.
    task = make_task("PushBottom")
    before, after = task.recall(left.observation), task.recall(left.next_observation)
    other, _ = task.reward(before, left.action, after)
    np.testing.assert_allclose(data.reward[: len(left.reward)], (left.reward + other) / 2, atol=2e-6)
    points = read_json(trained.folder / "curves" / "offline-sql-s0.json")["points"]
    assert [step for step, _, _ in points] == [1, 2, 5, 10]
    assert all(np.isfinite(number) for point in points for number in point)


def test_a_curve_ends_where_offline_sql_diverges(tiny, trained, monkeypatch):
    def learn(*arguments, **options):
        for step, state, figures in learn_from_log(*arguments, **options):
            yield step, state, figures | {"q": np.inf if step > 2 else 1.0}

    learn_from_log = fig3.learn_from_log
    monkeypatch.setattr(fig3, "learn_from_log", learn)
    assert [(step, q) for step, _, q in fig3._learned(trained, 0, 10)] == [(1, 1.0), (2, 1.0)]


@pytest.fixture
def done(pretend, monkeypatch):
    """A study in which everything is finished: nothing may be started."""
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("a job began"))
    study = pretend([], None)
    for seed in (0, 1):
        online = fig3._online(seed)
        for case in (online, *fig3._pair("sql", seed), *fig3._pair("ddpg", seed)):
            file = study.training_job(case).file
            file.parent.mkdir(parents=True)
            file.touch()
            write_json(study.run_of(case) / "system.json", {"commit": f"training {seed}"})
        lines = [{"step": 1000 + step // 2, "eval/distance": distance} for step, distance in SLOW]
        (study.run_of(online) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (study.folder / "curves").mkdir(exist_ok=True)
        for curve in (*fig3.EXTRACTED.values(), fig3.OFFLINE):
            points = [[step, distance + (curve == fig3.OFFLINE), 0.0] for step, distance in FAST]
            record = {"curve": curve, "seed": seed, "points": points, "system": {}}
            write_json(fig3._curve_file(study, curve, seed), record)
    return study


def test_the_answer_has_every_curve_and_its_ratio(done, capsys):
    assert main(["reproduce", "fig3", "--output-dir", str(done.folder), *FLAGS, "--json"]) == 0
    out = capsys.readouterr().out
    answer = json.loads(out[out.index("{\n") :])
    rows = {row["curve"]: row["seeds"] for row in answer["rows"]}
    assert set(rows) == {"extraction, sql", "extraction, ddpg", "offline sql", "online sql"}
    assert [seed["ratio"] for seed in rows["extraction, ddpg"]] == [20.0, 20.0]
    assert [seed["ratio"] for seed in rows["online sql"]] == [1.0, 1.0]
    assert answer["curves"]["online sql"] == [SLOW, SLOW]
    written = json.loads((done.folder / "fig3.json").read_text())
    assert [made.get("commit") for made in written["runs_made_by"]] == ["training 0", "training 1", None]
    assert written["result"]["curves"] == answer["curves"] and written["seed"] == [0, 1]
    assert (done.folder / "fig3_steps.png").stat().st_size > 10_000


def test_the_report_fits_80_columns_and_says_whether_offline_converges(done, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["reproduce", "fig3", "--output-dir", str(done.folder), *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-2])) <= 80 and not any("…" in line for line in lines)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│ ext")]
    assert cells[0] == ["extraction, sql", "100", "0.300", "0.360", "100", "2000", "20"]
    assert "offline SQL ends within 0.05 m of online SQL for 0 of 2 seed(s)" in lines
    assert "  seed 1: offline 1.533 m, online 0.567 m (last 3 points)" in lines


def test_offline_gets_as_many_updates_as_online(tmp_path):
    job = fig3._curve_job(fig3.Study(tmp_path, 1, 60_000), fig3.OFFLINE, 0)
    assert job.arguments == ("qompose.paper.fig3", str(tmp_path), "offline sql", "0", "118000")
    assert [need.parts[-3] for need in job.needs] == ["sql-push-left-s0", "sql-push-bottom-s0"]
    job = fig3._curve_job(fig3.Study(tmp_path, 1, 60_000), "extraction, ddpg", 1)
    assert [need.parts[-3] for need in job.needs] == ["ddpg-push-left-s1", "ddpg-push-bottom-s1"]
