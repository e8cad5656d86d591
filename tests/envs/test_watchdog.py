import signal
import threading
import time

import pytest

from qompose.envs.watchdog import within


def test_what_takes_too_long_is_stopped_and_the_handler_is_put_back():
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^no answer in 0\.05 s \(env_timeout\)$"), within(0.05):
        time.sleep(30)
    assert time.monotonic() - begin < 10
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_in_time_is_left_alone():
    with within(0.05):
        pass
    time.sleep(0.1)  # an alarm that was left behind would end the process


def test_the_alarm_of_somebody_else_is_left_alone():
    rang = []
    signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with within(0.01):
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert rang == [signal.SIGALRM]


def test_outside_the_main_thread_nothing_is_limited():
    done = []

    def work():
        with within(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
