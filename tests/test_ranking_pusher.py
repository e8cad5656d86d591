"""The sums of rewards that the pusher's pairs are trained on, and how orders are compared."""

import itertools

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


def row(losses, said, weight=0.5, blind=None):
    """Losses and certificates of the seeds; those of the critics as they are may be others."""

    def explanations(values):
        names = ("regret", "theorem", "divergence")
        return [{**{name: {"mean": x, "low": x, "high": x} for name in names}, "verdict": "compose"} for x in values]

    ways = {ranking.PLAIN: explanations(said if blind is None else blind), ranking.RESIDUALS: explanations(said)}
    return {"pair": "a-and-b", "weights": (0.5, weight), "loss": losses, "better": "from scratch", "explanations": ways}


def test_orders_that_agree_and_orders_that_do_not():
    rows = [
        row([0.1, 0.3], [1.0, 1.0], blind=[1.0, 9.0]), row([0.5, 0.5], [2.0, 2.0], blind=[0.9, 0.9]),
        row([30.0, 50.0], [2.5, 2.5], -0.5, [0.8, 0.8]), row([41.0, 41.0], [2.6, 2.6], -0.5, [0.7, 0.7]),
    ]  # fmt: skip
    found = ranking.summarise(rows)
    plain, taken_off = (found["ways"][way] for way in ranking.WAYS)
    assert plain["spearman"] == pytest.approx(-1.0) and taken_off["spearman"] == pytest.approx(1.0)
    # The fourth pair loses more than the third in the mean and in the first seed, not in the second.
    assert taken_off["seeds"] == pytest.approx([1.0, 0.8]) and plain["seeds"] == pytest.approx([-1.0, -0.8])
    assert taken_off["within"] == pytest.approx({"together": 1.0, "avoided": 1.0})
    assert plain["within"] == pytest.approx({"together": -1.0, "avoided": -1.0})
    page = measurements.ranking_pusher({**found, "episodes": 100, "reference": 1, "steps": 8000, "rows": rows})
    assert "| a and b | 0.2 (0.1 0.3) | 5.0 (1.0 9.0) | compose 2 | 1.0 (1.0 1.0) | compose 2 |" in page
    assert "- as they are: -1.00 (bar: 0.8: **missed**), -1.00 among the pairs of equal weights" in page
    assert "- residuals taken off: 1.00 (bar: 0.8: met), " in page and "is not known" not in page


def test_where_both_trainings_failed_the_loss_is_not_known():
    rows = [row([1.0], [1.0]), row([2.0], [2.5]), row([3.0], [3.0]), row([-9.0], [9.0])]
    found = ranking.summarise(rows)
    taken_off = found["ways"][ranking.RESIDUALS]
    assert taken_off["spearman"] == pytest.approx(-0.2) and taken_off["of_known"] == pytest.approx(1.0)
    assert len(found["known"]) == 3 and taken_off["intervals_that_hold"] == 2
    page = measurements.ranking_pusher({**found, "episodes": 100, "reference": 1, "steps": 8000, "rows": rows})
    assert "Where both end worse than the sums, what these lose is not known." in page
    assert ", 1.00 among those whose loss is known; " in page and "in 2 of 3 cases." in page


def test_the_better_of_two_trainings_counts_for_every_seed(tmp_path, monkeypatch):
    study, index = ranking.Study(tmp_path, 2, 10), 1
    returns = {"from scratch": np.array([1.0, 3.0]), "from the sum": np.array([4.0, 6.0]), "sum": np.zeros(2)}
    begins = {str(ranking.training_job(study, index, 7, begin).file.parent): begin for begin in ranking.BEGINS}
    assert len(begins) == 2
    starts = []

    def soft_returns(skill, options, seed):
        starts.append(seed)
        return returns[skill]

    monkeypatch.setattr(ranking, "expression_of", lambda *_: None)
    monkeypatch.setattr(ranking.qp, "compose", lambda *_, **__: "sum")
    monkeypatch.setattr(ranking, "load", lambda path: begins[str(path / "skill")])
    monkeypatch.setattr(ranking, "soft_returns", soft_returns)
    (tmp_path / "pairs").mkdir()
    lines = [run for seed in (0, 1) for run in ranking.lines_of(study, index, seed)]
    for run in (*ranking.trainings_of(study, index, 7), *lines):
        run.mkdir(parents=True)
        ranking.write_json(run / "system.json", {"commit": run.name})
    for seed in (None, 0, 1):
        ranking.measure(study, index, 7, seed)
    assert starts == [7] * 4  # everything begins where the reference does
    for seed, way in itertools.product((0, 1), ranking.WAYS):
        file = ranking.certificate_of(study, index, seed, way, 5)
        ranking.write_json(file, {"explanation": {"verdict": f"{way}, {seed}"}, "system": {"commit": file.name}})
    found = ranking.gather(study, index, 7, range(2), 5)
    assert found["better"] == "from the sum" and found["loss"] == [5.0, 5.0]
    assert found["soft_return"] == {"from scratch": 2.0, "from the sum": 5.0, "sums": [0.0, 0.0]}
    said = found["explanations"][ranking.RESIDUALS]
    assert [one["verdict"] for one in said] == ["residuals taken off, 0", "residuals taken off, 1"]
    commits = [system["commit"] for system in found["made_by"]]
    assert len(set(commits)) == 2 + 4 + 1 + 4  # the trainings, the lines, this process and what explained


def test_jobs_wait_for_the_skills_they_read(tmp_path):
    study = ranking.Study(tmp_path, 1, 10)
    lines = ["sql-push-left-s2", "sql-push-right-s2"]
    index = next(index for index in range(12) if ranking.name_of(index) == "left-and-right")
    certifying = ranking.certifying_job(study, index, 2, ranking.RESIDUALS, 5)
    measuring, reference = ranking.measuring_job(study, index, 0, 2), ranking.measuring_job(study, index, 0)
    for job in (certifying, measuring):
        assert [need.parent.parent.name for need in job.needs] == lines
    assert [need.parent.parent.name for need in reference.needs] == ["left-and-right-s0", "left-and-right-s0-further"]
    assert len({certifying.file, measuring.file, reference.file}) == 3
    other = ranking.certifying_job(study, index, 2, ranking.RESIDUALS, 6)
    assert other.file != certifying.file and other.name != certifying.name
