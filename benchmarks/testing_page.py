"""Write docs/testing.md from results/gates.json, planted_bugs.json and suite_time.json.

python -m benchmarks.testing_page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.bugs import BUGS
from benchmarks.machine import RESULTS
from benchmarks.measurements import publish, table
from benchmarks.planted_bugs import NO_BUG, identify

PAGE = RESULTS.parent / "docs" / "testing.md"
HEAD = """# What the tests notice

Made from the files in `results/` by `python -m benchmarks.testing_page`; a test holds it to them. `make test` runs the
fast tests, `make test-all` also the gates and some of the planted bugs.

"""
GATES = """## Learning gates

Short trainings through the whole loop (environment, replay, updates, evaluation) whose outcome is known; one that ends
beyond the limits of clean trainings is an alarm. `sql`, `ddpg` and `naf` learn in a corridor whose exact Q, policy and
return come from a fine grid (`benchmarks/corridor.py`): observations and actions need scaling, a time limit must not
cut the value and an exit must. `goals` is soft Q-learning towards four goals of equal worth: its episodes must spread
over at least two of them (1 bit), since two is what a few clean trainings find.

A limit lies beyond the worst of the first {calibrating} clean runs by its distance from their median, times
{margins}. The margin of `goals` was raised from 1 when two of the 100 runs were alarms: its runs that were not used for
the limit were seen before the margin was chosen.
"""
NAMES, ENOUGH = ("sql", "ddpg", "naf", "goals"), 100
BUGS_HEAD = """## Planted bugs

Each is put into a copy of the package; the unit tests named with it run up to their first failure, and the gates where
those let it pass. The list is `benchmarks/bugs.py`. {caught} of the {planted} bugs that were tried are caught. Those
from "no target network" on were found by looking for faults that no test noticed: their tests came with them.
{untried}{clean}
"""


def gates(result: dict[str, Any]) -> str:
    rows, runs = [], []
    for name, gate in result["gates"].items():
        for figure, row in gate["figures"].items():
            numbers = (row["least"], row["median"], row["most"], row["low"], row["high"])
            rows.append((name, figure, *("" if number is None else f"{number:.3f}" for number in numbers)))
        runs.append(
            (name, gate["clean_runs"], gate["false_alarms"], gate["fresh_runs"], gate["false_alarms_in_fresh_runs"])
        )
    unmeasured = [name for name in NAMES if name not in result["gates"]]
    few = [name for name, gate in result["gates"].items() if gate["clean_runs"] < ENOUGH]
    open_points = [f"Not yet measured, and skipped by the tests: {', '.join(unmeasured)}."] if unmeasured else []
    open_points += [f"Provisional, from fewer than {ENOUGH} clean runs: {', '.join(few)}."] if few else []
    margins = ", ".join(f"{margin:g} ({name})" for name, margin in result["margin"].items())
    head = GATES.format(calibrating=result["calibrating_runs"], margins=margins)
    return "\n".join([
        head, table(("gate", "figure", "least", "median", "most", "lowest allowed", "highest allowed"), rows), "",
        table(("gate", "clean runs", "false alarms", "of them not used for the limits", "false alarms"), runs), "",
        *(line + "\n" for line in open_points),
    ])  # fmt: skip


def planted_bugs(result: dict[str, Any]) -> str:
    rows, listed = [], {identify(bug) for bug in BUGS}
    tried = {(row["bug"], row["file"]): row for row in result["rows"] if (row["bug"], row["file"]) in listed}
    for row in tried.values():
        failed = [f"gate `{gate}`" for gate, held in row["gates_held"].items() if not held]
        test = [f"`{row['unit_test'].removeprefix('tests/')}`"] if row["unit_test"] else []
        rows.append((row["bug"], f"`{row['file']}`", *(test or failed or ["**nothing**"])))
    untried = len(listed - set(tried))
    clean = [row for row in result["rows"] if row["bug"] == NO_BUG]
    passed = " Without a bug the same tests pass." if clean and not clean[0]["caught"] else ""
    head = BUGS_HEAD.format(
        caught=sum(row["caught"] for row in tried.values()), planted=len(tried), clean=passed,
        untried=f"{untried} more of the list have not been tried yet; `--resume` goes on with them." if untried else "",
    )  # fmt: skip
    return head.rstrip("\n") + "\n\n" + table(("bug", "in", "caught by"), rows) + "\n"


def suite_time(result: dict[str, Any]) -> str:
    rows = [(row["part"], row["tests"], f"{row['seconds']:.0f}") for row in result["rows"]]
    added = {
        what: f"{seconds:.0f} s: {'met' if seconds <= result['bar'] else '**missed**'}"
        for what, seconds in result["added_seconds"].items()
    }
    return f"""## How long the fast tests take

Seconds of the {result["workers"]} processes that run them, with the fixtures; all together were done after
{result["pytest_seconds"]:.0f} s. DDPG, NAF and the reproduced tables and figures were to add at most
{result["bar"]:.0f} s of both processes. The tests in files of their own take {added["own files"]};
with those of other features (the compiled loop, the log, skills) that are run for DDPG or NAF, too,
{added["with others"]}.

{table(("part", "tests", "s"), rows)}
"""


def write_page(results: Path = RESULTS) -> str:
    """The page, as the files say it today."""
    parts = [HEAD.rstrip("\n")]
    for section in (gates, planted_bugs, suite_time):
        path = results / f"{section.__name__}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            parts += ["", section(record["result"]), f"`{record['command']}` → `results/{path.name}`"]
        else:
            parts += ["", f"Not yet measured: `python -m benchmarks.{section.__name__}`."]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    publish(__doc__, PAGE, write_page())
