import dataclasses
import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

from qompose import commands, shipped
from qompose.cli import main
from qompose.doctor import Check
from qompose.evaluation import evaluate
from qompose.run import read_metrics
from qompose.shipped import load
from qompose.tasks import TASKS
from qompose.tasks.pusher import Pusher
from qompose.types import QomposeError
from qompose.view import stage
from qompose.view.graphics import Graphics

EXTRACTION = ("--steps", "20", "--batch-size", "8", "--hidden", "16")


class Faulty(gymnasium.Env):
    """Walks nowhere, and does something wrong in its third step."""

    observation_space = action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, fault=None):
        self.fault, self.count = fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        wrong = self.fault if self.count == 3 else None
        if wrong == "interrupt":
            raise KeyboardInterrupt
        if wrong == "crash":
            raise RuntimeError("the robot\nfell over")
        observation = np.array([0.0, np.nan if wrong == "observation" else 0.0], np.float32)
        return observation, np.nan if wrong == "reward" else 0.0, False, self.count % 5 == 0, {}


gymnasium.register("CommandsFaulty-v0", Faulty)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write below the folder they run in: one of its own for each test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Run a command that must do its job; return what it prints."""

    def call(*arguments):
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capfd.readouterr().out

    return call


@pytest.fixture
def ask(run):
    """The same with --json; return the answer."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture(scope="module")
def pusher(tmp_path_factory, tiny_flags):
    """The run of a skill of other shapes than the tiny ones; without updates, which take long to compile."""
    directory = tmp_path_factory.mktemp("pusher") / "run"
    goal, steps = ("--goal-x", "0.5", "--goal-y", "-0.8"), ("--total-steps", "8", "--warmup-steps", "7")
    assert main(["train", "--env", "PushTo", *goal, "--output-dir", str(directory), *tiny_flags, *steps]) == 0
    return directory


@pytest.fixture(scope="module")
def composed(tmp_path_factory, tiny_runs):
    """A skill that was composed with weights of its own and extracted."""
    directory = tmp_path_factory.mktemp("composed") / "skill"
    skills = [str(run) for run in tiny_runs.values()]
    weights = ("--weights", "0.7", "0.6")
    assert main(["compose", *skills, *weights, *EXTRACTION, "--output-dir", str(directory), "--name", "both"]) == 0
    return directory


