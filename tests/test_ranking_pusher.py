"""The sums of rewards that the pusher's pairs are trained on, and how orders are compared."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from benchmarks import measurements
from benchmarks import ranking_pusher as ranking
from qompose.tasks import make_task
from qompose.types import QomposeError


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


def explained(regret, **changes):
    """As much of a summary as is read: an opinion of two skills at equal weights, whose critics have no errors."""
    intervals = {name: {"mean": regret, "low": regret, "high": regret} for name in ("regret", "theorem", "divergence")}
    return {
        **intervals, "random": {"mean": 30.0, "low": 20.0, "high": 40.0}, "doubt": 0.9, "weights": [0.5, 0.5],
        "temperature": 0.1, "discount": 0.99, "coverage": {}, "residual": {"a": 0.0, "b": 0.0}, "own_errors": 0.0,
        "residuals": False, "verdict": "compose", "reason": "", **changes,
    }  # fmt: skip


def row(losses, said, weight=0.5, blind=None):
    """Losses and certificates of the seeds; those of the critics as they are may be others."""

    def explanations(values):
        return [explained(value) for value in values]

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
    assert found["others"] == pytest.approx({"theorem": -1.0, "divergence": -1.0})  # of the critics as they are
    assert taken_off["within"] == pytest.approx({"together": 1.0, "avoided": 1.0})
    assert plain["within"] == pytest.approx({"together": -1.0, "avoided": -1.0})
    page = measurements.ranking_pusher({**found, "episodes": 100, "reference": 1, "steps": 8000, "rows": rows})
    assert "| a and b | 0.2 (0.1 0.3) | 5.0 (1.0 9.0) | compose 2 | 1.0 (1.0 1.0) | compose 2 |" in page
    assert "- as they are: -1.00 (bar: 0.8: **missed**), -1.00 among the pairs of equal weights" in page
    assert "- residuals taken off: 1.00 (bar: 0.8: met), " in page and "is not known" not in page


def test_verdicts_are_those_of_todays_rules_and_are_counted_against_the_losses():
    # Two twentieths of 20 are little; residuals of 0.1 temperatures add up to 0.1 * 0.1 / 0.01 = 1, of 1 to 10.
    small, large = ({"residual": {"a": rms, "b": rms}} for rms in (0.1, 1.0))
    for said, verdict, errors in (
        (explained(1.0, **small), "compose", 1.0), (explained(1.0, **large), "try", 10.0),
        (explained(3.0, **small), "train", 1.0), (explained(3.0, **small, doubt=0.1), "compose with correction", 1.0),
        # As it was once written: without an interval, and with the skills' own errors to be found.
        (explained(1.0, **large, random=200.0), "compose", 10.0),
    ):  # fmt: skip
        found = ranking.judged({**said, "verdict": "of old"})
        assert found["verdict"] == verdict and found["own_errors"] == pytest.approx(errors)
        assert found["random"]["low"] in (20.0, 200.0) and found["regret"] == said["regret"]
    rows = [row([1.0, 4.0], [1.0, 1.0])]
    rows[0]["explanations"][ranking.PLAIN][1]["verdict"] = "try"
    counted = ranking.summarise(rows)["ways"]
    assert counted[ranking.PLAIN]["verdicts"] == {
        "compose": {"given": 1, "lost_little": 1}, "try": {"given": 1, "lost_little": 0},
    }  # fmt: skip
    assert counted[ranking.RESIDUALS]["verdicts"] == {"compose": {"given": 2, "lost_little": 1}}


def test_where_both_trainings_failed_the_loss_is_not_known():
    rows = [row([1.0], [1.0]), row([2.0], [2.5]), row([3.0], [3.0]), row([-9.0], [9.0])]
    found = ranking.summarise(rows)
    taken_off = found["ways"][ranking.RESIDUALS]
    assert taken_off["spearman"] == pytest.approx(-0.2) and taken_off["of_known"] == pytest.approx(1.0)
    assert len(found["known"]) == 3 and (taken_off["intervals_that_hold"], taken_off["intervals"]) == (2, 3)
    page = measurements.ranking_pusher({**found, "episodes": 100, "reference": 1, "steps": 8000, "rows": rows})
    assert "Where both end worse than the sums, what these lose is not known." in page
    assert ", 1.00 among those whose loss is known; " in page and "in 2 of 3 cases." in page
    # A seed of which the sum is better than both trainings says nothing of an interval, though its pair does.
    mixed = ranking.summarise([row([-1.0, 5.0], [0.5, 5.0]), row([2.0, 3.0], [0.0, 3.0])])["ways"][ranking.PLAIN]
    assert (mixed["intervals_that_hold"], mixed["intervals"]) == (2, 3)
    assert mixed["of_known"] is not None and mixed["within"]["avoided"] is None


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
    for run in (*ranking.trainings_of(study, index, 7), *ranking.lines_of(study, index, 7), *lines):
        run.mkdir(parents=True)
        ranking.write_json(run / "system.json", {"commit": run.name})
    for seed in (None, 0, 1):
        ranking.measure(study, index, 7, seed)
    assert starts == [7] * 4  # everything begins where the reference does
    for seed, way in itertools.product((0, 1), ranking.WAYS):
        file = ranking.certificate_of(study, index, seed, way, 5)
        said = explained(1.0, doubt=0.1 + seed + (way == ranking.RESIDUALS) / 2)
        ranking.write_json(file, {"explanation": said, "seconds": 1.0, "system": {"commit": file.name}})
    found = ranking.gather(study, index, 7, range(2), 5)
    assert found["better"] == "from the sum" and found["loss"] == [5.0, 5.0]
    assert found["soft_return"] == {"from scratch": 2.0, "from the sum": 5.0, "sums": [0.0, 0.0]}
    said = found["explanations"][ranking.RESIDUALS]
    assert [one["doubt"] for one in said] == [0.6, 1.6]
    commits = [system["commit"] for system in found["made_by"]]
    # The trainings and the lines with which they began, the lines of both seeds, this process, and what explained.
    assert len(set(commits)) == 4 + 4 + 1 + 4


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


@pytest.mark.parametrize("way", ranking.WAYS)
def test_a_certificate_is_that_of_its_job(tmp_path, monkeypatch, way):
    given = []

    class Report:
        def summary(self):
            return {"verdict": "compose"}

    monkeypatch.setattr(ranking, "expression_of", lambda study, index, seed: (index, seed))
    monkeypatch.setattr(
        ranking, "explain", lambda expression, correction: given.append((expression, correction)) or Report()
    )
    study = ranking.Study(tmp_path, 3, 2000)
    job = ranking.certifying_job(study, 4, 2, way, 5)
    monkeypatch.setitem(ranking.TASKS, ranking.SUM, None)  # what `main` puts there is gone afterwards
    monkeypatch.setattr("sys.argv", list(job.arguments))
    ranking.main()
    ((expression, options),) = given
    assert expression == (4, 2) and (options.steps, options.seed) == (5, 2)
    assert options.residuals == (way == ranking.RESIDUALS)
    assert ranking.read_json(job.file)["explanation"] == {"verdict": "compose"}


@pytest.mark.parametrize(("seed", "words"), [(2, (4, 7, 2)), (None, (4, 7))])
def test_a_measurement_is_that_of_its_job(tmp_path, monkeypatch, seed, words):
    given = []
    monkeypatch.setattr(ranking, "measure", lambda study, *what: given.append(what))
    job = ranking.measuring_job(ranking.Study(tmp_path, 3, 2000), 4, 7, seed)
    monkeypatch.setitem(ranking.TASKS, ranking.SUM, None)  # what `main` puts there is gone afterwards
    monkeypatch.setattr("sys.argv", list(job.arguments))
    ranking.main()
    assert given == [words]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """What `rank` writes, and the jobs that it would run."""
    found = {"jobs": []}
    (tmp_path / "pairs").mkdir()
    monkeypatch.setattr(ranking.Study, "run_jobs", lambda self, label, given: found["jobs"].extend(given))
    monkeypatch.setattr(
        ranking, "write_results", lambda name, result, **more: found.update(name=name, result=result, **more)
    )
    monkeypatch.setattr(ranking, "PICTURE", tmp_path / "ranking.png")
    return found


def test_the_whole_of_it(tmp_path, written):
    study = ranking.Study(tmp_path, 2, 10)
    made = {"trained_by": [{"commit": "a"}], "system": {"commit": "b"}}
    for index in range(12):
        said = explained(float(index))
        ranking.write_json(
            ranking.returns_of(study, index, 1), {"soft_return": dict.fromkeys(ranking.BEGINS, float(index)), **made}
        )
        for seed in (0, 1):
            ranking.write_json(ranking.returns_of(study, index, 1, seed), {"soft_return": {"sum": -1.0}, **made})
            for way in ranking.WAYS:
                file = ranking.certificate_of(study, index, seed, way, 5)
                ranking.write_json(file, {"explanation": said, "seconds": 1.0, "system": {"commit": "b"}})
    ranking.rank(study, 1, 5)
    # What is to be measured of the sums and of the references, and certificates of two ways; no line, all is there.
    jobs, result = written["jobs"], written["result"]
    assert len(jobs) == 12 * (2 + 1) + 12 * 2 * 2 and len({job.name for job in jobs}) == len(jobs)
    assert [system["commit"] for system in result["runs_made_by"]] == ["a", "b"] and "made_by" not in result["rows"][0]
    assert written["command"].endswith("--seeds 2 --reference 1 --total-steps 10 --steps 5")
    assert [row["loss"] for row in result["rows"]] == [[index + 1.0] * 2 for index in range(12)]
    assert measurements.ranking_pusher(result) and (tmp_path / "ranking.png").exists()


def test_results_are_extended_by_what_they_lack(tmp_path, written):
    held = ranking.read_results("ranking_pusher")
    steps, reference, seeds = held["result"]["steps"], held["result"]["reference"], len(held["seed"])
    study = ranking.Study(tmp_path, seeds, 60_000)
    assert ranking.restore(study, held, reference, steps) == seeds
    ranking.rank(study, reference, steps)
    assert all(job.file.exists() for job in written["jobs"])
    assert json.loads(json.dumps(written["result"])) == held["result"]  # nothing is lost to the files and back
    more = dataclasses.replace(study, seeds=seeds + 1)
    written["jobs"].clear()
    with pytest.raises(QomposeError, match=rf"-r{reference}-s{seeds}\.json"):  # nobody ran the jobs
        ranking.rank(more, reference, steps)
    missing = [job.name for job in written["jobs"] if not job.file.exists()]
    # Four lines, and of every pair what its sum loses and the two certificates.
    assert len(missing) == 4 + 12 * 3 and all(f"-s{seeds}" in name for name in missing)
    with pytest.raises(QomposeError, match=rf"are of --steps {steps}, not 7: they cannot be extended"):
        ranking.restore(study, held, reference, 7)
