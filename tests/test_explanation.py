import json
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

from qompose import explanation
from qompose.explanation import (
    Interval,
    _beside_random,
    _cover,
    _evaluate,
    _interval,
    _lead_to,
    _measure,
    _number,
    _over_stretches,
    _share,
    _split,
    _try_at_random,
    certify,
    explain,
    judge,
)
from qompose.skill.artifact import Skill
from qompose.skill.network import Network, expected_arrays
from qompose.training.correct import Correction, _improve, _survey, solve, survey
from qompose.training.offline import compose
from qompose.types import QomposeError, Transition
from qompose.view.pictures import draw_divergence

QUICK = Correction(steps=60, batch_size=16, hidden=(8,), candidates=16, kept=2)


def random_network(spec, rng):
    arrays = {}
    for name, (dtype, shape) in expected_arrays(spec, 2, 1).items():
        array = np.asarray(rng.standard_normal(shape))
        arrays[name] = np.asarray(np.abs(array) + 0.5 if "scale" in name else array, dtype)
    return Network(spec, arrays)


def make_skill(name, seed, centre=0.0, count=1000):
    rng = np.random.default_rng(seed)
    observation = (centre + rng.standard_normal((count, 2))).astype(np.float32)
    zeros = np.zeros(count, np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    return Skill(
        name=name, algorithm="sql", temperature=0.5, discount=0.9, observation={"size": 2, "names": ["x", "y"]},
        critic=random_network({"kind": "critic", "hidden": [6], "layer_norm": True}, rng),
        sampler=random_network({"kind": "sampler", "hidden": [6], "layer_norm": False}, rng),
        action={"size": 1, "low": [-1.0], "high": [1.0]}, control_period=None, horizon=None, terminates=False,
        task={"id": "T", "options": {}}, composition=None, provenance={},
        estimator={"proposal": "mixture", "particles": 64, "centres": 16, "smoothing": 0.5},
        replay=Transition(observation, action, zeros, np.roll(observation, 1, axis=0), zeros),
    )  # fmt: skip


@pytest.fixture(scope="module")
def first():
    return make_skill("first", 0)


@pytest.fixture(scope="module")
def report(first):
    return explain(first & make_skill("second", 1), correction=QUICK, members=2)


def test_a_report_says_all_in_words_and_in_numbers(report, tmp_path):
    numbers = json.loads(json.dumps(report.summary()))
    assert numbers["names"] == ["first", "second"] and numbers["weights"] == [0.5, 0.5]
    assert all(0.0 <= share["low"] <= share["mean"] <= share["high"] <= 1.0 for share in numbers["coverage"].values())
    assert numbers["divergence"]["low"] > numbers["divergence_error"] > 0.0 and numbers["bounds_hold"]
    text = str(report)
    share = numbers["coverage"]["first on second"]["mean"]
    for words in (f"{'divergence per step, temperatures':<36}{report.divergence.mean / 0.5:10.3g}",
                  "by x (down) and y (across)", "certificate", f"first has been where {share:.0%} [",
                  f"of the states of first are\ncritic of first: Bellman residual {report.residual['first']:.2g} temp",
                  f"verdict: {report.verdict}. "):  # fmt: skip
        assert words in text
    drawn = draw_divergence(tmp_path / "map.png", report, bins=5)
    assert drawn.items() >= report.summary().items()
    assert (tmp_path / "map.png").stat().st_size > 1000 and np.shape(drawn["divergence_in_temperatures"]) == (5, 5)


def test_the_map_has_the_first_coordinate_to_the_right(report, tmp_path):
    kappa = np.where((report.positions[:, 0] > 0.0) & (report.positions[:, 1] < 0.0), 5.0, 0.0)
    draw_divergence(tmp_path / "map.png", replace(report, kappa=kappa), bins=8)
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 200) & (pixels[..., 2] < 100)
    rows, columns = np.nonzero(yellow[:, : int(0.75 * width)])  # without the bar of colours
    assert len(rows) > 1000
    assert rows.mean() > 0.5 * height and columns.mean() > 0.4 * width  # below, and to the right


