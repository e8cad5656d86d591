"""The same training in several processes, on one core and on two: is every bit the same, and what does that cost?

    python -m benchmarks.same_bits [--processes 3] [--seed 0]

Every training is the command line's own, with NPROC=2 and the networks and batches that it has by default, and compiled
anew in every process. Compared are all arrays of the checkpoint (networks, optimisers, replay, simulators) and the log
of transitions. The cost is the processor time of updates with two threads over that with one, on one core, processes of
both kinds in turn. Writes section R3 of results/reliability.json, and stops with status 1 if bits differ.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import write_section
from benchmarks.options import read_options
from qompose import store
from qompose.log import LOG
from qompose.training.session import ALGORITHMS

FLAGS = {
    "--total-steps": 1040, "--warmup-steps": 1000, "--eval-freq": 0, "--save-freq": 0, "--log-freq": 40,
    "--progress": "none", "--track": "none",
}  # fmt: skip
ROUNDS, TURNS = 40, 3
THREADS = ("NPROC", "2")  # XLA splits sums among its threads, as many as there are cores unless this says how many


def environment(**more: str) -> dict[str, str]:
    """That of a process for which nothing is chosen but what is given."""
    ours = {name: value for name, value in os.environ.items() if name not in (THREADS[0], "XLA_FLAGS")}
    return {**ours, "JAX_PLATFORMS": "cpu", **more}


def on_cores(cores: list[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores)), sys.executable]


def train(agent: str, cores: list[int], seed: int) -> str:
    """The digests of what a training leaves."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [str(word) for pair in FLAGS.items() for word in pair]
        command = [*on_cores(cores), "-m", "qompose", "train", "--algo", agent, "--seed", str(seed), *flags]
        run = Path(folder) / "run"
        fixed = environment(**dict([THREADS]))
        subprocess.run([*command, "--output-dir", run], env=fixed, check=True, stdout=subprocess.DEVNULL)
        return store.sha256_of(run / "last" / "state.safetensors")[:32] + store.sha256_of(run / LOG)[:32]


def time_updates() -> float:
    """Processor milliseconds of a round of 16 updates of soft Q-learning: the median of many."""
    import jax
    import numpy as np

    from qompose.agents.sql import SQL
    from qompose.replay import init_replay
    from qompose.training.learner import Form, init, learn, pack

    agent, seconds, replay = SQL(planned_updates=10_000), [], init_replay(1000, 12, 3)
    state = init(agent, 12, 3, jax.random.key(0))
    form, packed = Form.of(state), pack(state)
    rows = np.random.default_rng(0).normal(size=(8, replay.rows.shape[1])).astype(np.float32)
    for number in range(ROUNDS):
        begin = time.process_time()
        packed, _, replay = learn(agent, 16, form, packed, replay, rows, jax.random.key(1), np.uint32(number))
        jax.block_until_ready(packed)
        seconds.append(time.process_time() - begin)
    return 1e3 * statistics.median(seconds[5:])


def measure_cost(core: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(TURNS):
        for threads, times in found.items():
            command = [*on_cores([core]), "-m", "benchmarks.same_bits", "--time"]
            done = subprocess.run(
                command, env=environment(**{THREADS[0]: threads}), check=True, capture_output=True, text=True
            )
            times.append(float(done.stdout))
    ratio = statistics.median(found["2"]) / statistics.median(found["1"])
    return {"cpu_milliseconds_of_16_updates_on_one_core": found, "two_threads_over_one": ratio}


def main(arguments: list[str] | None = None) -> int:
    options = read_options(__doc__, arguments, processes=3, seed=0, time=False)  # with `time` this calls itself
    if options.time:
        print(time_updates())
        return 0
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("needs two cores")
    rows = []
    for agent in ALGORITHMS:
        digests: dict[str, list[str]] = {"1": [], "2": []}
        for _ in range(options.processes):
            for count, found in digests.items():
                found.append(train(agent, cores[: int(count)], options.seed))
        same = len({digest for found in digests.values() for digest in found}) == 1
        rows.append({"agent": agent, "same": same, "digests": digests})
        print(f"{agent}: {'the same bits' if same else 'DIFFERS'}", flush=True)
    result = {
        "threads": int(THREADS[1]), "processes": options.processes, "cores": [1, 2],
        "same": all(row["same"] for row in rows), "rows": rows, "cost": measure_cost(cores[-1]),
    }  # fmt: skip
    command = f"python -m benchmarks.same_bits --processes {options.processes} --seed {options.seed}"
    write_section("R3", result, command=command, seed=options.seed)
    print(json.dumps({name: value for name, value in result.items() if name != "rows"}))
    return 0 if result["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
