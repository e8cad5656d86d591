from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import line
from qompose.skill.algebra import unite_replays
from qompose.skill.artifact import Skill
from qompose.skill.expression import gpi, prefer
from qompose.soft import finite
from qompose.training.correct import STEPS, Correction, _improve, _survey
from qompose.training.gpi import LONGER, Followed, _follow, _weigh, evaluate, learn_gpi
from qompose.training.offline import Extraction, compose
from qompose.types import QomposeError, Transition

QUICK = Correction(steps=100, batch_size=16, hidden=(8,), candidates=16, kept=2)
EXTRACT = Extraction(steps=20, batch_size=8, hidden=(8,))


@pytest.fixture(scope="module")
def pair(tiny_skills):
    """Two skills of one task: those of different goals end in different states."""
    right = tiny_skills["right"]
    return right, replace(right, name="cooler", temperature=0.05)


def test_a_gpi_composition_is_the_best_of_what_was_learned_for_each_policy(pair, tmp_path):
    skill = compose(gpi({pair[0]: 0.5, pair[1]: -0.25}), temperature=0.2, correction=QUICK, extraction=EXTRACT)
    assert repr(skill) == "gpi-right-and-not-cooler" and skill.temperature == 0.2
    assert skill.composition["expression"] == "gpi({right: 0.5, cooler: -0.25})"
    assert skill.composition["weights"] is None
    assert skill.critic.spec["kind"] == "gpi" and len(skill.critic.spec["of"]) == 2
    assert skill.provenance["correction"]["steps"] == LONGER * QUICK.steps
    longer = replace(QUICK, steps=LONGER * QUICK.steps)
    learned = learn_gpi(pair, (0.5, -0.25), 0.2, unite_replays(pair), longer)
    rng = np.random.default_rng(1)
    states, actions = skill.replay.observation[:50], rng.uniform(-1, 1, (50, 2)).astype(np.float32)
    each = [np.asarray(jax.vmap(member)(states, actions)) for member in learned.members]
    assert np.abs(each[0] - each[1]).min() > 0.1  # so that the greater one tells which it is
    np.testing.assert_allclose(skill.q(states, actions), np.max(each, axis=0), rtol=1e-4, atol=1e-3)
    again = Skill.load(skill.save(tmp_path / "best"))
    assert np.array_equal(again.q(states, actions), skill.q(states, actions)) and again.act(states).shape == (50, 2)


def test_a_number_in_front_of_the_whole_says_nothing(pair):
    wanted, found = (
        compose(
            expression, temperature=0.2, correction=replace(QUICK, steps=5), extract=False, name="best"
        ) for expression in (gpi(pair[0] & pair[1]), 2 * gpi(pair[0] & pair[1]))
    )  # fmt: skip
    states = wanted.replay.observation[:20]
    assert np.array_equal(wanted.q(states, states), found.q(states, states))
    assert wanted.composition == found.composition


def test_another_replay_compiles_the_learning_alone_and_once(pair, compiled):
    data, options = unite_replays(pair), replace(QUICK, steps=40)
    _follow(pair, (0.5, -0.25), 0.2, data, options, [data.reward, data.reward])
    compiled.clear()
    data = Transition(*(column[:-37] for column in data))
    rewards = [data.reward, 2.0 * data.reward]
    learn_gpi(pair, (0.5, -0.25), 0.2, data, options, rewards=rewards)
    assert [compiled[function.__name__] for function in (_survey, _weigh, _improve)] == [0, 0, 1]
    compiled.clear()
    learn_gpi(pair, (0.25, 0.75), 0.2, data, options, rewards=rewards)
    assert not compiled


def test_gpi_stands_inside_other_expressions(pair):
    low, high = pair[0], replace(pair[0], name="third")
    skill = compose(prefer(gpi(low & pair[1]) & high, low, slack=0.5), extract=False, correction=QUICK)
    assert skill.critic.spec["of"][0]["of"][0]["kind"] == "gpi"
    assert np.isfinite(skill.q(np.zeros(2), np.zeros(2))) and skill.act(np.zeros(2), "resample").shape == (2,)


