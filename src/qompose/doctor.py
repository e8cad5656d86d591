"""Does everything that qompose needs work on this machine? Each part is tried out, not only looked up."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LEAST_MEMORY, LEAST_DISK = 2.0, 1.0  # GiB: a training with its replay, and its checkpoints


@dataclass(frozen=True)
class Check:
    """What was tried and what came of it. `ok` is None where something optional is missing or could be better."""

    name: str
    ok: bool | None
    detail: str
    advice: str = ""


def examine(folder: str | os.PathLike[str] = ".") -> list[Check]:
    """Try out everything, in a few seconds; results would go into `folder`. Prints nothing and raises nothing."""
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "packages": _packages,
        "jax": _jax,
        "mujoco": _mujoco,
        "gymnasium": _gymnasium,
        "opengl": _graphics,
        "video": _video,
        "processor": _processor,
        "memory": _memory,
        "output": lambda: _output(Path(folder)),
        "disk": lambda: _disk(Path(folder)),
    }
    return [_attempt(name, check) for name, check in checks.items()]


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # whatever is broken, even at import, the other checks go on
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        advice = "install qompose anew, into an empty virtual environment"
        if "MUJOCO_GL" in os.environ:  # a backend that is not there breaks the import of MuJoCo
            advice = f"try without MUJOCO_GL={os.environ['MUJOCO_GL']}, or {advice}"
        return Check(name, False, detail, advice)


def _python() -> Check:
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), _declared("Requires-Python") or ">=3.11"
    ok = SpecifierSet(wanted).contains(version, prereleases=True)
    return Check("python", ok, version, "" if ok else f"use Python {wanted}")


def _packages() -> Check:
    """Every package that qompose declares, against the range that it declares."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in metadata.requires("qompose") or []]
    except metadata.PackageNotFoundError:
        return Check("packages", None, "qompose runs from a source tree", "pip install . to have versions checked")
    found, wrong = [], []
    for requirement in declared:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        found.append(f"{requirement.name} {version or 'missing'}")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"'{requirement.name}{requirement.specifier}'")
    return Check("packages", not wrong, ", ".join(found), f"pip install {' '.join(wrong)}" if wrong else "")


def _jax() -> Check:
    import jax
    import numpy as np

    begin = time.perf_counter()
    matrix = np.linspace(-1.0, 1.0, 128 * 128, dtype=np.float32).reshape(128, 128)
    error = np.abs(np.asarray(jax.jit(lambda x: x @ x)(matrix)) - matrix @ matrix).max()
    seconds = time.perf_counter() - begin
    devices = jax.devices()
    detail = f"{jax.__version__} on {len(devices)} x {devices[0].device_kind}, compiled a product in {seconds:.1f} s"
    # A GPU may multiply in 19 bits.
    return Check("jax", bool(error < 0.1), detail, "" if error < 0.1 else "the product is wrong: install jax anew")


def _mujoco() -> Check:
    import mujoco
    import numpy as np

    from qompose.tasks import make_task

    model = make_task("PushLeft").model()
    data = mujoco.MjData(model)
    begin = time.perf_counter()
    mujoco.mj_step(model, data, nstep=500)
    speed = 500 / (time.perf_counter() - begin)
    finite, faulty = bool(np.isfinite(data.qpos).all()), mujoco.__version__ == "4.0.0"
    detail = f"{mujoco.__version__}, {speed / 1000:.0f} thousand steps/s on one core"
    advice = "4.0.0 has a fault in its sparse Cholesky factorisation: pip install 'mujoco!=4.0.0'" if faulty else ""
    return Check("mujoco", None if faulty and finite else finite, detail, advice)


def _gymnasium() -> Check:
    import gymnasium

    from qompose.envs import register
    from qompose.tasks import TASKS

    register()
    env = gymnasium.make("PushLeft-v0")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    return Check("gymnasium", True, f"{gymnasium.__version__}, {len(TASKS)} tasks registered")


def _graphics() -> Check:
    from qompose.view.graphics import probe_graphics

    graphics = probe_graphics()
    if graphics.backend:
        return Check("opengl", True, graphics.backend)
    return Check("opengl", None, f"videos show flat drawings ({graphics.reason})", graphics.advice)


def _video() -> Check:
    from qompose.view.encode import mp4_codec

    try:
        import av
    except ImportError:
        return Check("video", None, "GIF only", "for MP4: pip install av")
    return Check("video", True, f"av {av.__version__}, {mp4_codec()}")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = cores < 2
    return Check("processor", None if few else True, f"{cores} core{'' if few else 's'} ({platform.machine()})",
                 "with two cores simulation and compilation overlap" if few else "")  # fmt: skip


def _memory() -> Check:
    free = _available_memory()
    if free is None:
        return Check("memory", None, "unknown")
    enough = free >= LEAST_MEMORY
    return Check("memory", True if enough else None, f"{free:.1f} GiB available",
                 "" if enough else f"a training wants {LEAST_MEMORY:.0f} GiB")  # fmt: skip


def _available_memory() -> float | None:
    """GiB that can be had now: what the system has left, or less if this process is limited."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        limited = float(limit.read_text()) - float(limit.with_name("memory.current").read_text())
    except (OSError, ValueError):  # no such limit, or the word "max"
        limited = float("inf")
    return min(kilobytes[0] * 1024, limited) / 2**30 if kilobytes else None


def _output(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(b"qompose")
    except OSError as error:
        return Check("output", False, f"{folder.absolute()} cannot be written ({error.strerror})", "use another folder")
    return Check("output", True, f"{folder.absolute()} can be written")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    enough = free >= LEAST_DISK
    return Check("disk", enough, f"{free:.1f} GiB free", "" if enough else f"make room: {LEAST_DISK:.0f} GiB is wanted")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def _declared(field: str) -> str | None:
    try:
        return metadata.metadata("qompose")[field]
    except (metadata.PackageNotFoundError, KeyError):
        return None
