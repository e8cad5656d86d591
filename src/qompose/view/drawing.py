"""Flat drawings of a planar task, made from what a policy observes: for machines that cannot draw with OpenGL."""

from __future__ import annotations

import functools
import math
from typing import Any

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qompose.tasks import Task
from qompose.types import QomposeError

CAMERA = "top"  # looks straight down
FINER = 3  # drawn this many times larger, then reduced: Pillow's shapes have jagged edges
PAPER, GRID, WALL, INK = (250, 250, 248), (232, 232, 229), (150, 150, 146), (40, 40, 46)
# Plain integers: MuJoCo's enumeration does not compare with the entries of its arrays.
PLANE, SPHERE, CAPSULE, CYLINDER, BOX = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("PLANE", "SPHERE", "CAPSULE", "CYLINDER", "BOX")
)
CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


class Drawing:
    """Draws a task from above, as its camera sees it, from observations alone."""

    def __init__(self, task: Task, size: int) -> None:
        """Prepare drawings of `size` x `size` pixels.

        Raises QomposeError if the observation does not tell where every joint is.
        """
        self._model, self._size = task.model(), size
        self._data = mujoco.MjData(self._model)
        self._columns = _joint_columns(task, self._model)
        camera = self._model.camera(CAMERA)
        # Metres from the middle to the edge, in the plane z = 0, where things move.
        self._half = float(camera.pos[2]) * math.tan(math.radians(float(camera.fovy[0])) / 2)

    def draw(self, observation: np.ndarray) -> Image.Image:
        """Return the picture that belongs to an observation (obs,)."""
        self._data.qpos[:] = observation[self._columns]
        mujoco.mj_kinematics(self._model, self._data)
        canvas = Image.new("RGB", (FINER * self._size, FINER * self._size), PAPER)
        pen = ImageDraw.Draw(canvas)
        planes = self._model.geom_type == PLANE
        for geom in np.flatnonzero(planes).tolist():
            self._draw_plane(pen, geom)
        self._draw_grid(pen)
        # Which size of a geom is its half height; a capsule lies flat.
        upright = np.select([self._model.geom_type == CYLINDER, self._model.geom_type == BOX], [1, 2], 0)
        tops = self._data.geom_xpos[:, 2] + self._model.geom_size[np.arange(len(upright)), upright]
        for geom in np.argsort(tops, kind="stable").tolist():
            if not planes[geom]:
                self._draw_geom(pen, geom)
        return canvas.resize((self._size, self._size), Image.Resampling.BOX)

    def _draw_plane(self, pen: ImageDraw.ImageDraw, geom: int) -> None:
        half = self._model.geom_size[geom, :2]
        if (half < self._half).all():  # else it fills the picture: that is the paper
            left, top = self._pixels(self._data.geom_xpos[geom, :2] + half * (-1, 1))
            right, bottom = self._pixels(self._data.geom_xpos[geom, :2] + half * (1, -1))
            pen.rectangle((left, top, right, bottom), outline=WALL, width=2 * FINER)

    def _draw_grid(self, pen: ImageDraw.ImageDraw) -> None:
        spacing = 0.5 if self._half < 3 else 1.0
        most = int(self._half / spacing)
        for line in range(-most, most + 1):
            x, y = self._pixels([line * spacing, line * spacing])
            pen.line((x, 0, x, FINER * self._size), GRID, FINER)
            pen.line((0, y, FINER * self._size, y), GRID, FINER)

    def _draw_geom(self, pen: ImageDraw.ImageDraw, geom: int) -> None:
        kind = self._model.geom_type[geom]
        radius, second, _ = self._model.geom_size[geom]
        middle = self._data.geom_xpos[geom]
        axes = self._data.geom_xmat[geom].reshape(3, 3)
        rgba = self._model.geom_rgba[geom]
        fill = tuple(int(255 * (rgba[3] * c + (1 - rgba[3]) * p / 255)) for c, p in zip(rgba[:3], PAPER, strict=True))
        edge = tuple(int(0.7 * c) for c in fill)
        inner = max(radius - self._pixel, radius / 2)  # a pixel of outline, less in small pictures
        if kind in (SPHERE, CYLINDER):
            self._disc(pen, middle, radius, edge)
            self._disc(pen, middle, inner, fill)
        elif kind == CAPSULE:
            ends = [middle + sign * second * axes[:, 2] for sign in (-1, 1)]
            self._bar(pen, ends, radius, edge)
            self._bar(pen, ends, inner, fill)
        elif kind == BOX:
            corners = [middle + a * radius * axes[:, 0] + b * second * axes[:, 1] for a, b in CORNERS]
            pen.polygon([tuple(self._pixels(corner)) for corner in corners], fill)

    def _disc(self, pen: ImageDraw.ImageDraw, middle: Any, radius: float, colour: tuple) -> None:
        (x, y), r = self._pixels(middle), radius * self._scale
        pen.ellipse((x - r, y - r, x + r, y + r), colour)

    def _bar(self, pen: ImageDraw.ImageDraw, ends: list, radius: float, colour: tuple) -> None:
        points = [tuple(self._pixels(end)) for end in ends]
        pen.line(points, colour, round(2 * radius * self._scale))
        for end in ends:
            self._disc(pen, end, radius, colour)

    @property
    def _scale(self) -> float:
        """Pixels of the canvas per metre."""
        return FINER * self._size / (2 * self._half)

    @property
    def _pixel(self) -> float:
        """The width of a pixel of the finished picture, in metres."""
        return 2 * self._half / self._size

    def _pixels(self, point: Any) -> np.ndarray:
        centre = FINER * self._size / 2
        return np.array([centre + self._scale * point[0], centre - self._scale * point[1]])


def _joint_columns(task: Task, model: Any) -> list[int]:
    """Where each joint's position stands in the observation: under the joint's name, or that and `_angle`."""
    names = list(task.observation_names)
    columns = []
    for index in range(model.njnt):
        joint = model.joint(index).name
        found = [names.index(name) for name in (joint, f"{joint}_angle") if name in names]
        if not found or model.njnt != model.nq:
            raise QomposeError(f"{task.name} cannot be drawn without OpenGL; `qompose doctor` says what is missing")
        columns.append(found[0])
    return columns


def write_caption(picture: Image.Image, left: str, right: str) -> Image.Image:
    """Return the picture with one line of text over its top edge; what is left ends in … where both do not fit."""
    height = max(14, picture.height // 26)
    font = _font(height)
    strip = Image.new("RGB", (picture.width, round(1.7 * height)), PAPER)
    captioned = picture.copy()
    captioned.paste(Image.blend(picture.crop((0, 0, *strip.size)), strip, 0.8))
    pen = ImageDraw.Draw(captioned)
    middle, margin = strip.height / 2, height / 2
    room = picture.width - 4 * margin - pen.textlength(right, font)
    if pen.textlength(left, font) > room:
        while left and pen.textlength(f"{left}…", font) > room:
            left = left[:-1]
        left += "…"
    pen.text((margin, middle), left, INK, font, anchor="lm")
    pen.text((picture.width - margin, middle), right, INK, font, anchor="rm")
    return captioned


@functools.lru_cache(maxsize=8)
def _font(height: int) -> Any:
    import matplotlib  # its DejaVu Sans has every letter we use; Pillow's own font has only Latin ones

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", height)
