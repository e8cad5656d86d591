"""Sawyer in the clothes that a user has for it: meshes of its links for pictures, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from qompose import store
from qompose.envs.apart import compile_apart, read_files
from qompose.tasks import Task
from qompose.tasks.sawyer import SawyerTask
from qompose.tasks.scenes.sawyer import LINKS
from qompose.types import QomposeError

# The body of each mesh, by its name without a suffix, and the primitives that it takes the place of. The frame of a
# mesh is that of its body, in metres.
BODIES = {
    "base": (None, ("base",)),
    **{link.name: (f"right_{link.name}", tuple(name for name, _, _ in link.capsules)) for link in LINKS},
    "head": ("head", ("neck", "screen")),
}
SUFFIXES = (".stl", ".obj")


def dress(task: Task, directory: str | os.PathLike[str]) -> mujoco.MjModel:
    """Return a model of the task to draw from, with the meshes of a directory: base, l0 to l6 and head, .stl or .obj.

    Links without a mesh keep their primitives. Nothing is simulated with it. Raises QomposeError, in one line, for a
    task without Sawyer, a directory without meshes, and for files that MuJoCo cannot compile within limits.
    """
    if not isinstance(task, SawyerTask):
        raise QomposeError(f"{task.name} has no Sawyer that could wear meshes; leave them out")
    directory = Path(directory)
    names = [(link, f"{link}{suffix}") for link in BODIES for suffix in SUFFIXES]
    found = {link: name for link, name in names if os.path.lexists(directory / name)}
    if not found:
        raise QomposeError(f"{directory} has no mesh; put base.stl, l0.stl to l6.stl or head.stl there (or .obj)")
    root = ElementTree.fromstring(task.scene())
    asset, world = root.find("asset"), root.find("worldbody")
    assert asset is not None and world is not None
    for link, file in found.items():
        body, primitives = BODIES[link]
        place = world if body is None else next(each for each in world.iter("body") if each.get("name") == body)
        # As a shell: a mesh for the eye is seldom closed.
        ElementTree.SubElement(asset, "mesh", name=f"mesh_{link}", file=file, inertia="shell")
        ElementTree.SubElement(
            place, "geom", name=f"mesh_{link}", type="mesh", mesh=f"mesh_{link}", mass="0", rgba=".35 .1 .1 1",
            contype="0", conaffinity="0",
        )  # fmt: skip
        for geom in place.findall("geom"):
            if geom.get("name") in primitives:
                geom.set("rgba", "0 0 0 0")
    with store.naming(str(directory)):
        return compile_apart(ElementTree.tostring(root, encoding="unicode"), read_files(directory, {*found.values()}))
