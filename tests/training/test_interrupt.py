import signal
import threading

import pytest

from qompose.training.interrupt import delayed_interrupt


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # every test leaves it as it was
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_takes_effect_at_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]


def test_a_second_interrupt_takes_effect_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == []


def test_errors_in_the_block_pass():
    with pytest.raises(ZeroDivisionError), delayed_interrupt():
        raise ZeroDivisionError


def test_handlers_of_others_are_respected():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_left_alone():
    done = []

    def work():
        with delayed_interrupt():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
