"""A limit on the time that foreign code may take."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from qompose.types import QomposeError, find_misfit

# Seconds that a foreign environment may take to be imported or made, and for one step or reset of all lanes.
PATIENCE, LONGEST = 60.0, 86_400.0  # beyond a day nobody waits


def check_timeout(seconds: float) -> None:
    """Refuse what is no time limit."""
    if find_misfit("float", seconds) or not 0.0 < seconds <= LONGEST:
        raise QomposeError(f"env_timeout is {seconds!r}; give seconds, above 0 and at most {LONGEST:g}")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer: by SIGALRM, so it reaches Python code and system calls.

    Code that hangs in C without coming back to Python is not reached. Does nothing outside the main thread, where there
    is no SIGALRM, or where somebody else uses it.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    def expire(number: int, frame: Any) -> None:
        raise TimeoutError(f"no answer in {seconds:g} s (env_timeout)")

    try:
        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again, where the block swallows it
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        # Also where the alarm came in the line above: else nothing would ever be watched again.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