def test_residuals_are_those_of_the_bellman_equation_in_temperatures(first):
    other = make_skill("second", 1)
    rewards = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    paid = replace(other, temperature=0.25, replay=other.replay._replace(reward=rewards))
    report = explain(first & paid, correction=replace(QUICK, steps=1), members=2)
    for skill in (first, paid):
        data = skill.replay
        after = skill.value(data.next_observation, np.random.default_rng(0))
        delta = data.reward + skill.discount * after - skill.q(data.observation, data.action)
        assert report.residual[skill.name] == pytest.approx(np.sqrt(np.mean(delta**2)) / skill.temperature, rel=0.05)
    assert report.residual["second"] > 4.0  # rewards that no critic knows
    # Both errors, carried on for ever: much beside what acting at random loses.
    total = sum(0.5 * report.residual[skill.name] * skill.temperature for skill in (first, paid)) / (1.0 - 0.9)
    assert f"their Bellman residuals could add up to {total:.3g}." in f"{report.reason}."
    assert "--residuals" not in report.reason  # nobody knows the rewards of this task
    assert report.own_errors == report.summary()["own_errors"] == pytest.approx(total)


def test_what_acting_at_random_loses_is_beside_the_optimum_and_not_the_sum(first, monkeypatch):
    monkeypatch.setattr(explanation, "_beside_random", lambda *_: np.full((2, 200), [[7.0], [8.0]]))
    report = explain(first & make_skill("second", 1), correction=replace(QUICK, steps=1), members=2)
    assert report.overestimate.mean != 0.0 and report.random.mean == pytest.approx(7.5 - report.overestimate.mean)
    # Whatever the sum overestimates, the two differ by 1 more than there: 6.314 is Student's for one degree.
    apart = (report.random.high - report.random.low) / 6.314
    assert apart == pytest.approx(1.0, abs=1e-4 + (report.overestimate.high - report.overestimate.low) / 6.314)


def test_other_replays_compile_the_learning_alone_and_once(report, compiled):
    pair = make_skill("long", 0, count=3000), make_skill("longer", 1, count=3200)  # more than a block is held out
    options = replace(QUICK, steps=120)
    explain(pair[0] & pair[1], correction=options, members=2)
    functions = (_survey, _try_at_random, _evaluate, _improve)
    assert [compiled[function.__name__] for function in functions] == [0, 0, 0, 2]  # the certificate, and its scale
    compiled.clear()
    explain({pair[0]: 0.7, pair[1]: 0.3}, correction=options, members=2)
    assert not compiled


def test_regions_hold_the_mean_divergence_of_their_states(report):
    x, y, cells = report.regions(2)
    inside = (report.positions[:, 0] < x[1]) & (report.positions[:, 1] >= y[1])
    inside &= (report.positions[:, 0] >= x[0]) & (report.positions[:, 1] <= y[2])
    assert cells[0, 1] == pytest.approx(report.kappa[inside].mean(), rel=1e-5)


def test_a_skill_and_its_twin_lose_nothing(first):
    sharp = replace(first, temperature=0.05)  # acting at random loses many temperatures
    report = explain(sharp & replace(sharp, name="twin"), correction=QUICK, members=2)
    assert abs(report.divergence.mean) < 1e-4 and report.divergence_error < 1e-4
    # Of what lose nothing nobody can say so whose critics know nothing of their rewards.
    assert report.verdict == "try" and report.regret.low >= 0.0 and report.own_errors > 0.1 * report.random.high
    # Of the two networks the one that says more: Student's quantile for one degree of freedom is 6.314.
    larger = report.regret.mean + (report.regret.high - report.regret.mean) / 6.314
    assert larger < 0.05 * report.random.mean
    assert min(share.mean for share in report.coverage.values()) > 0.9


def test_skills_that_saw_different_places_are_not_composed(first):
    report = explain(first & make_skill("far", 2, centre=20.0), correction=QUICK, members=2)
    assert max(share.mean for share in report.coverage.values()) < 0.1
    assert report.verdict == "train" and "has been where only" in report.reason


