"""Many jobs, one process and one core each: what takes long in the reproduction of a table or a figure.

A job is done when its file is there, so that an interrupted reproduction goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qompose import store
from qompose.run import read_metrics
from qompose.types import QomposeError
from qompose.view.console import bars

POLL = 1.0  # s between looks at the processes
# Seconds that processes have to end by themselves, then after being asked to, before they are killed.
GRACE, PATIENCE = 5.0, 60.0


@dataclass(frozen=True)
class Job:
    """One command that makes one file."""

    name: str
    """For people, and for the name of its log."""
    arguments: tuple[str, ...]
    """What follows `python -m`."""
    file: Path
    """The job is done when this exists; it must appear whole or not at all."""
    needs: tuple[Path, ...] = ()
    """Files of other jobs, without which it does not begin."""
    run: Path | None = None
    """Of a training: its directory, whose metrics tell how far it is."""
    total_steps: int = 1
    """Of a training: its environment steps."""

    @property
    def share(self) -> float:
        """How much of the job is done, from 0 to 1."""
        if self.file.exists():
            return 1.0
        lines = read_metrics(self.run) if self.run is not None else []
        return min(lines[-1]["step"] / self.total_steps, 0.99) if lines else 0.0


def run_jobs(jobs: Sequence[Job], logs: Path, *, label: str, workers: int | None = None) -> None:
    """Run what is not done yet: at most `workers` processes, by default one for each core of this process.

    The output of each job goes into the folder `logs`. A job that fails does not stop the others. Raises QomposeError
    if one failed, if there are fewer cores than workers, or if another process is at work with the same logs.
    """
    cores = choose_cores(workers)
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not job.file.exists()]
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    failed: list[str] = []
    # The workers hold the lock, too: where this process was killed and they live on, nobody else may begin.
    with store.hold(logs, logs.parent) as lock, bars() as shown:
        try:
            while True:
                for core in cores:
                    ready = next((job for job in waiting if all(need.exists() for need in job.needs)), None)
                    if core not in running and ready is not None:
                        waiting.remove(ready)
                        running[core] = ready, _start(ready, core, _log_of(ready, logs), lock)
                shown.update(label, round(100 * sum(job.share for job in jobs)), 100 * len(jobs))
                if not running:
                    break
                time.sleep(POLL)
                for core, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[core]
                        failed += _complaints(job, process.returncode, _log_of(job, logs))
        finally:
            _stop([process for _, process in running.values()])
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise QomposeError(f"{failed[0]}{more}; what is finished is kept, the logs are in {logs}")


def choose_cores(workers: int | None) -> list[int]:
    """The cores to work on; raises QomposeError if there are fewer than workers."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    workers = len(cores) if workers is None else workers
    if not 1 <= workers <= len(cores):
        raise QomposeError(f"workers is {workers}; give 1 to {len(cores)}, as many as there are cores")
    return cores[:workers]


def _log_of(job: Job, logs: Path) -> Path:
    return logs / f"{job.name.replace(' ', '-')}.log"


def _start(job: Job, core: int, log: Path, lock: int) -> subprocess.Popen[bytes]:
    with open(log, "wb") as output:
        # Nothing is imported from where the user stands, unless the job itself lies there.
        python = [sys.executable, *(["-P"] if job.arguments[0].startswith("qompose") else []), "-m"]
        process = subprocess.Popen(
            [*python, *job.arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        )  # fmt: skip
    if hasattr(os, "sched_setaffinity"):
        # Before JAX counts the cores for its threads: one training on one core wastes nothing on synchronisation.
        os.sched_setaffinity(process.pid, {core})
    return process


def _complaints(job: Job, status: int, log: Path) -> list[str]:
    if status == 0 and job.file.exists():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return [f"{job.name} failed: {lines[-1] if lines else f'exit status {status}'}"]


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let trainings save a checkpoint. Ctrl-C on a terminal has reached them already; a second one would cut it off."""
    with contextlib.suppress(KeyboardInterrupt):  # the user does not want to wait
        for seconds, number in ((GRACE, signal.SIGINT), (PATIENCE, signal.SIGKILL)):
            deadline = time.monotonic() + seconds
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(0.05)
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