@pytest.fixture
def no_opengl(monkeypatch):
    monkeypatch.setattr(stage, "probe_graphics", lambda: Graphics(None, "no driver", "install EGL"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def same_networks(skill, other):
    return all(
        np.array_equal(array, getattr(other, part).arrays[name])
        for part in ("critic", "sampler")
        for name, array in getattr(skill, part).arrays.items()
    )


# --------------------------------------------------------------------------------------------------------- train


def test_training_by_flags_is_training_by_arguments(ask, tiny_flags, tiny_skills):
    command = ["train", "--env", "MultiGoal", "--env-option", "goals=[0]", "--output-dir", "out", "--name", "right"]
    assert ask(*command, *tiny_flags) == {"skill": "out/skill", "run": "out", "results": None}
    skill = load("out")
    assert skill.task == {"id": "MultiGoal", "options": {"goals": [0]}} and skill.name == "right"
    assert same_networks(skill, tiny_skills["right"])


def test_a_pusher_is_trained_towards_the_goal_of_the_flags(pusher):
    skill = load(pusher)
    assert skill.task == {"id": "PushTo", "options": {"goal_x": 0.5, "goal_y": -0.8}}
    assert skill.name == "push-to-x0.5-y-0.8"
    assert len(skill.replay.reward) == 8 and read_metrics(pusher)[-1]["step"] == 8
    assert list(pusher.glob("events.out.tfevents.*"))


def test_a_run_goes_to_a_folder_of_its_name_and_seed(run, tiny_flags, tmp_path):
    out = run("train", "--env", "CommandsFaulty-v0", "--seed", 3, *tiny_flags, "--track", "none")
    assert out == "skill saved in runs/commands-faulty-s3/skill\ntry it: qompose eval runs/commands-faulty-s3\n"
    assert load("runs/commands-faulty-s3").provenance["training"]["seed"] == 3
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_command_that_a_training_recommends_works_for_an_environment_of_a_module(
    run, tiny_flags, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    register = 'gymnasium.register("FreshRobot-v0", gymnasium.spec("CommandsFaulty-v0").entry_point)'
    (tmp_path / "fresh_robot.py").write_text(f"import gymnasium\n{register}\n")
    flags = ["--env", "fresh_robot:FreshRobot-v0", "--env-option", "fault=null"]
    (line,) = run("train", *flags, *tiny_flags).splitlines()[1:]
    assert line == f"try it: qompose eval runs/fresh-robot-s0 {' '.join(flags)}"
    assert "fresh-robot on fresh_robot:FreshRobot-v0" in run(*line.split()[3:], "--episodes", 1)


def test_the_flags_of_eval_and_record_say_how_long(ask, tiny_runs, monkeypatch):
    seen = []

    def stop(*_, **given):
        seen.append((given["episode_steps"], given["env_timeout"]))
        raise QomposeError("enough")

    monkeypatch.setattr(commands, "evaluate", stop)
    monkeypatch.setattr("qompose.view.video.record", stop)
    for command in ("eval", "record"):
        assert main([command, str(tiny_runs["right"]), "--episode-steps", "7", "--env-timeout", "5"]) == 2
    assert seen == [(7, 5.0)] * 2


def test_resuming_continues_to_the_same_skill(run, tiny_runs, tiny_flags, tiny_skills, tmp_path):
    shutil.copytree(tiny_runs["top"], "run", symlinks=True)
    shutil.rmtree("run/skill")
    shutil.rmtree("run/checkpoints/000000600")
    command = ["train", "--env", "MultiGoal", "--env-option", "goals=[2]", "--output-dir", "run", "--name", "top"]
    run(*command, *tiny_flags, "--resume")
    assert same_networks(load("run"), tiny_skills["top"])
    assert [line["step"] for line in read_metrics("run")] == [200, 400, 600]


def test_an_existing_directory_is_refused_and_left_alone(refused, tiny_runs, tiny_flags, fingerprint, tmp_path):
    shutil.copytree(tiny_runs["right"], "run", symlinks=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "idea.txt").write_text("precious")
    before = fingerprint(tmp_path)
    for directory, advice in (
        ("run", "give --resume to continue it"),
        ("notes", "it holds no run"),
        ("notes/idea.txt", "no run"),
    ):
        message = refused("train", "--env", "MultiGoal", "--output-dir", directory, *tiny_flags)
        assert f"{directory} exists already; " in message and advice in message
    message = refused("train", "--env", "MultiGoal", "--output-dir", "notes/idea.txt/run", *tiny_flags)
    assert message == "qompose: notes/idea.txt/run: Not a directory\n"
    message = refused("train", "--env", "MultiGoal", "--output-dir", "run", "--resume", *tiny_flags)
    assert "run was started with options.goals=[0], not None" in message
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("observation", "step 3: the observation is not finite: [0.0, nan]"),
        ("reward", "step 3: the reward is not finite: nan"),
        ("crash", "step 3: step failed with RuntimeError: the robot fell over"),
    ],
)
def test_an_environment_that_misbehaves_is_reported_with_the_step(refused, tiny_flags, fault, message):
    command = ["train", "--env", "CommandsFaulty-v0", "--env-option", f"fault={fault}", "--output-dir", "run"]
    assert message in refused(*command, *tiny_flags)


def test_an_interrupted_training_says_what_is_saved_with_status_130(tiny_flags, capfd):
    command = ["train", "--env", "CommandsFaulty-v0", "--env-option", "fault=interrupt", "--output-dir", "run"]
    assert main([*command, *tiny_flags]) == 130
    assert capfd.readouterr() == ("", "qompose: interrupted at step 8; the same command with --resume goes on\n")


# --------------------------------------------------------------------------------------------------------- refit


def test_refitted_skills_are_saved_each_under_its_own_name_and_composed(ask, tiny_runs, tiny_skills):
    answer = ask("refit", *tiny_runs.values(), "--updates", 30, "--seed", 1)
    assert answer["skills"] == ["skills/right-refit", "skills/top-refit"] and answer["updates"] == 30
    assert answer["seconds"] > 0.0
    for path, before in zip(answer["skills"], tiny_skills.values(), strict=True):
        record = load(path).provenance["refit"]
        assert (record["updates"], record["seed"]) == (30, 1)
        assert not np.array_equal(load(path).critic.arrays["weight_out"], before.critic.arrays["weight_out"])
    assert ask("compose", *answer["skills"], "--no-extract", "--name", "n")["composition"]["names"] == [
        "right-refit", "top-refit",
    ]  # fmt: skip


def test_refitting_prints_its_work_and_replaces_only_if_told_so(run, refused, tiny_runs, fingerprint, tmp_path):
    command = ["refit", *tiny_runs.values(), "--updates", 2, "--output-dir", "x"]
    out = run(*command)
    assert out.startswith("2 updates of each skill, ") and out.endswith(" s; saved in x/right-refit and x/top-refit\n")
    before = fingerprint(tmp_path)
    message = refused(*command)
    assert "x/right-refit exists already; choose another --output-dir or give --overwrite" in message
    assert fingerprint(tmp_path) == before
    run(*command, "--overwrite", "--seed", 1)
    assert load("x/top-refit").provenance["refit"]["seed"] == 1


def test_nothing_is_refitted_that_could_not_be_saved(refused, tiny_runs, fingerprint, tmp_path, monkeypatch):
    monkeypatch.setattr("qompose.training.refit.refit", lambda *_, **__: pytest.fail("the work was begun"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "notes" / "top-refit").mkdir(parents=True)
    (tmp_path / "notes" / "top-refit" / "idea.txt").write_text("precious")
    before, command = fingerprint(tmp_path), ["refit", *tiny_runs.values(), "--overwrite", "--output-dir"]
    assert "file is no folder that can be written to; choose another place" in refused(*command, "file")
    assert "skill 'notes/top-refit': 'idea.txt': does not belong here" in refused(*command, "notes")
    assert fingerprint(tmp_path) == before


# ------------------------------------------------------------------------------------------------------- compose


def test_a_composition_is_the_weighted_sum_of_its_skills(composed, tiny_skills):
    skill, (right, top) = load(composed), tiny_skills.values()
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(9, 2)), rng.uniform(-1.0, 1.0, (9, 2))
    expected = 0.7 * right.q(observations, actions) + 0.6 * top.q(observations, actions)
    assert np.allclose(skill.q(observations, actions), expected, rtol=1e-4, atol=1e-4)
    assert skill.temperature == pytest.approx(1.3 * right.temperature)
    assert skill.composition["weights"] == [0.7, 0.6] and skill.provenance["extraction"]["steps"] == 20
    assert skill.sampler.spec["kind"] == "sampler" and len(skill.replay.reward) == 1200


def test_skills_share_equally_and_act_on_the_sum_without_extraction(ask, tiny_runs, tmp_path):
    answer = ask("compose", *tiny_runs.values(), "--no-extract", "--no-replay")
    assert answer["skill"] == "skills/right-and-top" and answer["extraction"]["steps"] == 0
    assert answer["composition"] == {
        "expression": "{right: 0.5, top: 0.5}", "weights": [0.5, 0.5], "names": ["right", "top"],
    }  # fmt: skip
    skill = load(answer["skill"])
    assert skill.sampler.spec["kind"] == "candidates" and skill.replay is None
    assert skill.act(np.zeros(2, np.float32)).shape == (2,)


def test_composing_prints_the_sum_and_where_it_is(run, tiny_runs):
    out = run("compose", *tiny_runs.values(), "--no-extract", "--weights", 2, 0.5, "--output-dir", "x", "--name", "n")
    assert out == "n: 2 Q[right] + 0.5 Q[top], temperature 0.25, saved in x\n"


def test_a_negative_weight_avoids_and_an_operator_of_or_mixes(run, ask, refused, tiny_runs):
    command = ["compose", *tiny_runs.values(), "--no-extract", "--no-replay"]
    out = run(*command, "--weights", 1, -0.5)
    assert out == "right-and-not-top: 1 Q[right] - 0.5 Q[top], temperature 0.05, saved in skills/right-and-not-top\n"
    message = refused(*command, "--weights", 1, -1, "--output-dir", "x")
    assert "the temperatures of the skills sum to 0" in message
    answer = ask(*command, "--weights", 1, -1, "--temperature", 0.2, "--output-dir", "x")
    assert answer["temperature"] == 0.2 and answer["composition"]["weights"] == [1.0, -1.0]
    out = run(*command, "--operator", "or")
    assert out == "right-or-top: right | top, temperature 0.1, saved in skills/right-or-top\n"
    answer = ask(*command, "--operator", "or", "--weights", 3, 1, "--output-dir", "y")
    assert answer["composition"]["expression"] == "3*right | top"
    assert load("y").critic.spec["weights"] == [0.75, 0.25]


def test_a_composed_skill_replaces_an_earlier_one_only_if_told_so(run, refused, tiny_runs, fingerprint, tmp_path):
    command = ["compose", *tiny_runs.values(), "--no-extract", "--output-dir", "skill"]
    run(*command, "--name", "first")
    before = fingerprint(tmp_path)
    assert "skill exists already; choose another --output-dir or give --overwrite" in refused(*command)
    assert fingerprint(tmp_path) == before
    run(*command, "--name", "second", "--overwrite")
    assert load("skill").name == "second" and [path.name for path in tmp_path.iterdir()] == ["skill"]


def test_what_is_no_skill_is_not_overwritten(refused, tiny_runs, fingerprint, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "idea.txt").write_text("precious")
    before = fingerprint(tmp_path)
    for directory in ("notes", "notes/idea.txt"):
        message = refused(
            "compose", *tiny_runs.values(), "--no-extract", "--overwrite", "--output-dir", directory, "--name", "x"
        )
        assert f"skill '{directory}': " in message
    assert fingerprint(tmp_path) == before


def test_an_expression_in_quotes_says_all_at_once(ask, refused, tiny_runs):
    right, top = tiny_runs.values()
    answer = ask("compose", f"({right} | {top}) & ~(0.5 * {top})", "--no-extract", "--output-dir", "x")
    assert answer["composition"]["expression"] == "(right | top) & ~(0.5*top)" and answer["temperature"] == 0.05
    for command in ([f"gpi({right} & {top})"], [right, top, "--operator", "gpi"]):  # their tasks end in other states
        assert "end in different states, and corrections" in refused("compose", *command, "--no-extract")
    assert ask("compose", right, "--temperature", 0.3, "--no-extract", "--output-dir", "warm")["temperature"] == 0.3
    message = refused("compose", right, top, "--correct-residuals", "--output-dir", "y")
    assert "--correct-residuals says how to correct; give --correct, too" in message
    message = refused("compose", right, top, "--correct-steps", 5, "--output-dir", "y")
    assert "--correct-steps is of a correction or of gpi; give --correct, too" in message
    message = refused("compose", f"{right} & {top}", "--weights", 1)
    assert "weights and operators stand in the expression itself" in message


def test_a_composition_is_corrected_on_demand(ask, endless_skills, tmp_path):
    folders = [skill.save(tmp_path / name) for name, skill in endless_skills.items()]
    answer = ask("compose", *folders, "--correct", "--correct-steps", 3, "--no-extract", "--name", "both")
    assert answer["correction"]["steps"] == 3 and answer["extraction"]["steps"] == 0
    skill = load(answer["skill"])
    assert skill.critic.spec["kind"] == "corrected" and skill.act(np.zeros(2, np.float32)).shape == (2,)
    assert not answer["correction"]["residuals"]
    again = ask(
        "compose", *folders, "--correct", "--correct-steps", 3, "--correct-residuals", "--no-extract", "--name", "c"
    )
    assert again["correction"]["residuals"]


# ------------------------------------------------------------------------------------------------------- explain


def test_what_a_composition_would_lose_is_said_in_words_numbers_and_a_picture(run, ask, endless_skills, tmp_path):
    for name, skill in endless_skills.items():
        twice = [np.concatenate([field, field]) for field in skill.replay]
        dataclasses.replace(skill, replay=type(skill.replay)(*twice)).save(tmp_path / name)
    command = ["explain", *endless_skills, "--steps", 2, "--members", 2]
    out = run(*command, "--output", "map.png")
    assert "certificate" in out and "verdict: " in out and out.endswith("map.png and map.json\n")
    with Image.open("map.png") as picture:
        assert picture.width > 100
    answer = ask(*command, "--output", "None")
    assert answer["names"] == ["right", "top"] and answer["picture"] is None and not Path("divergence.png").exists()
    assert f"verdict: {answer['verdict']}" in out and not answer["residuals"]
    assert ask("explain", "right & ~(0.25 * top)", "--steps", 2, "--members", 2)["weights"] == [1.0, -0.25]
    assert Path("divergence.png").exists()
    assert ask(*command, "--residuals", "--output", "None")["residuals"]


def test_where_nothing_can_be_explained_the_reason_is_given(refused, tiny_runs):
    assert "a replay has only 600 transitions; it takes 1000" in refused("explain", *tiny_runs.values())
    assert "give at least two skills" in refused("explain", tiny_runs["right"])
    quoted = " | ".join(map(str, tiny_runs.values()))
    assert "is no weighted sum of skills" in refused("explain", quoted)
    assert "leave the flags out" in refused("explain", quoted, "--weights", 1)


# ---------------------------------------------------------------------------------------------------------- eval


def test_evaluating_by_flags_gives_the_figures_of_the_library(ask, tiny_runs, tiny_skills):
    answer = ask("eval", tiny_runs["right"], "--episodes", 3, "--mode", "best", "--seed", 5)
    expected = evaluate(tiny_skills["right"], episodes=3, mode="best", seed=5).summary()
    assert answer == {"skill": "right", "options": {"goals": [0]}, **expected}
    assert {"return", "length", "distance", "success"} <= answer.keys()
    assert answer["distance"].keys() == {"mean", "std", "median"}


@pytest.mark.parametrize(
    "text, value", [("True", True), ("false", False), ("3", 3), ("[0, 1]", [0, 1]), (".5", 0.5), ("Truth", "Truth")]
)
def test_options_are_read_as_json_or_python_spells_them(text, value):
    found = commands._scalar(text)
    assert found == value and type(found) is type(value)


def test_a_skill_is_evaluated_on_the_task_that_is_named(ask, composed, tiny_runs):
    answer = ask("eval", composed, "--env", "MultiGoal", "--env-option", "goals=[[6, 6]]", "--episodes", 2)
    expected = evaluate(load(composed), "MultiGoal", 2, options={"goals": [[6, 6]]}).summary()
    assert answer == {"skill": "both", "options": {"goals": [[6, 6]]}, **expected} and answer["distance"]["mean"] > 3.0


def test_a_pusher_is_evaluated_on_another_goal(ask, pusher, monkeypatch):
    monkeypatch.setattr(Pusher, "horizon", 20)
    assert ask("eval", pusher, "--episodes", 1, "--episode-steps", 7)["length"]["mean"] == 7.0
    there = ask("eval", pusher, "--episodes", 1)["distance"]["mean"]
    away = ask("eval", pusher, "--episodes", 1, "--goal-x", -2)["distance"]["mean"]
    assert away > there + 1.0


def test_figures_are_printed_as_a_table(run, tiny_runs, tiny_skills):
    out = run("eval", tiny_runs["top"], "--episodes", 2)
    assert "top on MultiGoal, goals=[2]: 2 episodes" in " ".join(out.split())
    distance = evaluate(tiny_skills["top"], episodes=2).summary()["distance"]
    (row,) = [line for line in out.splitlines() if "distance" in line]
    assert all(f"{distance[name]:.3f}" in row for name in ("mean", "std", "median"))


# -------------------------------------------------------------------------------------------------------- record


def test_a_video_needs_no_display_and_replaces_nothing(ask, run, refused, tiny_runs, no_opengl, fingerprint, tmp_path):
    command = ["record", tiny_runs["right"], "--output", "film.gif", "--episodes", 1]
    answer = ask(*command)
    with Image.open("film.gif") as film:
        assert film.n_frames > 2 and answer["frames"] >= film.n_frames
    assert answer["renderer"] == "drawing" and len(answer["episodes"]) == 1
    before = fingerprint(tmp_path)
    assert "film.gif exists" in refused(*command)
    assert fingerprint(tmp_path) == before
    assert run(*command, "--seed", 1, "--overwrite") == "film.gif: 1 episodes, drawn with drawing\n"
    assert fingerprint(tmp_path) != before


# ---------------------------------------------------------------------------------------------------------- plot


def test_curves_are_drawn_with_their_numbers_beside_them(run, ask, tiny_runs, tmp_path):
    assert run("plot", *tiny_runs.values()) == "curves.png and curves.json\n"
    with Image.open("curves.png") as picture:
        assert picture.width > 100
    numbers = json.loads((tmp_path / "curves.json").read_text())
    assert [curve["run"] for curve in numbers["runs"]] == ["right", "top"]
    assert numbers["runs"][0]["rollout/distance"][-1][0] == 600
    assert ask("plot", tiny_runs["top"], "--output", "a/b.svg") == {"picture": "a/b.svg", "numbers": "a/b.json"}


# ---------------------------------------------------------------------------------------------------------- list


@pytest.fixture
def shelf(tiny_runs, composed, tmp_path, monkeypatch):
    """Folders with a run, a run that has not finished, a composed skill and a broken one; one skill is shipped."""
    shutil.copytree(tiny_runs["right"] / "skill", tmp_path / "package" / "left")
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "package")
    shutil.copytree(tiny_runs["right"], tmp_path / "runs" / "right", symlinks=True)
    shutil.copytree(tiny_runs["top"], tmp_path / "runs" / "top", symlinks=True)
    shutil.rmtree(tmp_path / "runs" / "top" / "skill")
    shutil.copytree(composed, tmp_path / "skills" / "both")
    shutil.copytree(composed, tmp_path / "skills" / "broken")
    (tmp_path / "skills" / "broken" / "critic.safetensors").unlink()
    (tmp_path / "skills" / "notes").mkdir()


