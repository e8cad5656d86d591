import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qompose.envs import episodes
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.types import QomposeError

LENGTHS = {0: (9, 1, 1, 1), 1: (1, 9, 1, 1), 2: (1, 1, 9, 1)}  # by lane and episode, from then on 1


class Uneven(gymnasium.Env):
    """Episodes of known lengths; the observation names lane and episode, the reward is 1 for each step."""

    observation_space = Box(-1e6, 1e6, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, lane):
        self.lane, self.episode, self.elapsed = lane, -1, 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.episode = -1
        super().reset(seed=seed)
        self.episode, self.elapsed = self.episode + 1, 0
        return np.float32([self.lane, self.episode]), {}

    def step(self, action):
        self.elapsed += 1
        lengths = LENGTHS[self.lane]
        over = self.elapsed == (lengths[self.episode] if self.episode < len(lengths) else 1)
        return np.float32([self.lane, self.episode]), float(action[0]), over, False, {}


def uneven(mode=AutoresetMode.SAME_STEP, lanes=3):
    return Lockstep(
        SyncVectorEnv([lambda lane=lane: Uneven(lane) for lane in range(lanes)], autoreset_mode=mode), "U-v0"
    )


def always_one(observations, step):
    return np.ones((len(observations), 1), np.float32)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("episodes", [1, 2, 3, 4, 7, 12])
def test_each_lane_gives_its_share_whatever_the_lengths(mode, episodes):
    found = run_episodes(always_one, uneven(mode), episodes, seed=0)
    shares = [episodes // 3 + (lane < episodes % 3) for lane in range(3)]
    expected = [(lane, length) for lane in range(3) for length in LENGTHS[lane][: shares[lane]]]
    assert [(episode["lane"], episode["length"]) for episode in found] == expected
    assert [episode["return"] for episode in found] == [float(length) for _, length in expected]


def test_short_episodes_are_not_preferred():
    # Taking the first to finish would give lengths 1, 1, 1 and never see a long one.
    lengths = [episode["length"] for episode in run_episodes(always_one, uneven(), 6, seed=0)]
    assert sorted(lengths) == [1, 1, 1, 1, 9, 9]


def test_the_policy_sees_the_current_observations_and_the_step():
    seen = []

    def policy(observations, step):
        seen.append((step, observations.tolist()))
        return always_one(observations, step)

    run_episodes(policy, uneven(lanes=2), 2, seed=0)
    assert [step for step, _ in seen] == list(range(9))  # until the last lane has its share, and no longer
    assert seen[0][1] == [[0.0, 0.0], [1.0, 0.0]] and seen[1][1] == [[0.0, 0.0], [1.0, 1.0]]


def test_progress_counts_only_the_episodes_that_were_asked_for():
    told = []
    run_episodes(always_one, uneven(), 4, seed=0, on_step=told.append)
    assert told == sorted(told) and told[0] == 2 and told[-1] == 4 and set(told) <= {2, 3, 4}


class Endless(Uneven):
    """No step ends anything."""

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


def test_episodes_that_never_end_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(episodes, "LONGEST_EPISODE", 50)
    env = Lockstep(SyncVectorEnv([lambda: Endless(0), lambda: Endless(1)]), "Endless")
    with pytest.raises(QomposeError, match=r"Endless: after \d+ steps only 0 of 2 episodes have ended") as caught:
        run_episodes(always_one, env, 2, seed=0)
    assert "\n" not in str(caught.value)


def test_equal_seeds_give_equal_episodes():
    env = Lockstep.make("MultiGoal", 3)

    def policy(observations, step):
        return np.tanh(observations[:, ::-1] + 0.1 * step)

    first, again, other = (run_episodes(policy, env, 5, seed=seed) for seed in (4, 4, 5))
    assert first == again and first != other
    fresh = run_episodes(policy, Lockstep.make("MultiGoal", 3), 5, seed=4)
    assert fresh == first
