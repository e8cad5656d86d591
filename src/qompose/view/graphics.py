"""Whether this machine can draw with OpenGL: found out in another process, where a driver may crash or hang."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass

# Draws one frame exactly as a recording would, and says with what.
PROBE = """
import sys
import mujoco
from qompose.envs.render import Renderer
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><camera name="top" pos="0 0 3"/><geom size=".5"/></worldbody></mujoco>'
)
picture = Renderer(model, 64, 64).draw(mujoco.MjData(model))
assert picture.min() < picture.max(), "the picture is empty"
print(next(name for name in ("egl", "osmesa", "cgl", "glfw") if f"mujoco.{name}" in sys.modules))
"""
PATIENCE = 30.0  # s: a machine under load starts Python and MuJoCo in well under this


@dataclass(frozen=True)
class Graphics:
    """What drawing on this machine comes to: the backend that works, or why none does and what to do."""

    backend: str | None
    reason: str = ""
    advice: str = ""


@functools.cache
def probe_graphics() -> Graphics:
    """Return what a picture would be drawn with here. Asks once per process; a second or so if all is well."""
    backend, reason = _try({})
    if backend:
        return Graphics(backend)
    for other in ("egl", "osmesa"):
        if os.environ.get("MUJOCO_GL") != other and _try({"MUJOCO_GL": other})[0]:
            return Graphics(None, reason, f"set MUJOCO_GL={other} before starting")
    return Graphics(None, reason, "install EGL (Debian, Ubuntu: apt install libegl1)")


def _try(changes: dict[str, str]) -> tuple[str | None, str]:
    # -P: a file in the working directory that is called mujoco.py must not be run.
    command = [sys.executable, "-P", "-c", PROBE]
    environment = {**os.environ, **changes}
    if changes:  # MuJoCo sets this when it is imported, perhaps in this process, and then takes no other backend
        environment.pop("PYOPENGL_PLATFORM", None)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no picture within {PATIENCE:.0f} s"
    except OSError as error:
        return None, str(error)
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.split()[-1], ""
    lines = done.stderr.strip().splitlines()
    if not lines:
        return None, f"the process ended with {done.returncode}"
    # Of the traceback only what was said; the kind of exception means nothing to users.
    return None, textwrap.shorten(re.sub(r"^[\w.]+: ", "", lines[-1]), 160)
