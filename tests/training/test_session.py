import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from qompose import store
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.evaluation import evaluate
from qompose.run import read_metrics
from qompose.skill.artifact import Skill
from qompose.training import session
from qompose.training.online import Training
from qompose.training.session import skill_name, train
from qompose.types import QomposeError


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("PushBottomLeft-v0", "push-bottom-left"),
        ("MultiGoal", "multi-goal"),
        ("MountainCarContinuous-v0", "mountain-car-continuous"),
        ("some.module:Team/Odd Näme-v12", "odd-n-me"),
        ("---", "skill"),
        ("A" * 100, "a" * 64),
    ],
)
def test_a_skill_is_named_after_its_task(env, name):
    assert skill_name(env) == name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"goal_x": 0.5, "goal_y": -1}, "push-to-x0.5-y-1"),
        ({"goal_y": 0.0}, "push-to-y0"),
        ({"goal_x": "far", "fork": 2}, "push-to"),
    ],
)
def test_skills_of_one_task_are_told_apart_by_their_goals(options, name):
    assert skill_name("PushTo", options) == name


class NoTraining(Exception):
    pass


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args, **kwargs):
        raise NoTraining

    monkeypatch.setattr(session, "train_online", refuse)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Bad Name"}, "name: must be of the form"),
        ({"options": {"goals": [np.array([1.0, 2.0])]}}, r"task.options.goals\[0\]: must be"),
        ({"options": {"colour": "red"}}, "MultiGoal has no option 'colour'"),
        ({"options": {"name": "x"}}, "MultiGoal has no option 'name'"),
        ({"temprature": 1.0}, "unknown setting 'temprature'; known are .*temperature"),
        ({"temperature": float("nan")}, "temperature is nan; it must be from 1e-08 to 100000000.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"discount": 1.0}, "discount is 1.0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"hidden": ()}, r"hidden is \(\); give 1 to 8 layers"),
        ({"hidden": (16, 0)}, r"hidden is \(16, 0\)"),
        ({"target_rate": 0.0}, "target_rate is 0.0"),
        ({"fixed_particles": 0}, "fixed_particles is 0"),
        ({"algo": "sac"}, "algo 'sac' is unknown; choose one of sql, ddpg, naf"),
        ({"algo": "ddpg", "agent": NAF()}, "algo is 'ddpg', but the agent given is NAF; leave one of them out"),
        ({"algo": "ddpg", "temperature": 1.0}, "unknown setting 'temperature'; known are .*noise"),
        ({"algo": "naf", "noise": -1.0}, "noise is -1.0"),
        ({"num_envs": 1000}, "num_envs=1000: give a number from 1 to 128"),
        ({"env_timeout": 0.0}, "env_timeout is 0.0; give seconds, above 0 and at most 86400"),
        ({"env_timeout": float("nan")}, "env_timeout is nan; give seconds"),
    ],
)
def test_what_cannot_become_a_skill_is_refused_before_training(no_training, tmp_path, settings, message):
    with pytest.raises(QomposeError, match=message) as caught:
        train("MultiGoal", output_dir=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    with pytest.raises(NoTraining):
        train("MultiGoal", output_dir=tmp_path / "run")


def test_unknown_environments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(QomposeError, match="there is no environment 'PushLfet': did you mean PushLeft"):
        train("PushLfet", output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_without_a_folder_is_refused():
    with pytest.raises(QomposeError, match="resume needs output_dir"):
        session.train("MultiGoal", resume=True)


def test_a_skill_that_ends_hot_says_so(tiny_agent, tiny_training):
    agent = replace(tiny_agent, planned_updates=10**6)
    skill = session.train("MultiGoal", agent=agent, training=tiny_training)
    assert skill.temperature == pytest.approx(agent.temperature * agent.initial_heat, rel=0.01)


def test_settings_go_to_the_agent_or_the_training_and_win(monkeypatch):
    seen = []

    def watch(env, agent, training, **kwargs):
        seen.append((env, agent, training))
        raise NoTraining

    monkeypatch.setattr(session, "train_online", watch)
    with pytest.raises(NoTraining):
        train(
            "MultiGoal", agent=SQL(temperature=0.5, discount=0.9), training=Training(seed=3, eval_freq=0),
            temperature=0.7, total_steps=2000, updates_per_step=2, num_envs=3,
        )  # fmt: skip
    ((env, agent, training),) = seen
    assert (agent.temperature, agent.discount, agent.planned_updates) == (0.7, 0.9, 2000)
    assert (training.seed, training.total_steps, env.num_envs) == (3, 2000, 3)


def test_a_run_is_one_process_s_and_its_death_frees_it(tmp_path, tiny_agent, tiny_training):
    def go_on():
        return train("MultiGoal", agent=tiny_agent, training=tiny_training, output_dir=tmp_path / "run", resume=True)

    go_on()
    hold = "import pathlib, sys, time, qompose.store as s\n"
    hold += "with s.hold(pathlib.Path(sys.argv[1])): print(), time.sleep(9)"
    command = [sys.executable, "-u", "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline()
            before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
            with pytest.raises(QomposeError, match=r"^another process is at work in .*/run; wait for it, or end it$"):
                go_on()
            assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
        finally:
            other.kill()
    go_on()


def test_numbers_of_numpy_are_options_of_a_skill(tiny_agent, tiny_training):
    options = {"goals": [np.int64(0), (np.float32(3.0), 3)]}
    skill = train("MultiGoal", agent=tiny_agent, training=tiny_training, options=options)
    assert skill.task["options"] == {"goals": [0, [3.0, 3]]} and json.dumps(skill.task)


def test_the_environment_s_time_is_the_caller_s_and_no_part_of_the_run(monkeypatch, tmp_path):
    seen = []

    def watch(lanes, agent, training, evaluation_env, run, **kwargs):
        seen.append((lanes.patience, evaluation_env.patience))
        assert (lanes.num_envs, evaluation_env.num_envs) == (8, 8)
        raise NoTraining

    monkeypatch.setattr(session, "train_online", watch)
    for seconds in (5.0, 300.0):  # a run that stopped because its environment is slow goes on with more
        with pytest.raises(NoTraining):
            train("Pendulum-v1", env_timeout=seconds, output_dir=tmp_path / "run", resume=True)
    assert seen == [(5.0, 5.0), (300.0, 300.0)]


@pytest.mark.parametrize(
    ("env", "settings", "cut"),
    [("PushLeft", {}, 150), ("PushLeft", {"episode_steps": 60}, 60), ("MultiGoal", {}, 30), ("Pendulum-v1", {}, 200)],
)
def test_episodes_of_the_training_are_as_long_as_the_task_prefers_or_the_caller_says(monkeypatch, env, settings, cut):
    seen = []

    def watch(lanes, agent, training, evaluation_env, **kwargs):
        seen.append((lanes.horizon, evaluation_env.horizon, training.episode_steps))
        raise NoTraining

    monkeypatch.setattr(session, "train_online", watch)
    with pytest.raises(NoTraining):
        train(env, **settings)
    whole = {"PushLeft": 300}.get(env, cut)
    assert seen == [(cut, whole, cut if cut != whole else None)]
    with pytest.raises(NoTraining):
        train(env, **settings | {"episode_steps": 900})  # never longer than what counts
    assert seen[1][:2] == (whole, whole)


def test_the_skill_tells_the_length_that_counts(tiny_agent, tiny_training):
    skill = session.train("MultiGoal", agent=tiny_agent, training=tiny_training, episode_steps=10)
    assert (skill.horizon, skill.provenance["training"]["episode_steps"], skill.provenance["episodes"]) == (30, 10, 60)


def test_a_run_holds_everything_and_the_skill(tiny_runs, tiny_skills, tiny_agent, tiny_training):
    directory, skill = tiny_runs["right"], tiny_skills["right"]
    config = store.read_json(directory / "config.json")
    assert config["env"] == "MultiGoal" and config["options"] == {"goals": [0]}
    assert config["agent"]["hidden"] == list(tiny_agent.hidden)
    assert config["training"]["total_steps"] == tiny_training.total_steps
    assert read_metrics(directory)[-1]["step"] == 600 and (directory / "last" / "state.json").exists()
    assert skill.name == "right" and skill.task == {"id": "MultiGoal", "options": {"goals": [0]}}
    assert len(skill.replay.reward) == 600


def test_resuming_with_other_settings_is_refused_naming_the_field(tiny_runs, tiny_agent, tiny_training):
    before = (tiny_runs["right"] / "metrics.jsonl").read_bytes()
    settings = {"agent": tiny_agent, "training": tiny_training, "output_dir": tiny_runs["right"], "resume": True}
    with pytest.raises(QomposeError, match=r"was started with options.goals=\[0\], not \[1\]"):
        train("MultiGoal", options={"goals": [1]}, name="right", **settings)
    with pytest.raises(QomposeError, match=r"was started with agent\.temperature=0\.1, not 0\.3"):
        train("MultiGoal", options={"goals": [0]}, name="right", **settings, temperature=0.3)
    assert (tiny_runs["right"] / "metrics.jsonl").read_bytes() == before


def test_training_without_a_directory_writes_nothing(tiny_agent, tiny_training, tiny_skills, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = replace(tiny_training, eval_freq=600, eval_episodes=4)
    skill = train("MultiGoal", agent=tiny_agent, training=options, options={"goals": [0]})
    assert list(tmp_path.iterdir()) == [] and skill.name == "multi-goal"
    results = skill.provenance["results"]
    assert results["step"] == 600 and {"mean_reward", "distance", "success_rate"} <= results.keys()
    # With a directory and without evaluations it is the same training.
    for name, array in tiny_skills["right"].critic.arrays.items():
        assert np.array_equal(array, skill.critic.arrays[name])
    json.dumps(skill.provenance)
    again = Skill.load(skill.save(tmp_path / "skill"))
    assert again.provenance == skill.provenance


@pytest.mark.parametrize("algo", ["ddpg", "naf"])
def test_other_algorithms_are_evaluated_and_saved_without_their_noise(algo, tiny_training, tmp_path):
    options = replace(tiny_training, eval_freq=600, eval_episodes=4)
    settings = {
        "algo": algo, "hidden": (16,), "batch_size": 8, "noise": 0.5, "training": options, "options": {"goals": [0]},
        "output_dir": tmp_path / "run",
    }  # fmt: skip
    skill = train("MultiGoal", **settings)
    config = store.read_json(tmp_path / "run" / "config.json")
    assert (config["algo"], config["agent"]["noise"], config["agent"]["planned_updates"]) == (algo, 0.5, 400)
    assert skill.algorithm == algo and np.abs(skill.replay.action[300:]).max() <= 1.0
    # The same episodes with the saved skill, whose policy has no noise: in training it had none either.
    found = evaluate(skill, episodes=4, seed=10_000_000).summary()["return"]["mean"]
    assert skill.provenance["results"]["mean_reward"] == pytest.approx(found, rel=1e-3)
    # While it explored, it had: the actor is smooth, its explored actions are not.
    policy = skill.act(skill.replay.observation[-200:])
    assert 0.2 < np.std(skill.replay.action[-200:] - policy) < 0.8
    again = train("MultiGoal", **settings, resume=True)  # the checkpoint holds all of it
    for name, array in skill.critic.arrays.items():
        assert np.array_equal(array, again.critic.arrays[name])
