"""Mutate saved skills and load them: `python mutants.py COUNT SEED WORK ORIGINAL...` prints what came of it as JSON.

A process of its own, because an audit hook stays for ever and because the checks of types would take most of the time.
At least half of the mutants have their hashes signed again, so that the hashes hide nothing.
"""

import copy
import hashlib
import json
import random
import re
import struct
import sys
import time
from pathlib import Path

import numpy as np

from qompose.skill.artifact import load
from qompose.types import QomposeError

JUNK = [None, True, -1, 0, 1, 2**70, 0.5, 1e308, -0.0, "", "x", "\x00", "../x", "é" * 300, [], {}, [[]], {"a": {}}]
WATCHED = re.compile(r"(exec|compile|import|marshal|pickle|ctypes|socket|subprocess|os|shutil|tempfile)\b")
LISTS = ("os.listdir", "os.scandir")
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), -float("inf")]


def mutate_json(value, rng):
    """One random change somewhere in a tree of JSON."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        action = rng.random()
        if action < 0.1:
            del value[key]
        elif action < 0.2:
            value[rng.choice(["extra", "", "kind", "\n"])] = copy.deepcopy(rng.choice(JUNK))
        else:
            value[key] = mutate_json(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        action = rng.random()
        if action < 0.2:
            del value[index]
        elif action < 0.4:
            value.insert(index, copy.deepcopy(value[index]))
        else:
            value[index] = mutate_json(value[index], rng)
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice([value + 1, -value, value * 1.5, value * 10**6])
    return copy.deepcopy(rng.choice(JUNK))


def mutate_bytes(data, rng):
    """A few random changes of bytes or numbers, a cut or a doubled piece."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        # Half of the changes fall into the header, where they matter most.
        index = rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data)) if data else 0
        action = rng.random()
        if action < 0.4 and data:
            data[index] = rng.randrange(256)
        elif action < 0.7:
            index -= index % 4
            data[index : index + 4] = struct.pack("<f", rng.choice(FLOATS))
        elif action < 0.8:
            del data[index : index + rng.randint(1, 64)]
        elif action < 0.9:
            data[index:index] = data[index : index + rng.randint(1, 64)]
        else:
            del data[index:]
    return bytes(data)


def mutant(originals, rng):
    """The files of a skill with one of them changed."""
    files = dict(rng.choice(originals))
    victim = rng.choice([*sorted(files), "manifest.json"])
    if victim == "manifest.json" and rng.random() < 0.2:
        return files | {victim: mutate_bytes(files[victim], rng)}
    manifest = json.loads(files["manifest.json"])
    if victim == "manifest.json":
        for _ in range(rng.randint(1, 2)):
            manifest = mutate_json(manifest, rng)
    else:
        files[victim] = mutate_bytes(files[victim], rng)
        if rng.random() < 0.9:
            digest = hashlib.sha256(files[victim]).hexdigest()
            manifest["files"][victim] = {"bytes": len(files[victim]), "sha256": digest}
    return files | {"manifest.json": json.dumps(manifest).encode()}


def act(skill):
    """What a loaded mutant does must be an action in the box, or a refusal: finite weights may still overflow."""
    try:
        action = skill.act(np.zeros(skill.observation["size"]), "best", np.random.default_rng(0))
    except QomposeError as error:
        assert any(word in str(error) for word in ("NaN or infinity", "quadratic form")), error
    else:
        assert np.all(np.abs(action) <= 1.0), action


def main(count, seed, work, *paths):
    rng = random.Random(int(seed))
    originals = [{path.name: path.read_bytes() for path in Path(original).iterdir()} for original in paths]
    work = Path(work)
    work.mkdir()
    load(paths[0])  # whatever is imported at the first use
    events, watching = [], [False]

    def watch(event, args):
        writes = event == "open" and (args[2] or 0) & 3
        if watching[0] and (writes or (WATCHED.match(event) and event not in LISTS)):
            events.append([event, repr(args)])

    sys.addaudithook(watch)
    result = {"loaded": 0, "refused": 0, "slowest_ms": 0.0, "bad": [], "events": events}
    for trial in range(int(count)):
        for name, data in mutant(originals, rng).items():
            (work / name).write_bytes(data)
        start = time.process_time()
        watching[0] = True
        try:
            skill = load(work)
        except QomposeError as error:
            result["refused"] += 1
            if not (str(error).startswith("skill '") and str(error).isprintable() and len(str(error)) < 1000):
                result["bad"].append([trial, str(error)])
        except BaseException as error:
            result["bad"].append([trial, repr(error)])
        else:
            result["loaded"] += 1
            watching[0] = False
            act(skill)
        watching[0] = False
        result["slowest_ms"] = max(result["slowest_ms"], 1e3 * (time.process_time() - start))
        for path in work.iterdir():
            path.unlink()
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
