"""Count the hostile skills, the faults of environments and the planted divergences of the tests, and check them all.

    python -m benchmarks.faults

Writes sections R5, R7 and R8 of results/reliability.json, and stops with status 1 if one of them is not dealt with.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from benchmarks.machine import RESULTS, write_section

TESTS = RESULTS.parent / "tests"
HOSTILE = "test_a_hostile_skill_is_refused_in_one_line_that_names_the_field"
BROKEN = "test_nothing_of_a_broken_step_is_stored"
LYING = "test_a_lie_within_the_limits_is_stored_as_it_was_told_and_parameters_stay_finite"
DIVERGING = "test_a_round_that_diverges_gives_back_the_state_from_before_it"
AGENTS = 3
LEAST = {"R5": 100, "R7": 12, "R8": 40}


class Passed:
    """What pytest is told to report to: the cases of each test that passed, and all that failed."""

    def __init__(self) -> None:
        self.cases: dict[str, list[str]] = {}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call":
            test, _, case = report.nodeid.rpartition("::")[2].partition("[")
            self.cases.setdefault(test, []).append(case.removesuffix("]"))


def judge(passed: Passed, poisons: int) -> dict[str, dict[str, Any]]:
    """The three sections."""

    def faults(test: str) -> list[str]:
        # Dealt with by every agent; a case is called fault-agent.
        cases = [case.rpartition("-")[0] for case in passed.cases.get(test, [])]
        return sorted({fault for fault in cases if cases.count(fault) == AGENTS})

    hostile, caught, told = len(passed.cases.get(HOSTILE, [])), faults(BROKEN), faults(LYING)
    planted = poisons * len(passed.cases.get(DIVERGING, []))
    found = {
        "R5": {"hostile_skills_refused_naming_the_field": hostile, "met": hostile >= LEAST["R5"]},
        "R7": {
            "agents": AGENTS, "caught_and_nothing_stored": caught, "stored_as_told_parameters_finite": told,
            "met": len(caught) >= LEAST["R7"],
        },
        "R8": {"divergences_caught_before_the_policy_changed": planted, "met": planted >= LEAST["R8"]},
    }  # fmt: skip
    return {name: {**section, "failed": passed.failed, "bar": LEAST[name]} for name, section in found.items()}


def main() -> int:
    passed = Passed()
    files = [str(TESTS / "skill" / "test_hostile.py"), str(TESTS / "training" / "test_online.py")]
    chosen = " or ".join((HOSTILE, BROKEN, LYING, DIVERGING))
    pytest.main(["-n", "0", "-q", *files, "-k", chosen], plugins=[passed])
    from tests.training.test_online import POISONS  # after pytest, which rewrites it

    sections = judge(passed, len(POISONS))
    for name, section in sections.items():
        write_section(name, section, command="python -m benchmarks.faults")
    print(json.dumps(sections))
    return 0 if all(section["met"] and not section["failed"] for section in sections.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
