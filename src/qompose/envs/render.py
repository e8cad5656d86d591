"""Pictures of a simulation, with or without a display."""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np

from qompose.types import QomposeError


class Renderer:
    """Draws states of one model off-screen as RGB arrays.

    `mujoco.Renderer` uses the context chosen by MUJOCO_GL when mujoco was first imported, which is GLFW unless the
    user knew better, and GLFW needs a display. This one decides when the first picture is asked for.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Open a context; raises QomposeError if this machine cannot draw, or not at this size."""
        limits = model.vis.global_
        if not (1 <= width <= limits.offwidth and 1 <= height <= limits.offheight):
            most = f"{limits.offwidth} x {limits.offheight}"
            raise QomposeError(f"a picture of {width} x {height} pixels: the scene is drawn at up to {most}")
        self._model = model
        self._gl = _open_context(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._options, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0  # the first of the scene
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._shape = (height, width, 3)
        self.close = weakref.finalize(self, _free, self._context, self._gl)

    def draw(self, data: mujoco.MjData) -> np.ndarray:
        """Return a picture (height, width, 3), uint8."""
        # A state that was only just reset has not placed its camera yet. None of these touches the dynamics.
        for place in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            place(self._model, data)
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._options, self._perturb, self._camera, everything, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        picture = np.empty(self._shape, np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._context)
        return np.ascontiguousarray(picture[::-1])  # OpenGL counts rows from the bottom


def _open_context(width: int, height: int) -> Any:
    headless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    try:
        if headless and os.environ.get("MUJOCO_GL", "egl") == "egl":
            from mujoco.egl import GLContext
        else:
            from mujoco.gl_context import GLContext
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise QomposeError(f"cannot draw here ({reason}): install EGL, or set MUJOCO_GL=osmesa") from error


def _free(context: mujoco.MjrContext, gl: Any) -> None:
    gl.make_current()
    context.free()
    gl.free()
