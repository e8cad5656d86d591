import json
import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from qompose import evaluation
from qompose.envs.lockstep import Lockstep
from qompose.evaluation import Evaluation, check_spaces, choose_task, evaluate, skill_policy
from qompose.shipped import load
from qompose.training.offline import compose
from qompose.types import QomposeError


@pytest.fixture
def right(tiny_skills):
    return tiny_skills["right"]


class Growing(gymnasium.Env):
    """The longer an episode, the higher its return: 1, 2, 3, 4 steps in turn."""

    observation_space = Box(-1e6, 1e6, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)
    made = 0

    def __init__(self):
        Growing.made += 1
        self.episode, self.elapsed = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.elapsed = self.episode + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.elapsed += 1
        figures = {"bad": np.inf, "height": float(self.elapsed)}
        return np.zeros(2, np.float32), 1.0, False, self.elapsed == 1 + self.episode % 4, figures


@pytest.fixture
def growing():
    gymnasium.register(id="QomposeTestGrowing-v0", entry_point=Growing)
    Growing.made = 0
    yield "QomposeTestGrowing-v0"
    gymnasium.registry.pop("QomposeTestGrowing-v0")


@pytest.mark.parametrize("episodes", [1, 7, 50, 53])
def test_exactly_the_episodes_asked_for(right, growing, episodes):
    result = evaluate(right, growing, episodes)
    assert len(result.episodes) == episodes and Growing.made == min(episodes, 8)
    assert result.summary()["episodes"] == episodes


def test_long_episodes_count_as_often_as_short_ones(right, growing, monkeypatch):
    monkeypatch.setattr(evaluation, "FOREIGN_LANES", 2)
    result = evaluate(right, growing, 16)
    assert sorted(result.values("length")) == sorted([1, 2, 3, 4] * 4)
    assert result.summary()["return"] == {"mean": 2.5, "std": pytest.approx(1.25**0.5), "median": 2.5}


def test_equal_seeds_give_equal_numbers_and_other_seeds_others(right):
    first, again, other = (evaluate(right, episodes=6, seed=seed) for seed in (3, 3, 4))
    assert first.summary() == again.summary() and first.episodes == again.episodes
    assert first.episodes != other.episodes
    assert {**first.summary(), "seed": 4} != other.summary()


@pytest.mark.parametrize("mode", ["sample", "resample", "best"])
def test_every_mode_reports_itself_and_is_reproducible(right, mode):
    first, again = (evaluate(right, episodes=2, mode=mode) for _ in range(2))
    assert first.mode == mode and first.episodes == again.episodes and first.summary()["mode"] == mode


def test_by_default_a_skill_runs_on_its_own_task_with_its_own_options(right):
    result = evaluate(right, episodes=3)
    assert result.env == "MultiGoal" and set(result.values("goal")) == {0.0}
    everywhere = evaluate(right, "MultiGoal", episodes=3)  # another task: all four goals
    assert (everywhere.values("distance") <= result.values("distance") + 1e-6).all()
    moved = evaluate(right, episodes=3, options={"goals": [1]})  # what is given wins
    assert not np.allclose(moved.values("distance"), result.values("distance"))


def test_episodes_may_have_another_length(right):
    assert {episode["length"] for episode in evaluate(right, episodes=3, episode_steps=7).episodes} == {7}
    with pytest.raises(QomposeError, match=r"^episode_steps is 0; it must be at least 1 and whole"):
        evaluate(right, episodes=3, episode_steps=0)


def test_the_summary_is_json_of_the_episodes(right):
    result = evaluate(right, episodes=5)
    summary = json.loads(json.dumps(result.summary()))
    returns = result.values("return")
    expected = {"mean": returns.mean(), "std": returns.std(), "median": np.median(returns)}
    assert summary["return"] == pytest.approx(expected) and "lane" not in summary
    assert {"distance", "success", "length"} <= summary.keys()


def test_figures_that_are_not_finite_are_left_out_of_the_summary(right, growing):
    text = json.dumps(evaluate(right, growing, 3).summary())
    assert "bad" not in text and "Infinity" not in text and '"height"' in text


def test_figures_that_only_some_episodes_have_are_left_out():
    result = Evaluation("X", [{"return": 1.0, "lane": 0, "extra": 2.0}, {"return": 3.0, "lane": 1}])
    assert result.summary()["return"]["mean"] == 2.0 and "extra" not in result.summary()


def test_progress_ends_at_the_number_of_episodes(right):
    told = []
    evaluate(right, episodes=4, on_step=told.append)
    assert told[-1] == 4 and len(told) >= 30


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("PushLeft", "skill 'right' has 2 observations, the environment 12; use another one"),
        ("MountainCarContinuous-v0", "skill 'right' has 2 actions, the environment 1; use another one"),
        ("Pendulum-v1", "skill 'right' has 2 observations, the environment 3"),
        ("NoSuch-v0", "there is no environment 'NoSuch-v0'"),
        ("CartPole-v1", "its actions are Discrete"),
    ],
)
def test_environments_that_it_cannot_act_in_are_refused(right, env, message):
    with pytest.raises(QomposeError, match=message):
        evaluate(right, env, episodes=2)


