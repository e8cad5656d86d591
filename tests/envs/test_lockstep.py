import asyncio

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qompose.envs.gym import TaskVectorEnv
from qompose.envs.lockstep import Lockstep
from qompose.types import QomposeError


class Counting(gymnasium.Env):
    """Observes (lane, episode, step); every third episode terminates after 3 steps, the others are cut after 5."""

    observation_space = Box(-1e6, 1e6, (3,), np.float32)
    action_space = Box(np.float32([-2.0, 0.0]), np.float32([2.0, 10.0]))

    def __init__(self, lane, fault=None, fault_step=4):
        self.lane, self.episode, self.elapsed = lane, -1, 0
        self.fault, self.fault_step, self.total = fault, fault_step, 0

    def observe(self):
        return np.array([self.lane, self.episode, self.elapsed], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.elapsed = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.elapsed, self.total = self.elapsed + 1, self.total + 1
        observation, reward = self.observe(), 100.0 * self.episode + self.elapsed + float(action[0])
        if self.fault and self.lane == 1 and self.total == self.fault_step:
            observation, reward = self.fault(observation, reward)
        terminated = self.episode % 3 == 0 and self.elapsed == 3
        truncated = self.elapsed == 5
        return observation, reward, terminated, truncated, {"distance": float(self.elapsed), "note": "text"}


def counting(mode=AutoresetMode.SAME_STEP, lanes=2, **options):
    makers = [lambda lane=lane: Counting(lane, **options) for lane in range(lanes)]
    return Lockstep(SyncVectorEnv(makers, autoreset_mode=mode), "Counting-v0")


def collect(lanes, complete):
    """Transitions and episodes of the first `complete` episodes of every lane, in each lane's order."""
    current, transitions, episodes = lanes.reset(seed=0), [], []
    for _ in range(12 * complete):
        actions = np.stack([0.1 * current[:, 2] - 0.3, 0.2 - 0.1 * current[:, 1]], axis=1)
        step = lanes.step(actions)
        for row in zip(*step[:5], strict=True):
            transitions.append(np.concatenate([np.ravel(part) for part in row]).tolist())
        episodes += step.episodes
        current = step.current
    return sorted(t for t in transitions if t[1] < complete), sorted(
        (e["lane"], e["return"], e["length"], e["distance"]) for e in episodes if e["return"] < 100 * 4 * complete
    )


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_way_of_resetting_gives_the_same_transitions_and_no_fake_one(mode):
    transitions, _ = collect(counting(mode), complete=4)
    expected, _ = collect(counting(AutoresetMode.SAME_STEP), complete=4)
    assert transitions == expected
    assert len(transitions) == 2 * (3 + 5 + 5 + 3)
    for lane, episode, elapsed, action, _, reward, next_lane, next_episode, next_elapsed, terminated in transitions:
        assert reward == pytest.approx(100.0 * episode + next_elapsed + 2.0 * action, abs=1e-4)
        assert (next_lane, next_episode, next_elapsed) == (lane, episode, elapsed + 1)
        assert terminated == float(episode % 3 == 0 and next_elapsed == 3)  # never at a time limit


@pytest.mark.parametrize("mode", AutoresetMode)
def test_episodes_report_return_length_lane_and_final_metrics(mode):
    lanes, episodes = counting(mode), []
    lanes.reset(seed=0)
    while len(episodes) < 4:
        episodes += lanes.step(np.full((2, 2), 0.25)).episodes
    first, second = (sorted(part, key=lambda e: e["lane"]) for part in (episodes[:2], episodes[2:4]))
    assert first[1] == {"return": 1 + 2 + 3 + 3 * 0.5, "length": 3, "lane": 1, "distance": 3.0}
    assert second[0] == {"return": 500.0 + 15 + 5 * 0.5, "length": 5, "lane": 0, "distance": 5.0}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_current_observations_are_those_to_act_on(mode):
    lanes = counting(mode)
    lanes.reset(seed=0)
    seen = [lanes.step(np.zeros((2, 2))).current[0].tolist() for _ in range(5)]
    # Only where the reset takes a step of its own does a finished episode show for one step.
    tail = [[0, 0, 3], [0, 1, 0], [0, 1, 1]] if mode is AutoresetMode.NEXT_STEP else [[0, 1, 0], [0, 1, 1], [0, 1, 2]]
    assert seen == [[0, 0, 1], [0, 0, 2], *tail]


def test_actions_are_stored_in_the_unit_box_and_acted_in_the_environments():
    lanes, received = counting(), []
    for env in lanes.env.envs:
        env.step = lambda action, step=env.step: (received.append(action.tolist()), step(action))[1]
    lanes.reset(seed=0)
    step = lanes.step(np.array([[-1.0, -0.5], [0.5, 3.0]]))  # 3 is clipped
    assert received == [[-2.0, 2.5], [1.0, 10.0]]
    assert step.action.tolist() == [[-1.0, -0.5], [0.5, 1.0]] and step.action.dtype == np.float32


def replace_observation(value):
    return lambda observation, reward: (value, reward)


def throw(error):
    def fail(observation, reward):
        raise error

    return fail


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not a word")


FAULTS = {
    "NaN in an observation": (replace_observation(np.float32([1, np.nan, 0])), "lane 1, step 4: the .*observation"),
    "infinite observation": (replace_observation(np.float32([1, np.inf, 0])), "lane 1, step 4: the .*observation"),
    "NaN reward": (lambda observation, reward: (observation, np.nan), "lane 1, step 4: the reward is not finite"),
    "reward beyond float32": (lambda observation, reward: (observation, 1e39), "lane 1, step 4: the reward"),
    "observation of the wrong shape": (
        replace_observation(np.zeros(2, np.float32)),
        "step 4: (step failed with ValueError|final observation of shape)",
    ),
    "observation of the wrong kind": (
        replace_observation(np.array(["a"] * 3)),
        "step 4: (step failed with .*Error|final observation of type)",
    ),
    "exception": (lambda observation, reward: {}["missing"], "step 4: step failed with KeyError: 'missing'"),
    "cancelled": (throw(asyncio.CancelledError("gone")), "step 4: step failed with CancelledError: gone"),
    "exception that cannot say what": (throw(Mute()), "step 4: step failed with Mute: which cannot say what it is"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("fault_step", [3, 4])
def test_faults_of_an_environment_stop_in_one_line(mode, fault, fault_step):
    change, message = FAULTS[fault]
    # Under NEXT_STEP the fourth step resets; the fault comes with the fifth. The third is the last of an episode.
    shift = int(mode is AutoresetMode.NEXT_STEP and fault_step == 4)
    lanes = counting(mode, fault=change, fault_step=fault_step)
    lanes.reset(seed=0)
    for _ in range(fault_step - 1 + shift):
        assert np.isfinite(lanes.step(np.zeros((2, 2))).next_observation).all()
    with pytest.raises(QomposeError, match=message.replace("step 4", f"step {fault_step + shift}", 1)) as caught:
        lanes.step(np.zeros((2, 2)))
    assert str(caught.value).startswith("Counting-v0") and "\n" not in str(caught.value)


def test_vector_environment_with_the_wrong_shapes_is_refused():
    lanes = counting()
    lanes.reset(seed=0)
    step = lanes.env.step
    lanes.env.step = lambda actions: (np.zeros((2, 4)), *step(actions)[1:])
    with pytest.raises(QomposeError, match=r"Counting-v0, step 1: observations of shape \(2, 4\), not \(2, 3\)"):
        lanes.step(np.zeros((2, 2)))
    lanes.env.step = lambda actions: (step(actions)[0], np.zeros(3), *step(actions)[2:])
    with pytest.raises(QomposeError, match=r"reward of shape \(3,\), not \(2,\)"):
        lanes.step(np.zeros((2, 2)))


@pytest.mark.parametrize(
    "broken",
    [
        lambda step: step[:4], lambda step: None, lambda step: (*step[:4], None),
        lambda step: ([[0.0], [0.0, 1.0]], *step[1:]),
        lambda step: (*step[:2], "no", *step[3:]), lambda step: (*step[:2], *[np.ones(2, bool)] * 2, {"final_obs": 3}),
    ],
    ids=["four parts", "nothing", "no info", "ragged", "a word", "a number as final observations"],
)  # fmt: skip
def test_a_vector_environment_that_answers_nonsense_is_one_line(broken):
    lanes = counting()
    lanes.reset(seed=0)
    step = lanes.env.step
    lanes.env.step = lambda actions: broken(step(actions))
    with pytest.raises(QomposeError, match=r"^Counting-v0, (lane 0, )?step 1: ") as caught:
        lanes.step(np.zeros((2, 2)))
    assert "\n" not in str(caught.value)
    lanes.env.reset = lambda **options: None
    with pytest.raises(QomposeError, match=r"^Counting-v0, step 1: reset failed with TypeError"):
        lanes.reset()
    lanes.env.unwrapped.get_state = lambda: 1 / 0  # of its own, which nobody knows what to do with
    assert lanes.get_state() is None


def test_same_step_environment_without_final_observation_is_refused():
    lanes = counting()
    lanes.reset(seed=0)
    step = lanes.env.step
    lanes.env.step = lambda actions: (*step(actions)[:4], {})
    lanes.step(np.zeros((2, 2)))
    lanes.step(np.zeros((2, 2)))
    with pytest.raises(QomposeError, match="lane 0, step 3: the episode ended without final_obs"):
        lanes.step(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("actions", "message"),
    [(np.zeros((2, 3)), r"actions of shape \(2, 3\)"), (np.array([[0, 0], [0, np.nan]]), "lane 1, step 0: the action")],
)
def test_senseless_actions_are_refused(actions, message):
    lanes = counting()
    lanes.reset(seed=0)
    with pytest.raises(QomposeError, match=message):
        lanes.step(actions)


def test_diverged_transitions_are_dropped_and_counted():
    env = TaskVectorEnv("PushLeft", 3)
    lanes = Lockstep(env)
    before = lanes.reset(seed=0)
    env._lanes.datas[1].qvel[:] = 1e12
    step = lanes.step(np.zeros((3, 3)))
    assert step.diverged == 1 and step.episodes == []
    assert np.array_equal(step.observation, before[[0, 2]]) and step.reward.shape == (2,)
    step = lanes.step(np.zeros((3, 3)))
    assert step.diverged == 0 and len(step.reward) == 3
    for _ in range(297):
        step = lanes.step(np.zeros((3, 3)))
    step = lanes.step(np.zeros((3, 3)))
    assert [(episode["lane"], episode["length"]) for episode in step.episodes] == [(0, 300), (2, 300)]
    assert {"distance", "puck_x", "puck_y", "success"} < set(step.episodes[0]) and "is_success" not in step.episodes[0]


def test_tasks_see_exactly_the_actions_that_are_stored():
    lanes = Lockstep.make("PushLeft", 2)
    lanes.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 3)).astype(np.float32)
    step = lanes.step(actions)
    assert np.array_equal(step.action, actions)
    assert [data.ctrl.tolist() for data in lanes.env._lanes.datas] == actions.astype(float).tolist()


def test_facts_of_a_task_are_passed_on():
    lanes = Lockstep.make("PushTo", 2, {"goal_y": 0.5})
    assert lanes.task.options()["goal_y"] == 0.5 and lanes.env_id == "PushTo"
    assert (lanes.horizon, lanes.control_period, len(lanes.observation_names)) == (300, 0.05, 12)


def test_state_restores_bit_for_bit_with_returns_and_lengths():
    def run(lanes, actions):
        return [lanes.step(action) for action in actions]

    lanes, other = (Lockstep(TaskVectorEnv("PushLeft", 2, max_episode_steps=15)) for _ in range(2))
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 2, 3))
    lanes.reset(seed=0)
    run(lanes, actions[:20])
    state = {name: value.copy() for name, value in lanes.get_state().items()}
    expected = run(lanes, actions[20:])
    current = other.set_state(state)
    assert np.array_equal(current, expected[0].observation)
    for found, wanted in zip(run(other, actions[20:]), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found[:6], wanted[:6], strict=True))
        assert found.episodes == wanted.episodes
    assert sum(len(step.episodes) for step in expected) == 4


