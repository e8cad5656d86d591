from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from qompose.envs.lockstep import Lockstep
from qompose.tasks import make_task
from qompose.tasks.task import relabel
from qompose.training.offline import Extraction, compose
from qompose.training.sharing import share_experience
from qompose.training.start import agent_of, state_of
from qompose.types import QomposeError

UPDATES = 1000


@pytest.fixture(scope="module")
def pair(tiny_skills):
    # Hardly any discount, and Q in units of the reward: what there is to learn are the rewards, in few updates.
    skills = []
    for name in ("right", "top"):
        critic = tiny_skills[name].critic
        units = {"offset": np.float32(0.0), "scale": np.float32(1.0)}
        arrays = {**critic.arrays, **{key: np.asarray(value) for key, value in units.items()}}
        skills.append(replace(tiny_skills[name], discount=0.01, critic=critic._replace(arrays=arrays)))
    return skills


@pytest.fixture(scope="module")
def shared(pair):
    """The two skills after sharing, and what was told on the way."""
    progress = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Lockstep, "make"), (gymnasium, "make"), (gymnasium, "make_vec")):
            patch.setattr(owner, name, lambda *args, **kwargs: pytest.fail("sharing touched an environment"))
        skills = share_experience(pair, updates=UPDATES, on_progress=lambda *done: progress.append(done))
    return skills, progress


def bellman_error(skill, data):
    """RMS of r + γ V(s') - Q over transitions that carry the skill's own rewards."""
    data = type(data)(*(column[::7] for column in data))
    value = skill.value(data.next_observation, rng=np.random.default_rng(0))
    target = data.reward + skill.discount * (1.0 - data.terminated) * value
    return float(np.sqrt(np.mean((skill.q(data.observation, data.action) - target) ** 2)))


@pytest.mark.parametrize("index", [0, 1])
def test_a_skill_learns_its_own_rewards_on_what_the_other_has_seen(pair, shared, index):
    mine, other = pair[index], pair[1 - index]
    data = relabel(make_task("MultiGoal", **mine.task["options"]), other.replay)
    assert bellman_error(shared[0][index], data) < 0.5 * bellman_error(mine, data)


def test_progress_counts_the_updates_of_all_skills(shared):
    done, totals = zip(*shared[1], strict=True)
    assert max(done) == 2 * UPDATES
    assert set(totals) == {2 * UPDATES}


def test_what_a_skill_was_is_left_alone_and_its_replay_is_its_own(pair, shared):
    for before, after in zip(pair, shared[0], strict=True):
        assert after.provenance["shared_updates"] == UPDATES
        assert "shared_updates" not in before.provenance
        assert np.array_equal(after.replay.reward, before.replay.reward)
        assert not np.array_equal(after.critic.arrays["weight_out"], before.critic.arrays["weight_out"])
        assert not np.array_equal(after.sampler.arrays["weight_out"], before.sampler.arrays["weight_out"])


def test_a_shared_skill_is_saved_and_loaded(shared, tmp_path):
    from qompose.shipped import load

    found = load(shared[0][0].save(tmp_path / "s"))
    assert found.provenance["shared_updates"] == UPDATES


def test_the_same_seed_gives_the_same_bits(pair):
    first, second = (share_experience(pair, updates=50, seed=3) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(a.critic.arrays[name], b.critic.arrays[name]) for name in a.critic.arrays)


def test_learning_goes_on_from_the_skills_own_networks_at_its_temperature(pair):
    agent = agent_of(pair[0])
    state = state_of(agent, pair[0])
    assert agent.heat(state.updates) == pair[0].temperature
    assert agent.hidden == tuple(pair[0].critic.spec["hidden"])
    assert np.array_equal(state.target.network.weight_out, pair[0].critic.arrays["weight_out"])


def test_a_composition_adds_the_critics_that_shared(pair):
    options = Extraction(steps=1, shared_updates=50, seed=3)
    composed = compose(pair[0] & pair[1], extract=False, options=options)
    expected = share_experience(pair, updates=50, seed=3)
    for index, skill in enumerate(expected):
        found = {
            name.removeprefix(f"{index}/"): a for name, a in composed.critic.arrays.items() if name[0] == str(index)
        }
        assert all(np.array_equal(found[name], array) for name, array in skill.critic.arrays.items())
    assert composed.provenance["sharing"]["updates"] == 50


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda skill: replace(skill, replay=None), "carries no replay"),
        (lambda skill: replace(skill, task={"id": "Pendulum-v1", "options": {}}), "cannot be computed"),
        (lambda skill: compose(skill & replace(skill), extract=False), "is composed"),
    ],
)
def test_what_cannot_share_is_refused_in_one_line(pair, spoil, message):
    with pytest.raises(QomposeError, match=message) as caught:
        share_experience([spoil(pair[0]), pair[1]], updates=10)
    assert "\n" not in str(caught.value)


def test_learning_that_diverges_is_refused(pair):
    arrays = dict(pair[0].critic.arrays)
    huge = {name: np.full_like(array, 3e38) if name == "weight_out" else array for name, array in arrays.items()}
    broken = replace(pair[0], critic=pair[0].critic._replace(arrays=huge))
    with pytest.raises(QomposeError, match="diverged"):
        share_experience([broken, pair[1]], updates=10)
