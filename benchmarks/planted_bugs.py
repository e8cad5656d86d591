"""Planted bugs: small faults put into a copy of the package, and which unit test or learning gate notices each.

    python -m benchmarks.planted_bugs

Every bug is an exact replacement in the source; it fails loudly where the text is not there exactly once. The unit
tests named with the bug run up to their first failure; what they let pass goes through the learning gates. The copy
lies in a temporary folder: the package itself is never touched. The same tests without a bug must pass. Writes
results/planted_bugs.json after every bug; `--resume` goes on where that stopped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "planted_bugs.json"
NO_BUG = "none"
# Imported once, before any copy of the package: every bug is tried in a fork of this process.
SHARED = ("jax", "equinox", "optax", "mujoco", "gymnasium.vector", "jaxtyping", "beartype", "pytest", "tensorboardX")
# What is imported before pytest starts cannot be rewritten for it, and need not be.
REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"
OPTIONS = ("-n", "0", "-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-W", REWRITTEN)
GATE = "tests/test_gates.py::test_a_clean_training_passes[{}]"


def plant(bug: Bug, package: Path) -> None:
    """Put the bug into a copy of the package; raises ValueError if the text to replace is not there exactly once."""
    path = package / bug.file
    text = path.read_text(encoding="utf-8")
    for old, new in bug.edits:
        if text.count(old) != 1:
            raise ValueError(f"{bug.name}: {old!r} is {text.count(old)} times in {bug.file}, not once")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


class Failures:
    """A plugin of pytest: the tests that failed, and whether any ran at all."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.ran = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call" and not report.skipped
        if report.failed:
            self.failed.append(report.nodeid)


def run_tests(package: Path, tests: Sequence[str]) -> list[str]:
    """The first of the tests that fails with this copy of the package, if any. Ends in a process of its own.

    Raises RuntimeError if something else was imported, or the tests could not be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.json", Path(folder) / "log"
        status = in_fork(lambda: _run_here(package, tests, report), log)
        if status != 0:
            raise RuntimeError(f"{' '.join(tests)} could not be run ({status}):\n{log.read_text()[-3000:]}")
        return json.loads(report.read_text())


def _run_here(package: Path, tests: Sequence[str], report: Path) -> int:
    import pytest

    sys.path.insert(0, str(package.parent))
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = os.pathsep.join([str(package.parent), str(ROOT)])
    failures = Failures()
    status = pytest.main([*OPTIONS, "-m", "", *tests], plugins=[failures])
    found = sys.modules["qompose"].__file__ if "qompose" in sys.modules else None
    if found is None or Path(found).parent != package:
        print(f"imported {found}, not the copy in {package}")
        return 3
    if status not in (0, 1) or not (failures.ran or failures.failed):
        return 4
    report.write_text(json.dumps(failures.failed))
    return 0


def try_bug(bug: Bug | None, tests: Sequence[str], gates: Sequence[str]) -> dict[str, Any]:
    """Plant a bug, or none; the unit test that fails, or else which gates held, up to the first that did not."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "qompose"
        shutil.copytree(ROOT / "src" / "qompose", package, ignore=shutil.ignore_patterns("__pycache__"))
        if bug is not None:
            plant(bug, package)
        failed = run_tests(package, tests) if tests else []
        held: dict[str, bool] = {}
        for gate in gates if not failed else ():
            held[gate] = not run_tests(package, [GATE.format(gate)])
            if not held[gate]:
                break
    return {"unit_test": failed[0] if failed else None, "gates_held": held, "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="bugs whose name holds one of these")
    parser.add_argument("--gates", choices=("missed", "only", "never"), default="missed")
    parser.add_argument("--resume", action="store_true", help="keep what the results file already has")
    options = parser.parse_args()
    for name in SHARED:
        importlib.import_module(name)

    chosen = [bug for bug in BUGS if not options.only or any(part in bug.name for part in options.only)]
    rows: list[dict[str, Any]] = json.loads(RESULT.read_text())["result"]["rows"] if options.resume else []
    rows = keep_rows(rows, chosen)
    done = {(row["bug"], row["file"]) for row in rows}
    trials: list[Bug | None] = [*chosen, *([None] if options.resume or not options.only else [])]
    keep = options.resume or not options.only  # a few bugs alone are no result
    for bug in trials:
        if identify(bug) in done:
            continue
        # Without a bug nothing may fail: all the unit tests of all bugs.
        tests = bug.tests if bug else tuple(dict.fromkeys(test for each in BUGS for test in each.tests))
        gates = bug.gates if bug and options.gates != "never" else ()
        found = try_bug(bug, () if options.gates == "only" else tests, gates)
        caught = bool(found["unit_test"]) or not all(found["gates_held"].values())
        name, file = identify(bug)
        rows.append({"bug": name, "file": file, "caught": caught, **found})
        print(json.dumps(rows[-1]), flush=True)
        if keep:
            _write(rows)
    wrong = [row["bug"] for row in rows if row["caught"] == (row["bug"] == NO_BUG)]
    planted = sum(row["bug"] != NO_BUG for row in rows)
    print(f"{planted - len(wrong)} of {planted} as they should be" + "".join(f"; not so: {name}" for name in wrong))
    sys.exit(bool(wrong))


def identify(bug: Bug | None) -> tuple[str, str]:
    """What tells one row of the results from another."""
    return (bug.name, bug.file) if bug else (NO_BUG, "")


def keep_rows(rows: Sequence[dict[str, Any]], chosen: Sequence[Bug]) -> list[dict[str, Any]]:
    """What stands of earlier results: bugs of the list whose trial was over.

    The control, too, unless a bug is to be tried: without it that one's tests are to pass as well.
    """
    listed = set(map(identify, BUGS))
    kept = [row for row in rows if (row["bug"], row["file"]) in listed and (row["caught"] or row["gates_held"])]
    if set(map(identify, chosen)) <= {(row["bug"], row["file"]) for row in kept}:
        kept += [row for row in rows if row["bug"] == NO_BUG]
    return kept


def _write(rows: list[dict[str, Any]]) -> None:
    # In a fork, for this process must not import the package before its copies are.
    def write() -> int:
        machine: Any = importlib.import_module("benchmarks.machine")
        caught = sum(row["caught"] for row in rows if row["bug"] != NO_BUG)
        machine.write_results(
            "planted_bugs", {"planted": sum(row["bug"] != NO_BUG for row in rows), "caught": caught, "rows": rows},
            command="python -m benchmarks.planted_bugs",
        )  # fmt: skip
        return 0

    if in_fork(write):
        raise RuntimeError("the results could not be written")


def in_fork(function: Callable[[], int], log: Path | None = None) -> int:
    """The exit status of a function called in a process of its own, whose output goes to a file."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        if log is not None:
            file = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
        status = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