def test_tasks_and_skills_are_listed(ask, shelf):
    answer = ask("list")
    assert answer["tasks"] == sorted(TASKS)
    skills = {skill["path"]: skill for skill in answer["skills"]}
    assert list(skills) == ["left", "runs/right", "skills/both", "skills/broken"]
    assert skills["left"] == {
        "path": "left", "task": "MultiGoal", "steps": 600, "temperature": 0.1, "error": None
    }  # fmt: skip
    assert skills["skills/both"]["steps"] is None and skills["runs/right"]["error"] is None
    assert "critic.safetensors: is missing" in skills["skills/broken"]["error"]


def test_a_folder_of_the_same_name_does_not_stand_in_for_a_shipped_skill(ask, shelf, composed):
    shutil.copytree(composed, "left")
    assert ask("list")["skills"][0]["steps"] == 600


def test_the_list_is_a_table_without_empty_words(run, shelf):
    out = run("list", "--folder", "skills", "nowhere")
    assert "PushBottomLeft" in out and "skills/both" in out and "runs/right" not in out
    assert "0.13 " in out and "None" not in out and "0.13000" not in out


# -------------------------------------------------------------------------------------------------------- doctor


CHECKS = [Check("jax", True, "0.9"), Check("opengl", None, "no driver", "install EGL")]


