import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qompose.log import Log, Place, Record, Sizes, load_log, read_log
from qompose.types import QomposeError

SIZES = Sizes(4, 2, 1)


def record(number, count=4):
    rows = np.full((count, SIZES.width), number, np.float32) + np.arange(count, dtype=np.float32)[:, None] / 8
    return Record(4 * number, 8 * number, number // 3, rows)


def write(path, numbers, place=None):
    log = Log(path, SIZES, place)
    places = []
    for number in numbers:
        log.append(record(number))
        places.append(log.place)
    log.close()
    return places


def same(one, other):
    return one[:3] == other[:3] and np.array_equal(one.rows, other.rows)


def test_what_is_written_is_read(tmp_path):
    places = write(tmp_path / "log", range(1, 6))
    found = load_log(tmp_path / "log")
    assert found.sizes == SIZES and found.places[1:] == places and found.torn == 0
    assert all(map(same, found.records, map(record, range(1, 6)))) and len(found.records) == 5


def test_a_step_without_transitions_is_a_record(tmp_path):
    log = Log(tmp_path / "log", SIZES)
    log.append(record(1, 0))
    log.close()
    assert load_log(tmp_path / "log").records[0].rows.shape == (0, SIZES.width)


@given(st.integers(0, 10**6), st.binary(max_size=60))
def test_a_torn_end_is_cut_off_and_the_log_goes_on(tmp_path_factory, cut, garbage):
    path = tmp_path_factory.mktemp("log") / "log"
    write(path, range(1, 6))
    whole = path.read_bytes()
    head = load_log(path).places[0].length
    path.write_bytes(whole[: head + cut % (len(whole) - head)] + garbage)
    kept = len(load_log(path).records)
    log = Log(path, SIZES)
    list(log.remaining(SIZES))
    log.append(record(9))
    log.close()
    numbers = [*range(1, kept + 1), 9]
    found = load_log(path)
    assert found.torn == 0 and len(found.records) == kept + 1
    assert all(map(same, found.records, map(record, numbers)))


def test_a_log_begins_anew_only_where_nothing_was_written_behind_its_first_record(tmp_path):
    path = tmp_path / "log"
    write(path, range(1, 6))
    whole, head = path.read_bytes(), load_log(path).places[0].length
    for torn in (b"", whole[: head - 1], bytes(head), b"x" * 9):
        path.write_bytes(torn)
        write(path, range(1, 6))
        assert path.read_bytes() == whole
    for at in (0, 20, head - 1):
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(QomposeError, match=r"^log: is damaged from its first record on; start a new run"):
            Log(path, SIZES)
        assert path.read_bytes() == damaged


def test_equal_records_written_again_leave_the_file_as_it_is_at_every_moment(tmp_path):
    places = write(tmp_path / "log", range(1, 6))
    whole = (tmp_path / "log").read_bytes()
    log = Log(tmp_path / "log", SIZES, places[1])
    for number in (3, 4, 5):
        assert (tmp_path / "log").read_bytes() == whole
        log.append(record(number))
    assert log.place == places[-1]
    log.append(record(6))
    log.close()
    assert (tmp_path / "log").read_bytes().startswith(whole) and len(load_log(tmp_path / "log").records) == 6


def test_from_the_first_other_record_on_the_rest_is_cut_off(tmp_path):
    places = write(tmp_path / "log", range(1, 6))
    write(tmp_path / "log", (3, 7), places[1])
    assert all(map(same, load_log(tmp_path / "log").records, map(record, (1, 2, 3, 7))))
    assert len(load_log(tmp_path / "log").records) == 4


def test_a_record_counts_only_behind_what_it_was_written_behind(tmp_path):
    places = write(tmp_path / "log", range(1, 6))
    data = (tmp_path / "log").read_bytes()
    size = places[1].length - places[0].length
    at = places[0].length
    swapped = data[:at] + data[at + size : at + 2 * size] + data[at : at + size] + data[at + 2 * size :]
    assert len(read_log(swapped).records) == 1
    assert len(read_log(data[:at] + data[at + size :]).records) == 1  # one left out
    assert len(read_log(data[:at] + data[at - size : at] + data[at:]).records) == 1  # one doubled


def test_what_is_not_whole_up_to_the_checkpoint_is_refused(tmp_path):
    places = write(tmp_path / "log", range(1, 6))
    data = bytearray((tmp_path / "log").read_bytes())
    data[places[1].length + 20] ^= 1
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(QomposeError, match=r"^log: is not what the checkpoint has seen: it is damaged or was changed$"):
        Log(tmp_path / "log", SIZES, places[3])
    assert (tmp_path / "log").read_bytes() == data
    with pytest.raises(QomposeError, match="is not what the checkpoint has seen"):
        Log(tmp_path / "log", SIZES, Place(places[0].length, 1))


def test_a_log_of_other_sizes_and_a_link_are_refused(tmp_path):
    write(tmp_path / "log", (1,))
    with pytest.raises(QomposeError, match=r"^log: is of Sizes\(lanes=4.*start a new run$"):
        Log(tmp_path / "log", Sizes(4, 3, 1))
    os.symlink(tmp_path / "log", tmp_path / "link")
    with pytest.raises(QomposeError, match="is a link"):
        Log(tmp_path / "link", SIZES)


def test_a_full_disk_is_one_line(tmp_path):
    log = Log(tmp_path / "log", SIZES)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file)
    os.close(full)
    with pytest.raises(QomposeError, match=r"log: cannot be written \(No space left on device\); make room and"):
        log.append(record(1))
    os.close(log._file)


def test_records_are_synced_once_a_second(tmp_path, monkeypatch):
    log, clock, synced = Log(tmp_path / "log", SIZES), [0.0], []
    monkeypatch.setattr("qompose.log.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("qompose.log.os.fsync", lambda file: synced.append(clock[0]))
    log.sync()
    for number in range(1, 41):
        clock[0] = number / 10
        log.append(record(number))
    assert synced == [0.0, 1.0, 2.0, 3.0, 4.0]
    log.close()


def test_a_log_that_cannot_be_begun_leaves_no_file_open(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    monkeypatch.setattr("qompose.log.os.fsync", fail)
    with pytest.raises(QomposeError, match=r"cannot be written \(No space left on device\); make room"):
        Log(tmp_path / "log", SIZES)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