def test_what_gpi_cannot_learn_is_refused_in_one_line(pair, tiny_skills):
    foreign = replace(pair[0], name="foreign", task={"id": "Pendulum-v1", "options": {}})
    composed = compose(pair[0] & pair[1], extract=False)
    for expression, message in (
        (gpi(pair[0] & pair[1].strip()), "skill 'cooler' carries no replay to learn from"),
        (gpi(foreign & pair[0]), "learned 'Pendulum-v1', whose rewards cannot be computed"),
        (gpi(composed & pair[0]), "is composed; only the rewards of single skills"),
        (gpi(tiny_skills["right"] & tiny_skills["top"]), "'right' and 'top' end in different states"),
    ):
        with pytest.raises(QomposeError, match=message) as caught:
            compose(expression, extract=False, correction=QUICK)
        assert "\n" not in str(caught.value)
    with pytest.raises(QomposeError, match="is no weighted sum of skills"):
        compose(gpi(pair[0] & pair[1]), correct=True, extract=False)


def test_draws_are_weighted_by_each_skills_own_policy(pair):
    data = unite_replays(pair)
    rewards = [data.reward, 2.0 * data.reward]
    seen = _follow(pair, (0.5, -0.25), 0.2, data, QUICK, rewards)
    np.testing.assert_allclose(seen.reward, 0.0, atol=1e-6)
    levels = []
    for index, skill in enumerate(pair):
        states = np.repeat(seen.next_observation[:20], seen.next_actions.shape[1], axis=0)
        q = skill.q(states, seen.next_actions[:20].reshape(-1, 2)).reshape(20, -1).astype(np.float64)
        levels.append(seen.log_weight[:20, :, index] - q / skill.temperature)
    # log W_i − Q_i/α_i is minus the log density of the draw, up to a constant of the state.
    apart = levels[0] - levels[1]
    assert np.abs(apart - apart.mean(axis=1, keepdims=True)).max() < 1e-2 < np.ptp(levels[0])
    np.testing.assert_allclose(np.exp(seen.log_weight).sum(axis=1), 1.0, atol=1e-4)


@pytest.mark.slow
def test_the_learned_q_of_each_policy_is_that_of_the_oracle():
    exact = line.solve_exactly((0.1, 0.05), (0.5, 0.5))
    data = unite_replays(exact.skills)
    rewards = [line.reward_at(skill.name, data) for skill in exact.skills]
    options = Correction(steps=LONGER * STEPS)
    learned = learn_gpi(exact.skills, exact.weights, exact.alpha, data, options, rewards=rewards)
    values = []
    for skill, member in zip(exact.skills, learned.members, strict=True):
        policy = finite.boltzmann(line.on_grid(skill), skill.temperature)
        wanted = finite.evaluate(exact.reward, line.kernel(), policy, exact.alpha)
        found = line.on_grid(member)
        error = np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std()
        print(f"following {skill.name}: error {error:.4f} of the spread, bias {np.mean(found - wanted):.4f}")
        assert error < 0.10
        values.append(wanted)
    best, found = np.max(values, axis=0), line.on_grid(learned)
    regrets = {name: exact.regret(q).mean() for name, q in
               (("gpi", best), ("learned", found), ("mean", exact.total))}  # fmt: skip
    print(regrets)
    policy = finite.boltzmann(best, exact.alpha)
    worth = finite.evaluate(exact.reward, line.kernel(), policy, exact.alpha)
    assert np.all(worth >= best - 1e-9)
    assert regrets["learned"] <= regrets["gpi"] + 0.1 * exact.regret(exact.total).mean()


def test_a_rule_is_the_soft_bellman_equation_of_each_policy():
    weight = jnp.log(jnp.asarray([[[0.25, 0.5], [0.75, 0.5]]]))
    reward, discount, entropy = jnp.asarray([1.0]), jnp.asarray([0.9]), jnp.asarray([[-1.0, -2.0]])
    batch = Followed(None, None, reward, discount, None, None, weight, entropy)
    found = evaluate(batch, jnp.asarray([[[4.0, 10.0], [8.0, 20.0]]]), 0.3)
    np.testing.assert_allclose(found, [[1.0 + 0.9 * (7.0 - 1.0), 1.0 + 0.9 * (15.0 - 2.0)]], rtol=1e-6)
