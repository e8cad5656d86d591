"""Count the property tests and check them all.

    python -m benchmarks.properties

Counted are functions that draw from Hypothesis, each once whatever its parameters. The examples are the same at every
run. Writes section R15 of results/reliability.json, and stops with status 1 if one fails or there are too few.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from benchmarks.machine import RESULTS, write_section

BAR = 60
# Of those in tests/soft/test_properties.py that ask for it, each on so many random MDPs.
PROBLEMS = 200


class Count:
    """What pytest is told to report to."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}  # of each file
        self.on_problems = 0
        self.failed: list[str] = []

    def pytest_collection_finish(self, session: Any) -> None:
        functions = {item.obj: item.nodeid.partition("::")[0] for item in session.items}
        for function, file in functions.items():
            self.names[file] = self.names.get(file, 0) + 1
            drawn = getattr(function, "_hypothesis_internal_use_settings", None)
            self.on_problems += file.startswith("tests/soft") and getattr(drawn, "max_examples", 0) == PROBLEMS

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def main() -> int:
    count, begin = Count(), time.monotonic()
    status = pytest.main(["-n", "0", "-q", "-m", "property", str(RESULTS.parent / "tests")], plugins=[count])
    total = sum(count.names.values())
    result = {
        "properties": total,
        "in_each_file": dict(sorted(count.names.items())),
        f"on_{PROBLEMS}_random_mdps_each": count.on_problems,
        "tolerance_of_soft_q": 1e-6,
        "failed": count.failed,
        "seconds": time.monotonic() - begin,
        "bar": f"{BAR} properties",
        "met": total >= BAR and not status,
    }
    write_section("R15", result, command="python -m benchmarks.properties")
    print(result)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
