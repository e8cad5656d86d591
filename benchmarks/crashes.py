"""Crash states of the log and of checkpoints: what is read afterwards is what was written, and all that was synced.

    python -m benchmarks.crashes [--states 1000000] [--seed 0] [--quick]

A log is written record by record and synced now and then. At a crash the synced part is on the disk; of what came after
it the disk holds any beginning (torn at every byte), any sectors (lost, or written out of order, with zeros or garbage
in their place), a stale tail of another log, or garbage behind the end. Recovery must give whole records, as they were
written, from the first on, all that were synced, and the place of every checkpoint. These states are bytes in memory.
Checkpoints are files, torn at every byte and with every byte changed: `Run.load` must give the new one whole or the one
before it. Writes section R1 of results/reliability.json, and stops with status 1 if a bar is missed. `--quick`: 20 000
states of the log, every seventh byte of the checkpoint; nothing is written.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import read_options
from qompose.log import COUNTS, frame, read_log
from qompose.run import Run

SECTOR = 64  # smaller than a disk's, so that more of them are torn
KINDS = ("torn", "sectors", "garbage sectors", "stale tail", "garbage behind", "zeros behind")


def write_log(rng: random.Random) -> tuple[bytes, list[int]]:
    """A log of a few small records, and where each ends."""
    lanes, observation, action = rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 2)
    head = {"version": 1, "lanes": lanes, "observation_size": observation, "action_size": action}
    data, crc = frame(json.dumps(head).encode(), 0)
    ends = [len(data)]
    for step in range(rng.randint(1, 8)):
        rows = rng.randbytes(4 * rng.randint(0, lanes) * (2 * observation + action + 2))
        record, crc = frame(COUNTS.pack(lanes * (step + 1), rng.randint(0, 99), step) + rows, crc)
        data += record
        ends.append(len(data))
    return data, ends


def crash(kind: str, data: bytes, synced: int, stale: bytes, rng: random.Random) -> bytes:
    """What the disk may hold of a log of which `synced` bytes were synced."""
    if kind == "torn":
        return data[: rng.randint(synced, len(data))]
    if kind == "stale tail":
        return data[:synced] + stale[synced:]
    if kind == "garbage behind":
        return data + rng.randbytes(rng.randint(1, 100))
    if kind == "zeros behind":
        return data[: rng.randint(synced, len(data))] + bytes(rng.randint(1, 100))
    disk = bytearray(data)
    for start in range(synced - synced % SECTOR, len(data), SECTOR):
        if rng.random() < 0.5:
            begin, end = max(start, synced), min(start + SECTOR, len(data))
            disk[begin:end] = bytes(end - begin) if kind == "sectors" else rng.randbytes(end - begin)
    return bytes(disk)


def judge(disk: bytes, data: bytes, stale: bytes, ends: list[int], synced: int) -> str | None:
    """What is wrong with what is read from the disk; None if nothing is."""
    try:
        reading = read_log(disk)
    except ValueError as error:
        return f"refused: {error}"
    length = reading.places[-1].length if reading.places else 0
    if length < synced:
        return "lost"
    # Bytes that are equal up to the end of a record are equal records. An older log may come back, but whole.
    good = (length in (0, *ends) and disk[:length] == data[:length]) or disk[:length] == stale[:length]
    return None if good else "corrupt"


def attack_log(states: int, seed: int) -> dict[str, Any]:
    rng, counts, bad = random.Random(seed), Counter(), []
    stale, _ = write_log(rng)
    done = 0
    while done < states:
        data, ends = write_log(rng)
        synced = rng.choice([0, *ends])
        # Every byte at which this log may be torn, and as many states of the other kinds.
        torn = [("torn", data[:length]) for length in range(synced, len(data) + 1)]
        others = rng.choices(KINDS[1:], k=len(torn))
        for kind, disk in (*torn, *((kind, crash(kind, data, synced, stale, rng)) for kind in others)):
            wrong = judge(disk, data, stale if kind == "stale tail" else b"", ends, synced)
            counts[kind] += 1
            done += 1
            if wrong:
                bad.append([kind, wrong, done])
        stale = data
    return {"states": done, "of_each_kind": dict(counts), "bad": bad}


def attack_checkpoints(seed: int, every: int) -> dict[str, Any]:
    """Damage the newer of two checkpoints at every byte of each of its files."""
    rng, states, bad = random.Random(seed), 0, []
    arrays = {step: {"w": np.arange(6, dtype=np.float32) + step, "n": np.array(step)} for step in (100, 200)}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", {"a": 1}, events=False)
        for step in arrays:
            run.save(step, arrays[step], {"log": [step, 7]})
        for path in sorted((run.directory / "checkpoints" / "000000200").iterdir()):
            whole = path.read_bytes()
            for at in range(0, len(whole), every):
                changed = bytearray(whole)
                changed[at] ^= 1 << rng.randrange(8)
                for damaged in (whole[:at], bytes(changed), whole[:at] + bytes(len(whole) - at)):
                    path.write_bytes(damaged)
                    found = run.load()
                    states += 1
                    if found is None or not _is_as_written(*found, arrays):
                        bad.append([path.name, at])
            path.write_bytes(whole)
    return {"states": states, "bad": bad}


def _is_as_written(step: int, found: Any, facts: Any, arrays: dict[int, dict[str, np.ndarray]]) -> bool:
    wanted = arrays.get(step, {})
    same = found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
    return same and facts == {"log": [step, 7]}


def main(arguments: list[str] | None = None) -> int:
    options = read_options(__doc__, arguments, states=1_000_000, seed=0, quick=False)
    states, every = (20_000, 7) if options.quick else (options.states, 1)
    result = {"log": attack_log(states, options.seed), "checkpoint": attack_checkpoints(options.seed, every)}
    if not options.quick:
        from benchmarks.machine import write_section

        command = f"python -m benchmarks.crashes --states {states} --seed {options.seed}"
        write_section("R1", result, command=command, seed=options.seed)
    print(json.dumps(result))
    return 1 if result["log"]["bad"] or result["checkpoint"]["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
