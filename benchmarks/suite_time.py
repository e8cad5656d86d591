"""How long the tests of `make test` take, and how much of it the baselines, the paper's tables and yardsticks cost.

    python -m benchmarks.suite_time [--report FILE]

Runs `pytest` as `make test` does, or reads the JUnit file of such a run (`pytest --junitxml FILE`). The seconds of a
test are those of the worker that ran it, with the fixtures that it was the first to need. Writes
results/suite_time.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, write_results
from qompose.view.console import print_table

WORKERS = 2  # as pyproject.toml says
BAR = 120.0  # s: what DDPG, NAF and the reproduced tables may add to the whole
PARTS = {
    "DDPG and NAF": ("agents.test_ddpg", "agents.test_naf"),
    "Table I, Figs. 2 and 3": ("paper.test_table1", "paper.test_fig2", "paper.test_fig3", "paper.test_study",
                               "paper.test_jobs"),
    "yardsticks": ("test_yardsticks",),
    "the list of planted bugs, the limits of the gates": ("test_planted_bugs", "test_gates"),
}  # fmt: skip
OTHERS = "of other files, named after DDPG or NAF"


def part_of(module: str, test: str) -> str | None:
    """To which part a test belongs, by its module and its name; None for all others."""
    for part, modules in PARTS.items():
        if module.removeprefix("tests.") in modules:
            return part
    return OTHERS if any(word in test.lower() for word in ("ddpg", "naf")) else None


def summarise(report: Path) -> dict[str, Any]:
    """Seconds and number of the tests of each part, and of all."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    seconds, counts = defaultdict(float), defaultdict(int)
    for case in suite.iter("testcase"):
        part = part_of(case.attrib["classname"], case.attrib["name"])
        for name in ("all", *([part] if part else [])):
            seconds[name] += float(case.attrib["time"])
            counts[name] += 1
    rows = [
        {"part": part, "tests": counts[part], "seconds": round(seconds[part], 1)} for part in (*PARTS, OTHERS, "all")
    ]
    own, named = sum(row["seconds"] for row in rows[:-2]) / WORKERS, rows[-2]["seconds"] / WORKERS
    return {"rows": rows, "workers": WORKERS, "pytest_seconds": float(suite.attrib["time"]), "bar": BAR,
            "added_seconds": {"own files": round(own, 1), "with others": round(own + named, 1)}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="of a run that there was; without it the tests are run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = arguments.report or Path(folder) / "report.xml"
        if arguments.report is None:
            subprocess.run([sys.executable, "-m", "pytest", "--junitxml", str(report)], cwd=RESULTS.parent, check=True)
        result = summarise(report)
    write_results("suite_time", result, command="python -m benchmarks.suite_time")
    print_table(
        "seconds of the tests", ("part", "tests", "s"), [tuple(map(str, row.values())) for row in result["rows"]]
    )


if __name__ == "__main__":
    main()
