import os
import struct
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from benchmarks import scenes
from qompose.envs import apart
from qompose.envs.apart import compile_apart, load_scene, parse_scene, read_files
from qompose.types import QomposeError


def test_a_scene_with_its_files_is_the_model_that_mujoco_makes_of_it(tmp_path):
    (tmp_path / "mesh.stl").write_bytes(scenes.stl(scenes.FACES))
    text = scenes.mjcf(
        '<body><freejoint/><geom type="mesh" mesh="mesh"/></body>', '<asset><mesh file="mesh.stl"/></asset>'
    )
    (tmp_path / "scene.xml").write_text(text)
    found, expected = load_scene(tmp_path / "scene.xml"), mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))
    assert np.array_equal(found.mesh_vert, expected.mesh_vert) and np.array_equal(found.body_mass, expected.body_mass)


def test_what_takes_too_long_or_too_much_is_refused_and_this_process_lives_on(monkeypatch):
    monkeypatch.setattr(apart, "SECONDS", 0.5)
    with pytest.raises(QomposeError, match=r"^compiling it took longer than 0\.5 s$"):
        compile_apart(scenes.mjcf(scenes.replicated(6, 30)), {})
    monkeypatch.setattr(apart, "SECONDS", 60)
    with pytest.raises(QomposeError, match=r"^cannot be compiled: ") as caught:
        compile_apart(scenes.SCENES["an arena of a terabyte"], {})
    assert str(caught.value).isprintable()


def test_a_compiler_that_dies_is_one_line(monkeypatch):
    monkeypatch.setattr(apart, "CHILD", "import os; print('ready', flush=True); os.kill(os.getpid(), 11)")
    with pytest.raises(QomposeError, match=r"^cannot be compiled: MuJoCo's compiler died of SIGSEGV$"):
        compile_apart("<mujoco/>", {})


def test_the_compiler_may_write_not_a_byte_and_take_no_more_memory_than_it_should(tmp_path):
    limits = apart.CHILD.partition("import mujoco")[0]
    tried = """
try:
    with open(sys.argv[1], "w") as file:
        file.write("x")
except OSError as error:
    print(error.strerror)
try:
    bytearray(2 * 10**9)
except MemoryError:
    print("no memory")
"""
    done = subprocess.run([sys.executable, "-c", limits + tried, tmp_path / "x"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("File too large\nno memory\n", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "is not UTF-8"),
        (b"<mujoco><a></mujoco>", "is no XML: mismatched tag"),
        (b"<robot/>", "is no MJCF: its root is not <mujoco>"),
        (b"", "is no XML: no element found"),
        (b'<mujoco><a mass="1 -NaN"/></mujoco>', "<a> mass is NaN or infinity"),
        (scenes.SCENES["a billion laughs"].encode(), "has a DOCTYPE"),
        (scenes.SCENES["bodies nested a thousand deep"].encode(), "is nested deeper than 64"),
        (scenes.SCENES["includes itself"].encode(), "<include> is not allowed"),
        (scenes.SCENES["a plugin"].encode(), "<extension> is not allowed"),
        (scenes.SCENES["a mesh in a folder of its own"].encode(), "meshdir is not allowed"),
    ],
)
def test_what_breaks_the_rules_never_comes_to_mujoco(text, message):
    with pytest.raises(QomposeError, match=f"^{message}"):
        parse_scene(text)


@pytest.mark.parametrize("name", ["/mesh.stl", "../mesh.stl", "inside/../../mesh.stl", "link.stl", "pipe.stl", ".."])
def test_only_regular_files_beside_a_scene_are_read(tmp_path, name):
    mesh = scenes.stl(scenes.FACES)
    (tmp_path / "mesh.stl").write_bytes(mesh)
    (folder := tmp_path / "scene").mkdir()
    (folder / "inside").mkdir()
    (folder / "link.stl").symlink_to(tmp_path / "mesh.stl")
    os.mkfifo(folder / "pipe.stl")
    (folder / "good.stl").write_bytes(mesh)
    assert read_files(folder, {"good.stl"}) == {"good.stl": mesh}
    with pytest.raises(QomposeError, match=r"give the plain name|is a link|is not a regular file"):
        read_files(folder, {"good.stl", f"{tmp_path}{name}" if name.startswith("/") else name})


def test_every_hostile_scene_has_a_case_of_its_own():
    hostile = scenes.cases().keys() - scenes.HARMLESS.keys()
    assert len(hostile) >= 60 and len({*map(str, scenes.SCENES.values())}) == len(scenes.SCENES)


def test_a_mesh_that_says_it_has_billions_of_faces_is_refused(tmp_path):
    (tmp_path / "mesh.stl").write_bytes(bytes(80) + struct.pack("<I", 2**32 - 1))
    (tmp_path / "scene.xml").write_text(scenes.HARMLESS["a mesh beside it"])
    with pytest.raises(QomposeError, match=r"scene\.xml: cannot be compiled: "):
        load_scene(tmp_path / "scene.xml")