def test_other_observations_of_the_same_size_are_refused():
    stack = load("sawyer-stack")
    assert stack.observation["size"] == Lockstep.make("SawyerReachRandom", 1).observation_size
    with pytest.raises(QomposeError, match=r"^skill 'sawyer-stack' observes \w+, the environment \w+; use another"):
        evaluate(stack, "SawyerReachRandom", episodes=1)
    check_spaces(stack, Lockstep.make("SawyerStackAvoid", 1))


def test_other_limits_of_the_actions_are_refused(right):
    weak = replace(right, action={"size": 2, "low": [-0.5, -1.0], "high": [0.5, 1.0]})
    with pytest.raises(QomposeError, match=r"acts to \[-0.5, -1.0\], the environment to \[-1.0, -1.0\]"):
        check_spaces(weak, Lockstep.make("MultiGoal", 1))


def test_spaces_are_checked_without_taking_a_step(right):
    check_spaces(right, Lockstep.make("MultiGoal", 1))
    with pytest.raises(QomposeError, match="has 2 observations, the environment 12"):
        check_spaces(right, Lockstep.make("PushLeft", 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes is 0; it must be at least 1"),
        ({"episodes": -3}, "episodes is -3"),
        ({"seed": -1}, r"seed is -1; it must be from 0 to 2\*\*63 - 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"mode": "greedy"}, "mode 'greedy' is unknown"),
        ({"options": {"colour": 1}}, "MultiGoal has no option 'colour'"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_in_one_line(right, arguments, message):
    with pytest.raises(QomposeError, match=message) as caught:
        evaluate(right, **{"episodes": 2, **arguments})
    assert "\n" not in str(caught.value)


def test_a_composed_skill_needs_an_environment(tiny_skills):
    both = compose(tiny_skills["right"] & tiny_skills["top"], extract=False)
    with pytest.raises(
        QomposeError, match="skill 'right-and-top' is composed and has no task of its own; give one as env"
    ):
        evaluate(both, episodes=2)
    assert len(evaluate(both, "MultiGoal", 2, mode="resample", options={"goals": [[3.0, 3.0]]}).episodes) == 2


@pytest.mark.parametrize("home", ["antigravity:Fly-v0", "os:X", "qompose:os:X"])
def test_a_skill_cannot_make_evaluation_import_a_module(right, home):
    stranger = replace(right, task={"id": home, "options": {}})
    with pytest.raises(QomposeError, match="say so with env if you trust its module"):
        evaluate(stranger, episodes=1)
    assert choose_task(stranger, home, None) == (home, {})  # the user may


def test_options_of_a_strangers_skill_do_not_reach_a_foreign_environment(right):
    skill = replace(right, task={"id": "Pendulum-v1", "options": {"xml_file": "/etc/hostname"}})
    for own in (None, {}, {"g": 1.0}):  # of the user, who has not named the environment
        with pytest.raises(QomposeError, match="gives options to the environment 'Pendulum-v1'"):
            choose_task(skill, None, own)
    assert choose_task(skill, "Pendulum-v1", None) == ("Pendulum-v1", {})


def test_names_of_tasks_with_and_without_their_module_are_fine(right):
    for home in ("PushLeft", "qompose:PushLeft-v0"):
        named = replace(right, task={"id": home, "options": {"a": 1, "b": 2}})
        assert choose_task(named, None, {"b": 3}) == (home, {"a": 1, "b": 3})


def test_a_policy_draws_from_one_stream(right):
    policy = skill_policy(right, "sample", 5)
    observations = np.zeros((3, 2), np.float32)
    rng = np.random.default_rng(5)
    for step in range(2):
        assert np.array_equal(policy(observations, step), right.act(observations, mode="sample", rng=rng))


def test_a_figure_that_there_is_not_is_refused_with_those_there_are(right):
    result = evaluate(right, episodes=1)
    with pytest.raises(QomposeError, match=r"^not every episode has 'height'; all have distance, goal, length, ret"):
        result.values("height")


def test_an_environment_that_takes_too_long_is_given_up_and_may_be_given_longer(right, growing, monkeypatch):
    monkeypatch.setattr(Growing, "__init__", lambda self: Growing.reset(self) and time.sleep(0.2))
    monkeypatch.setattr(Growing, "episode", 0, raising=False)
    with pytest.raises(QomposeError, match=r"no answer in 0\.3 s \(env_timeout\)"):
        evaluate(right, growing, 8, env_timeout=0.3)
    assert len(evaluate(right, growing, 2, env_timeout=30.0).episodes) == 2
    with pytest.raises(QomposeError, match=r"^env_timeout is 0\.0; give seconds"):
        evaluate(right, growing, 8, env_timeout=0.0)