@pytest.mark.parametrize(("algorithm", "critic"), [("ddpg", "critic"), ("naf", "quadratic")])
def test_skills_without_a_soft_value_have_no_certificate_and_no_correction(first, algorithm, critic):
    rng = np.random.default_rng(0)
    networks = {
        "critic": random_network({"kind": critic, "hidden": [6], "layer_norm": True}, rng),
        "sampler": random_network({"kind": "actor", "hidden": [6], "layer_norm": False}, rng)
        if algorithm == "ddpg" else None,
    }  # fmt: skip
    fields = {"algorithm": algorithm, "temperature": None, "estimator": None, **networks}
    pair = [replace(first, name=name, **fields) for name in ("a", "b")]
    message = f"skill 'a' learned with {algorithm}: no soft value, so no correction, no certificate"
    for attempt in (lambda: explain(pair[0] & pair[1]), lambda: compose(pair[0] & pair[1], correct=True)):
        with pytest.raises(QomposeError, match=message):
            attempt()


def test_where_there_is_no_certificate_the_reason_is_given(first):
    for expression, message in (
        (first | replace(first, name="b"), "is no weighted sum of skills: correction, certificate and gpi need one"),
        (first.strip() & replace(first, name="b"), "skill 'first' carries no replay"),
        (first.thin(500) & replace(first, name="b"), "a replay has only 500 transitions; it takes 1000"),
    ):
        with pytest.raises(QomposeError, match=message) as caught:
            explain(expression, correction=QUICK)
        assert "\n" not in str(caught.value)
    for members in (1, 10):  # the replays are cut into ten pieces, one of which is held out
        with pytest.raises(QomposeError, match=f"members is {members}; give 2, .*, to 9"):
            explain(first & replace(first, name="b"), members=members)


def test_no_member_sees_what_is_held_out_and_none_sees_what_another_does():
    rows, held_out = _split([1000, 2000], 3)
    assert not set(held_out) & set(rows.ravel()) and len(held_out) == 300
    assert all(len(set(row)) == len(row) for row in rows)
    assert len({tuple(sorted(row)) for row in rows}) == 3


@pytest.mark.parametrize(
    ("coverage", "high", "doubt", "verdict"),
    [((0.05, 0.05), 0.0, 0.0, "train"), ((0.05, 1.0), 0.5, 9.0, "compose"), ((0.9, 1.0), 0.5, 9.0, "compose"),
     ((0.9, 1.0), 1.5, 9.0, "train"), ((0.9, 1.0), 5.0, 0.1, "compose with correction"),
     ((0.9, 1.0), 5.0, 0.9, "train")],
)  # fmt: skip
def test_the_verdict_follows_its_rules(coverage, high, doubt, verdict):
    # A regret counts as small beside the least that acting at random may lose.
    figures = {"regret": Interval(high, high, high), "random": Interval(20.0, 10.0, 30.0), "doubt": doubt}
    places = {pair: Interval(share, 0.0, 1.0) for pair, share in zip(("a on b", "b on a"), coverage, strict=True)}
    found, reason = judge(figures, places, 0.5)
    assert found == verdict and "residuals" not in reason
    assert ("a has been where only 5%" in reason) == (coverage[0] < 0.1)
    if verdict != "compose" and max(coverage) > 0.1:
        assert f"the sum loses {high:g}, much beside the 10 to 30 of acting at random, and the networks" in reason
        unclear = figures | {"regret": Interval(high, 0.5, high)}
        found, reason = judge(unclear, places, 0.5)
        assert found == verdict
        assert f"may lose 0.5 to {high:g}, and up to 1 would be little beside the 10 to 30 of" in reason
    if max(coverage) > 0.1:
        away = "But avoiding a skill leads to where no replay has been"
        found, other = judge(figures, places, 0.5, avoided=True)
        assert found == verdict and away in other and away not in judge(figures, places, 0.5)[1]
        for taken_off, avoided, trusted in ((False, False, False), (True, False, True), (True, True, False)):
            found, reason = judge(figures, places, 7.0, residuals=taken_off, avoided=avoided)
            assert found == ("try" if verdict == "compose" and not trusted else verdict)
            assert ("before you rely on it" in reason) == (found == "try")
        reason = judge(figures, places, 7.0, residuals=True)[1]
        assert "add up to 7, are taken off only as far as" in reason
        assert ("residuals included (`--correct-residuals`)" in reason) == (verdict == "compose with correction")
        assert "Bellman residuals could add up to 7 (`--residuals` takes" in judge(figures, places, 7.0)[1]
        assert "could add up to 7" in judge(figures, places, 7.0, known=False)[1]
        assert "`--residuals`" not in judge(figures, places, 7.0, known=False)[1]


