"""What a measured figure depends on besides the code: the machine, its own matrix rate, versions, commit and seed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from qompose.run import describe_system

RESULTS = Path(__file__).resolve().parent.parent / "results"
SIMULATORS = ("mujoco-mjx", "warp-lang")  # of batches, where they are installed


def describe(packages: Iterable[str] = SIMULATORS) -> dict[str, Any]:
    """What this process runs on; see `describe_system`. With the versions of further packages, if they are here."""
    system = describe_system()
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            system["versions"][package] = metadata.version(package)
    return system


def write_results(name: str, result: dict[str, Any], *, command: str, seed: int | list[int] | None = None) -> Path:
    """Write results/<name>.json: the figures, and all that is needed to obtain them again."""
    path = RESULTS / f"{name}.json"
    if result.get("small") and path.exists() and not read_results(name)["result"]["small"]:
        print(f"{path.name} holds figures of a GPU, and stays as it is")
        return path
    record = {"command": command, "seed": seed, "machine": describe(), "result": result}
    return _write(path, record)


def read_results(name: str) -> dict[str, Any]:
    """All that results/<name>.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def add_result(name: str, part: str, result: dict[str, Any], *, command: str) -> Path:
    """Add to the result of a file what another command made of it."""
    record = read_results(name)
    record["result"][part] = {"command": command, "machine": describe(), **result}
    return _write(RESULTS / f"{name}.json", record)


def _write(path: Path, record: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def write_section(section: str, result: dict[str, Any], *, command: str, seed: int | None = None) -> Path:
    """Write one section of results/reliability.json and leave the others as they are."""
    path = RESULTS / "reliability.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record[section] = {"command": command, "seed": seed, "machine": describe(), "result": result}
    return _write(path, dict(sorted(record.items(), key=lambda item: int(item[0][1:]))))


def best_seconds(function: Callable[[], Any], *, window: float = 0.002, windows: int = 500) -> float:
    """Seconds per call in the quietest of many short windows: what the machine does when nothing else runs on it."""
    jax.block_until_ready(function())
    begin = time.perf_counter()
    jax.block_until_ready(function())
    calls = max(1, round(window / max(time.perf_counter() - begin, 1e-7)))
    best = float("inf")
    for _ in range(windows):
        begin = time.perf_counter()
        for _ in range(calls):
            result = function()
        jax.block_until_ready(result)
        best = min(best, (time.perf_counter() - begin) / calls)
    return best


def matrix_rates() -> dict[str, float]:
    """GFLOP/s in float32 of (rows × inner) @ (inner × columns) on the cores of this process, or on the GPU."""
    shapes, windows = [(512, 128, 128), (1024, 128, 128), (2048, 128, 128), (4096, 128, 128), (1024, 1024, 1024)], 500
    if jax.default_backend() != "cpu":
        shapes, windows = [*shapes, (8192, 8192, 8192)], 50  # what fills a GPU
    multiply = jax.jit(partial(jnp.matmul, precision="highest"))
    rates = {}
    for rows, inner, columns in shapes:
        keys = jax.random.split(jax.random.key(0))
        left, right = jax.random.normal(keys[0], (rows, inner)), jax.random.normal(keys[1], (inner, columns))
        seconds = best_seconds(lambda left=left, right=right: multiply(left, right), windows=windows)
        rates[f"{rows}x{inner}x{columns}"] = 2e-9 * rows * inner * columns / seconds
    return rates
