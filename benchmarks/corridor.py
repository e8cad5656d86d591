"""A point in a corridor: one dimension, short episodes, a terminal exit, and every value known from a fine grid.

The point starts at the left end and is paid for standing at 0.2. Episodes are cut after ten steps, which must not cut
values; the exit at 0.8 ends them for a small sum, which must. Actions of the simulator are not those of the agent:
-0.5 to 1.5, so that a wrong scale shows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from qompose.envs.lockstep import Lockstep

EPISODE_STEPS = 10
STEP, PLACE, EXIT, EXIT_REWARD = 0.25, 0.2, 0.8, 1.5
LOW, HIGH = -0.5, 1.5
STATES, SWEEPS = 361, 100
GRID = np.linspace(-1.0, EXIT, STATES)
ACTIONS = (np.arange(201) + 0.5) * 2.0 / 201 - 1.0


def move(x: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the simulator's action leads, what it is worth, and whether that is the exit. Broadcasts."""
    after = np.maximum(x + STEP * action, -1.0)
    left = after >= EXIT
    reward = np.where(left, EXIT_REWARD, 1.0 - 2.0 * (after - PLACE) ** 2) - 0.2 * action**2
    return after, reward, left


def scale(action: np.ndarray) -> np.ndarray:
    """The simulator's action of an agent's action in [-1, 1]."""
    return LOW + (action + 1.0) * 0.5 * (HIGH - LOW)


class Corridor(VectorEnv):
    """Lanes of the corridor that reset themselves within the step, as Gymnasium has it."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  (Gymnasium's own form)

    def __init__(self, lanes: int) -> None:
        self.num_envs = lanes
        self.single_observation_space = Box(-1.0, 1.0, (1,), np.float32)
        self.single_action_space = Box(LOW, HIGH, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, lanes)
        self.action_space = batch_space(self.single_action_space, lanes)
        self._generator = np.random.default_rng(0)
        self._x, self._elapsed = np.zeros(lanes), np.zeros(lanes, np.int64)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._x, self._elapsed[:] = self._start(), 0
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        after, reward, terminated = move(self._x, np.asarray(actions, np.float64)[:, 0])
        self._x, self._elapsed = after, self._elapsed + 1
        truncated = (self._elapsed >= EPISODE_STEPS) & ~terminated
        done, final = terminated | truncated, self._observe()
        self._x = np.where(done, self._start(), self._x)
        self._elapsed = np.where(done, 0, self._elapsed)
        info = {"final_obs": final, "final_info": {}} if done.any() else {}
        return self._observe(), reward, terminated, truncated, info

    def _start(self) -> np.ndarray:
        return self._generator.uniform(-1.0, -0.5, self.num_envs)

    def _observe(self) -> np.ndarray:
        return self._x[:, None].astype(np.float32)


def make_lanes(lanes: int) -> Lockstep:
    """The corridor as the training loop sees it."""
    return Lockstep(Corridor(lanes), "Corridor")


@dataclass
class Exact:
    """The values of the corridor at a temperature on a fine grid of states; at 0 those of the best actions."""

    discount: float
    temperature: float
    value: np.ndarray  # (STATES,)

    def q(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Q of states and of the agent's actions. Broadcasts."""
        after, reward, left = move(x, scale(action))
        return reward + self.discount * np.where(left, 0.0, np.interp(after, GRID, self.value))

    def quantiles(self, x: np.ndarray, count: int) -> np.ndarray:
        """Actions (states, count) that cut the policy of every state x (states,) into equal shares."""
        q = self.q(x[:, None], ACTIONS[None, :])
        if not self.temperature:
            return np.repeat(ACTIONS[q.argmax(axis=1)][:, None], count, axis=1)
        mass = np.cumsum(np.exp((q - q.max(axis=1, keepdims=True)) / self.temperature), axis=1)
        share = (np.arange(count) + 0.5) / count
        return np.stack([np.interp(share, row / row[-1], ACTIONS) for row in mass])

    @functools.cached_property
    def mean_return(self) -> float:
        """What an episode of the policy is worth, mean over many."""
        lanes = 1000
        env, generator = make_lanes(lanes), np.random.default_rng(1)
        observations, returns = env.reset(0), np.full(lanes, np.nan)
        for _ in range(EPISODE_STEPS):
            choices = self.quantiles(observations[:, 0].astype(np.float64), 64)
            chosen = choices[np.arange(lanes), generator.integers(64, size=lanes)]
            result = env.step(chosen[:, None])
            observations = result.current
            for episode in result.episodes:
                lane = int(episode["lane"])
                returns[lane] = episode["return"] if np.isnan(returns[lane]) else returns[lane]
        return float(returns.mean())


@functools.cache
def solve(discount: float, temperature: float) -> Exact:
    """Value iteration: V = α log E_{a~U}[exp(Q/α)], or the maximum."""
    exact = Exact(discount, temperature, np.zeros(STATES))
    for _ in range(SWEEPS):
        q = exact.q(GRID[:, None], ACTIONS[None, :])
        top = q.max(axis=1)
        if temperature:
            top = top + temperature * np.log(np.mean(np.exp((q - top[:, None]) / temperature), axis=1))
        exact = Exact(discount, temperature, top)
    return exact
