from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import correction, line
from qompose import store
from qompose.explanation import explain
from qompose.skill.algebra import unite_replays
from qompose.skill.artifact import Skill
from qompose.skill.expression import gpi
from qompose.soft import finite
from qompose.tasks import make_task
from qompose.tasks.task import relabel
from qompose.training import reweigh
from qompose.training.correct import (
    BLOCK,
    Correction,
    _improve,
    _survey,
    check_ends,
    learn_correction,
    solve,
    survey,
)
from qompose.training.offline import Extraction, compose
from qompose.training.rewards import has_rewards
from qompose.training.reweigh import Corrections, learn_corrections
from qompose.types import QomposeError, Transition

QUICK = Correction(steps=150, batch_size=16, hidden=(8,), candidates=16, kept=2)
EXTRACT = Extraction(steps=20, batch_size=8, hidden=(8,))
CRITIC = {"kind": "critic", "hidden": [4, 4], "layer_norm": True}


@pytest.fixture(scope="module")
def pair(endless_skills):
    return endless_skills["right"], replace(endless_skills["top"], temperature=0.3)


def some_inputs(skill, count=50):
    rng = np.random.default_rng(1)
    rows = rng.integers(len(skill.replay.reward), size=count)
    return skill.replay.observation[rows], rng.uniform(-1, 1, (count, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def corrected(pair):
    progress = []
    first, second = pair
    skill = compose(
        {first: 0.7, second: 0.5}, correct=True, correction=QUICK, extraction=EXTRACT,
        on_progress=lambda *done: progress.append(done),
    )  # fmt: skip
    return skill, progress


def test_a_corrected_composition_is_the_sum_less_what_was_learned(corrected, pair, tmp_path):
    skill, progress = corrected
    assert progress == [("correcting", 100, 150), ("correcting", 150, 150), ("extracting", 20, 20)]
    assert skill.critic.spec["kind"] == "corrected" and skill.sampler.spec["kind"] == "sampler"
    assert skill.temperature == pytest.approx(0.7 * 0.1 + 0.5 * 0.3)
    assert skill.provenance["correction"]["steps"] == 150 and skill.provenance["extraction"]["steps"] == 20
    weights = 0.7, 0.5
    learned = learn_correction(pair, weights, skill.temperature, unite_replays(pair), QUICK)
    observations, actions = some_inputs(skill)
    total = sum(w * part.q(observations, actions) for w, part in zip(weights, pair, strict=True))
    taken = np.asarray(learned(jnp.asarray(observations), jnp.asarray(actions[:, None, :])))[:, 0]
    np.testing.assert_allclose(skill.q(observations, actions), total - taken, atol=1e-4 * np.abs(total).max())
    assert np.ptp(taken) > 0.0
    again = Skill.load(skill.save(tmp_path / "both"))
    assert np.array_equal(again.q(observations, actions), skill.q(observations, actions))
    assert again.act(observations).shape == (50, 2)
    # It is one more skill: it is composed again, uncorrected.
    whole = compose(skill & replace(pair[0], name="third"), extract=False)
    expected = 0.5 * skill.q(observations, actions) + 0.5 * pair[0].q(observations, actions)
    np.testing.assert_allclose(whole.q(observations, actions), expected, atol=1e-4 * np.abs(total).max())


def test_a_corrected_composition_acts_without_extraction(pair):
    skill = compose(pair[0] & pair[1], correct=True, correction=QUICK, extract=False)
    assert skill.sampler.spec["kind"] == "candidates" and skill.act(np.zeros(2), "resample").shape == (2,)


def test_another_replay_compiles_the_learning_alone_and_once(pair, compiled):
    data = unite_replays(pair)
    survey(pair, (0.5, 0.5), 0.2, data, QUICK)
    compiled.clear()
    data = Transition(*(column[:-37] for column in data))
    learn_correction(pair, (0.5, 0.5), 0.2, data, QUICK)
    assert [compiled[function.__name__] for function in (_survey, _improve)] == [0, 1]
    compiled.clear()
    learn_correction(pair, (0.7, 0.3), 0.2, data, QUICK)
    assert not compiled


def test_corrections_for_all_weights_are_compiled_once(pair, compiled):
    first, second = pair
    options = replace(QUICK, steps=40)  # like no other test's
    learned = learn_corrections(first, second, correction=options)
    assert compiled[_improve.__name__] == 1 and learned.options.steps == 160
    learned.at(pair, (1.0, 1.0), first.temperature + second.temperature)
    compiled.clear()
    learn_corrections(first, replace(second, name="other"), correction=options)
    for share in (0.2, 0.7):
        learned.at(pair, (1.0, share), first.temperature + share * second.temperature)
    assert not compiled


def test_rewards_are_not_looked_at(pair):
    data = unite_replays(pair)
    blind = data._replace(reward=np.full_like(data.reward, 1e6))
    quick = replace(QUICK, steps=3)
    first, second = (learn_correction(pair, (0.5, 0.5), 0.2, rows, quick) for rows in (data, blind))
    assert np.array_equal(first.network.weight_out, second.network.weight_out)


def test_a_survey_repeats_itself_and_knows_terminal_steps(pair):
    data = unite_replays(pair)
    data = data._replace(terminated=(np.arange(len(data.reward)) % 2).astype(np.float32))
    seen, again = (survey(pair, (0.5, 0.5), 0.2, data, QUICK) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
    np.testing.assert_allclose(seen.discount, 0.99 * (1.0 - data.terminated), rtol=1e-6)
    assert seen.next_actions.shape == (1200, 8, 2) and np.abs(seen.next_actions).max() <= 1.0
    np.testing.assert_allclose(np.exp(seen.log_weight).sum(axis=1), 1.0, atol=1e-5)
    assert np.all(seen.error >= 0.0)
    # Rows of two blocks have draws of their own: the last half of them is uniform, whatever the state.
    assert not np.array_equal(seen.next_actions[0, 4:], seen.next_actions[BLOCK, 4:])


def test_residuals_are_those_of_each_skill_with_its_own_rewards(pair):
    data = unite_replays(pair)
    rewards = [relabel(make_task("Peaks", **skill.task["options"]), data).reward for skill in pair]
    assert not np.allclose(*rewards)
    seen = survey(pair, (0.5, 0.25), 0.2, data, QUICK, rewards)
    expected = sum(
        w * (r + seen.discount * seen.values[:, i] - skill.q(data.observation, data.action))
        for i, (w, r, skill) in enumerate(zip((0.5, 0.25), rewards, pair, strict=True))
    )
    np.testing.assert_allclose(seen.residual, expected, rtol=1e-5, atol=1e-4)
    assert not survey(pair, (0.5, 0.25), 0.2, data, QUICK).residual.any()
    twins = pair[0], replace(pair[0], name="twin")
    data, options = pair[0].replay, replace(QUICK, steps=3, residuals=True)
    found = learn_correction(twins, (0.5, 0.25), 0.2, data, options)
    rewards = 2 * [relabel(make_task("Peaks", **pair[0].task["options"]), data).reward]
    again = learn_correction(twins, (0.5, 0.25), 0.2, data, replace(options, residuals=False), rewards=rewards)
    assert np.array_equal(found.network.weight_out, again.network.weight_out)


def test_tasks_that_end_in_different_states_are_refused_by_all_who_say_what_is_lost(tiny_skills):
    right, top = (replace(s, replay=Transition(*(np.tile(x, (2,) + (x.ndim - 1) * (1,)) for x in s.replay)))
                  for s in tiny_skills.values())  # fmt: skip
    message = "the tasks of skills 'right' and 'top' end in different states"
    for attempt in (
        lambda: compose(right & top, correct=True, correction=QUICK, extract=False),
        lambda: learn_corrections(right, top, correction=QUICK),
        lambda: explain(right & top, correction=QUICK, members=2),
        lambda: compose(gpi(right & top), correction=QUICK, extract=False),
    ):
        with pytest.raises(QomposeError, match=message):
            attempt()
    alike, data = replace(right, name="alike", temperature=0.2), unite_replays([right, top])
    assert check_ends([right, alike], data)
    somewhere = replace(top, task={"id": "Pendulum-v1", "options": {}})
    assert not check_ends([right, somewhere], data)  # nobody knows
    assert check_ends([somewhere, replace(somewhere, name="twin")], data)  # of one environment
    cooler = [compose(skill, temperature=0.05, extract=False) for skill in (right, top)]
    assert cooler[0].task == cooler[1].task and not check_ends(cooler, data)
    assert [has_rewards(skill) for skill in (right, cooler[0], somewhere)] == [True, False, False]
    assert check_ends([replace(somewhere.strip(), terminates=False)] * 2, data)
    quick = replace(QUICK, steps=1)
    assert (
        "holds only if the tasks of all skills end in the same states"
        in explain(right & somewhere, correction=quick).reason
    )
    assert "end in the same states" not in explain(right & alike, correction=quick).reason


def test_replays_that_end_where_their_tasks_do_not_have_no_residuals(pair):
    data = unite_replays(pair)
    ended = data._replace(terminated=np.ones_like(data.terminated))
    with pytest.raises(QomposeError, match="the replays end in other states than the task of skill 'right'"):
        learn_correction(pair, (0.5, 0.5), 0.2, ended, replace(QUICK, residuals=True))


def test_residuals_of_a_foreign_task_are_refused(pair):
    foreign = replace(pair[0], task={"id": "Pendulum-v1", "options": {}})
    with pytest.raises(QomposeError, match="learned 'Pendulum-v1', whose rewards cannot be computed"):
        compose(foreign & pair[1], correct=True, correction=replace(QUICK, residuals=True), extract=False)


def test_what_has_no_correction_is_refused_in_one_line(pair, corrected):
    third = replace(pair[0], name="third")
    for expression, message in (
        (corrected[0] & third, "skill 'right-and-top' is itself composed; only sums of skills that were learned"),
        (compose(pair[0] & pair[1], extract=False) & third, "is itself composed"),
        (pair[0].strip() & pair[1], "skill 'right' carries no replay"),
    ):
        with pytest.raises(QomposeError, match=message) as caught:
            compose(expression, correct=True, correction=QUICK, extract=False)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("seed", -1), ("candidates", 1), ("kept", 0), ("hidden", ()), ("learning_rate", float("nan")),
     ("target_rate", 2.0), ("batch_size", 0), ("kept", 5)],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(QomposeError, match=f"^{name} is "):
        replace(QUICK, **{name: value})


def test_corrections_for_all_weights_hold_at_any(pair):
    learned = learn_corrections(*pair, correction=QUICK)
    observations, actions = some_inputs(pair[0])
    temperatures = np.array([skill.temperature for skill in pair])

    def taken(skills, weights):
        alpha = float(np.dot(weights, [skill.temperature for skill in skills]))
        return np.asarray(learned.at(skills, weights, alpha)(jnp.asarray(observations), jnp.asarray(actions[:, None])))

    once, again = taken(pair, (0.25, 0.75)), taken(pair, (0.75, 0.25))
    assert np.abs(once - again).max() > 0.1 * temperatures.mean()
    # Twice the weights are twice the rewards and twice the temperature; the order of skills does not matter.
    np.testing.assert_allclose(taken(pair, (0.5, 1.5)), 2.0 * once, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(taken(pair[::-1], (0.75, 0.25)), once, rtol=1e-5)
    # The same function as the network of state and weights that was learned.
    seen = np.concatenate([observations, np.full((50, 2), (0.25, 0.75), np.float32)], axis=1)
    whole = np.asarray(learned.values(jnp.asarray(seen), jnp.asarray(actions[:, None])))[..., 0]
    np.testing.assert_allclose(once, whole, rtol=1e-4, atol=1e-5)
    skill = compose(dict(zip(pair, (0.25, 0.75), strict=True)), correct=learned, extract=False)
    assert skill.provenance["correction"]["steps"] == 4 * QUICK.steps
    total = 0.25 * pair[0].q(observations, actions) + 0.75 * pair[1].q(observations, actions)
    np.testing.assert_allclose(skill.q(observations, actions), total - once[:, 0], atol=1e-4 * np.abs(total).max())


@pytest.fixture(scope="module")
def corrections(pair):
    return learn_corrections(*pair, correction=replace(QUICK, steps=1, hidden=(4, 4)))


def test_corrections_that_were_saved_hold_for_skills_that_were_saved(pair, corrections, tmp_path):
    again = Corrections.load(corrections.save(tmp_path / "corrections"))
    loaded = [Skill.load(skill.save(tmp_path / skill.name), replay=False) for skill in pair]
    assert again.options == corrections.options and again.skills == corrections.skills
    observations, actions = some_inputs(pair[0])
    before, after = (
        compose({a: 0.25, b: 0.75}, correct=learned, extract=False)
        for (a, b), learned in ((pair, corrections), (loaded, again))
    )
    assert np.array_equal(after.q(observations, actions), before.q(observations, actions))
    assert not np.array_equal(after.q(observations, actions), compose({pair[0]: 0.25, pair[1]: 0.75}, extract=False).q(
        observations, actions
    ))  # fmt: skip
    with pytest.raises(QomposeError, match="exists; choose another name"):
        corrections.save(tmp_path / "corrections")
    other = replace(loaded[0], temperature=2.0 * loaded[0].temperature)
    with pytest.raises(QomposeError, match="these corrections are of right, top as they were, and of no other skills"):
        compose(other & loaded[1], correct=again, extract=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "corrections.json: format: must be 'qompose.corrections'"),
        ({"version": 2}, "corrections.json: version: must be 1"),
        ({"extra": 1}, "corrections.json: extra: is unknown"),
        ({"skills": [{"name": "a", "sha256": "0" * 64}]}, "skills: must be a list of 2 to 64 items"),
        ({"critic": {"kind": "sum"}}, "corrections.json: critic"),
        ({"critic": {"kind": "sum", "of": [CRITIC, CRITIC], "weights": [1.0, 1.0]}}, "critic.kind: must be 'critic'"),
        ({"critic": {**CRITIC, "hidden": [4096] * 8}}, "corrections.safetensors: size: "),
        ({"options": {"code": "x"}}, "corrections.json: options.'code': is unknown"),
        ({"options": {"steps": 0}}, "corrections.json: steps is 0"),
        ({"observation": 5}, "corrections.safetensors: tensor 'observation_mean'"),
        ({"sha256": "0" * 64}, "corrections.safetensors: sha256: differs"),
    ],
)
def test_corrections_that_are_not_whole_are_refused_in_one_line(corrections, tmp_path, change, message):
    folder = corrections.save(tmp_path / "c")
    store.write_json(folder / "corrections.json", store.read_json(folder / "corrections.json") | change)
    with pytest.raises(QomposeError, match=message) as caught:
        Corrections.load(folder)
    assert str(caught.value).startswith("corrections '") and "\n" not in str(caught.value)


def test_a_folder_without_its_files_or_with_others_holds_no_corrections(corrections, tmp_path):
    folder = corrections.save(tmp_path / "c")
    (folder / "more.txt").write_text("")
    with pytest.raises(QomposeError, match=r"'more\.txt': does not belong here"):
        Corrections.load(folder)
    (folder / "more.txt").unlink()
    (folder / "corrections.safetensors").unlink()
    with pytest.raises(QomposeError, match=r"corrections\.safetensors: is missing"):
        Corrections.load(folder)


def test_corrections_for_all_weights_refuse_what_they_are_not_of(pair):
    first, second = pair
    learned = learn_corrections(first, second, correction=replace(QUICK, steps=1))
    third = replace(first, name="third")
    for expression, settings, message in (
        (first & third, {}, "these corrections are of right, top as they were, and of no other skills"),
        (first & ~(0.1 * second), {}, "from 0 on; use correct=True"),
        (first & second, {"temperature": 0.7}, "hold at the sum's own temperature, 0.2, alone"),
    ):
        with pytest.raises(QomposeError, match=message):
            compose(expression, correct=learned, extract=False, **settings)
    with pytest.raises(QomposeError, match="at least two skills"):
        learn_corrections(first)
    with pytest.raises(QomposeError, match="discount"):
        learn_corrections(first, replace(second, discount=0.5))


# ------------------------------------------------------------------------------------------- against the exact oracle


@pytest.fixture(scope="module")
def problem():
    return line.solve_exactly(correction.TEMPERATURES, correction.EQUAL)


@pytest.mark.slow
def test_each_seed_of_the_benchmark_has_replays_of_its_own(problem, monkeypatch):
    seen = []
    for name in ("correct_equal", "correct_spoilt", "correct_all"):
        monkeypatch.setattr(correction, name, lambda exact, options: seen.append((exact, options.seed)))
    for seed in (0, 1):
        correction.measure(problem, seed)
    assert [seed for _, seed in seen] == [0, 0, 0, 1, 1, 1]
    (first, _), (other, _) = seen[0], seen[-1]
    for k in range(2):
        for name, array in problem.skills[k].critic.arrays.items():
            assert np.array_equal(first.skills[k].critic.arrays[name], array)
            assert np.array_equal(other.skills[k].critic.arrays[name], array)
        assert not np.array_equal(first.skills[k].replay.observation, other.skills[k].replay.observation)
    assert not np.array_equal(first.skills[0].replay.observation, first.skills[1].replay.observation)


@pytest.mark.slow
def test_the_learned_correction_is_that_of_the_oracle_and_mends_what_the_mean_loses(problem):
    found = correction.correct_equal(problem, Correction())
    print(found)
    assert found["error"] < 0.10
    assert found["corrected"] < 0.5 * found["sum"] and found["sum"] > 10.0 * problem.alpha


@pytest.mark.slow
def test_one_correction_for_all_weights_is_that_of_the_oracle_at_each(problem):
    for found in correction.correct_all(problem, Correction()):
        print(found)
        assert found["error"] < 0.10 and found["corrected"] < 0.5 * found["sum"]


@pytest.mark.slow
def test_with_bellman_residuals_critics_need_not_be_optimal(problem):
    regrets = correction.correct_spoilt(problem, Correction())
    print(regrets)
    assert regrets["residuals"] < 0.5 * regrets["blind"]


@pytest.mark.slow
def test_the_certificate_and_the_bounds_are_those_of_the_oracle(problem):
    report = explain(problem.skills[0] & problem.skills[1])
    kernel, kappa = line.kernel(), problem.kappa
    lemma = finite.lemma_bound(kappa, kernel)
    theorem = finite.theorem_bound(lemma, kernel, finite.boltzmann(problem.total, problem.alpha))
    policy = finite.boltzmann(problem.total, problem.alpha)
    exact = {
        "regret": finite.soft_regret(problem.total, problem.correction, kernel, problem.alpha),
        "overestimate": line.fall(problem.alpha, problem.total, problem.correction),
        "lemma": line.fall(problem.alpha, problem.total, lemma),
        "theorem": np.mean(policy * theorem, axis=1),
    }
    # Over the very states to which the held-out transitions lead.
    visited = line.place(report.positions[report.held_out, 0])
    for name, wanted in exact.items():
        found, mean = getattr(report, name), wanted[visited].mean()
        print(f"{name}: oracle {mean:.4g}, learned {found.mean:.4g} [{found.low:.4g}, {found.high:.4g}]")
        assert found.mean == pytest.approx(mean, rel=0.15), name
    everywhere = kappa[line.place(report.positions[:, 0])].mean()
    assert report.divergence.mean == pytest.approx(everywhere, rel=0.05)
    assert report.verdict == "compose with correction"


def test_each_row_of_all_weights_has_its_own_weights_and_their_temperature(pair, monkeypatch):
    given = []
    monkeypatch.setattr(reweigh, "solve", lambda *args, **more: given.append(args) or solve(*args, **more))
    pair = pair[0], replace(pair[1], temperature=0.7)
    learn_corrections(*pair, correction=replace(QUICK, steps=1))
    _, _, seen, rows, temperature, _ = given[0]
    size = pair[0].observation["size"]
    weights = seen.observation[:, size:]
    np.testing.assert_array_equal(seen.next_observation[:, size:], weights)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(seen.temperature, weights @ np.array([0.1, 0.7], np.float32), rtol=1e-5)
    assert np.ptp(weights[:, 0]) > 0.9 and temperature == pytest.approx(seen.temperature.mean())
    data = unite_replays(pair)
    np.testing.assert_array_equal(seen.observation[:, :size], data.observation)
    np.testing.assert_array_equal(seen.next_observation[:, :size], data.next_observation)
    again = survey(pair, weights, seen.temperature, data, replace(QUICK, steps=4))
    np.testing.assert_array_equal(seen.kappa, again.kappa)
    np.testing.assert_array_equal(rows, np.arange(len(data.reward))[None])
