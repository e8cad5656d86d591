"""The sums of rewards that the pusher's pairs are trained on, and how orders are compared."""

import numpy as np
import pytest

from benchmarks import measurements
from benchmarks import ranking_pusher as ranking
from qompose.tasks import make_task


def reward_of(task, rng):
    before, after = (task.recall(rng.normal(size=(20, task.observation_size))) for _ in range(2))
    return task.reward(before, rng.uniform(-1.0, 1.0, (20, 3)), after)[0]


@pytest.mark.parametrize("index", range(len(ranking.PAIRS)))
def test_a_sum_is_worth_the_weighted_rewards_of_its_lines(index):
    names, weights = ranking.PAIRS[index]
    task = ranking.PushSum(ranking.SUM, **ranking.options_of(index))
    parts = [reward_of(make_task(name), np.random.default_rng(3)) for name in names]
    expected = weights[0] * parts[0] + weights[1] * parts[1]
    np.testing.assert_allclose(reward_of(task, np.random.default_rng(3)), expected, atol=1e-12)
    corner = ranking.corner_of(index)
    if corner is not None:  # Table I trains it under its own name
        np.testing.assert_allclose(reward_of(make_task(corner), np.random.default_rng(3)), expected, atol=1e-12)


def test_twelve_pairs_three_of_them_corners():
    assert len({ranking.name_of(index) for index in range(len(ranking.PAIRS))}) == len(ranking.PAIRS) == 12
    assert sum(ranking.corner_of(index) is not None for index in range(12)) == 3


def row(loss, said, weight=0.5):
    interval = {"mean": said, "low": said, "high": said}
    explanation = {**dict.fromkeys(("regret", "theorem", "divergence"), interval), "verdict": "compose"}
    return {"pair": "a-and-b", "weights": (0.5, weight), "loss": loss, "standard_error": 0.1, "better": "from scratch",
            "explanation": explanation}  # fmt: skip


def test_orders_that_agree_and_orders_that_do_not():
    same = ranking.summarise([row(0.1, 1.0), row(0.5, 2.0), row(30.0, 2.5, -0.5), row(40.0, 2.6, -0.5)])
    other = ranking.summarise([row(0.1, 1.0), row(0.5, 0.9), row(30.0, 0.8, -0.5), row(40.0, 0.7, -0.5)])
    assert same["spearman"] == pytest.approx(1.0) and other["spearman"] == pytest.approx(-1.0)
    assert same["within"] == pytest.approx({"together": 1.0, "avoided": 1.0})
    assert other["within"] == pytest.approx({"together": -1.0, "avoided": -1.0})
    page = measurements.ranking_pusher({**same, "episodes": 100, "rows": [row(0.1, 1.0)]})
    assert "| a and b | 0.10 ± 0.20 | 1.00 [1.00, 1.00] | compose |" in page and "\nmet);" in page
    assert "Among the pairs of equal weights it is 1.00. Among the pairs with an avoided skill it is 1.00. " in page
    assert "**missed**" in measurements.ranking_pusher({**other, "episodes": 100, "rows": [row(0.1, 1.0)]})


def test_where_both_trainings_failed_the_loss_is_not_known():
    found = ranking.summarise([row(1.0, 1.0), row(2.0, 2.5), row(3.0, 3.0), row(-9.0, 9.0)])
    assert found["spearman"] == pytest.approx(-0.2) and found["by_of_known"]["regret"] == pytest.approx(1.0)
    assert len(found["known"]) == 3 and found["intervals_that_hold"] == 2


def test_the_better_of_two_trainings_counts(tmp_path, monkeypatch):
    study, index = ranking.Study(tmp_path, 1, 10), 1
    returns = {"from scratch": np.array([1.0, 3.0]), "from the sum": np.array([4.0, 6.0]), "composed": np.zeros(2)}
    runs = {str(ranking.training_job(study, index, 0, begin).file.parent): begin for begin in ranking.BEGINS}
    assert len(runs) == 2
    monkeypatch.setattr(ranking, "expression_of", lambda *_: None)
    monkeypatch.setattr(ranking.qp, "compose", lambda *_, **__: "composed")
    monkeypatch.setattr(ranking, "load", lambda path: runs[str(path)])
    monkeypatch.setattr(ranking, "soft_returns", lambda skill, *_: returns[skill])
    monkeypatch.setattr(ranking, "runs_of", lambda *_: [])
    (tmp_path / "pairs").mkdir()
    ranking.write_json(ranking.certifying_job(study, index, 0).file, {"explanation": {"verdict": "compose"}})
    found = ranking.measure(study, index, 0)
    assert found["better"] == "from the sum" and found["loss"] == 5.0
    assert found["soft_return"] == {"sum": 0.0, "from scratch": 2.0, "from the sum": 5.0}
    assert found["explanation"]["verdict"] == "compose"
