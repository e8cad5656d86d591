import time
from dataclasses import replace

import numpy as np
import pytest

from qompose.shipped import load
from qompose.skill.algebra import unite_replays
from qompose.tasks.task import relabel
from qompose.training import refit as refitting
from qompose.training.offline import Extraction, compose
from qompose.training.refit import name_refitted, refit
from qompose.training.rewards import task_of
from qompose.training.start import digest_of
from qompose.types import QomposeError

UPDATES = 4_500


@pytest.fixture(scope="module")
def pair(tiny_skills):
    return tiny_skills["right"], tiny_skills["top"]


@pytest.fixture(scope="module")
def refitted(pair):
    """The two skills after they have learned on, and what was told on the way."""
    progress = []
    return refit(*pair, updates=UPDATES, on_progress=lambda *told: progress.append(told)), progress


def bellman_error(skill, data):
    """Mean square of r + γ V(s') − Q(s, a) on transitions that have the skill's own rewards."""
    some = np.random.default_rng(0).choice(len(data.reward), 300)
    data = type(data)(*(column[some] for column in data))
    after = data.reward + skill.discount * (1.0 - data.terminated) * skill.value(
        data.next_observation, np.random.default_rng(1)
    )
    return np.mean(np.square(after - skill.q(data.observation, data.action)))


def test_values_come_to_agree_with_one_another_on_what_the_other_has_seen(pair, refitted):
    for before, after, other in zip(pair, refitted[0], pair[::-1], strict=True):
        theirs = relabel(task_of(before), other.replay)
        assert bellman_error(after, theirs) < 0.9 * bellman_error(before, theirs)


def test_each_learns_from_all_transitions_with_the_rewards_of_its_own_task(pair, monkeypatch):
    seen, learn, own = {}, refitting.learn_from_log, [skill.sampler.arrays["weight_out"] for skill in pair]

    def look(agent, data, marks, **begin):
        owner = [np.array_equal(begin["state"].sampler.network.weight_out, weights) for weights in own]
        seen[owner.index(True)] = data
        return learn(agent, data, marks, **begin)

    monkeypatch.setattr(refitting, "learn_from_log", look)
    refit(*pair, updates=1)
    union = unite_replays(pair)
    for index, skill in enumerate(pair):
        for found, wanted in zip(seen[index], relabel(task_of(skill), union), strict=True):
            assert np.array_equal(found, wanted)
    assert not np.allclose(seen[0].reward, seen[1].reward)


def test_learning_goes_on_from_the_skill_as_it_is(pair):
    after, _ = refit(*pair, updates=1, learning_rate=1e-5)
    for network in ("critic", "sampler"):
        old, new = (getattr(skill, network).arrays for skill in (pair[0], after))
        # One step of Adam moves no number by more than its rate.
        assert all(np.abs(new[name] - array).max() <= 1.1e-5 for name, array in old.items())
        assert not np.array_equal(old["weight_out"], new["weight_out"])


def test_a_refitted_skill_is_the_skill_but_for_its_networks_and_where_they_come_from(pair, refitted, tmp_path):
    for before, after in zip(pair, refitted[0], strict=True):
        assert after.name == f"{before.name}-refit"
        record = after.provenance["refit"]
        assert (record["updates"], record["seed"]) == (UPDATES, 0)
        assert record["hyperparameters"]["planned_updates"] == UPDATES and "results" not in after.provenance
        assert record["hyperparameters"]["temperature"] == before.temperature
        assert record["skills"] == [{"name": skill.name, "sha256": digest_of(skill)} for skill in pair]
        same = ("temperature", "discount", "task", "observation", "action", "horizon", "terminates", "composition")
        assert all(getattr(before, field) == getattr(after, field) for field in same)
        assert all(np.array_equal(*columns) for columns in zip(before.replay, after.replay, strict=True))
        after.save(tmp_path / after.name)
        again = load(tmp_path / after.name)
        assert digest_of(again) == digest_of(after) and again.provenance["refit"]["updates"] == UPDATES


def test_refitted_skills_are_composed_like_any(refitted):
    (right, top), _ = refitted
    both = compose(right & top, extraction=Extraction(steps=5, batch_size=8, hidden=(8,)))
    states, actions = right.replay.observation[:20], right.replay.action[:20]
    expected = 0.5 * right.q(states, actions) + 0.5 * top.q(states, actions)
    np.testing.assert_allclose(both.q(states, actions), expected, rtol=1e-4)


def test_the_bar_of_each_skill_moves_to_its_end(refitted):
    marks = [1_000, 2_000, 3_000, 4_000, UPDATES]
    for name in ("right", "top"):  # side by side, in any order
        told = [rest for what, *rest in refitted[1] if what == f"{name}-refit"]
        assert told == [[mark, UPDATES] for mark in marks]


@pytest.mark.parametrize("failing", ["right-refit", "top-refit"])
def test_where_one_fails_the_others_stop_at_their_next_mark(pair, monkeypatch, failing):
    marks = []

    def learn(agent, data, marks_of_all, *, seed, state):
        for mark in marks_of_all:
            marks.append(mark)
            time.sleep(0.01)
            yield mark, state, {"critic_loss": 0.0}

    def interrupt(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr(refitting, "learn_from_log", learn)
    with pytest.raises(KeyboardInterrupt):
        refit(*pair, updates=1_000_000, on_progress=lambda name, *_: interrupt() if name == failing else None)
    assert len(marks) < 20


def test_the_seed_decides_every_bit(pair):
    first, again, other = (refit(*pair, updates=3, seed=seed)[0] for seed in (1, 1, 2))
    assert digest_of(first) == digest_of(again) != digest_of(other)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e13])
def test_a_refit_that_diverges_is_refused(pair, monkeypatch, loss):
    diverging = [(5, None, {"q": 1.0, "critic_loss": loss})]
    monkeypatch.setattr(refitting, "learn_from_log", lambda *_, **__: iter(diverging))
    with pytest.raises(QomposeError, match="'right' diverged after 5 updates; give fewer, or another seed"):
        refit(*pair, updates=9)


def test_no_two_refitted_skills_have_the_same_name(pair):
    alike, long = replace(pair[0], name="x"), replace(pair[0], name="y" * 64)
    assert name_refitted([alike, pair[0], alike, alike]) == ["x-refit", "right-refit", "x-refit-2", "x-refit-3"]
    names = name_refitted([long] * 12)
    assert len(set(names)) == 12 and all(replace(alike, name=name).name == name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (), "there is nothing to compose; give at least one skill"),
        (lambda a, b: (a, replace(b, replay=None)), "'top' carries no replay to learn from; save it"),
        (lambda a, b: (a, replace(b, discount=0.5)), "discount: 0.9+ and 0.5 differ"),
        (lambda a, b: (a, replace(b, task={"id": "Pendulum-v1", "options": {}})), "cannot be computed from stored"),
        (lambda a, b: (compose(a & b, extract=False), b), "is composed; only the rewards of single skills"),
    ],
)
def test_what_cannot_learn_from_others_is_refused(pair, change, message):
    with pytest.raises(QomposeError, match=message):
        refit(*change(*pair), updates=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 0}, "updates is 0; it must be a whole number from 1"),
        ({"seed": -1}, "seed is -1; it must be a"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be"),
    ],
)
def test_impossible_numbers_are_refused(pair, settings, message):
    with pytest.raises(QomposeError, match=message):
        refit(*pair, **settings)
