"""Steps per second of DDPG and SAC, ours and those of the other libraries, side by side on one core.

Each entrant is a process that waits while the others work: A B C A B C. Counted are the seconds of the processor, all
threads and the system's work for them included: on one idle core they are those of the clock, and they stay nearly the
same where others use the core, too. `python -m benchmarks.yardsticks --speed`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.foreign import check_python, command_of
from benchmarks.machine import write_results
from benchmarks.yardstick_run import FEWER, Entrant
from qompose.types import QomposeError
from qompose.view.console import print_table

# Ours, theirs, and the least ratio of ours to theirs; soft Q-learning with as many particles as suffice.
BARS = (
    ("qompose-ddpg-1", "sbx-ddpg-1", 5.0),
    ("qompose-ddpg-1", "sb3-ddpg-1", 10.0),
    *((f"qompose-{fewer}-1", "sbx-sac-1", 1.0) for fewer in FEWER),
)
OURS, THEIRS = ("sql", *FEWER, "ddpg"), ("sb3-sac", "sb3-ddpg", "sbx-sac", "sbx-ddpg")
ENTRANTS = tuple(f"{name}-1" for name in (*(f"qompose-{algorithm}" for algorithm in OURS), *THEIRS))


class Server:
    """An entrant that learns when it is told to, in a process of its own."""

    def __init__(self, entrant: str, env_id: str, python: Path):
        command = command_of(entrant, python, ("serve", entrant, env_id))
        self.name = entrant
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        """Until everything is compiled."""
        self._answer()

    def rates(self, steps: int) -> tuple[float, float]:
        """Environment steps, and so updates, per second of the processor and of the clock."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        busy, clock = map(float, self._answer().split())
        return steps / busy, steps / clock

    def close(self) -> None:
        """End the process: it has nothing to finish."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise QomposeError(f"{self.name} has ended with status {self._process.wait()}; its last words are above")
        return line


def alternate(
    entrants: Sequence[str], env_id: str, python: Path, rounds: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Steps per second of the processor, and of the clock, of each entrant in each round; the others wait meanwhile."""
    servers: list[Server] = []
    try:
        for entrant in entrants:
            servers.append(Server(entrant, env_id, python))
            servers[-1].wait()
        found = np.array([[server.rates(steps) for server in servers] for _ in range(rounds)])
    finally:
        for server in servers:
            server.close()
    busy, clock = ({name: found[:, k, which].tolist() for k, name in enumerate(entrants)} for which in (0, 1))
    return busy, clock


def measure_speed(env_id: str, python: Path, rounds: int, steps: int, *, write: bool) -> None:
    """One environment, one update per step: steps per second, and the ratios of ours to theirs."""
    versions = check_python(python)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # and so all that is started from here
    rates, clock = alternate(ENTRANTS, env_id, python, rounds, steps)
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    ratios = compare(rates)
    print_table(
        f"steps per second of the processor on {env_id}, one core, one update per step; median of {rounds} rounds",
        ("entrant", "steps/s", *(f"{Entrant.parse(mine).algorithm}: times" for mine in ratios)),
        [
            (
                name, f"{median:.0f}",
                *(f"{others[name]:.1f}" if name in others else "" for others in ratios.values()),
            )
            for name, median in medians.items()
        ],
    )  # fmt: skip
    if write:
        bars = {
            f"{Entrant.parse(mine).label} ≥ {least:g} × {Entrant.parse(other).label}": ratios[mine][other] >= least
            for mine, other, least in BARS
        }  # fmt: skip
        result = {
            "task": env_id, "steps": steps, "rounds": rounds, "rates": rates, "medians": medians, "ratios": ratios,
            "clock_medians": {name: float(np.median(values)) for name, values in clock.items()},
            "bars": bars, "their_versions": versions,
        }  # fmt: skip
        command = f"python -m benchmarks.yardsticks --speed --rounds {rounds} --speed-task {env_id}"
        write_results("peers", result, command=command, seed=0)


def compare(rates: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Of each of ours against each of theirs: the median of the rounds' ratios."""
    ours, theirs = ([name for name in rates if Entrant.parse(name).foreign == foreign] for foreign in (False, True))
    return {mine: {other: float(np.median(np.divide(rates[mine], rates[other]))) for other in theirs} for mine in ours}
