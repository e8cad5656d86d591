"""Numbers and words on disk: arrays ⇄ safetensors, JSON, and directories that appear whole or not at all.

Everything read here may come from a stranger. A file is refused before memory is set aside for it, by one line of the
form `FILE: field: what`; whoever reads a directory puts its name in front. No code is ever loaded: no pickle, no names
of classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from qompose.types import QomposeError, show

try:
    import fcntl
except ImportError:  # Windows: saves are still atomic, but nothing keeps two processes apart
    fcntl = None

LARGEST_JSON = 1 << 20
LARGEST_HEADER = 1 << 20
DEEPEST_JSON = 16
CHUNK = 1 << 20
LOCK = ".lock"
READ_ONLY = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Expected = Mapping[str, tuple[Any, tuple[int, ...]]]


@contextlib.contextmanager
def naming(subject: str) -> Iterator[None]:
    """Put `subject: ` in front of every refusal raised inside."""
    try:
        yield
    except QomposeError as error:
        raise QomposeError(f"{subject}: {error}") from None


# ---------------------------------------------------------------------------------------------------- single files


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """Open a regular file for reading: links, pipes and devices are refused, and nothing blocks."""
    path = Path(path)
    try:
        descriptor = os.open(path, READ_ONLY)
    except (OSError, ValueError) as error:
        if path.is_symlink():
            raise QomposeError(f"{path.name}: is a link; put the file itself there") from None
        raise QomposeError(f"{path.name}: cannot be opened ({_reason(error)})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise QomposeError(f"{path.name}: is not a regular file; put the file itself there")
    with open(descriptor, "rb", buffering=0) as file:
        yield file


def read_bytes(path: str | os.PathLike[str], max_bytes: int | None = None) -> np.ndarray:
    """The bytes of a regular file as a read-only uint8 array aligned for any dtype. Refuses more than `max_bytes`."""
    path = Path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise QomposeError(f"{path.name}: size: {size} bytes, at most {max_bytes} are allowed")
        buffer = np.empty(size, dtype=np.uint8)
        view, filled = buffer.data, 0
        try:
            while filled < size and (count := file.readinto(view[filled : filled + (1 << 30)])):
                filled += count
        except OSError as error:
            raise QomposeError(f"{path.name}: cannot be read ({_reason(error)})") from None
    if filled != size:
        raise QomposeError(f"{path.name}: size: the file shrank while it was read; try again")
    buffer.flags.writeable = False
    return buffer


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a regular file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def check_names(directory: str | os.PathLike[str], allowed: Collection[str]) -> set[str]:
    """The names of the files in a flat directory; refuses links, folders and any name outside `allowed`."""
    path = Path(directory)
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise QomposeError(f"cannot be opened as a directory ({_reason(error)}); check the path") from None
    for entry in found:
        if entry.name not in allowed:
            raise QomposeError(f"{show(entry.name)}: does not belong here; only {', '.join(sorted(allowed))} may")
        if not entry.is_file(follow_symlinks=False):
            raise QomposeError(f"{entry.name}: is a link or no regular file; put the file itself there")
    return {entry.name for entry in found}


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


# ------------------------------------------------------------------------------------------------------------ JSON


def parse_json(data: bytes, depth: int = DEEPEST_JSON) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or Infinity, nesting at most `depth`."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite_number,
        )
    except QomposeError:
        raise
    except RecursionError:
        raise QomposeError(f"is nested deeper than {depth}") from None
    except ValueError as error:
        raise QomposeError(f"is not JSON ({_reason(error)})") from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return value
    raise QomposeError(f"is nested deeper than {depth}")


def _children(node: dict[str, Any] | list[Any]) -> Collection[Any]:
    return node.values() if isinstance(node, dict) else node


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise QomposeError(f"{show(name)}: appears twice; keep one")
        result[name] = value
    return result


def _no_constant(word: str) -> NoReturn:
    raise QomposeError(f"holds {word}; only finite numbers are allowed")


def _finite_number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise QomposeError(f"holds the number {show(digits, 30)}; only finite numbers are allowed")
    return value


def read_json(path: str | os.PathLike[str], max_bytes: int = LARGEST_JSON, depth: int = DEEPEST_JSON) -> Any:
    """Read a strict JSON file of limited size and depth."""
    data = read_bytes(path, max_bytes)
    with naming(Path(path).name):
        return parse_json(data.tobytes(), depth)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON, whole or not at all. Refuses NaN and what JSON cannot say."""
    try:
        data = (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise QomposeError(f"{Path(path).name}: cannot be written as JSON ({_reason(error)})") from None
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise QomposeError(f"{path.name}: cannot be written ({_reason(error)})") from error


# ---------------------------------------------------------------------------------------------------------- arrays


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a safetensors file: 8 bytes of header length, a JSON header, then the raw numbers.

    Equal arrays give equal bytes: names are sorted, and laid out in the order of falling item size, so that each array
    is aligned to its own dtype. The file can be read by any safetensors library.
    """
    ready: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype not in DTYPE_NAMES:
            raise QomposeError(f"{Path(path).name}: tensor {show(name)}: dtype {array.dtype} cannot be stored")
        ready[name] = array
    order = sorted(ready, key=lambda name: (-ready[name].dtype.itemsize, name))
    header, offset = {}, 0
    for name in order:
        array = ready[name]
        header[name] = {
            "dtype": DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise QomposeError(f"{Path(path).name}: header: {len(text)} bytes, at most {LARGEST_HEADER} are allowed")
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(np.ascontiguousarray(ready[name]).data.cast("B") if ready[name].size else b"")


def read_arrays(
    path: str | os.PathLike[str], expected: Expected, *, sha256: str | None = None, finite: bool = True
) -> dict[str, np.ndarray]:
    """Read exactly the arrays of `expected` (name -> dtype, shape) from a safetensors file, as read-only arrays.

    The sizes that `expected` implies are compared with the size of the file before memory is set aside. Refused: any
    other name, dtype or shape, gaps, overlaps, bytes left over, duplicate keys, another SHA-256 (of the very bytes that
    were read), and NaN or infinity unless `finite` is false.
    """
    path = Path(path)
    expected = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in expected.items()}
    payload = sum(dtype.itemsize * math.prod(shape) for dtype, shape in expected.values())
    data = read_bytes(path, max_bytes=8 + payload + LARGEST_HEADER)
    with naming(path.name):
        if data.size < 8 + payload:
            raise QomposeError(f"size: {data.size} bytes, but its arrays take {payload}; get a fresh copy")
        if sha256 is not None and hashlib.sha256(data.data).hexdigest() != sha256:
            raise QomposeError(
                "sha256: differs from the one declared: the file is damaged or was edited; get a fresh copy"
            )
        start = 8 + _header_length(data)
        header = parse_json(data[8:start].tobytes(), depth=3)
        _check_header(header, expected, data.size - start)
        arrays = {}
        for name, (dtype, shape) in expected.items():
            begin, end = header[name]["data_offsets"]
            arrays[name] = _view(data[start + begin : start + end], dtype, shape)
            _check_numbers(name, arrays[name], finite)
    return arrays


def _header_length(data: np.ndarray) -> int:
    if data.size < 8:
        raise QomposeError("header: the file ends within it")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > LARGEST_HEADER or 8 + length > data.size:
        raise QomposeError(f"header: declares {length} bytes, more than the file or the limit {LARGEST_HEADER} allow")
    return length


def _check_header(header: Any, expected: Expected, payload: int) -> None:
    if not isinstance(header, dict):
        raise QomposeError("header: must be a JSON object")
    for name in header:
        if name not in expected:
            raise QomposeError(f"tensor {show(name)}: does not belong here; remove it")
    spans = []
    for name, (dtype, shape) in expected.items():
        if name not in header:
            raise QomposeError(f"tensor {show(name)}: is missing")
        entry = header[name]
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise QomposeError(f"tensor {show(name)}: must have exactly dtype, shape and data_offsets")
        if entry["dtype"] != DTYPE_NAMES.get(dtype):
            raise QomposeError(
                f"tensor {show(name)}: dtype must be {DTYPE_NAMES.get(dtype)}, not {show(entry['dtype'])}"
            )
        if not _integers(entry["shape"]) or tuple(entry["shape"]) != shape:
            raise QomposeError(f"tensor {show(name)}: shape must be {list(shape)}, not {show(entry['shape'])}")
        offsets = entry["data_offsets"]
        if not _integers(offsets) or len(offsets) != 2:
            raise QomposeError(f"tensor {show(name)}: data_offsets must be two integers, not {show(offsets)}")
        if offsets[1] - offsets[0] != dtype.itemsize * math.prod(shape):
            raise QomposeError(f"tensor {show(name)}: data_offsets {show(offsets)} do not fit shape {list(shape)}")
        spans.append((*offsets, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise QomposeError(f"tensor {show(name)}: starts at byte {begin}, not {position}: a gap or an overlap")
        position = end
    if position != payload:
        raise QomposeError(f"size: {payload} bytes follow the header, but its arrays take {position}")


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _view(data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if data.ctypes.data % dtype.alignment:  # a foreign writer did not pad its header
        data = data.copy()
        data.flags.writeable = False
    return data.view(dtype).reshape(shape)


def _check_numbers(name: str, array: np.ndarray, finite: bool) -> None:
    if array.dtype == np.bool_ and array.size and int(array.view(np.uint8).max()) > 1:
        raise QomposeError(f"tensor {show(name)}: holds bytes that are neither true nor false")
    # The extremes carry any NaN or infinity, and cost no memory.
    if finite and array.dtype.kind == "f" and array.size and not np.isfinite([array.min(), array.max()]).all():
        raise QomposeError(f"tensor {show(name)}: holds NaN or infinity; only finite numbers are allowed")


# ----------------------------------------------------------------------------------------------------- directories


def publish(directory: str | os.PathLike[str], writer: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Make a directory appear whole or not at all: `writer` fills a hidden sibling, which is synced and renamed.

    An existing target is refused unless `overwrite`; then the old directory, with all it holds, survives until the new
    one is complete on disk. Whenever a crash comes, at least one of the two is whole: at the target, or for the instant
    between two renames as `.NAME.qompose-old` beside it, which the next `publish` puts back. If `writer` fails, the
    target is as it was.
    """
    if "\0" in str(directory) or not Path(os.path.abspath(directory)).name:
        raise QomposeError(f"{show(str(directory))} cannot be the name of a new directory; choose another")
    target, new, old = _stages(directory)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusively(target.parent):
            # What an interrupted publish left behind; nobody else is at work here while the lock is held.
            if os.path.lexists(old):
                _remove(old) if os.path.lexists(target) else os.rename(old, target)
            _remove(new)
            if os.path.lexists(target) and not overwrite:
                raise QomposeError(f"{show(str(directory))} exists; choose another name, or overwrite it (--overwrite)")
            try:
                new.mkdir()
                writer(new)
                _sync_tree(new)
                if os.path.lexists(target):
                    os.rename(target, old)
                os.rename(new, target)
                sync(target.parent)
            except BaseException:
                if os.path.lexists(old) and not os.path.lexists(target):
                    os.rename(old, target)
                _remove(new)
                raise
            _remove(old)
    except OSError as error:
        raise QomposeError(
            f"{show(str(directory))} cannot be written ({_reason(error)}); nothing that was there is lost"
        ) from error


def left_aside(directory: str | os.PathLike[str]) -> Path | None:
    """Where an interrupted `publish` left the old directory, if it died in the instant before the new one took over."""
    target, _, old = _stages(directory)
    return old if os.path.lexists(old) and not os.path.lexists(target) else None


def _stages(directory: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    target = Path(os.path.abspath(directory))
    return target, target.with_name(f".{target.name}.qompose-new"), target.with_name(f".{target.name}.qompose-old")


@contextlib.contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    """Hold an advisory lock on a directory; released by the system when the process dies."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold(directory: Path, whose: Path | None = None) -> Iterator[int]:
    """Keep every other process out of a directory, by a lock on a file in it; yields the file's descriptor.

    The system releases it when this process dies, and all to whom it gave the descriptor. Raises QomposeError, which
    names `whose` place it is, if another process holds it.
    """
    path = directory / LOCK
    try:
        descriptor = os.open(path, READ_ONLY | os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise QomposeError(f"{path} cannot be opened ({_reason(error)}); remove it") from None
    with open(descriptor, "wb") as lock:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise QomposeError(f"{path} is not a regular file; remove it")
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                where = whose or directory
                raise QomposeError(f"another process is at work in {where}; wait for it, or end it") from None
            except OSError:  # some network file systems cannot lock
                pass
        yield lock.fileno()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _sync_tree(directory: Path) -> None:
    for folder, _, files in os.walk(directory, topdown=False):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Return when a file, or the names in a directory, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.name == "nt" and path.is_dir():  # Windows cannot sync a directory
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