def test_runs_of_one_name_are_told_apart(first):
    assert _number(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]
    report = explain(first & make_skill("first", 1), correction=replace(QUICK, steps=1), members=2)
    assert set(report.coverage) == {"first on first#2", "first#2 on first"} and len(report.residual) == 2


def test_what_is_avoided_may_have_a_temperature_and_shows_in_the_picture(first, tmp_path):
    report = explain(first & ~(0.5 * make_skill("second", 1)), correction=replace(QUICK, steps=1), members=2)
    assert report.temperature == 0.25 and not report.bounds_hold and "Q[first] - 0.5 Q[second] at" in str(report)
    assert report.kappa.max() < 0.0 and "avoiding a skill leads to where no replay has been" in report.reason
    drawn = draw_divergence(tmp_path / "map.png", report, bins=3)
    assert max(cell for row in drawn["divergence_in_temperatures"] for cell in row if cell is not None) < 0.0
    assert drawn["shown"][0] < 0.0 == drawn["shown"][1]
    loose = explain(first & make_skill("second", 1), temperature=0.2, correction=replace(QUICK, steps=1), members=2)
    assert not loose.bounds_hold and "avoiding" not in loose.reason  # Σ w_i α_i > α


def test_values_are_averaged_over_the_states_that_are_given(first, monkeypatch):
    pair, seen = first & make_skill("second", 1), []
    monkeypatch.setattr(
        explanation, "_measure", lambda values, states, *rest: seen.append(states) or _measure(values, states, *rest)
    )
    quick = replace(QUICK, steps=1)
    one = explain(pair, states=np.zeros((1, 2)), correction=quick, members=2)
    assert one.judged_on == "given states" and "over given states, in units" in str(one)
    assert np.array_equal(seen[0].next_observation, np.zeros((1, 2)))
    held_out = explain(pair, correction=quick, members=2)
    assert held_out.judged_on == "held-out states" and held_out.random.mean != one.random.mean
    assert len(seen[1].next_observation) == 200  # a tenth of both
    for states in (np.zeros(2), np.zeros((1, 3)), np.zeros((0, 2)), np.full((1, 2), np.nan)):
        with pytest.raises(QomposeError, match=r"states have shape .*; give finite observations \(n, 2\)"):
            explain(pair, states=states, correction=quick, members=2)
    for states in (np.array([[1.0, 2.0], [3.0]], object), np.array([["a", "b"]])):
        with pytest.raises(QomposeError, match=r"states are no array of numbers; give finite observations \(n, 2\)"):
            explain(pair, states=states, correction=quick, members=2)


def test_residuals_are_taken_off_in_each_step(tiny_skills, monkeypatch):
    seen, quick = [], replace(QUICK, steps=1, residuals=True)
    monkeypatch.setattr(explanation, "survey", lambda *given: seen.append(survey(*given)) or seen[-1])
    right, top = tiny_skills["right"], tiny_skills["top"]
    twice = replace(right, replay=Transition(*(np.concatenate([x, x]) for x in right.replay)))
    other = replace(twice, name="other", critic=top.critic, sampler=top.sampler)
    report = explain(twice & other, correction=quick, members=2)
    assert report.residuals and not report.bounds_hold and "are taken off, as far as the replays show" in str(report)
    assert "`--residuals`" not in report.reason
    batch = jax.tree.map(lambda x: x[:5], seen[0])
    assert np.abs(batch.residual).min() > 0.0
    after = jax.random.normal(jax.random.key(0), (5, batch.next_actions.shape[1], 4))
    blind = certify(batch._replace(residual=np.zeros(5, np.float32)), after, report.temperature)
    taken = np.asarray(blind - certify(batch, after, report.temperature))
    np.testing.assert_allclose(taken, np.outer(batch.residual, [1.0, 1.0, 0.0, 0.0]), atol=1e-5)


