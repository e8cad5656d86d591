"""The durable log of a training: every transition in its order, and how many updates had been made before it.

    record:     length u32 | crc u32 | body                     numbers are little-endian
    first body: JSON with version, lanes, observation_size, action_size
    others:     step u64 | updates u64 | episodes u64 | rows (m <= lanes, 2 obs + act + 2) float32

Records are appended and never changed. The checksum of each goes on from that of the record before it, so that one
counts only behind what it was written behind. What is read is the longest whole beginning; a torn, lost or stale rest
is no part of it. Each record goes to the system at once, so the death of the process loses none; it is synced to the
disk once a second and before every checkpoint, so the death of the machine loses a second.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qompose import store
from qompose.types import QomposeError

LOG = "transitions.log"
VERSION = 1
SYNC_SECONDS = 1.0
FRAME = struct.Struct("<II")  # length and checksum
COUNTS = struct.Struct("<QQQ")  # step, updates, episodes


class Sizes(NamedTuple):
    """What the rows of a log are made of."""

    lanes: int
    observation_size: int
    action_size: int

    @property
    def width(self) -> int:
        """Numbers in a row: one transition, packed as in `qompose.replay`."""
        return 2 * self.observation_size + self.action_size + 2


class Record(NamedTuple):
    """What one step of all lanes gave, and how far the training was when it came."""

    step: int  # environment steps with this one
    updates: int  # gradient updates asked for before these rows were seen
    episodes: int  # finished with this step
    rows: np.ndarray  # (m, width) float32


class Place(NamedTuple):
    """The end of a record: the log up to here has this length in bytes and this checksum."""

    length: int
    crc: int


class Reading(NamedTuple):
    """What is whole in a log."""

    sizes: Sizes | None  # None if not even the first record is whole
    records: list[Record]
    places: list[Place]  # behind the first record and behind each of `records`
    torn: int  # bytes behind the last whole record


def frame(body: bytes, crc: int) -> tuple[bytes, int]:
    """A record with this body behind a log with the checksum `crc`; and the checksum then."""
    length = len(body).to_bytes(4, "little")
    crc = zlib.crc32(body, zlib.crc32(length, crc))
    return length + crc.to_bytes(4, "little") + body, crc


def find_bodies(data: Any) -> Iterator[tuple[memoryview, Place]]:
    """The bodies of the longest whole beginning of a log, and the place behind each. Reads nothing behind it."""
    view, at, crc = memoryview(data), 0, 0
    while at + FRAME.size <= len(view):
        length, expected = FRAME.unpack_from(view, at)
        end = at + FRAME.size + length
        if end > len(view):
            return
        body = view[at + FRAME.size : end]
        crc = zlib.crc32(body, zlib.crc32(view[at : at + 4], crc))
        if crc != expected:
            return
        yield body, Place(end, crc)
        at = end


def read_log(data: Any) -> Reading:
    """What is whole in the bytes of a log. Raises QomposeError for a whole record that is none of a log's."""
    sizes, records, places = None, [], []
    for body, place in find_bodies(data):
        if sizes is None:
            sizes = _read_sizes(bytes(body))
        else:
            records.append(_read_record(body, sizes))
        places.append(place)
    return Reading(sizes, records, places, len(data) - (places[-1].length if places else 0))


def load_log(path: str | Path) -> Reading:
    """What is whole in a log's file."""
    data = store.read_bytes(path)
    with store.naming(Path(path).name):
        return read_log(data)


def _head(sizes: Sizes) -> bytes:
    return json.dumps({"version": VERSION, **sizes._asdict()}).encode()


def _read_sizes(body: bytes) -> Sizes:
    head = store.parse_json(body[: store.LARGEST_JSON])
    names = {"version", *Sizes._fields}
    if not isinstance(head, dict) or set(head) != names or any(type(head[name]) is not int for name in names):
        raise QomposeError("the first record is not that of a log; get a fresh copy")
    if head["version"] != VERSION:
        raise QomposeError(f"version {head['version']} is not known, only {VERSION}; use a newer qompose")
    sizes = Sizes(*(head[name] for name in Sizes._fields))
    if min(sizes) < 1:
        raise QomposeError("the first record gives a size below one; get a fresh copy")
    return sizes


