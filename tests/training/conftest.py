"""Environments whose every step can be told from the transition, and that fail on command."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qompose.envs.lockstep import Lockstep


class Walk(gymnasium.Env):
    """Observes (lane + 10 episode, step); every third episode terminates after 3 steps, the others are cut after 5."""

    observation_space = Box(-1e6, 1e6, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, lane=0, fault=None, fault_step=10**9):
        self.lane, self.episode, self.elapsed, self.total = lane, -1, 0, 0
        self.fault, self.fault_step = fault, fault_step

    def observe(self):
        return np.array([self.lane + 10 * self.episode, self.elapsed], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.elapsed = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.elapsed, self.total = self.elapsed + 1, self.total + 1
        observation, reward = self.observe(), float(action[0])
        terminated = self.episode % 3 == 0 and self.elapsed == 3
        if self.fault and self.total >= self.fault_step:
            observation, reward, *wrong = self.fault(observation, reward)
            terminated = wrong[0] if wrong else terminated
        info = {"bad": np.nan if self.episode % 2 else 1.0, "good": 2.0}
        return observation, reward, terminated, self.elapsed == 5, info


@pytest.fixture
def make_walk():
    def make(mode=AutoresetMode.NEXT_STEP, lanes=4, **options):
        makers = [lambda lane=lane: Walk(lane, **options) for lane in range(lanes)]
        return Lockstep(SyncVectorEnv(makers, autoreset_mode=mode), "Walk-v0")

    return make


@pytest.fixture
def walk_id():
    """Walk under an id of Gymnasium's registry."""
    gymnasium.register(id="QomposeTestWalk-v0", entry_point=Walk)
    yield "QomposeTestWalk-v0"
    gymnasium.registry.pop("QomposeTestWalk-v0")