def test_environment_without_a_state_says_so():
    assert counting().get_state() is None


def test_an_environment_that_fails_when_it_is_closed_takes_nothing_with_it():
    lanes = counting()
    lanes.env.close = lambda **_: 1 / 0
    lanes.close()


def test_names_in_an_info_that_no_metric_can_have_are_left_out():
    class Named(Counting):
        def step(self, action):
            *rest, info = super().step(action)
            return (*rest, info | {0: 1.0, "a\tb": 2.0, "": 3.0, "x" * 101: 4.0, "y" * 100: 5.0})

    lanes = Lockstep(SyncVectorEnv([lambda: Named(0)]), "Named-v0")
    lanes.reset(seed=0)
    found = [episode for _ in range(3) for episode in lanes.step(np.full((1, 2), 0.5)).episodes]
    assert [set(episode) for episode in found] == [{"distance", "y" * 100, "return", "length", "lane"}]


def test_whole_numbers_beyond_all_measure_are_refused_as_rewards(monkeypatch):
    lanes = counting()
    lanes.reset(seed=0)
    step = lanes.env.step

    def huge(actions):
        observations, _, *rest = step(actions)
        return (observations, np.full(2, 2**62), *rest)

    monkeypatch.setattr(lanes.env, "step", huge)
    with pytest.raises(QomposeError, match=r"the reward is beyond 1e\+15"):
        lanes.step(np.full((2, 2), 0.5))


def test_success_by_the_name_of_stable_baselines_is_success():
    class Named(Counting):
        def __init__(self, more):
            super().__init__(0)
            self.more = more

        def step(self, action):
            *rest, info = super().step(action)
            return (*rest, info | {"is_success": True} | self.more)

    for more, success in (({}, 1.0), ({"success": False}, 0.0)):
        lanes = Lockstep(SyncVectorEnv([lambda more=more: Named(more)]), "Named-v0")
        lanes.reset(seed=0)
        found = [episode for _ in range(6) for episode in lanes.step(np.full((1, 2), 0.5)).episodes]
        assert found and all(episode["success"] == success for episode in found)
        assert not any("is_success" in episode for episode in found)