def test_the_doctor_reports_every_check(run, ask, monkeypatch):
    monkeypatch.setattr("qompose.doctor.examine", lambda: CHECKS)
    out = run("doctor")
    assert all(word in out for word in ("jax", "0.9", "ok", "opengl", "no driver", "install EGL"))
    assert ask("doctor") == {
        "ok": True,
        "checks": [
            {"name": "jax", "ok": True, "detail": "0.9", "advice": ""},
            {"name": "opengl", "ok": None, "detail": "no driver", "advice": "install EGL"},
        ],
    }


def test_the_doctor_fails_if_something_does_not_work(monkeypatch, capfd):
    monkeypatch.setattr("qompose.doctor.examine", lambda: [*CHECKS, Check("mujoco", False, "broken", "mend it")])
    assert main(["doctor"]) == 2
    out, err = capfd.readouterr()
    assert "FAILED" in out and "mend it" in out and err == "qompose: something does not work; see FAILED above\n"
    assert main(["doctor", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["ok"] is False


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def crowded(tiny_runs, pusher, tmp_path):
    """A folder with everything that a mistake could harm."""
    shutil.copytree(tiny_runs["right"], tmp_path / "right", symlinks=True)
    shutil.copytree(tiny_runs["top"], tmp_path / "top", symlinks=True)
    shutil.copytree(pusher, tmp_path / "pusher", symlinks=True)
    for name in ("truncated", "edited", "renamed"):
        shutil.copytree(tiny_runs["right"] / "skill", tmp_path / name)
    with open(tmp_path / "truncated" / "sampler.safetensors", "r+b") as file:
        file.truncate(100)
    with open(tmp_path / "edited" / "critic.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    manifest = tmp_path / "renamed" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"temperature": 0.1', '"temperature": "hot"'))
    (tmp_path / "film.gif").write_bytes(b"precious")
    return tmp_path


TRAIN, COMPOSE = ["train", "--output-dir", "new", "--env"], ["compose", "--no-extract", "--output-dir", "new"]
MISTAKES = {
    "unknown task": ([*TRAIN, "PushLfet"], "there is no environment 'PushLfet': did you mean PushLeft"),
    "unknown module": ([*TRAIN, "nowhere:X-v0"], "the module 'nowhere' cannot be imported"),
    "discrete actions": ([*TRAIN, "CartPole-v1"], "its actions are Discrete, only Box can be learned from"),
    "no goal": ([*TRAIN, "PushTo"], "PushTo has no goal: give goal_x, goal_y or both"),
    "goal nan": ([*TRAIN, "PushTo", "--goal-x", "nan"], "goal_x=nan cannot be reached"),
    "fixed goal": ([*TRAIN, "PushLeft", "--goal-x", "1"], "PushLeft has its goal fixed"),
    "goal of another task": ([*TRAIN, "Pendulum-v1", "--goal-x", "1"], "Pendulum-v1 cannot be made"),
    "option without value": ([*TRAIN, "PushLeft", "--env-option", "x"], "'x' is not of the form key=value"),
    "unknown option": ([*TRAIN, "PushLeft", "--env-option", "x=1"], "PushLeft has no option 'x'"),
    "option of the wrong kind": ([*TRAIN, "MultiGoal", "--env-option", "goals=3"], "goals=3: give a list"),
    "name": ([*TRAIN, "MultiGoal", "--name", "My Skill"], "name: must be of the form"),
    "no skill": (["eval", "nowhere"], "there is no skill 'nowhere'; give the directory"),
    "skill on another task": (["eval", "right", "--env", "PushLeft"], "has 2 observations, the environment 12"),
    "no episodes": (["eval", "right", "--episodes", "0"], "episodes is 0; it must be at least 1"),
    "seed": (["eval", "right", "--seed", "-1"], "seed is -1"),
    "truncated": (["eval", "truncated"], "skill 'truncated': sampler.safetensors: size: 100 bytes"),
    "edited": (["eval", "edited"], "skill 'edited': critic.safetensors: sha256: differs"),
    "edited manifest": (["eval", "renamed"], "manifest.json: temperature: must be a number"),
    "film of another task": (
        ["record", "right", "--env", "PushLeft", "--output", "new.gif"], "has 2 observations, the environment 12"
    ),
    "film of a truncated skill": (["record", "truncated", "--output", "new.gif"], "size: 100 bytes"),
    "film that exists": (["record", "right", "--output", "film.gif"], "film.gif exists"),
    "film of another kind": (["record", "right", "--output", "new.avi"], "use .mp4 or .gif"),
    "skills of other shapes": ([*COMPOSE, "right", "pusher"], "observation.size: 2 and 12 differ"),
    "edited part": ([*COMPOSE, "right", "edited"], "skill 'edited': critic.safetensors: sha256: differs"),
    "one skill": ([*COMPOSE, "right"], "give at least two skills"),
    "weights for fewer": (
        [*COMPOSE, "right", "top", "--weights", "1"], "1 weights for 2 skills; give one for each, or none"
    ),
    "weight nan": ([*COMPOSE, "right", "top", "--weights", "nan", "1"], "weight nan: a weight must be finite"),
    "weight zero": (
        [*COMPOSE, "right", "top", "--weights", "1", "0"],
        "weight 0: a weight must be finite and not zero",
    ),
    "weight word": ([*COMPOSE, "right", "top", "--weights", "1", "x"], "valid parse for arguments: ['1', 'x']"),
    "directory that exists": (["compose", "right", "top", "--output-dir", "top"], "top exists already"),
    "curves of a skill": (["plot", "right/skill", "--output", "new.png"], "right/skill has no metrics"),
    "curves of nothing": (["plot", "right", "nowhere", "--output", "new.png"], "nowhere has no metrics"),
    "reproduction among other files": (["reproduce", "fig2", "--output-dir", "right"], "right holds other files"),
    "reproduction of no seed": (["reproduce", "fig2", "--output-dir", "new", "--seeds", "0"], "seeds is 0"),
    "curves of another kind": (["plot", "right", "--output", "new.bmp"], "cannot draw .bmp; use .png"),
}  # fmt: skip


def test_bad_input_is_refused_in_one_line_and_harms_nothing(refused, crowded, fingerprint):
    before = fingerprint(crowded)
    for name, (arguments, message) in MISTAKES.items():
        assert message in refused(*arguments), name
        assert fingerprint(crowded) == before, name


def test_the_fingerprint_sees_what_could_be_harmed(crowded, fingerprint):
    seen = {fingerprint(crowded)}
    (crowded / "film.gif").write_bytes(b"precioux")
    seen.add(fingerprint(crowded))
    (crowded / "new").mkdir()
    seen.add(fingerprint(crowded))
    (crowded / "right" / "last").unlink()
    seen.add(fingerprint(crowded))
    assert len(seen) == 4


def test_a_training_may_start_from_a_skill_with_its_hyperparameters(tiny_runs, tmp_path, monkeypatch):
    from qompose.training import session
    from qompose.types import QomposeError

    seen = {}

    def remember(env, **settings):
        seen.update(settings)
        raise QomposeError("seen")

    monkeypatch.setattr(session, "train", remember)
    command = ["train", "--env", "MultiGoal", "--start", str(tiny_runs["right"]), "--learning-rate", "0.01"]
    assert main(command) == 2
    agent, start = seen["agent"], seen["start"]
    assert (start.name, agent.initial_heat, agent.hidden) == ("right", 1.0, tuple(start.sampler.spec["hidden"]))
    assert agent.temperature == start.temperature and agent.learning_rate == 0.01
