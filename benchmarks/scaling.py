"""How updates and simulation scale: with the number of runs, environments, particles and units, and where it bends.

    python -m benchmarks.scaling [--seed 0]

Soft Q-learning on the observations and actions of the pusher, batch 64, also with half the particles; PushLeft on MJX,
and on MuJoCo Warp where there is a GPU and it is installed.
Updates of several runs are one vmapped program, as in `qompose.training.fused`; simulation is measured alone. Counted
are the operations of the matrix products that the equations need (as in update_speed), and what XLA's own analysis says
of the compiled program.
The knee of a curve is the smallest size that gives at least four fifths of the best throughput. On a machine without a
GPU the sizes are small, one core is used, seconds are the processor's, and the figures are marked.
Writes results/scaling.json and docs/scaling.png.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.machine import RESULTS, matrix_rates, read_results, write_results
from benchmarks.update_speed import ACTION, OBSERVATION, ROWS, UPDATES, needed_flops, random_batch
from benchmarks.yardstick_run import FEWER
from qompose.agents.sql import SQL
from qompose.envs.batch import PRECISION, Batch, Simulator, choose_simulator
from qompose.replay import init_replay
from qompose.tasks import make_task
from qompose.training.learner import improve
from qompose.view.console import print_table
from qompose.view.pictures import COLOURS, INK, make_figure

PICTURE = RESULTS.parent / "docs" / "scaling.png"
# Sizes on a GPU, and without one. Particles: those that fit, are fixed, are updated; of the soft value twice as many.
SIZES = {
    "runs": ((1, 4, 16, 64, 256), (1, 2, 4)),
    "halved": ((16, 64, 256), (1, 2)),
    "particles": ((4, 8, 16, 32), (8, 16)),
    "units": ((64, 128, 256, 512), (64, 128)),
    "environments": ((64, 512, 4096, 32768), (8, 64)),
    "warp": ((64, 512, 4096, 32768), ()),
}
UPDATING, SIMULATING = ("runs", "halved"), ("environments", "warp")
RUNS_OF_TABLE_1 = 35  # side by side on a GPU while particles and units vary
KNEE, BUSY = 0.8, 0.5
Timer = Callable[[Callable[[], Any]], float]  # seconds of a call
Measurement = Callable[[Timer], dict[str, Any]]
Key = tuple[SQL | Simulator, int]  # what is compiled, for how many
LABELS = {
    "runs": ("runs side by side", "updates/s, all runs"),
    "halved": ("runs side by side, half the particles", "updates/s, all runs"),
    "particles": ("particles of each kind", "GFLOP/s"), "units": ("units of both layers", "GFLOP/s"),
    "environments": ("environments on MJX", "control steps/s"),
    "warp": ("environments on MuJoCo Warp", "control steps/s"),
}  # fmt: skip


def best_of(call: Callable[[], Any], clock: Callable[[], float], budget: float) -> float:
    """Seconds of the quickest of many calls, by this clock, within so many of its seconds."""
    jax.block_until_ready(call())
    best, end = float("inf"), clock() + budget
    while clock() < end:
        begin = clock()
        jax.block_until_ready(call())
        best = min(best, clock() - begin)
    return best


def analysis_of(compiled: Any) -> dict[str, float]:
    """Operations that XLA counts in one call; it counts the body of a loop once."""
    return {"xla_flops": float((compiled.cost_analysis() or {}).get("flops", 0.0))}


def compile_updates(agent: SQL, runs: int, seed: int) -> Measurement:
    """Updates of several runs in one program, the state carried on."""
    keys = jax.random.split(jax.random.key(seed), runs)
    state = jax.jit(jax.vmap(lambda key: agent.init(OBSERVATION, ACTION, key=key)))(keys)
    replay = init_replay(ROWS, OBSERVATION, ACTION).add(random_batch(ROWS, jax.random.key(seed + 1)))
    replays = jax.tree.map(lambda leaf: jnp.stack([leaf] * runs), replay)  # each run has its own

    def learn(state: Any, replay: Any, key: jax.Array) -> Any:
        return improve(agent, UPDATES, state, replay, key, jnp.uint32(0))[0]

    with jax.default_matmul_precision(PRECISION):
        program = jax.jit(jax.vmap(learn), donate_argnums=0).lower(state, replays, keys).compile()

    def call() -> Any:
        nonlocal state
        state = program(state, replays, keys)
        return state

    def take(timer: Timer) -> dict[str, Any]:
        seconds = timer(call)
        rate, flops = runs * UPDATES / seconds, sum(needed_flops(agent, agent.batch_size).values())
        measured = {"seconds": seconds, "updates_per_second": rate, "gigaflop_per_second": 1e-9 * flops * rate}
        return measured | analysis_of(program)

    return take


def compile_environments(simulator: Simulator, count: int, seed: int) -> Measurement:
    """Control steps per second of so many lanes of PushLeft, 5 simulator steps each."""
    batch = Batch(make_task("PushLeft"), simulator=simulator, lanes=count)
    keys = jax.random.split(jax.random.key(seed))
    u = jax.random.uniform(keys[0], (count, batch.task.reset_uniforms))
    actions = jax.random.uniform(keys[1], (count, ACTION), minval=-1.0)
    lanes = jax.jit(jax.vmap(batch.begin))(u)
    # What is drawn goes in as arguments: of constants XLA would compute all it can while it compiles.
    step = jax.jit(lambda lanes, actions, u: jax.vmap(batch.step)(lanes, actions, u)[0], donate_argnums=0)
    program = step.lower(lanes, actions, u).compile()

    def call() -> Any:
        nonlocal lanes
        lanes = program(lanes, actions, u)
        return lanes

    def take(timer: Timer) -> dict[str, Any]:
        seconds = timer(call)
        return {"seconds": seconds, "steps_per_second": count / seconds, **analysis_of(program)}

    return take


def throughput(axis: str, row: dict[str, Any]) -> float:
    return row[
        "updates_per_second" if axis in UPDATING
        else "steps_per_second" if axis in SIMULATING
        else "gigaflop_per_second"
    ]  # fmt: skip


def find_knee(axis: str, rows: Sequence[dict[str, Any]]) -> int:
    """The smallest size that gives most of the best throughput."""
    best = max(throughput(axis, row) for row in rows)
    return next(row["size"] for row in rows if throughput(axis, row) >= KNEE * best)


def name_bound(axis: str, rows: Sequence[dict[str, Any]]) -> str:
    """What limits the largest size: by how its seconds grew, and by the share of the matrix rate."""
    before, last = rows[-2], rows[-1]
    growth = (last["seconds"] / before["seconds"]) / (last["size"] / before["size"])
    if growth < BUSY:
        return "overhead of each operation: the next size still costs less than half of its share"
    if last.get("share_of_matrix_rate", 0.0) >= BUSY:
        return "arithmetic of matrix products"
    return "everything but matrix products: memory and elementwise operations"


def setting_of(axis: str, size: int, runs: int) -> tuple[SQL, int]:
    """The agent, and how many runs side by side."""
    if axis in UPDATING:
        return SQL(**FEWER["halfsql"]) if axis == "halved" else SQL(), size
    if axis == "units":
        return SQL(hidden=(size, size)), runs
    return SQL(value_particles=2 * size, fit_particles=size, fixed_particles=size, updated_particles=size), runs


def measure(seed: int, small: bool, timer: Timer) -> dict[str, Any]:
    keys = {key_of(axis, size, small): None for axis, sizes in axes_of(small).items() for size in sizes}
    # Nothing else may use the GPU beside Warp. Of the others, of which simulators take longest, as many are compiled at
    # once as there are cores. They are measured one after the other.
    measurements = {key: build(key, seed) for key in keys if key[0] == "warp"}
    others = sorted((key for key in keys if key[0] != "warp"), key=lambda key: isinstance(key[0], SQL))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) as pool:
        measurements |= zip(others, pool.map(lambda key: build(key, seed), others), strict=True)
    peak = max(matrix_rates().values())
    rows = {}
    for key, measurement in measurements.items():
        rows[key] = measurement(timer)
        print(name_of(key), f"{1e3 * rows[key]['seconds']:.1f} ms per call", flush=True)
    axes: dict[str, Any] = {}
    for axis, sizes in axes_of(small).items():
        found = [{"size": size, **rows[key_of(axis, size, small)]} for size in sizes]
        if axis not in SIMULATING:
            found = [{**row, "share_of_matrix_rate": row["gigaflop_per_second"] / peak} for row in found]
        axes[axis] = {"rows": found, "knee": find_knee(axis, found), "bound": name_bound(axis, found)}
    return {"matrix_rate": peak, "axes": axes}


def axes_of(small: bool) -> dict[str, tuple[int, ...]]:
    """The sizes of each axis that can be measured here."""
    sizes = {axis: each[small] for axis, each in SIZES.items() if each[small]}
    if choose_simulator() != "warp":
        sizes.pop("warp", None)
    return sizes


def build(key: Key, seed: int) -> Measurement:
    """Compile what `key_of` names."""
    what, size = key
    return compile_updates(what, size, seed) if isinstance(what, SQL) else compile_environments(what, size, seed)


def name_of(key: Key) -> str:
    """What is compiled, in words."""
    what, size = key
    if isinstance(what, SQL):
        return f"{size} runs, {what.hidden[0]} units, {what.fit_particles} particles of each kind:"
    return f"{size} environments, {what}:"


def key_of(axis: str, size: int, small: bool) -> Key:
    """What is compiled for a size: the same for the default on each axis."""
    if axis in SIMULATING:
        return ("warp" if axis == "warp" else "jax"), size
    return setting_of(axis, size, 1 if small else RUNS_OF_TABLE_1)


def draw(path: Path, result: dict[str, Any]) -> None:
    """A panel for each axis: throughput against size, and its knee."""
    figure = make_figure(14.0, 6.4)
    places = figure.subplots(2, 3).ravel()
    for place in places[len(result["axes"]) :]:
        place.set_axis_off()
    for place, colour, (axis, found) in zip(places, COLOURS, result["axes"].items(), strict=False):
        sizes, values = zip(*((row["size"], throughput(axis, row)) for row in found["rows"]), strict=True)
        place.plot(sizes, values, "o-", color=colour, linewidth=1.6, label="measured")
        linear = [values[0] * size / sizes[0] for size in sizes]
        if axis in (*UPDATING, *SIMULATING):
            place.plot(sizes, linear, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="in proportion")
        place.axvline(found["knee"], color=INK, linewidth=0.9, linestyle=(0, (5, 3)), label="knee")
        place.set_xscale("log", base=2)
        place.set_xticks(sizes, [str(size) for size in sizes])
        place.set(xlabel=LABELS[axis][0], ylabel=LABELS[axis][1], ylim=(0.0, 1.25 * max(values)))
        place.grid(color="#e8e8e5", linewidth=0.8)
        place.spines[["top", "right"]].set_visible(False)
        place.legend(frameon=False, fontsize=8)
    marked = ": a small run without a GPU" if result["small"] else ""
    figure.suptitle(f"{result['device']}{marked}", fontsize=11, color=INK)
    figure.savefig(path, dpi=90)


def backend() -> str:
    """What JAX runs on; asked in another process, since JAX counts the cores as it finds out."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    small = backend() == "cpu"
    if small and hasattr(os, "sched_setaffinity"):  # before JAX counts them
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    device = jax.devices()[0]
    clock = time.process_time if small else time.perf_counter
    result = measure(arguments.seed, small, lambda call: best_of(call, clock, 1.0))
    result |= {"small": small, "device": device.device_kind}
    print_table(
        f"scaling on {device.device_kind}" + (": small, without a GPU" if small else ""),
        ("axis", "size", "updates or steps/s", "GFLOP/s", "of the matrix rate", "knee"),
        [
            (
                axis, row["size"], f"{row.get('updates_per_second', row.get('steps_per_second')):.0f}",
                f"{row['gigaflop_per_second']:.1f}" if "gigaflop_per_second" in row else "",
                f"{100 * row['share_of_matrix_rate']:.0f} %" if "share_of_matrix_rate" in row else "",
                "knee" if row["size"] == found["knee"] else "",
            )
            for axis, found in result["axes"].items() for row in found["rows"]
        ],
    )  # fmt: skip
    for axis, found in result["axes"].items():
        print(f"{axis}: {found['bound']}")
    write_results("scaling", result, command="python -m benchmarks.scaling", seed=arguments.seed)
    draw(PICTURE, read_results("scaling")["result"])  # which may be an earlier one, of a GPU


if __name__ == "__main__":
    main()
