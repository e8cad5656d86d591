"""The run directory: what was asked for, what happened, and the last good state.

    config.json   command.txt   system.json   transitions.log   metrics.jsonl   events.out.tfevents.*   .lock
    checkpoints/<step>/   last   skill/

A checkpoint appears whole or not at all. The latest two are kept; older ones go once the new one is on the disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qompose import store
from qompose.types import QomposeError, show

PACKAGES = ("qompose", "jax", "jaxlib", "equinox", "optax", "mujoco", "gymnasium", "numpy")
BITS_DEPEND_ON = ("python", "platform", "processor", "threads", "device")  # and the versions of the packages
CHECKPOINTS_KEPT = 2
METRICS = "metrics.jsonl"
DTYPES = {dtype.str: dtype for dtype in store.DTYPES.values()}
# All that a start may leave if it is killed before config.json, written last, says that the run has begun.
UNBEGUN = {store.LOCK, "command.txt", "system.json", ".system.json.new", ".config.json.new"}
LONGEST_COMMAND = 4096  # what a skill can hold


def describe_system() -> dict[str, Any]:
    """Versions, processor and commit: what a figure depends on besides its seed. Holds no names of hosts or folders."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("NPROC", "")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "threads": int(threads) if threads.isdecimal() else cores,  # of XLA, which splits sums among them
        "device": jax.devices()[0].platform,
        "versions": versions,
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str | None:
    # The package's own folder: the commit of the code, not of whatever the user stands in; + if it was changed since.
    git = ["git", "-C", str(Path(__file__).parent)]

    def ask(*words: str) -> str:
        return subprocess.run([*git, *words], capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", Path(__file__).name)  # or it is the repository of somebody else
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if ask("status", "--porcelain", "-uno", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> str:
    """The command that is running, without the folder of the interpreter or the script, as one printable line."""
    script = Path(sys.argv[0]) if sys.argv else Path()
    name = script.parent.name if script.name == "__main__.py" else script.name  # python -m qompose
    text = shlex.join([name, *sys.argv[1:]])
    return "".join(letter if letter.isprintable() else "�" for letter in text)[:LONGEST_COMMAND]


def plain(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON holds them."""
    values = dataclasses.asdict(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Run:
    """A directory that a training writes into. Nothing that is already there is harmed."""

    def __init__(self, directory: str | Path, config: Mapping[str, Any], *, resume: bool = False, events: bool = True):
        """Start a run, or continue one with the same configuration.

        Raises QomposeError if the directory holds something already (and `resume` is not given), or if it is to be
        resumed and was started with another configuration.
        """
        self.directory = Path(directory)
        config = json.loads(json.dumps(config))
        if not _has_begun(self.directory, config, resume):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "command.txt").write_text(command_line() + "\n", encoding="utf-8")
            store.write_json(self.directory / "system.json", describe_system())
            store.write_json(self.directory / "config.json", config)
        self._events = events
        self._writer: Any = None

    def moved(self) -> list[str]:
        """What is not as it was where the run began, of all that its bits depend on: `cores 2, now 4`."""
        try:
            before = store.read_json(self.directory / "system.json")
        except QomposeError:
            return ["the first system is not known"]
        before, now = _flatten(before), _flatten(describe_system())
        names = sorted(name for name in now if name.startswith("versions.") or name in BITS_DEPEND_ON)
        return [
            f"{name.removeprefix('versions.')} {show(before.get(name))}, now {show(now[name])}"
            for name in names
            if before.get(name) != now[name]
        ]

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append figures to metrics.jsonl and to the TensorBoard events."""
        line = json.dumps({"step": step, **{name: _number(value) for name, value in figures.items()}})
        try:
            with open(self.directory / METRICS, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            if self._events:
                if self._writer is None:
                    from tensorboardX import SummaryWriter  # costs a tenth of a second: only for those who log

                    self._writer = SummaryWriter(str(self.directory), write_to_disk=True)
                for name, value in figures.items():
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            raise QomposeError(
                f"{self.directory}: metrics cannot be written ({error.strerror}); make room and continue with --resume"
            ) from error

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # of TensorBoard's copy; metrics.jsonl has said what there is to say
                self._writer.close()
            self._writer = None

    def save(self, step: int, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint atomically, point `last` at it, and remove all but the latest two."""
        folder = self.directory / "checkpoints"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise QomposeError(f"{folder} cannot be made ({error.strerror})") from error

        def write(target: Path) -> None:
            store.write_arrays(target / "state.safetensors", dict(arrays))
            shapes = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
            digest = store.sha256_of(target / "state.safetensors")
            manifest = {"step": step, "facts": facts, "arrays": shapes, "sha256": digest}
            store.write_json(target / "state.json", {**manifest, "checksum": checksum_of(manifest)})

        if (self.directory / METRICS).exists():
            for path in (self.directory / METRICS, self.directory):
                store.sync(path)  # what came before the checkpoint would not be written again
        store.publish(folder / f"{step:09d}", write, overwrite=True)
        link = self.directory / "last.new"
        with contextlib.suppress(OSError):  # there are file systems without links, and nothing is read by this one
            link.unlink(missing_ok=True)
            link.symlink_to(Path("checkpoints") / f"{step:09d}")
            os.replace(link, self.directory / "last")
        # Later ones could not be read, or this run would have gone on from them.
        steps = self._steps()
        kept = [old for old in steps if old <= step][-CHECKPOINTS_KEPT:]
        for old in set(steps) - set(kept):
            _remove_checkpoint(folder / f"{old:09d}")
        for stage in folder.glob(".*.qompose-new"):  # of a process that was killed while it wrote
            _remove_checkpoint(stage)

    def load(
        self, on_notice: Callable[[str], None] = lambda text: None
    ) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """The latest checkpoint that can be read whole: (step, arrays, facts), or None if none was ever written.

        `on_notice` is told of later ones that cannot be read. Raises QomposeError if there are checkpoints, but none
        that can be read: starting afresh would overwrite them.
        """
        for step in reversed(self._steps()):
            folder = self.directory / "checkpoints" / f"{step:09d}"
            try:
                manifest = store.read_json(folder / "state.json")
                if manifest.pop("checksum") != checksum_of(manifest) or manifest["step"] != step:
                    raise ValueError
                facts = dict(manifest["facts"])
                # Looked up: NumPy evaluates what stands in the name of a dtype.
                expected = {name: (DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in manifest["arrays"].items()}
                arrays = store.read_arrays(
                    folder / "state.safetensors", expected, sha256=manifest["sha256"], finite=False
                )
            except (QomposeError, OSError, AttributeError, KeyError, TypeError, ValueError):
                on_notice(f"{self.directory}: checkpoint {step} cannot be read")
                continue
            return step, arrays, facts
        if self._steps():
            raise QomposeError(f"{self.directory}: no checkpoint can be read; start a new run in another directory")
        return None

    def _steps(self) -> list[int]:
        folder = self.directory / "checkpoints"
        return sorted(
            int(entry.name) for entry in folder.glob("[0-9]*") if re.fullmatch(r"\d{9,}", entry.name, re.ASCII)
        )

    def forget_after(self, step: int) -> None:
        """Take figures of later steps out of metrics.jsonl: the run goes on from this one, and writes them again."""
        kept = [line for line in read_metrics(self.directory) if line["step"] <= step]
        temporary = self.directory / f"{METRICS}.new"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        store.sync(temporary)
        os.replace(temporary, self.directory / METRICS)
        store.sync(self.directory)


@contextlib.contextmanager
def open_run(
    directory: str | Path, config: Mapping[str, Any], *, resume: bool = False, events: bool = True
) -> Iterator[Run]:
    """A `Run` that no other process works on meanwhile; closed at the end.

    Raises QomposeError for what `Run` refuses, and if another process is at work there; nothing is changed then.
    """
    directory, config = Path(directory), json.loads(json.dumps(config))
    _has_begun(directory, config, resume)  # refuses before a lock is put there
    directory.mkdir(parents=True, exist_ok=True)
    with store.hold(directory):
        run = Run(directory, config, resume=resume, events=events)
        try:
            yield run
        finally:
            run.close()


def _has_begun(directory: Path, config: Mapping[str, Any], resume: bool) -> bool:
    """Whether there is a run to continue, or none; raises QomposeError if neither may be."""
    path = directory / "config.json"
    if resume and path.exists():
        _check_same(store.read_json(path), config, directory)
        return True
    if directory.exists() and not (directory.is_dir() and set(os.listdir(directory)) <= UNBEGUN):
        advice = "give --resume to continue it, or another directory"
        if not path.exists():
            advice = "it holds no run; give another directory"
        raise QomposeError(f"{directory} exists already; {advice}")
    return False


def read_metrics(directory: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a line that a crash cut short is left out."""
    path = Path(directory) / METRICS
    if not path.exists():
        return []
    lines = []
    for text in store.read_bytes(path).tobytes().decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


def name_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a module under stable names, for a checkpoint."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def restore_leaves(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Put arrays of `name_leaves` back into a module of the same structure; raises QomposeError where they differ."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    restored = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in arrays or arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise QomposeError(
                f"checkpoint: {name} is missing or of another shape; it belongs to another configuration"
            )
        # A copy of its own: donated buffers must not be shared with a read-only view of a file.
        restored.append(jax.numpy.array(arrays[name], copy=True))
    return jax.tree_util.tree_unflatten(structure, restored)


def _number(value: Any) -> float | int | None:
    number = float(value)
    if not np.isfinite(number):
        return None
    return int(value) if isinstance(value, (int, np.integer)) else number


def _check_same(old: Any, new: Mapping[str, Any], directory: Path) -> None:
    if old == new:
        return
    flat_old, flat_new = _flatten(old), _flatten(new)
    for name in sorted(flat_old.keys() | flat_new.keys()):
        if flat_old.get(name) != flat_new.get(name):
            raise QomposeError(
                f"{directory} was started with {name}={flat_old.get(name)!r}, not {flat_new.get(name)!r}; "
                "resume with the same settings or start a new run"
            )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = (_flatten(item, f"{prefix}.{name}" if prefix else name) for name, item in value.items())
    return {name: item for part in parts for name, item in part.items()}


def checksum_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a checkpoint's words say: a bit changed in them is found, as it is in the numbers."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(manifest)), sort_keys=True).encode()).hexdigest()


def _remove_checkpoint(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
