"""Any task on C MuJoCo as a Gymnasium environment, one at a time or many in lock-step."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from qompose.envs.lanes import LIMIT, Lanes
from qompose.envs.render import Renderer
from qompose.tasks import Task, make_task
from qompose.types import QomposeError

MOST_LANES = 128


def spaces(task: Task) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Return the observation and action spaces of a task: as wide as MuJoCo's own limit, and [-1, 1]."""
    observation = gymnasium.spaces.Box(-LIMIT, LIMIT, (task.observation_size,), np.float32)
    return observation, gymnasium.spaces.Box(-1.0, 1.0, (task.action_size,), np.float32)


class TaskEnv(gymnasium.Env):
    """One episode at a time. As usual in Gymnasium the time limit comes from `gymnasium.make`, not from here."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self,
        task: Task | str,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        lane: int = 0,
        **options: Any,
    ) -> None:
        """Build the environment of a task, or of the name and options of one; pictures are width x height pixels.

        `lane` says which lane's resets to draw: TaskEnv(task, lane=3) repeats lane 3 of TaskVectorEnv(task).
        """
        self.task = make_task(task, **options) if isinstance(task, str) else task
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self.task.control_period))}
        self.observation_space, self.action_space = spaces(self.task)
        self._lanes = Lanes(self.task, 1, first_lane=lane)
        self._pictures = Pictures(self._lanes, render_mode, width, height)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start the first episode under `seed`, or the next one; no options are known."""
        super().reset(seed=seed)
        self._lanes.begin(np.ones(1, bool), seed)
        return self._lanes.observe()[0], self._info(False)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one control step; a diverged simulation truncates the episode and says so in the info."""
        rewards, terminated, diverged = self._lanes.advance(np.asarray(action)[None])
        info = self._info(bool(diverged[0]))
        truncated = bool(diverged[0] or self._lanes.truncated[0])
        return self._lanes.observe()[0], float(rewards[0]), bool(terminated[0]), truncated, info

    def render(self) -> Any:
        """Return a picture of the current state (height, width, 3), or None without a render mode."""
        pictures = self._pictures.draw()
        return pictures and pictures[0]

    def positions(self) -> np.ndarray:
        """Return where every joint is (nq,), for somebody who draws the same bodies otherwise."""
        return self._lanes.datas[0].qpos.copy()

    def close(self) -> None:
        """Free what drawing needed."""
        self._pictures.close()

    def _info(self, diverged: bool) -> dict[str, Any]:
        info = {name: value[0].item() for name, value in self._lanes.judge().items()}
        return {**info, "diverged": diverged}


class TaskVectorEnv(gymnasium.vector.VectorEnv):
    """Many episodes in lock-step. A lane that ends is reset in the same step; see `final_obs` and `final_info`."""

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's name)
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        **options: Any,
    ) -> None:
        """Build `num_envs` lanes of a task, or of the name and options of one; episodes last the task's horizon."""
        if not 1 <= num_envs <= MOST_LANES:
            raise QomposeError(f"num_envs={num_envs}: give a number from 1 to {MOST_LANES}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise QomposeError(f"max_episode_steps={max_episode_steps}: give at least 1")
        self.task = make_task(task, **options) if isinstance(task, str) else task
        self.num_envs, self.render_mode = num_envs, render_mode
        self.max_episode_steps = max_episode_steps or self.task.horizon
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self.task.control_period))}
        self.single_observation_space, self.single_action_space = spaces(self.task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lanes = Lanes(self.task, num_envs)
        self._pictures = Pictures(self._lanes, render_mode, width, height)
        self._elapsed = np.zeros(num_envs, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start the first episodes under `seed`, or the next ones, in all lanes or those of options["reset_mask"]."""
        super().reset(seed=seed)
        mask = np.ones(self.num_envs, bool)
        if options and "reset_mask" in options:
            mask = np.array(options["reset_mask"], bool)
            if mask.shape != (self.num_envs,):
                raise QomposeError(f"reset_mask of shape {mask.shape}, needed ({self.num_envs},)")
        self._lanes.begin(mask, seed)
        self._elapsed[mask] = 0
        return self._lanes.observe(), _masked(self._info(np.zeros(self.num_envs, bool)), mask)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one control step in every lane; lanes that end report their last state and start anew."""
        rewards, terminated, diverged = self._lanes.advance(actions)
        self._elapsed += 1
        truncated = (self._elapsed >= self.max_episode_steps) | diverged | self._lanes.truncated
        observations, info, done = self._lanes.observe(), self._info(diverged), terminated | truncated
        everywhere = np.ones(self.num_envs, bool)
        if not done.any():
            return observations, rewards, terminated, truncated, _masked(info, everywhere)
        final = np.full(self.num_envs, None, object)
        for lane in np.flatnonzero(done).tolist():
            final[lane] = observations[lane]
        self._lanes.begin(done)
        self._elapsed[done] = 0
        infos = _masked(self._info(diverged), everywhere)
        infos |= {"final_obs": final, "_final_obs": done.copy()}
        infos |= {"final_info": _masked(info, done), "_final_info": done.copy()}
        return self._lanes.observe(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture of every lane (height, width, 3), or None without a render mode."""
        return self._pictures.draw()

    def close_extras(self, **kwargs: Any) -> None:
        """Free what drawing needed."""
        self._pictures.close()

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that the next steps depend on, as arrays by name."""
        return {**self._lanes.get_state(), "elapsed": self._elapsed.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Continue from a state of `get_state`, bit for bit; return the current observations (lanes, obs)."""
        if "elapsed" not in state or state["elapsed"].shape != (self.num_envs,):
            raise QomposeError(f"not a state of {self.num_envs} lanes of {self.task.name}: no 'elapsed' of that length")
        self._lanes.set_state(state)
        self._elapsed[:] = state["elapsed"]
        return self._lanes.observe()

    def _info(self, diverged: np.ndarray) -> dict[str, np.ndarray]:
        return {**self._lanes.judge(), "diverged": diverged}


class Pictures:
    """Pictures of the lanes; the drawing context is opened when the first one is asked for."""

    def __init__(self, lanes: Lanes, render_mode: str | None, width: int, height: int) -> None:
        """Remember what to draw; raises QomposeError for a render mode other than rgb_array."""
        if render_mode not in (None, "rgb_array"):
            raise QomposeError(f"render_mode={render_mode!r}: give 'rgb_array' or None")
        self._lanes, self._wanted, self._size = lanes, render_mode is not None, (width, height)
        self._renderer: Renderer | None = None

    def draw(self) -> tuple[np.ndarray, ...] | None:
        """Return one picture per lane, or None if none were wanted."""
        if not self._wanted:
            return None
        if self._renderer is None:
            self._renderer = Renderer(self._lanes.model, *self._size)
        return tuple(self._renderer.draw(data) for data in self._lanes.datas)

    def close(self) -> None:
        """Free the drawing context; the next picture opens a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _masked(info: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    # Gymnasium's convention: beside every array a mask that says in which lanes it means something.
    masked, everywhere = {}, mask.all()
    for name, value in info.items():
        masked[name] = value if everywhere else np.where(mask, value, np.zeros_like(value))
        masked[f"_{name}"] = mask.copy()
    return masked
