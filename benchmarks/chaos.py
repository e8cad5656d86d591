"""Kill trainings with SIGKILL, resume them, and compare every bit with a training that was never interrupted.

    python -m benchmarks.chaos [--kills 100] [--seed 0] [--quick]

Every training is the command line's own, and small. A kill comes at any moment of the process, while it trains, or
within the writing of a checkpoint or skill. Compared are all arrays of the last checkpoint (networks, optimisers,
replay, simulators), its facts, the log of transitions, the metrics without those of the clock, and the tensors of the
skill. The processes share a cache of compiled functions. Writes section R2 of results/reliability.json, and stops with
status 1 if bits differ. It is written after every training, so that what was done counts if this process ends early.
`--quick`: 5 kills of one algorithm, nothing is written.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import write_section
from benchmarks.options import read_options
from qompose import store
from qompose.log import LOG
from qompose.run import read_metrics

STEPS, SAVE_FREQ = 3000, 100
FLAGS = {
    "--hidden": 16, "--batch-size": 8, "--total-steps": STEPS, "--warmup-steps": 200, "--updates-per-step": 1,
    "--num-envs": 4, "--eval-freq": 0, "--log-freq": 100, "--save-freq": SAVE_FREQ, "--progress": "none",
    "--track": "none",
}  # fmt: skip
TRAININGS = [*itertools.product(("MultiGoal", "PushLeft"), ("sql", "ddpg", "naf"))]
MOMENTS = {"anywhere": 0.2, "training": 0.3, "saving": 0.5}  # share of the kills that aim at each
KILLS_PER_TRAINING = 10
BAR = 100
MISSES = 5  # trainings in a row without a kill
STAGE = ".qompose-new"


class Lane:
    """One training: how it is started, and what it has left on the disk."""

    def __init__(self, directory: Path, env: str, algo: str, cache: Path) -> None:
        self.directory = directory
        flags = [str(word) for pair in FLAGS.items() for word in pair]
        self.command = [
            sys.executable, "-m", "qompose", "train", "--env", env, "--algo", algo, *flags,
            "--output-dir", str(directory), "--resume",
        ]  # fmt: skip
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    @contextlib.contextmanager
    def start(self) -> Iterator[subprocess.Popen[str]]:
        """A process that trains, from where the last one was killed; it does not outlive the block."""
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(self.command, env=self.environment, text=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def names(self, where: str) -> set[str]:
        """Names in a folder of the run."""
        try:
            return set(os.listdir(self.directory / where))
        except FileNotFoundError:
            return set()

    def stages(self) -> set[str]:
        """What is being written at this moment, or was when the process died."""
        return {name for name in self.names("checkpoints") | self.names(".") if name.endswith(STAGE)}

    def logged(self) -> int:
        """The last step that the metrics speak of."""
        return max((line["step"] for line in read_metrics(self.directory)), default=0)

    def saved(self) -> int:
        """The step of the last checkpoint that appeared whole."""
        return max((int(name) for name in self.names("checkpoints") if name.isdecimal()), default=0)

    def outcome(self) -> dict[str, Any]:
        """All bits that a finished training leaves, apart from its clock."""
        last = self.directory / "checkpoints" / f"{self.saved():09d}"
        facts = store.read_json(last / "state.json")["facts"]
        metrics = [
            {name: value for name, value in line.items() if not name.startswith("time/fps")}
            for line in read_metrics(self.directory)
        ]
        tensors = sorted((self.directory / "skill").glob("*.safetensors"))
        return {
            "state": store.sha256_of(last / "state.safetensors"),
            "facts": {name: value for name, value in facts.items() if name != "seconds"},
            "metrics": metrics,
            "log": store.sha256_of(self.directory / LOG),
            "skill": {path.name: store.sha256_of(path) for path in tensors},
        }


def wait_for(process: subprocess.Popen[str], lane: Lane, moment: str, seconds: float, rng: random.Random) -> None:
    """Return when the process is to be killed, or when it has ended by itself."""

    def until(condition: Any) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.0002)

    if moment == "anywhere":
        end = time.monotonic() + rng.uniform(0.0, seconds)
        until(lambda: time.monotonic() >= end)
        return
    before = lane.saved()
    until(lambda: lane.saved() > before)
    if moment == "training":
        end = time.monotonic() + rng.uniform(0.0, 0.3)
        until(lambda: time.monotonic() >= end)
        return
    target = lane.saved() + SAVE_FREQ * rng.randint(0, 4)
    until(lambda: lane.saved() >= min(target, STEPS))
    until(lane.stages)
    time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.01))))


def finish(lane: Lane) -> float:
    """Let a training run to its end; its seconds."""
    begin = time.monotonic()
    with lane.start() as process:
        _, complaint = process.communicate()
        if process.returncode:
            raise SystemExit(f"a training failed: {complaint.strip()}")
    return time.monotonic() - begin


def torment(lane: Lane, kills: int, seconds: float, rng: random.Random) -> dict[str, Any]:
    """Kill and resume a training up to so many times, then let it end: how often it hit what."""
    moments, torn, again = Counter(), 0, [0]
    for _ in range(kills):
        moment, before = rng.choices([*MOMENTS], [*MOMENTS.values()])[0], {*lane.stages()}
        with lane.start() as process:
            wait_for(process, lane, moment, seconds, rng)
            process.kill()
            _, complaint = process.communicate()
        if process.returncode == 0:
            break
        if process.returncode > 0:
            raise SystemExit(f"a training could not be resumed: {complaint.strip()}")
        moments[moment] += 1
        torn += not before.issuperset(lane.stages())
        again.append(max(lane.logged() - lane.saved(), 0))
    finish(lane)
    return {"moments": moments, "torn": torn, "steps_again": max(again)}


def run(kills: int, trainings: list[tuple[str, str]], seed: int) -> Iterator[dict[str, Any]]:
    """What was found so far, after every training."""
    rng, done, missed, rows = random.Random(seed), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        cache, wholes = Path(folder) / "compiled", {}
        for number in itertools.count():
            if done >= kills:
                break
            env, algo = trainings[number % len(trainings)]
            if (env, algo) not in wholes:
                whole = Lane(Path(folder) / f"{env}-{algo}", env, algo, cache)
                wholes[env, algo] = finish(whole), whole.outcome()
            seconds, expected = wholes[env, algo]
            lane = Lane(Path(folder) / str(number), env, algo, cache)
            found = torment(lane, min(KILLS_PER_TRAINING, kills - done), seconds, rng)
            outcome = lane.outcome()
            different = [name for name in expected if outcome[name] != expected[name]]
            count = sum(found["moments"].values())
            rows.append({"env": env, "algo": algo, "kills": count, **found, "different": different})
            done, missed = done + count, 0 if count else missed + 1
            if missed == MISSES:
                raise SystemExit(f"{MISSES} trainings ended before any kill reached them; give them more steps")
            verdict = f"differs: {', '.join(different)}" if different else "equal"
            print(f"{done:4d} kills: {env} {algo} {verdict}", flush=True)
            yield summarise(rows)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = sum(row["kills"] for row in rows)
    return {
        "kills": done,
        "saves_torn": sum(row["torn"] for row in rows),
        "aimed_at": dict(sum((row["moments"] for row in rows), Counter())),
        "trainings": len(rows),
        "trainings_with_other_bits": sum(bool(row["different"]) for row in rows),
        "most_logged_steps_done_again": max(row["steps_again"] for row in rows),
        "bar": f"{BAR} kills",
        "met": done >= BAR and not any(row["different"] for row in rows),
        "rows": [{**row, "moments": dict(row["moments"])} for row in rows],
    }


def main(arguments: list[str] | None = None) -> int:
    options = read_options(__doc__, arguments, kills=100, seed=0, quick=False)
    kills, trainings = (5, [("MultiGoal", "naf")]) if options.quick else (options.kills, TRAININGS)
    result: dict[str, Any] = {}
    for result in run(kills, trainings, options.seed):
        if not options.quick:
            command = f"python -m benchmarks.chaos --kills {options.kills} --seed {options.seed}"
            write_section("R2", result, command=command, seed=options.seed)
    print(json.dumps({name: value for name, value in result.items() if name != "rows"}))
    return 1 if result["trainings_with_other_bits"] else 0


if __name__ == "__main__":
    sys.exit(main())
