import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import qompose
from qompose import commands
from qompose.cli import COMMANDS, main
from qompose.types import QomposeError

HEAVY = {"jax", "jaxlib", "mujoco", "equinox", "optax", "tyro", "rich", "matplotlib", "av", "tensorboardX"}


def function_of(name):
    return getattr(commands, "list_" if name == "list" else name)


def test_asking_for_help_imports_nothing_heavy(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(qompose.__file__).parents[1])}
    command = [sys.executable, "-X", "importtime", "-m", "qompose", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "qompose.cli" in imported
    assert not {name.partition(".")[0] for name in imported} & HEAVY


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command_and_what_it_does(capsys, arguments):
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, text in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, text] for line in lines)


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_that_of_the_package(capsys, flag):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"qompose {qompose.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options(capsys, name):
    function = function_of(name)
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    out, err = capsys.readouterr()
    summary, _, described = inspect.getdoc(function).partition("Args:")
    assert done.value.code == 0 and err == "" and out.startswith(f"usage: qompose {name} ")
    assert summary.splitlines()[0] in out and "--json" in out
    for parameter in inspect.signature(function).parameters:
        assert f"\n    {parameter}: " in described


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown command 'fly'; choose from train, refit,"),
        (["--fly"], "unknown command '--fly'"),
        (["train", "--fly", "1"], "Unrecognized options: --fly, 1; see: qompose train --help"),
        (["train", "--total-steps", "many"], "--total-steps: invalid literal for int() with base 10: 'many'"),
        (["train", "--env"], "Missing value for argument '--env'"),
        (
            ["train", "--algo", "td3"],
            "invalid choice 'td3' for argument '--algo'. Expected one of ('sql', 'ddpg', 'naf')",
        ),
        (["train", "--resume", "yes"], "Unrecognized options: yes"),
        (["train", "--temperature", "nan"], "temperature is nan; it must be from 1e-08"),
        (["train", "--total-steps", "10"], "warmup_steps is 1000, so 10 steps leave nothing to learn"),
        (["compose"], 'give at least two skills, or an expression of them such as "a & b"'),
        (
            ["compose", "a", "b", "--weights", "x", "y"],
            "--weights: Could not find valid parse for arguments: ['x', 'y']",
        ),
        (["compose", "a", "b", "--steps", "0"], "steps is 0; it must be from 1 to"),
        (["eval"], "Missing from qompose eval: STR Directory of a skill or run"),
        (["eval", "a", "b"], "Unrecognized options: b"),
        (["eval", "a", "--mode", "greedy"], "Expected one of ('sample', 'resample', 'best')"),
        (["record"], "Missing from qompose record: STR"),
        (["plot"], "give the directory of at least one run"),
        (["reproduce"], "Missing from qompose reproduce: {table1,fig2,"),
        (["reproduce", "fig9"], "Expected one of ('table1', 'fig2', "),
        (["doctor", "now"], "Unrecognized options: now"),
    ],
)
def test_a_mistake_is_answered_in_one_line(refused, arguments, message):
    assert message in refused(*arguments)


def test_a_mistake_is_no_traceback_in_a_process_of_its_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(qompose.__file__).parents[1])}
    command = [sys.executable, "-m", "qompose", "fly"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.fixture
def doctor(monkeypatch):
    """The shortest of the commands with something else to do."""

    def replace(work):
        monkeypatch.setattr(commands, "doctor", work)
        return main(["doctor"])

    return replace


def raising(error):
    def work():
        raise error

    return work


def test_an_answer_is_printed_as_json_and_nothing_without_one(doctor, capsys):
    assert doctor(lambda: {"words": ["a"], "number": 1.5}) == 0
    assert json.loads(capsys.readouterr().out) == {"words": ["a"], "number": 1.5}
    assert doctor(lambda: None) == 0 and capsys.readouterr() == ("", "")


def test_an_answer_that_is_not_ok_is_a_failure(doctor, capsys):
    assert doctor(lambda: {"ok": True}) == 0 and doctor(lambda: {"ok": False}) == 2


def test_errors_that_the_user_can_mend_are_one_line(doctor, capsys):
    assert doctor(raising(QomposeError("not so; do it otherwise"))) == 2
    assert capsys.readouterr() == ("", "qompose: not so; do it otherwise\n")


def test_errors_of_the_file_system_name_the_file(doctor, capsys):
    assert doctor(lambda: Path("no/such/file").read_text()) == 2
    assert capsys.readouterr() == ("", "qompose: no/such/file: No such file or directory\n")
    assert doctor(raising(OSError("the disk is gone"))) == 2
    assert capsys.readouterr() == ("", "qompose: the disk is gone\n")


def test_an_interrupt_is_status_130(doctor, capsys):
    assert doctor(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "qompose: interrupted\n")


def test_a_fault_of_ours_is_not_hidden(doctor):
    with pytest.raises(ZeroDivisionError):
        doctor(lambda: 1 / 0)