def test_what_acting_at_random_loses_is_measured_from_the_value_of_the_sum(first, monkeypatch):
    skills, weights, alpha = [first, make_skill("second", 1)], (0.5, 0.5), first.temperature
    options = replace(QUICK, steps=1, candidates=4096, kept=64)
    states = np.random.default_rng(2).standard_normal((400, 2)).astype(np.float32)
    there = survey(skills, weights, alpha, _lead_to(states, first), options)

    def learned(*given, **more):
        values = solve(*given, **more)
        return eqx.tree_at(lambda v: (v.level, v.scale), values, (values.level * 0.0 + 7.0, values.scale * 0.0))

    monkeypatch.setattr(explanation, "solve", learned)  # D is 7 everywhere
    rows = np.arange(400, dtype=np.int32).reshape(2, 200)
    found = _beside_random(skills, weights, alpha, there, there, rows, options, lambda *_: None)
    assert found.shape == (2, 400)
    found = found.mean()
    actions = np.linspace(-1.0, 1.0, 501, dtype=np.float32)
    where, what = np.repeat(states, len(actions), axis=0), np.tile(actions, len(states))[:, None]
    total = (0.5 * skills[0].q(where, what) + 0.5 * skills[1].q(where, what)).reshape(len(states), -1)
    value = alpha * np.log(np.exp((total - total.max()) / alpha).mean(axis=1)) + total.max()
    expected = np.mean(value - total.mean(axis=1))
    assert found - 7.0 == pytest.approx(expected, rel=0.05)
    assert there.kappa.mean() > 0.2 * expected  # without it the figure would be another


def test_residuals_need_tasks_of_qompose(first):
    with pytest.raises(QomposeError, match="'first' learned 'T', whose rewards cannot be computed"):
        explain(first & make_skill("second", 1), correction=replace(QUICK, residuals=True), members=2)


def test_an_interval_is_that_of_the_jackknife():
    # Means 1, 2, 3: s² = 1, variance of the mean of all 4/3, and 2.920 is Student's 95th hundredth for 2 degrees.
    found = _interval(np.array([[0.5, 1.5], [2.0, 2.0], [3.0, 3.0]]))
    assert found.mean == 2.0 and found.high - found.mean == pytest.approx(2.920 * (4 / 3) ** 0.5, rel=1e-3)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    below = _interval(np.array([[-0.2], [-0.1]]), least=0.0)
    assert below.low <= below.mean <= below.high and below.low == 0.0


def test_coverage_is_of_one_skill_by_the_other():
    narrow, wide = make_skill("narrow", 0), make_skill("wide", 1)
    narrow = replace(narrow, replay=narrow.replay._replace(observation=0.1 * narrow.replay.observation))
    data = Transition(*(np.concatenate(parts) for parts in zip(narrow.replay, wide.replay, strict=True)))
    found = _cover(["narrow", "wide"], data, [1000, 1000])
    assert found["narrow on wide"].mean < 0.2 < 0.8 < found["wide on narrow"].mean
    away = _cover(["narrow", "wide"], data._replace(observation=data.observation + np.float32(4096.0)), [1000, 1000])
    assert away["narrow on wide"].mean == pytest.approx(found["narrow on wide"].mean, abs=0.02)


def test_the_interval_of_a_mean_over_replays_holds_it_where_lanes_and_episodes_are_alike():
    rng, held, steps, lanes, rounds = np.random.default_rng(0), [], 15, 8, 40
    for _ in range(300):
        # Rows as in a replay: lanes in lock-step, an effect of each episode and of the time in it, two unlike skills.
        skills = []
        for mean, length in ((0.0, rounds), (3.0, rounds // 2)):
            episodes = rng.standard_normal((length, 1, lanes)) + 0.2 * rng.standard_normal((length, steps, lanes))
            skills.append((mean + episodes + np.linspace(-1.0, 1.0, steps)[:, None]).ravel())
        found = _over_stretches(np.concatenate(skills), [len(skill) for skill in skills])
        held.append(found.low <= 1.0 <= found.high)  # two thirds of 0 and one of 3
    assert 0.85 < np.mean(held) < 0.95


@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
def test_the_interval_of_a_share_holds_it_in_nine_of_ten_cases(share):
    rng = np.random.default_rng(0)
    found = [_share(rng.random(500) < share) for _ in range(1000)]
    assert 0.86 < np.mean([interval.low <= share <= interval.high for interval in found]) < 0.94
    assert _share(np.zeros(500, bool)).low == 0.0 and 0.0 < _share(np.zeros(500, bool)).high < 0.01
