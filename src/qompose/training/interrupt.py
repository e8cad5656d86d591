"""Ctrl-C between the rounds of a training, never within one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block, since half a round cannot be continued; a second one at once."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    interrupted = []

    def note(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
