"""An environment to be filmed: its lock-step view, its picture, and what there is to say about the moment."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import SyncVectorEnv
from PIL import Image

from qompose.envs.build import in_one_line
from qompose.envs.gym import TaskEnv
from qompose.envs.lockstep import Lockstep
from qompose.envs.render import Renderer
from qompose.envs.watchdog import PATIENCE, check_timeout, within
from qompose.tasks import make_task, task_named
from qompose.types import QomposeError, find_misfit, show
from qompose.view.drawing import Drawing
from qompose.view.graphics import probe_graphics
from qompose.view.meshes import dress

MOST_STEPS = 1000  # of an environment that does not say when an episode ends
SIZES = (64, 960)  # pixels; scenes are drawn at up to 960


class Stage(ABC):
    """One lane of an environment, with a camera. `note` says why the pictures are not what they could be."""

    lockstep: Lockstep
    steps: int  # after which an episode is over
    fps: float  # in real time, if the environment knows what that is
    renderer: str
    note: str = ""

    @abstractmethod
    def picture(self, observation: np.ndarray) -> Image.Image:
        """Return the picture of this moment; observation (obs,)."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Return what the task says about this moment."""

    def close(self) -> None:
        """Free what it holds."""
        self.lockstep.close()


def open_stage(
    env_id: str,
    options: dict[str, Any],
    size: int,
    episode_steps: int | None = None,
    meshes: str | os.PathLike[str] | None = None,
    env_timeout: float = PATIENCE,
) -> Stage:
    """Return the stage of a task's name or any Gymnasium id; raises QomposeError for what cannot be made or drawn.

    `episode_steps`: of an episode, in place of the task's horizon; a foreign environment's is only cut. `env_timeout`:
    seconds that a foreign environment may take to be made, for one step, and for one picture. `meshes` is a directory
    of what Sawyer looks like, see `qompose.view.meshes`.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise QomposeError(f"size is {size}; give {SIZES[0]} to {SIZES[1]} pixels")
    check_timeout(env_timeout)
    if episode_steps is not None and (find_misfit("int", episode_steps) or episode_steps < 1):
        raise QomposeError(f"episode_steps is {show(episode_steps)}; it must be at least 1 and whole")
    name = task_named(env_id)
    if name is None and meshes is not None:
        raise QomposeError(f"{env_id} is no task of Sawyer, which alone can wear meshes; leave them out")
    stage = TaskStage(name, options, size, meshes) if name is not None else ForeignStage(env_id, options, env_timeout)
    if episode_steps is not None:  # a foreign environment ends by itself
        stage.steps = episode_steps if name is not None else min(stage.steps, episode_steps)
    return stage


class Memory(gymnasium.Wrapper):
    """Remembers the latest info."""

    def __init__(self, env: gymnasium.Env) -> None:
        """Wrap an environment."""
        super().__init__(env)
        self.info: dict[str, Any] = {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and remember the info."""
        observation, self.info = self.env.reset(**kwargs)
        return observation, self.info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and remember the info."""
        *rest, self.info = self.env.step(action)
        return (*rest, self.info)  # type: ignore[return-value]


class TaskStage(Stage):
    """A task of ours: drawn by MuJoCo where OpenGL works, else flat."""

    def __init__(
        self, name: str, options: dict[str, Any], size: int, meshes: str | os.PathLike[str] | None = None
    ) -> None:
        """Set the stage; `size` is the side of the picture in pixels."""
        task = make_task(name, **options)
        look = None if meshes is None else dress(task, meshes)
        self.steps, self.fps = task.horizon, 1 / task.control_period
        self._env = TaskEnv(task, render_mode="rgb_array", width=size, height=size)
        self._memory = Memory(self._env)
        self.lockstep = Lockstep(SyncVectorEnv([lambda: self._memory]), name)
        self.lockstep.task = task  # so that a skill of other observations is refused
        self._drawing: Drawing | None = None
        self._dressed: tuple[Renderer, mujoco.MjData] | None = None
        graphics = probe_graphics()
        reason, advice = graphics.reason, graphics.advice
        if graphics.backend:
            self.renderer = f"mujoco-{graphics.backend}"
            try:  # what worked in the probe may yet fail here, where other libraries are loaded
                renderer = Renderer(look or task.model(), size, size)
                if look is None:
                    renderer.close()
                else:
                    self._dressed = renderer, mujoco.MjData(look)
                return
            except QomposeError as error:
                reason, advice = str(error), ""
        self.renderer, self._drawing = "drawing", Drawing(task, size)
        self.note = f"drawn flat, OpenGL does not work: {reason}{'; ' if advice else ''}{advice}"

    def picture(self, observation: np.ndarray) -> Image.Image:
        """Return a rendered picture, or a drawing of the observation."""
        if self._drawing:
            return self._drawing.draw(observation)
        if self._dressed:
            # Its bodies stand where those of the simulation do, which knows nothing of it.
            renderer, data = self._dressed
            data.qpos[:] = self._env.positions()
            return Image.fromarray(renderer.draw(data))
        return Image.fromarray(self._env.render())

    def close(self) -> None:
        """Free what it holds."""
        if self._dressed:
            self._dressed[0].close()
        super().close()

    def figures(self) -> dict[str, float]:
        """Return distance, success and the rest of the task's metrics."""
        return {name: float(value) for name, value in self._memory.info.items() if name != "is_success"}


class ForeignStage(Stage):
    """Any other Gymnasium environment: it draws itself, or there is no picture."""

    renderer = "gymnasium"

    def __init__(self, env_id: str, options: dict[str, Any], env_timeout: float) -> None:
        """Set the stage."""
        self._id = env_id
        with _headless():
            self.lockstep = Lockstep.make(env_id, 1, {**options, "render_mode": "rgb_array"}, patience=env_timeout)
        self.steps = self.lockstep.horizon or MOST_STEPS
        self.fps = float(self.lockstep.env.metadata.get("render_fps") or 30)

    def picture(self, observation: np.ndarray) -> Image.Image:
        """Return what the environment draws; raises QomposeError if that is no picture."""
        with in_one_line(f"{self._id} cannot draw itself:"), within(self.lockstep.patience):
            with _headless():
                frames: Any = self.lockstep.env.render()
            frame = np.asarray(frames[0])
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise QomposeError(f"{self._id} cannot draw itself: it gave {frame.dtype} {list(frame.shape)}, not RGB")
        return Image.fromarray(frame)

    def figures(self) -> dict[str, float]:
        """Nothing is known."""
        return {}


@contextmanager
def _headless() -> Iterator[None]:
    """Let Gymnasium's own MuJoCo environments and pygame draw without a display, unless the user chose otherwise."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    wanted = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy"} if sys.platform == "linux" and not display else {}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
