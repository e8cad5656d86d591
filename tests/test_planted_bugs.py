"""Bugs can be planted, and are noticed; the copy that they are planted in is what is tested."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bugs import BUGS, Bug
from benchmarks.planted_bugs import keep_rows, plant

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.file}: {bug.name}")
def test_every_bug_still_finds_the_text_that_it_replaces(bug, tmp_path):
    # The source moves on: a bug whose text is gone must be written anew, or it is no longer planted.
    path = tmp_path / bug.file
    path.parent.mkdir(exist_ok=True)
    source = (ROOT / "src" / "qompose" / bug.file).read_text(encoding="utf-8")
    path.write_text(source, encoding="utf-8")
    plant(bug, tmp_path)
    planted = path.read_text(encoding="utf-8")
    assert planted != source
    compile(planted, bug.file, "exec")


def test_every_bug_names_tests_that_there_are():
    for bug in BUGS:
        for test in bug.tests:
            file, _, name = test.partition("::")
            claim = f"def {name}(" if name else "def test_"
            assert claim in (ROOT / file).read_text(encoding="utf-8"), test


def test_no_two_bugs_are_alike():
    assert len({(bug.file, bug.edits) for bug in BUGS}) == len({(bug.file, bug.name) for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("text", ["nothing", "twice twice"])
def test_a_text_that_is_not_there_exactly_once_is_refused(tmp_path, text):
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(ValueError, match=r"'twice' is \d times in module.py, not once"):
        plant(Bug("bug", "module.py", (("twice", "thrice"),), (), ()), tmp_path)
    assert (tmp_path / "module.py").read_text() == text


def test_results_are_resumed_without_what_left_the_list_and_the_control_follows_new_bugs():
    def row(bug, caught=True):
        return {"bug": bug.name, "file": bug.file, "caught": caught, "gates_held": {}}

    control = {"bug": "none", "file": "", "caught": False, "gates_held": {}}
    old = row(Bug("long gone", "soft/stein.py", (), (), ()))
    first, second = row(BUGS[0]), row(BUGS[1])
    assert keep_rows([first, old, control], BUGS[:1]) == [first, control]
    assert keep_rows([first, old, control], BUGS[:2]) == [first]  # the second is to be tried
    assert keep_rows([first, row(BUGS[1], caught=False), control], BUGS[:2]) == [first]  # its trial was not over
    assert keep_rows([first, second, control], BUGS[:2]) == [first, second, control]


CHEAP = ("rows that were never written are drawn", "factor of the quadratic form transposed")


def try_bugs(*arguments):
    command = [sys.executable, "-m", "benchmarks.planted_bugs", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)


@pytest.mark.slow  # a run of tests for every bug
def test_planted_bugs_are_caught():
    done = try_bugs("--gates", "never", "--only", *CHEAP)
    assert done.returncode == 0 and "2 of 2 as they should be" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow  # trains an agent
def test_a_gate_catches_what_no_unit_test_is_asked_about():
    done = try_bugs("--gates", "only", "--only", "rewards scaled")
    assert done.returncode == 0 and '"gates_held": {"naf": false}' in done.stdout, done.stdout + done.stderr
