"""Hostile scenes and meshes that a user might name: the host survives all of them, within 10 seconds and 2 GB.

    python -m benchmarks.scenes [--quick]

Every case is made here, and read by `qompose.envs.apart.load_scene` (MJCF) or `qompose.view.meshes.dress` (meshes of
Sawyer) in this process, which must live on. A case must be refused in one printable line, or give a model if it is
marked as harmless. Measured are the seconds, and the most memory of any process that compiled. Writes section R6 of
results/reliability.json, and stops with status 1 if a bar is missed. `--quick`: every seventh case, nothing is written.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write_section
from benchmarks.options import read_options
from qompose.envs.apart import load_scene
from qompose.tasks import make_task
from qompose.types import QomposeError
from qompose.view.meshes import dress

MOST_SECONDS, MOST_MEGABYTES, BAR = 10.0, 2000.0, 30
CORNERS = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.2]])
FACES = CORNERS[[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]]
BALL = '<geom size=".1"/>'


def mjcf(world: str = BALL, rest: str = "") -> str:
    return f"<mujoco>{rest}<worldbody>{world}</worldbody></mujoco>"


def stl(faces: np.ndarray, count: int | None = None) -> bytes:
    """A binary STL; `count` is what its header says, in place of the truth."""
    rows = b"".join(struct.pack("<12fH", 0.0, 0.0, 0.0, *face.ravel(), 0) for face in faces)
    return bytes(80) + struct.pack("<I", len(faces) if count is None else count) + rows


def obj(faces: str = "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n") -> bytes:
    return ("".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + faces).encode()


def nested(tag: str, depth: int, inner: str = BALL) -> str:
    return f"<{tag}>" * depth + inner + f"</{tag}>" * depth


def replicated(depth: int, count: int) -> str:
    return f'<replicate count="{count}" offset="1 0 0">' * depth + BALL + "</replicate>" * depth


ENTITIES = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
SCENES: dict[str, str | bytes] = {
    "replicate, six deep": mjcf(replicated(6, 30)),
    "replicate of a hundred million": mjcf(replicated(1, 10**8)),
    "replicate with a negative count": mjcf(replicated(1, -5)),
    "a composite of a million": mjcf('<body><composite type="cable" curve="s" size="9" count="1000000 1 1">'
                                     '<geom type="capsule" size=".01"/></composite></body>'),
    "a flexible body of 10^9 nodes": mjcf('<body name="b"><flexcomp name="f" type="grid" count="1000 1000 1000" '
                                         'spacing=".1 .1 .1" radius=".01" dim="3"/></body>'),
    "bodies nested a thousand deep": mjcf(nested("body", 1000)),
    "defaults nested a thousand deep": mjcf(rest=nested("default", 1000, "")),
    "a megabyte of opening tags": b"<mujoco>" + b"<a>" * 340_000,
    "55 000 geoms": mjcf(BALL * 55_000),
    "a texture of 10^10 pixels": mjcf(rest='<asset><texture name="t" type="2d" builtin="flat" width="100000" '
                                          'height="100000" rgb1="1 1 1"/></asset>'),
    "a height field of 10^10 numbers": mjcf(rest='<asset><hfield name="h" nrow="100000" ncol="100000" '
                                                'size="1 1 1 1"/></asset>'),
    "an arena of a terabyte": mjcf(rest='<size memory="1T"/>'),
    "2 billion numbers of user data per geom": mjcf(rest='<size nuser_geom="2000000000"/>'),
    "2 billion numbers of user data": mjcf(rest='<size nuserdata="2000000000"/>'),
    "a sensor history without end": mjcf(rest='<size nkey="2000000000"/>'),
    "includes itself": mjcf(rest='<include file="scene.xml"/>'),
    "includes /etc/passwd": mjcf(rest='<include file="/etc/passwd"/>'),
    "attaches another model": mjcf(rest='<asset><model name="m" file="other.xml"/></asset>'),
    "a plugin": mjcf(rest='<extension><plugin plugin="mujoco.sdf.torus"/></extension>'),
    "a billion laughs": f'<!DOCTYPE m [<!ENTITY e0 "ha">{ENTITIES}]><mujoco>&e9;</mujoco>',
    "an external entity": '<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]><mujoco>&e;</mujoco>',
    "a mesh by an absolute path": mjcf(rest='<asset><mesh file="/etc/passwd"/></asset>'),
    "a mesh above the folder": mjcf(rest='<asset><mesh file="../mesh.stl"/></asset>'),
    "a mesh in a folder of its own": mjcf(rest='<compiler meshdir="/etc"/><asset><mesh file="mesh.stl"/></asset>'),
    "a texture with a NUL in its name": mjcf(rest='<asset><texture type="2d" file="a&#0;.png"/></asset>'),
    "a texture that is no PNG": mjcf(rest='<asset><texture type="2d" file="bad.png"/></asset>'),
    "a PNG of 10^9 pixels": mjcf(rest='<asset><texture type="2d" file="huge.png"/></asset>'),
    "NaN as a mass": mjcf('<body><geom size=".1" mass="nan"/><freejoint/></body>'),
    "infinity as a place": mjcf('<geom size=".1" pos="inf 0 0"/>'),
    "a place of 10^308": mjcf('<body pos="1e308 1e308 1e308"><freejoint/><geom size=".1" pos="1e308 0 0"/></body>'),
    "a time step of zero": mjcf(rest='<option timestep="0"/>'),
    "two geoms of one name": mjcf('<geom name="a" size=".1"/><geom name="a" size=".1"/>'),
    "a name of a megabyte": mjcf(f'<geom name="{"a" * 1_000_000}" size=".1"/>'),
    "a body without a mass": mjcf("<body><freejoint/></body>"),
    "a tendon of a joint that is not there": mjcf(rest='<tendon><fixed><joint joint="x" coef="1"/></fixed></tendon>'),
    "cut off in a tag": mjcf()[:25],
    "UTF-16": mjcf().encode("utf-16"),
    "Latin-1 that says it is UTF-8": '<mujoco model="é"/>'.encode("latin-1"),
    "bytes of nothing": bytes(1000),
    "an empty file": b"",
    "another root": "<robot name='urdf'><link name='a'/></robot>",
    "control characters in a name": mjcf('<geom name="&#27;[2J" size=".1" mesh="&#27;[31mx"/>'),
    "two megabytes": mjcf(rest=f"<!--{'x' * 2_000_000}-->"),
}  # fmt: skip
MESHES: dict[str, tuple[str, bytes]] = {
    "an STL that says it has 4 billion faces": ("l3.stl", stl(FACES, 2**32 - 1)),
    "an STL that says it has more faces than are there": ("l3.stl", stl(FACES, 1000)),
    "an STL that says it has none": ("l3.stl", stl(FACES, 0)),
    "an STL without faces": ("l3.stl", stl(FACES[:0])),
    "an STL cut off in its header": ("l3.stl", bytes(40)),
    "an STL of NaN": ("l3.stl", stl(FACES * np.nan)),
    "an STL of infinity": ("l3.stl", stl(np.full_like(FACES, np.inf))),
    "an STL of 10^38": ("l3.stl", stl(FACES * 1e38)),
    "an STL of one point": ("l3.stl", stl(FACES * 0.0)),
    "an STL of text": ("l3.stl", b"solid a\n facet normal 0 0 1\n" * 100),
    "an STL of a million faces": ("l3.stl", stl(np.repeat(FACES, 250_000, axis=0))),
    "an STL of 65 MB": ("l3.stl", bytes(65 << 20)),
    "an OBJ with faces of points that are not there": ("l3.obj", obj("f 1 2 999999999\n")),
    "an OBJ with negative and zero indices": ("l3.obj", obj("f -9 0 2\n")),
    "an OBJ with a face of 100 000 corners": ("l3.obj", obj("f " + "1 2 3 " * 33_000 + "\n")),
    "an OBJ without faces": ("l3.obj", obj("")),
    "an OBJ that reads a library": ("l3.obj", b"mtllib /etc/passwd\n" + obj()),
    "an OBJ of bytes": ("l3.obj", bytes(range(256)) * 1000),
}
# What is no file that one may read at all.
PLACES: dict[str, Callable[[Path], Any]] = {
    "a mesh that is a named pipe": lambda folder: os.mkfifo(folder / "l3.stl"),
    "a mesh that is a link to a device": lambda folder: (folder / "l3.stl").symlink_to("/dev/zero"),
    "a mesh that is a link out of the folder": lambda folder: (folder / "l3.stl").symlink_to("/etc/passwd"),
    "a mesh that is a folder": lambda folder: (folder / "l3.stl").mkdir(),
    "a mesh that is a link to itself": lambda folder: (folder / "l3.stl").symlink_to("l3.stl"),
    "no mesh at all": lambda folder: None,
}
HARMLESS = {
    "two geoms": mjcf(BALL * 2), "a mesh beside it": mjcf(rest='<asset><mesh file="mesh.stl"/></asset>'),
}  # fmt: skip
# What may give a model: odd, but nothing that is read from elsewhere, and small.
ODD = {
    "replicate with a negative count", "a time step of zero", "a name of a megabyte",
    "an OBJ with a face of 100 000 corners", "an OBJ without faces", "an OBJ that reads a library",
}  # fmt: skip
# A PNG's head alone, which says 40 000 x 40 000.
HEAD = struct.pack(">4sIIBBBBB", b"IHDR", 40_000, 40_000, 8, 6, 0, 0, 0)
HUGE_PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + HEAD + struct.pack(">I", zlib.crc32(HEAD))


def cases() -> dict[str, Callable[[Path], Any]]:
    """What is done in an empty folder for each case, by its name."""

    def scene(text: str | bytes) -> Callable[[Path], Any]:
        def read(folder: Path) -> Any:
            for name, content in (("mesh.stl", stl(FACES)), ("bad.png", b"no"), ("huge.png", HUGE_PNG)):
                (folder / name).write_bytes(content)
            (folder / "scene.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
            return load_scene(folder / "scene.xml")

        return read

    def mesh(name: str, content: bytes) -> Callable[[Path], Any]:
        return lambda folder: ((folder / name).write_bytes(content), dress(make_task("SawyerStack"), folder))

    def place(put: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda folder: (put(folder), dress(make_task("SawyerStack"), folder))

    return (
        {name: scene(text) for name, text in (SCENES | HARMLESS).items()}
        | {name: mesh(*what) for name, what in MESHES.items()}
        | {name: place(put) for name, put in PLACES.items()}
    )


def attack(name: str, read: Callable[[Path], Any]) -> dict[str, Any]:
    """What became of one case."""
    begin, refusal = time.monotonic(), None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mesh.stl").write_bytes(stl(FACES))  # a good one, where none may be read
        (inside := Path(folder) / "scene").mkdir()
        try:
            read(inside)
        except QomposeError as error:
            refusal = str(error)
    seconds = time.monotonic() - begin
    megabytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)) / 1e3
    return {"name": name, "refusal": refusal, "seconds": seconds, "megabytes_until_now": megabytes}


def judge(row: dict[str, Any]) -> str | None:
    """What is wrong with a case; None if nothing is."""
    if row["refusal"] is not None and not row["refusal"].isprintable():
        return "not one printable line"
    if row["name"] in HARMLESS and row["refusal"] is not None:
        return "harmless, but refused"
    if row["name"] not in HARMLESS.keys() | ODD and row["refusal"] is None:
        return "gave a model"
    if row["seconds"] > MOST_SECONDS:
        return "too slow"
    return "too large" if row["megabytes_until_now"] > MOST_MEGABYTES else None


def run(every: int) -> dict[str, Any]:
    rows = []
    for name, read in [*cases().items()][::every]:
        rows.append(attack(name, read))
        wrong = judge(rows[-1])
        if wrong:
            rows[-1]["wrong"] = wrong
        print(f"{rows[-1]['seconds']:5.1f} s  {name}: {wrong or rows[-1]['refusal'] or 'a model'}", flush=True)
    hostile = [row for row in rows if row["name"] not in HARMLESS]
    return {
        "hostile": len(hostile),
        "refused": sum(row["refusal"] is not None for row in hostile),
        "gave_a_model": [row["name"] for row in hostile if row["refusal"] is None],
        "harmless_models": len(rows) - len(hostile),
        "slowest_seconds": max(row["seconds"] for row in rows),
        "most_megabytes": max(row["megabytes_until_now"] for row in rows),
        "bar": f"{BAR} scenes, {MOST_SECONDS:g} s, {MOST_MEGABYTES:g} MB",
        "bad": [{name: row[name] for name in ("name", "wrong", "seconds")} for row in rows if "wrong" in row],
    }


def main(arguments: list[str] | None = None) -> int:
    options = read_options(__doc__, arguments, quick=False)
    result = run(7 if options.quick else 1)
    if not options.quick:
        write_section("R6", result, command="python -m benchmarks.scenes")
    print(json.dumps(result))
    return 1 if result["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
