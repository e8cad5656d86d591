"""What a training loop sees of any vector environment: true transitions, whatever the way it resets itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from qompose.envs.build import build_vector_env, check_spaces, in_one_line
from qompose.envs.gym import TaskVectorEnv
from qompose.envs.watchdog import PATIENCE, within
from qompose.tasks import Task
from qompose.types import QomposeError

# Foreign numbers beyond this are refused: their squares leave float32, and one of them stored spoils all updates.
LARGEST = 1e15
LONGEST_NAME = 100  # of a figure in an episode's info


class Step(NamedTuple):
    """What one step of all lanes gave: M <= N true transitions, float32, and where every lane stands now.

    Missing are lanes that only reset themselves in this step, and lanes whose simulation diverged.
    """

    observation: np.ndarray  # (M, obs)
    action: np.ndarray  # (M, act), in [-1, 1]
    reward: np.ndarray  # (M,)
    next_observation: np.ndarray  # (M, obs): the true last observation, also where the episode ended
    terminated: np.ndarray  # (M,): 0.0 or 1.0; a time limit does not terminate
    current: np.ndarray  # (N, obs): act on these
    episodes: list[dict[str, Any]]  # one per finished episode: return, length, lane, and the final metrics
    diverged: int  # transitions dropped because the simulation diverged


class Lockstep:
    """A vector environment with boxes in and out, stepped lane by lane in lock-step, actions in [-1, 1]."""

    def __init__(self, env: VectorEnv, env_id: str | None = None, *, patience: float = PATIENCE) -> None:
        """Wrap a vector environment; raises QomposeError if its spaces are not bounded boxes of vectors.

        A foreign environment that gives no answer for `patience` seconds has failed.
        """
        self.env, self.patience = env, patience
        self.env_id = env_id or (env.spec.id if env.spec else type(env.unwrapped).__name__)
        observation, action = check_spaces(self.env_id, env)
        self.num_envs = env.num_envs
        self.action_low: np.ndarray = action.low
        self.action_high: np.ndarray = action.high
        self.observation_size: int = observation.shape[0]
        self.action_size: int = action.shape[0]
        unwrapped = env.unwrapped
        self.task: Task | None = unwrapped.task if isinstance(unwrapped, TaskVectorEnv) else None
        self._as_given = bool((action.low == -1.0).all() and (action.high == 1.0).all())
        self._all_lanes = np.ones(self.num_envs, bool)
        self._mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._current = np.zeros((self.num_envs, self.observation_size), np.float32)
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: lanes whose next step only resets them
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._steps = 0

    @staticmethod
    def make(
        env_id: str, num_envs: int, options: dict[str, Any] | None = None, *, episode_steps: int | None = None,
        patience: float = PATIENCE,
    ) -> Lockstep:  # fmt: skip
        """Return the lanes of a task's name or of any Gymnasium id; see `build_vector_env` for what is refused."""
        env = build_vector_env(env_id, num_envs, options, episode_steps=episode_steps, patience=patience)
        return Lockstep(env, env_id, patience=patience)

    @property
    def control_period(self) -> float | None:
        """Seconds per step; None for a foreign environment."""
        return self.task.control_period if self.task else None

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is cut; None if the environment does not say."""
        if isinstance(self.env.unwrapped, TaskVectorEnv):
            return self.env.unwrapped.max_episode_steps
        return self.env.spec.max_episode_steps if self.env.spec else None

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per component of an observation."""
        return self.task.observation_names if self.task else tuple(f"o{i}" for i in range(self.observation_size))

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start new episodes in all lanes; return the observations (N, obs)."""
        with self._guard("reset"):
            observations, _ = self.env.reset(seed=seed)
            self._resetting[:], self._returns[:], self._lengths[:] = False, 0.0, 0
            self._current = self._observations(observations, self._all_lanes)
        return self._current.copy()

    def step(self, actions: Any) -> Step:
        """Take one step with actions (N, act) in [-1, 1]; beyond it they are clipped.

        Raises QomposeError, and then nothing of this step is to be stored, if the environment or the actions are
        not finite, have the wrong shape, or the environment fails.
        """
        actions = self._check_actions(actions)
        self._steps += 1
        with self._guard("step"):  # what it gives may be of any kind, so reading it is guarded, too
            return self._step(actions)

    def _step(self, actions: np.ndarray) -> Step:
        observed, rewards, terminated, truncated, info = self.env.step(self._rescale(actions))
        latest = self._observations(observed, self._all_lanes)
        rewards = self._vector(rewards, "reward")
        terminated, truncated = (self._vector(flag, "end of episode") != 0 for flag in (terminated, truncated))
        valid = ~self._resetting
        done = (terminated | truncated) & valid

        latest, following, final_info = self._restart(latest, info, done)

        diverged = self._diverged(final_info, done)
        kept = valid & ~diverged
        self._returns[valid] += rewards[valid]
        self._lengths[valid] += 1
        step = Step(
            observation=self._current[kept],
            action=actions[kept],
            reward=rewards[kept].astype(np.float32),
            next_observation=following[kept],
            terminated=terminated[kept].astype(np.float32),
            current=latest.copy(),
            episodes=[self._episode(lane, final_info) for lane in np.flatnonzero(done & ~diverged).tolist()],
            diverged=int(diverged.sum()),
        )
        self._returns[done], self._lengths[done] = 0.0, 0
        self._resetting = done if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(done)
        self._current = latest
        return step

    def get_state(self) -> dict[str, np.ndarray] | None:
        """Return everything that the next steps depend on; None if the environment cannot tell."""
        if not isinstance(self.env.unwrapped, TaskVectorEnv):
            return None
        own = {"current": self._current, "resetting": self._resetting, "returns": self._returns}
        own |= {"lengths": self._lengths, "steps": np.array(self._steps, np.int64)}
        inner = self.env.unwrapped.get_state()
        return {f"env.{name}": value for name, value in inner.items()} | {k: v.copy() for k, v in own.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Continue from a state of `get_state`; return the current observations (N, obs)."""
        inner = {name.removeprefix("env."): value for name, value in state.items() if name.startswith("env.")}
        self.env.unwrapped.set_state(inner)  # type: ignore[attr-defined]
        self._current = np.array(state["current"], np.float32)
        self._resetting, self._returns = np.array(state["resetting"], bool), np.array(state["returns"], np.float64)
        self._lengths, self._steps = np.array(state["lengths"], np.int64), int(state["steps"])
        return self._current.copy()

    def close(self) -> None:
        """Free what the environment holds. One that fails at that fails unheard: its work is done."""
        with contextlib.suppress(QomposeError), self._guard("close"):
            self.env.close()

    @contextlib.contextmanager
    def _guard(self, method: str) -> Iterator[None]:
        # The tasks of the package answer in microseconds, and arming the alarm costs a few.
        limit = within(self.patience) if self.task is None else contextlib.nullcontext()
        with in_one_line(f"{self._where()}: {method} failed with"), limit:
            yield

    def _check_actions(self, actions: Any) -> np.ndarray:
        actions = np.asarray(actions, np.float32)
        if actions.shape != (self.num_envs, self.action_size):
            needed = (self.num_envs, self.action_size)
            raise QomposeError(f"{self.env_id}: actions of shape {actions.shape}, needed {needed}")
        self._refuse_infinite(actions, "action", self._all_lanes)
        return np.clip(actions, -1.0, 1.0)

    def _rescale(self, actions: np.ndarray) -> np.ndarray:
        low, high = self.action_low, self.action_high
        if self._as_given:
            return actions.astype(low.dtype)  # exactly what is stored
        scaled = low + (actions + 1.0) * 0.5 * (high - low)
        return np.clip(scaled, low, high).astype(low.dtype)

    def _observations(self, observations: Any, mask: np.ndarray) -> np.ndarray:
        array = self._numbers(observations, "observation")
        if array.shape != self._current.shape:
            raise QomposeError(f"{self._where()}: observations of shape {array.shape}, not {self._current.shape}")
        self._refuse_infinite(array, "observation", mask)
        return array.astype(np.float32)

    def _vector(self, values: Any, what: str) -> np.ndarray:
        array = self._numbers(values, what)
        if array.shape != (self.num_envs,):
            raise QomposeError(f"{self._where()}: {what} of shape {array.shape}, not ({self.num_envs},)")
        self._refuse_infinite(array, what, self._all_lanes)
        return array

    def _restart(
        self, latest: np.ndarray, info: dict[str, Any], done: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        # Where lanes stand now, where this step truly led, and the info that belongs to the latter.
        if not done.any() or self._mode is AutoresetMode.NEXT_STEP:
            return latest, latest, info
        if self._mode is AutoresetMode.SAME_STEP:
            return latest, self._final(latest, info, done), info.get("final_info", {})
        again, _ = self.env.reset(options={"reset_mask": done.copy()})
        return np.where(done[:, None], self._observations(again, done), latest), latest, info

    def _final(self, latest: np.ndarray, info: dict[str, Any], done: np.ndarray) -> np.ndarray:
        following, final = latest.copy(), info.get("final_obs")
        for lane in np.flatnonzero(done).tolist():
            if final is None or final[lane] is None:
                raise QomposeError(f"{self._where(lane)}: the episode ended without final_obs in the info")
            last = self._numbers(final[lane], "final observation")
            if last.shape != latest[lane].shape:
                raise QomposeError(f"{self._where(lane)}: final observation of shape {last.shape}")
            following[lane] = last
        self._refuse_infinite(following, "final observation", done)
        return following

    def _numbers(self, values: Any, what: str) -> np.ndarray:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise QomposeError(f"{self._where()}: {what} of type {array.dtype}, not real numbers")
        return array.astype(np.float64)

    def _refuse_infinite(self, array: np.ndarray, what: str, mask: np.ndarray) -> None:
        if np.abs(array).max() <= LARGEST:  # written so that NaN counts as not finite
            return
        largest = np.abs(array.reshape(self.num_envs, -1)).max(axis=-1)
        finite = (largest <= LARGEST) | ~mask
        if not finite.all():
            lane = int(np.argmin(finite))
            wrong = "not finite" if not np.isfinite(array[lane]).all() else f"beyond {LARGEST:g}"
            raise QomposeError(f"{self._where(lane)}: the {what} is {wrong}: {np.asarray(array[lane]).tolist()}")

    def _where(self, lane: int | None = None) -> str:
        return f"{self.env_id}{'' if lane is None else f', lane {lane}'}, step {self._steps}"

    def _diverged(self, final_info: dict[str, Any], done: np.ndarray) -> np.ndarray:
        if self.task is None or not done.any():
            return np.zeros(self.num_envs, bool)
        return np.asarray(final_info["diverged"], bool) & done

    def _episode(self, lane: int, final_info: dict[str, Any]) -> dict[str, Any]:
        metrics = {}
        for name, values in final_info.items():
            mask = final_info.get(f"_{name}")
            if mask is None or not mask[lane] or not isinstance(values, np.ndarray) or name == "diverged":
                continue
            if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
                continue  # no metric can be called so
            if values.shape == (self.num_envs,) and values.dtype.kind in "fiub" and np.isfinite(values[lane]):
                metrics[name] = float(values[lane])
        # The name that Stable-Baselines3 gives to it: one figure, not two.
        if "is_success" in metrics:
            metrics = {"success": metrics["is_success"], **metrics}
            del metrics["is_success"]
        return {**metrics, "return": float(self._returns[lane]), "length": int(self._lengths[lane]), "lane": int(lane)}
