import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from qompose.envs import register
from qompose.envs.gym import TaskEnv, TaskVectorEnv
from qompose.tasks import TASKS
from qompose.tasks.experts import make_expert
from qompose.types import QomposeError

register()


def actions_of(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("name", TASKS)
def test_gymnasium_finds_nothing_to_complain_about(name):
    options = {"goal_x": 0.5} if name == "PushTo" else {}
    check_env(gymnasium.make(f"{name}-v0", **options).unwrapped, skip_render_check=True)  # warnings are errors here


def test_random_actions_move_the_puck_in_a_share_of_episodes():
    env = TaskVectorEnv("PushLeft", 60)
    observations, _ = env.reset(seed=1)
    start, moved = observations[:, 9:11], np.zeros(60, bool)
    for action in np.repeat(actions_of(env, 30), 10, axis=0)[:299]:
        observations, *_ = env.step(action)
        moved |= np.linalg.norm(observations[:, 9:11] - start, axis=1) > 0.05
    assert moved.mean() > 0.4  # measured: 0.63 of 100 episodes


@pytest.mark.parametrize("name", ["PushBottomLeft", "MultiGoal"])
def test_vector_environment_equals_the_scalar_one_step_by_step(name):
    vector = TaskVectorEnv(name, 3, max_episode_steps=7)
    scalars = [gymnasium.wrappers.TimeLimit(TaskEnv(name, lane=lane), 7) for lane in range(3)]
    observations, _ = vector.reset(seed=5)
    assert all(np.array_equal(scalar.reset(seed=5)[0], o) for scalar, o in zip(scalars, observations, strict=True))
    ended = 0
    for actions in actions_of(vector, 30):
        observations, rewards, terminated, truncated, info = vector.step(actions)
        for lane, scalar in enumerate(scalars):
            last, reward, end, cut, scalar_info = scalar.step(actions[lane])
            assert (reward, end, cut) == (rewards[lane], terminated[lane], truncated[lane])
            source = info
            if end or cut:
                ended, source = ended + 1, info["final_info"]
                assert info["_final_obs"][lane] and np.array_equal(info["final_obs"][lane], last)
                last, _ = scalar.reset()
            assert np.array_equal(observations[lane], last)
            assert {key: source[key][lane] for key in scalar_info} == scalar_info
            assert all(source[f"_{key}"][lane] for key in scalar_info)
    assert ended >= 12


def test_episodes_differ_between_lanes_episodes_and_seeds_but_not_between_runs():
    def starts(seed):
        env = TaskVectorEnv("PushLeft", 2, max_episode_steps=1)
        first, _ = env.reset(seed=seed)
        second, *_ = env.step(np.zeros((2, 3)))
        third, _ = env.reset()
        return np.concatenate([first, second, third])

    together = np.concatenate([starts(0), starts(1)])
    assert len(np.unique(together[:, 9])) == 12
    assert np.array_equal(starts(0), starts(0))


def test_unseeded_environments_differ():
    first, second = (TaskVectorEnv("PushLeft", 1).reset()[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_reset_mask_resets_only_those_lanes():
    env = TaskVectorEnv("PushLeft", 3)
    env.reset(seed=0)
    moved, *_ = env.step(np.ones((3, 3)))
    observations, info = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(observations[[0, 2]], moved[[0, 2]]) and not np.array_equal(observations[1], moved[1])
    assert info["_distance"].tolist() == [False, True, False]
    assert env.get_state()["elapsed"].tolist() == [1, 0, 1]


def test_state_restores_bit_for_bit_across_episodes():
    env = TaskVectorEnv("PushLeft", 3, max_episode_steps=20)
    env.reset(seed=3)
    actions = actions_of(env, 60)
    for action in actions[:27]:
        env.step(action)
    state = env.get_state()
    expected = [env.step(action) for action in actions[27:]]

    other = TaskVectorEnv("PushLeft", 3, max_episode_steps=20)
    other.set_state({name: value.copy() for name, value in state.items()})
    for before, after in ((env, state), (other, state)):
        before.set_state(after)
        for action, (observations, rewards, _, truncated, _) in zip(actions[27:], expected, strict=True):
            again, again_rewards, _, again_truncated, _ = before.step(action)
            assert np.array_equal(again, observations) and np.array_equal(again_rewards, rewards)
            assert np.array_equal(again_truncated, truncated)


def test_state_of_a_task_with_memory_and_sensors_restores_bit_for_bit():
    env, other = (TaskVectorEnv("SawyerStack", 2, max_episode_steps=20, push=5.0) for _ in range(2))
    observations, _ = env.reset(seed=3)
    expert = make_expert(env.task)
    for step in range(50):
        if step == 33:
            state = env.get_state()
            other.set_state({name: value.copy() for name, value in state.items()})
            assert all(np.array_equal(value, other.get_state()[name]) for name, value in state.items())
        observations, rewards, _, truncated, info = env.step(actions := expert(observations, step))
        if step >= 33:
            again, again_rewards, _, again_truncated, again_info = other.step(actions)
            assert np.array_equal(again, observations) and np.array_equal(again_rewards, rewards)
            assert np.array_equal(again_truncated, truncated)
            assert all(np.array_equal(again_info[name], info[name]) for name in ("studs", "collided", "success"))


def test_episode_that_the_task_cuts_is_truncated_and_not_diverged():
    env, single = TaskVectorEnv("SawyerReach", 1), TaskEnv("SawyerReach")
    env.reset(seed=0)
    single.reset(seed=0)
    action = np.array([1.0, 0, 0, 0, 0, 0, 0], np.float32)
    for _ in range(90):
        _, _, terminated, truncated, info = env.step(action[None])
        assert single.step(action)[3] == truncated[0] and not terminated[0]
        if truncated[0]:
            break
    assert truncated[0] and not info["final_info"]["diverged"][0]
    assert not env.step(0 * action[None])[3][0]


def test_state_returns_the_current_observations_and_refuses_another_size():
    env = TaskVectorEnv("PushLeft", 2)
    env.reset(seed=0)
    observations, *_ = env.step(np.ones((2, 3)))
    state = env.get_state()
    env.reset()
    assert np.array_equal(env.set_state(state), observations)
    with pytest.raises(QomposeError, match="not a state of 3 lanes"):
        TaskVectorEnv("PushLeft", 3).set_state(state)


def test_divergence_ends_the_episode_and_says_so():
    env = TaskVectorEnv("PushLeft", 3)
    before, _ = env.reset(seed=0)
    env._lanes.datas[1].qvel[:] = 1e12
    observations, rewards, terminated, truncated, info = env.step(np.zeros((3, 3)))
    assert truncated.tolist() == [False, True, False] and not terminated.any()
    assert info["final_info"]["diverged"].tolist() == [False, True, False]
    assert np.array_equal(info["final_obs"][1], before[1])  # the last finite one
    assert np.isfinite(observations).all() and np.isfinite(rewards).all()
    *_, truncated, info = env.step(np.zeros((3, 3)))
    assert not truncated.any() and not info["diverged"].any()


def test_divergence_of_a_single_environment_truncates():
    env = TaskEnv("PushLeft")
    before, _ = env.reset(seed=0)
    env._lanes.datas[0].qpos[1] = np.nan
    after, reward, terminated, truncated, info = env.step(np.zeros(3))
    assert truncated and not terminated and info["diverged"] and np.isfinite(reward)
    assert np.array_equal(before, after)
    env.reset()
    assert not env.step(np.zeros(3))[3]


def test_diverging_writes_no_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test_divergence_of_a_single_environment_truncates()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused_and_name_the_lane(bad):
    env = TaskVectorEnv("PushLeft", 3)
    env.reset(seed=0)
    state, actions = env.get_state(), np.zeros((3, 3))
    actions[2, 1] = bad
    with pytest.raises(QomposeError, match="action of lane 2 is not finite"):
        env.step(actions)
    assert all(np.array_equal(value, state[name]) for name, value in env.get_state().items())


def test_actions_of_the_wrong_shape_are_refused():
    env = TaskVectorEnv("PushLeft", 3)
    env.reset(seed=0)
    with pytest.raises(QomposeError, match=r"actions of shape \(3, 2\), needed \(3, 3\)"):
        env.step(np.zeros((3, 2)))


def test_actions_beyond_the_box_act_and_cost_as_the_box():
    results = []
    for action in (3.0, 1.0):
        env = TaskEnv("PushLeft")
        env.reset(seed=0)
        observation, reward, *_ = env.step(np.full(3, action))
        results.append([*observation, reward])
    assert results[0] == results[1]


def test_declares_how_it_resets_and_how_fast_it_runs():
    metadata = TaskVectorEnv("PushLeft", 1).metadata
    assert metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and metadata["render_fps"] == 20
    with pytest.raises(QomposeError, match="num_envs=129"):
        TaskVectorEnv("PushLeft", 129)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_do_not_fit_a_state_are_refused(seed):
    with pytest.raises((QomposeError, gymnasium.error.Error), match=f"{seed}"):
        TaskVectorEnv("PushLeft", 1).reset(seed=seed)