def _read_record(body: memoryview, sizes: Sizes) -> Record:
    rows, rest = divmod(len(body) - COUNTS.size, 4 * sizes.width)
    if rest or not 0 <= rows <= sizes.lanes:
        raise QomposeError(f"a record of {len(body)} bytes is not of the sizes that the first one gives")
    numbers = np.frombuffer(body, "<f4", offset=COUNTS.size).reshape(rows, sizes.width)
    step, updates, episodes = COUNTS.unpack_from(body)
    return Record(step, updates, episodes, numbers)


class Log:
    """A log that is written.

    A training that goes on from a checkpoint finds records behind the checkpoint's place, and makes the same ones once
    more: they are compared and kept. From the first that differs on (another machine) they are cut off.
    """

    def __init__(self, path: str | Path, sizes: Sizes, place: Place | None = None):
        """Go on behind `place`, or behind the first record of the log that is there; begin one where there is none.

        A torn end is cut off. Raises QomposeError if the log is of other sizes, or not whole up to `place`.
        """
        self.path, self._ahead = Path(path), memoryview(b"")
        data = store.read_bytes(path) if os.path.lexists(path) else np.zeros(0, np.uint8)
        with store.naming(self.path.name):
            found = read_log(data)
            if place is not None and place not in found.places:
                raise QomposeError("is not what the checkpoint has seen: it is damaged or was changed")
            if found.sizes not in (None, sizes):
                raise QomposeError(f"is of {found.sizes}, not {sizes}; start a new run")
            # The first record is on the disk before there is another: behind a torn one nothing was ever written.
            if found.sizes is None and len(data) > len(frame(_head(sizes), 0)[0]):
                raise QomposeError("is damaged from its first record on; start a new run in another directory")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            self._begin(found, data, sizes, place)
        except BaseException:
            os.close(self._file)
            raise

    def _begin(self, found: Reading, data: np.ndarray, sizes: Sizes, place: Place | None) -> None:
        if found.sizes is None:
            self.place = Place(0, 0)
            self._cut()
            self._write(_head(sizes))
        else:
            self.place = place or found.places[0]
            end = found.places[-1].length
            os.ftruncate(self._file, end)
            self._ahead = memoryview(bytes(data.data[self.place.length : end]))  # and let go of the rest
        self.sync()
        store.sync(self.path.parent)

    def append(self, record: Record) -> None:
        """Write a record; it is on the disk after a second, or after `sync`. Raises QomposeError if it cannot be."""
        counts = COUNTS.pack(record.step, record.updates, record.episodes)
        self._write(counts + np.ascontiguousarray(record.rows, "<f4").tobytes())
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

    def remaining(self, sizes: Sizes) -> Iterator[Record]:
        """The records that are there already, for a training that cannot make them again; each is behind it then."""
        while self._ahead:
            length, crc = FRAME.unpack_from(self._ahead)
            end = FRAME.size + length
            record = _read_record(self._ahead[FRAME.size : end], sizes)
            self._ahead, self.place = self._ahead[end:], Place(self.place.length + end, crc)
            yield record

    def sync(self) -> None:
        """Return when all that was appended is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close the file."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _write(self, body: bytes) -> None:
        record, crc = frame(body, self.place.crc)
        if self._ahead[: len(record)] == record:
            self._ahead = self._ahead[len(record) :]
        else:
            if self._ahead:
                self._cut()
            try:
                os.lseek(self._file, self.place.length, os.SEEK_SET)
                rest = memoryview(record)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                raise self._failed(error) from error
        self.place = Place(self.place.length + len(record), crc)

    def _cut(self) -> None:
        os.ftruncate(self._file, self.place.length)
        self._ahead = memoryview(b"")

    def _failed(self, error: OSError) -> QomposeError:
        return QomposeError(f"{self.path}: cannot be written ({error.strerror}); make room and continue with --resume")
