"""Mutate saved skills and load them: what is no skill must be refused in one line, and nothing else may happen.

    python -m benchmarks.fuzz [--mutations 1000000] [--processes 2] [--seed 0] [--quick]

The mutants know the format: fields of the manifest, headers and numbers of the tensors, files of other skills, files
that do not belong, and JSON that readers understand differently. At least half have their hashes signed again, so that
the hashes hide nothing. An audit hook watches for code, imports, processes, sockets and files opened for writing. What
loads must act within the box, or refuse. Writes section R4 of results/reliability.json, and stops with status 1 if a
bar is missed. `--quick`: 20 000 mutations in one process, nothing is written.

The work is done in processes of their own, because an audit hook stays for ever.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from qompose.skill.artifact import CARD, Skill, load
from qompose.skill.network import Network, expected_arrays
from qompose.types import QomposeError, Transition

SLOWEST_MS, MOST_MEGABYTES = 50.0, 64.0
JUNK = [None, True, -1, 0, 1, 2**70, 0.5, 1e308, -0.0, "", "x", "\x00", "../x", "é" * 300, [], {}, [[]], {"a": {}}]
WATCHED = re.compile(r"(exec|compile|import|marshal|pickle|ctypes|socket|subprocess|os|shutil|tempfile)\b")
LISTS = ("os.listdir", "os.scandir")
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), -float("inf")]


def mutate_json(value: Any, rng: random.Random) -> Any:
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


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
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


def mutate_header(data: bytes, rng: random.Random) -> bytes:
    """A tensor file whose header was changed as JSON, its length set right again."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = mutate_json(json.loads(data[8:start]), rng)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """JSON that readers understand differently: doubled keys, nesting, marks, numbers that are none."""
    text = data.decode()
    place = rng.choice([match.end() for match in re.finditer(r"[{\[:,]", text)])
    piece = rng.choice([
        '"name": "other", "name": "left",', '"critic": null,', "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 3000,
        '{"a":' * 300, "\ufeff", "\x00", "\x1b[2J", "\u202e", "/* c */", "True", "'x'", "0x10", "1_000", "\ud800",
    ])  # fmt: skip
    return (text[:place] + piece + text[place:]).encode("utf-8", "surrogatepass")


STRANGERS = {
    "run.py": b"import os", "skill.pkl": b"\x80\x04.", "scene.xml": b"<mujoco/>", "weights.zip": b"PK\x03\x04",
    ".hidden": b"", "critic.safetensors.bak": b"",
}  # fmt: skip


def mutant(originals: list[dict[str, bytes]], rng: random.Random) -> dict[str, bytes]:
    """The files of a skill with one of them changed, exchanged or added."""
    files = dict(rng.choice(originals))
    victim = rng.choice([*sorted(files), "manifest.json"])
    action = rng.random()
    if action < 0.01:
        name = rng.choice([*STRANGERS])
        return files | {name: STRANGERS[name]}
    manifest = json.loads(files["manifest.json"])
    if victim == "manifest.json":
        if action < 0.2:
            return files | {victim: mutate_bytes(files[victim], rng)}
        if action < 0.4:
            return files | {victim: mutate_text(files[victim], rng)}
        for _ in range(rng.randint(1, 2)):
            manifest = mutate_json(manifest, rng)
    else:
        if action < 0.1:
            files[victim] = rng.choice(originals).get(victim, b"")
        elif action < 0.4:
            files[victim] = mutate_header(files[victim], rng)
        else:
            files[victim] = mutate_bytes(files[victim], rng)
        if rng.random() < 0.9:
            digest = hashlib.sha256(files[victim]).hexdigest()
            manifest["files"][victim] = {"bytes": len(files[victim]), "sha256": digest}
    return files | {"manifest.json": json.dumps(manifest).encode()}


def act(skill: Skill) -> None:
    """What a loaded mutant does must be an action in the box, or a refusal: finite weights may still overflow."""
    try:
        action = skill.act(np.zeros(skill.observation["size"]), "best", np.random.default_rng(0))
    except QomposeError as error:
        assert any(word in str(error) for word in ("NaN or infinity", "quadratic form")), error
    else:
        assert np.all(np.abs(action) <= 1.0), action


def is_within(path: Any, folder: Path) -> bool:
    """Whether what is opened is a file of the folder, or a descriptor that was opened before."""
    return isinstance(path, int) or os.path.abspath(os.fsdecode(path)).startswith(f"{folder}{os.sep}")


def attack(count: int, seed: int, work: Path, originals: list[dict[str, bytes]]) -> dict[str, Any]:
    """Load so many mutants in this process, watched: what came of it."""
    rng, events, watching = random.Random(seed), [], [False]
    work.mkdir()

    def watch(event: str, args: Any) -> None:
        if not watching[0]:
            return
        opens = event == "open" and ((args[2] or 0) & 3 or not is_within(args[0], work))
        if opens or (WATCHED.match(event) and event not in LISTS):
            events.append([event, repr(args)])

    def put(files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (work / name).write_bytes(data)

    for original in originals:  # whatever is imported at the first use, and the memory that a good skill takes
        put(original)
        act(load(work))
        for path in work.iterdir():
            path.unlink()
    sys.addaudithook(watch)
    result: dict[str, Any] = {"loaded": 0, "refused": 0, "slowest_ms": 0.0, "bad": [], "events": events}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for trial in range(count):
        put(mutant(originals, rng))
        skill, start = None, time.process_time()
        watching[0] = True
        try:
            skill = load(work)
        except QomposeError as error:
            result["refused"] += 1
            if not (str(error).startswith("skill '") and str(error).isprintable() and len(str(error)) < 1000):
                result["bad"].append([trial, str(error)])
        except BaseException as error:
            result["bad"].append([trial, repr(error)])
        watching[0] = False
        result["slowest_ms"] = max(result["slowest_ms"], 1e3 * (time.process_time() - start))
        if skill is not None:
            result["loaded"] += 1
            try:
                act(skill)
            except BaseException as error:
                result["bad"].append([trial, repr(error)])
        for path in work.iterdir():
            path.unlink()
    result["megabytes_above_start"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    return result


# ----------------------------------------------------------------------------------------------------- the originals

CRITIC = {"kind": "critic", "hidden": [8, 6], "layer_norm": True}
SAMPLER = {"kind": "sampler", "hidden": [8, 6], "layer_norm": False}
ACTOR = {"kind": "actor", "hidden": [8, 6], "layer_norm": False}
QUADRATIC = {"kind": "quadratic", "hidden": [8, 6], "layer_norm": True}
SUM = {"kind": "sum", "weights": [0.5, 0.5], "of": [CRITIC, CRITIC]}
OR = {"kind": "or", "weights": [0.25, 0.75], "temperature": 0.1, "of": [CRITIC, CRITIC]}
NESTED = {
    "kind": "prefer", "slack": 0.5, "width": 0.1, "strength": 1.0, "candidates": 8,
    "of": [{"kind": "sum", "weights": [1.0, -0.5], "of": [CRITIC, OR]}, CRITIC],
}  # fmt: skip
KINDS = [
    ("sql", CRITIC, SAMPLER),
    ("sql", SUM, {"kind": "candidates", "of": [SAMPLER, SAMPLER]}),
    ("sql", NESTED, SAMPLER),
    ("sql", {"kind": "corrected", "of": [SUM, CRITIC]}, SAMPLER),
    ("sql", {"kind": "gpi", "of": [CRITIC, CRITIC]}, SAMPLER),
    ("ddpg", CRITIC, ACTOR),
    ("naf", {"kind": "sum", "weights": [0.5, 0.5], "of": [QUADRATIC, QUADRATIC]}, None),
]


def make_network(spec: dict[str, Any], rng: np.random.Generator) -> Network:
    arrays = {}
    for name, (dtype, shape) in expected_arrays(spec, 4, 2).items():
        array = np.asarray(rng.standard_normal(shape) / 3.0)
        scale = name.rpartition("/")[2] in ("scale", "observation_scale")
        arrays[name] = np.asarray(np.abs(array) + 0.5 if scale else array, dtype)
    return Network(spec, arrays)


def make_skill(algorithm: str, critic: dict[str, Any], sampler: dict[str, Any] | None, seed: int = 0) -> Skill:
    """A small skill with random weights and three transitions."""
    rng, soft = np.random.default_rng(seed), algorithm == "sql"
    observations, actions = rng.standard_normal((2, 3, 4)), rng.uniform(-1, 1, (3, 2))
    replay = Transition(observations[0], actions, rng.standard_normal(3), observations[1], np.zeros(3))
    return Skill(
        name="left", algorithm=algorithm, critic=make_network(critic, rng),
        sampler=None if sampler is None else make_network(sampler, rng), temperature=0.1 if soft else None,
        discount=0.99, observation={"size": 4, "names": ["x", "y", "dx", "dy"]},
        action={"size": 2, "low": [-3.0, 0.0], "high": [3.0, 0.1]}, control_period=0.05, horizon=300, terminates=False,
        task={"id": "qompose/PushLeft-v0", "options": {"fork": True, "goal": -1.0}},
        estimator={"proposal": "mixture", "particles": 64, "centres": 16, "smoothing": 0.5} if soft else None,
        composition=None, provenance={"seed": 0, "versions": {"numpy": "2"}, "results": [0.5, None]},
        replay=Transition(*(np.asarray(part, np.float32) for part in replay)),
    )  # fmt: skip


def run(mutations: int, processes: int, seed: int) -> dict[str, Any]:
    """Share the mutations among processes; their figures together."""
    each = -(-mutations // processes)
    with tempfile.TemporaryDirectory() as folder:
        for index, kind in enumerate(KINDS):
            make_skill(*kind).save(Path(folder) / "originals" / str(index))
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", folder, "--mutations", str(each), "--seed"]
        seeds = range(seed, seed + processes)
        workers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in seeds]
        found = [json.loads(worker.communicate()[0]) for worker in workers]
    return {
        "mutations": each * processes,
        "kinds_of_skills": len(KINDS),
        **{name: sum(one[name] for one in found) for name in ("loaded", "refused")},
        **{name: [item for one in found for item in one[name]] for name in ("bad", "events")},
        **{name: max(one[name] for one in found) for name in ("slowest_ms", "megabytes_above_start")},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        folders = sorted((options.worker / "originals").iterdir())
        originals = [
            {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CARD} for folder in folders
        ]  # a card is never read, so nothing is tried by changing it
        print(json.dumps(attack(options.mutations, options.seed, options.worker / f"work-{options.seed}", originals)))
        return 0
    if options.quick:
        result = run(20_000, 1, options.seed)
    else:
        from benchmarks.machine import write_section  # needs JAX, which the workers do without

        result = run(options.mutations, options.processes, options.seed)
        words = f"--mutations {options.mutations} --processes {options.processes} --seed {options.seed}"
        shown = result | {name: len(result[name]) for name in ("bad", "events")}
        write_section("R4", shown, command=f"python -m benchmarks.fuzz {words}", seed=options.seed)
    print(json.dumps(result))
    good = not result["bad"] and not result["events"] and min(result["loaded"], result["refused"]) > 0
    return 0 if good and result["slowest_ms"] <= SLOWEST_MS and result["megabytes_above_start"] <= MOST_MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
