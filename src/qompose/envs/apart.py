"""Scenes and meshes that a user names: read by rules, and compiled in a process of their own before they are used here.

MuJoCo's compiler is C, and what it reads may come from a stranger: 300 bytes of MJCF can ask for gigabytes or for
hours. What another process has compiled within limits is then compiled here from the very same bytes. A fault of
MuJoCo that shows only in this process is not caught by that.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco

from qompose import store
from qompose.types import QomposeError, show

# That the other process may take, its start included. What it compiled is compiled here again, which takes no longer.
SECONDS, MEGABYTES = 5.0, 2000
LARGEST_SCENE, LARGEST_FILE, LARGEST_SUM = 1 << 20, 64 << 20, 256 << 20  # bytes
DEEPEST = 64
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(stl|obj|png)", re.ASCII | re.IGNORECASE)
# Elements that read other models or run other code, and attributes that lead to other places.
REFUSED = frozenset({"include", "model", "attach", "plugin", "extension", "instance"})
LEADING = frozenset({"meshdir", "texturedir", "assetdir", "strippath"})

# Limits first, so that they hold for all that follows. MuJoCo must have nowhere to write, not even MUJOCO_LOG.TXT.
CHILD = f"""
import json, resource, sys
for what, most in (("AS", {MEGABYTES} * 10**6), ("CPU", 10), ("CORE", 0), ("FSIZE", 0), ("NOFILE", 64)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
import mujoco
print("ready", flush=True)
sizes = json.loads(sys.stdin.buffer.readline())
parts = {{name: sys.stdin.buffer.read(size) for name, size in sizes.items()}}
try:
    model = mujoco.MjModel.from_xml_string(parts.pop("").decode(), parts)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    finite = all(abs(part).max(initial=0.0) < 1e10 for part in (data.xpos, data.geom_xpos, model.body_mass))
    print("compiled" if finite else "holds NaN, infinity or a number beyond 1e10")
except (ValueError, MemoryError, mujoco.FatalError) as error:
    print(" ".join((str(error) or "no memory").split())[:300])
"""


def load_scene(path: str | os.PathLike[str]) -> mujoco.MjModel:
    """Return the model of an MJCF file that a user names, with the meshes and textures beside it.

    Raises QomposeError, in one line, for what breaks the rules: UTF-8 without DOCTYPE, at most 1 MB and 64 levels; no
    element that reads another model or names a plugin; files by their plain names, .stl, .obj or .png, in the same
    folder, no links, at most 64 MB each and 256 MB in all. And if it cannot be compiled within 5 s and 2 GB.
    """
    path = Path(path)
    text = bytes(store.read_bytes(path, LARGEST_SCENE))
    with store.naming(str(path)):
        root = parse_scene(text)
        names = {value for element in root.iter() for key, value in element.items() if key.startswith("file")}
        return compile_apart(ElementTree.tostring(root, encoding="unicode"), read_files(path.parent, names))


def read_files(folder: Path, names: set[str]) -> dict[str, bytes]:
    """Return the contents of files of a folder by their plain names; raises QomposeError for any other name or kind."""
    files: dict[str, bytes] = {}
    for name in sorted(names):
        if not FILE_NAME.fullmatch(name):
            raise QomposeError(f"file {show(name)}: give the plain name of an .stl, .obj or .png beside it")
        left = LARGEST_SUM - sum(map(len, files.values()))
        files[name] = bytes(store.read_bytes(folder / name, min(LARGEST_FILE, left)))
    return files


def compile_apart(xml: str, files: Mapping[str, bytes]) -> mujoco.MjModel:
    """Return the model of an MJCF text and its files, once another process has compiled it within 5 s and 2 GB.

    Raises QomposeError, in one line, if that did not go well, whatever it was.
    """
    parts = {"": xml.encode(), **files}
    command = [sys.executable, "-P", "-c", CHILD]
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread takes address space
    deadline = time.monotonic() + SECONDS
    with subprocess.Popen(
        command, env=environment, cwd=os.sep,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], SECONDS)[0]:
                raise subprocess.TimeoutExpired(command, SECONDS)
            if process.stdout.readline() != b"ready\n":
                raise QomposeError("no process to compile it in could be started")
            sizes = json.dumps({name: len(part) for name, part in parts.items()})
            given = sizes.encode() + b"\n" + b"".join(parts.values())
            said, _ = process.communicate(given, timeout=max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            raise QomposeError(f"compiling it took longer than {SECONDS:g} s") from None
        finally:
            process.kill()
    if said != b"compiled\n":
        raise QomposeError(f"cannot be compiled: {_reason(said, process.returncode)}")
    try:
        return mujoco.MjModel.from_xml_string(xml, dict(files))
    except (ValueError, MemoryError, mujoco.FatalError) as error:
        raise QomposeError(f"cannot be compiled: {' '.join(str(error).split())}") from None


def _reason(said: bytes, status: int) -> str:
    text = "".join(letter for letter in said.decode(errors="replace").strip() if letter.isprintable())
    if text:
        return text
    if status < 0:
        return f"MuJoCo's compiler died of {signal.Signals(-status).name}"
    return f"MuJoCo's compiler gave up; it may use {MEGABYTES / 1000:g} GB"


def parse_scene(data: bytes) -> ElementTree.Element:
    """Return the tree of an MJCF text; raises QomposeError for what `load_scene` does not allow in it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise QomposeError("is not UTF-8") from None
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise QomposeError("has a DOCTYPE; scenes need none")
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth, root = 0, None
    try:
        # A little at a time, so that what is too deep is refused before all of it is a tree.
        for at in range(0, len(text), 4096):
            parser.feed(text[at : at + 4096])
            for event, element in parser.read_events():
                root = element if root is None else root
                depth += 1 if event == "start" else -1
                if depth > DEEPEST:
                    raise QomposeError(f"is nested deeper than {DEEPEST}")
                if event == "start":
                    _check_element(element)
        parser.close()
    except ElementTree.ParseError as error:
        raise QomposeError(f"is no XML: {error}") from None
    if root is None or root.tag != "mujoco":
        raise QomposeError("is no MJCF: its root is not <mujoco>")
    return root


def _check_element(element: ElementTree.Element) -> None:
    if element.tag in REFUSED:
        raise QomposeError(f"<{element.tag}> is not allowed: a scene stands for itself")
    for name in LEADING & set(element.keys()):
        raise QomposeError(f"{name} is not allowed: files lie beside the scene")
    for name, value in element.items():  # MuJoCo would take a default for NaN, and write a file that warns of it
        if not {"nan", "inf", "infinity"}.isdisjoint(word.lstrip("+-") for word in value.lower().split()):
            raise QomposeError(f"<{element.tag}> {name} is NaN or infinity")
