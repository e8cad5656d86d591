import os
import subprocess
import sys
from pathlib import Path

import pytest

import qompose
from qompose import cli
from qompose.training import session
from qompose.types import QomposeError

# Runs in a process of its own, and reports what it did to the world: modules, environment, files.
WATCH = """
import os, sys
import gymnasium  # sets PYGAME_HIDE_SUPPORT_PROMPT; what follows is our own doing
done = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        done.append(("open", str(arguments[0])))
    elif event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        done.append(("open", str(arguments[0])))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.putenv", "os.unsetenv", "socket.connect"):
        done.append((event, str(arguments)))
    elif event == "subprocess.Popen":
        done.append((event, str(arguments[0])))
sys.addaudithook(watch)
before = dict(os.environ)
{code}
done = [entry for entry in done if entry[1] != os.devnull]
assert not done, done
assert dict(os.environ) == before
heavy = set(sys.modules) & {{"jax", "jaxlib", "mujoco", "equinox", "optax", "matplotlib", "tyro", "rich", "av"}}
assert not heavy, heavy
"""

CODES = {
    "import": "import qompose; dir(qompose)",
    "from import": "from qompose import QomposeError; import qompose.types",
    "help": "from qompose.cli import main; assert main(['--help']) == 0",
    "nothing": "from qompose.cli import main; assert main([]) == 0",
    "version": "from qompose.cli import main; assert main(['--version']) == 0",
    "unknown command": "from qompose.cli import main; assert main(['fly']) == 2",
}


def run(code, folder):
    environment = {**os.environ, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(qompose.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment, cwd=folder
    )


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_importing_and_asking_for_help_touch_nothing(code, tmp_path):
    done = run(WATCH.format(code=code), tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


MISTAKES = """
import numpy as np
import qompose as qp
skill = qp.load("push-left")
for attempt, words in {
    lambda: qp.train("PushLeft", start="push-left"): "'push-left' is not a skill; load it first",
    lambda: qp.train("PushLeft", experience=["push-left"]): "'push-left' is not a skill",
    lambda: qp.train("PushLeft", experience=skill): "push-left; give a list of skills",
    lambda: qp.train("PushLeft", options=[1]): "options is [1]; give a dictionary",
    lambda: qp.train("PushLeft", options={1: 2}): "options is {1: 2}; give a dictionary",
    lambda: qp.train("PushLeft", options=np.eye(2)): "options is array([[1., 0.], [0., 1.]])",
    lambda: qp.train("PushLeft", agent="ddpg"): "agent is 'ddpg'; give qp.SQL(...)",
    lambda: qp.train("PushLeft", training={"seed": 1}): "training is {'seed': 1}; give qp.Training(...)",
    lambda: qp.load(None): "a skill is named by its directory, not by None",
    lambda: qp.train(3): "env is 3; give the id of an environment",
    lambda: qp.record("push-left", "film.mp4"): "'push-left' is not a skill",
    lambda: qp.learn_corrections([skill, skill]): "corrections are of at least two skills",
    lambda: qp.learn_corrections([skill], [skill]): "is not a skill",
    lambda: qp.learn_corrections(skill, skill): "a skill is given twice",
    lambda: qp.evaluate("push-left"): "'push-left' is not a skill",
    lambda: qp.evaluate(skill, options=[1]): "options is [1]",
    lambda: qp.compose(skill & qp.load("push-bottom"), temperature="0.1"): "temperature is '0.1'",
    lambda: qp.compose(skill & qp.load("push-bottom"), extraction=qp.Correction()): "; give qp.Extraction(...)",
    lambda: qp.compose(skill & qp.load("push-bottom"), correction=qp.Extraction()): "; give qp.Correction(...)",
    lambda: qp.explain(skill & qp.load("push-bottom"), correction=8000): "correction is 8000; give qp.Correction(...)",
    lambda: qp.learn_corrections(skill, qp.load("push-bottom"), correction=8000): "correction is 8000; give qp.Corr",
    lambda: qp.evaluate(skill, episode_steps=2.5): "episode_steps is 2.5; it must be at least 1 and whole",
    lambda: qp.evaluate(skill, env_timeout=-1): "env_timeout is -1; give seconds",
    lambda: qp.record(skill, "film.mp4", episode_steps=2.5): "episode_steps is 2.5; it must be at least 1 and whole",
    lambda: qp.record(skill, "film.mp4", env_timeout=-1): "env_timeout is -1; give seconds",
    lambda: qp.explain(skill & qp.load("push-bottom"), members=2.5): "members is 2.5",
    lambda: skill.thin(2.5): "transitions is 2.5",
}.items():
    try:
        attempt()
    except qp.QomposeError as error:
        assert words in str(error) and "\\n" not in str(error), error
    else:
        raise AssertionError(words)
"""


def test_values_of_the_wrong_kind_are_refused_in_one_line(tmp_path):
    done = run(MISTAKES, tmp_path)  # in a process of its own: here annotations are checked first
    assert done.returncode == 0, done.stderr


def test_the_watch_sees_what_it_should(tmp_path):
    for code in ("open('x', 'w').close()", "os.environ['A'] = 'b'", "import rich", "os.mkdir('y')"):
        assert run(WATCH.format(code=code), tmp_path).returncode != 0


def test_importing_registers_the_tasks_with_gymnasium(tmp_path):
    code = "import qompose, gymnasium; print(*sorted(n for n in gymnasium.registry if n.startswith('Push')))"
    assert "PushLeft-v0" in run(code, tmp_path).stdout.split()


def test_every_public_name_is_there():
    assert set(qompose.__all__) < set(dir(qompose))
    for name in qompose.__all__:
        assert callable(getattr(qompose, name))
    assert qompose.QomposeError is QomposeError and issubclass(QomposeError, ValueError)
    with pytest.raises(AttributeError, match="module 'qompose' has no attribute 'tarin'"):
        _ = qompose.tarin


def test_python_dash_m_is_the_command(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(qompose.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "qompose", "--version"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"qompose {qompose.__version__}\n", "")


@pytest.mark.parametrize(
    ("flags", "agent", "noise"),
    [
        ([], "SQL", None),
        (["--algo", "sql", "--temperature", "0.5"], "SQL", None),
        (["--algo", "ddpg", "--noise", "0.3"], "DDPG", 0.3),
        (["--noise", "0.3", "--algo=naf"], "NAF", 0.3),
    ],
)
def test_the_algorithm_on_the_command_line_chooses_the_flags(flags, agent, noise, monkeypatch):
    seen = []

    def watch(env, **settings):
        seen.append(settings)
        raise QomposeError("seen")

    monkeypatch.setattr(session, "train", watch)
    assert cli.main(["train", *flags]) == 2
    assert type(seen[0]["agent"]).__name__ == agent and getattr(seen[0]["agent"], "noise", None) == noise
    assert seen[0]["algo"] == agent.lower()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--algo", "sac"], "invalid choice 'sac'"),
        (["--algo"], "--algo"),
        (["--algo", "naf", "--temperature", "1"], "--temperature"),
        (["--noise", "1"], "--noise"),
        (["--algo", "ddpg", "--noise", "-1"], "noise is -1.0"),
    ],
)
def test_flags_of_another_algorithm_are_refused_in_one_line(flags, complaint, capsys):
    assert cli.main(["train", *flags]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
