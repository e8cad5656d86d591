import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from qompose.envs import register
from qompose.envs.gym import TaskEnv, TaskVectorEnv
from qompose.envs.render import Renderer
from qompose.tasks import make_task
from qompose.types import QomposeError

register()


@pytest.fixture(autouse=True)
def can_draw():
    try:
        Renderer(make_task("MultiGoal").model(), 8, 8).close()
    except QomposeError as error:
        pytest.skip(str(error))


def test_gymnasium_finds_nothing_to_complain_about_when_drawing():
    check_env(gymnasium.make("PushLeft-v0", render_mode="rgb_array", width=64, height=64).unwrapped)


def test_picture_shows_the_puck_where_it_is():
    env = TaskEnv("PushTo", render_mode="rgb_array", width=320, height=320, goal_x=0.5)
    env.reset(seed=0)
    data = env._lanes.datas[0]
    data.qpos[3:] = [-1.0, 0.8]
    env._lanes._refresh(0)
    picture = env.render().astype(int)
    red = (picture[..., 0] > 100) & (picture[..., 1] < 60) & (picture[..., 2] < 70)
    row, column = (axis.mean() for axis in np.nonzero(red))
    half = 160 / (4.3 * np.tan(np.pi / 8))  # pixels per metre in the plane of the puck
    assert (row, column) == pytest.approx((160 - 0.8 * half, 160 - 1.0 * half), abs=6)
    env.close()


def test_vector_environment_draws_every_lane():
    env = TaskVectorEnv("PushLeft", 2, render_mode="rgb_array", width=48, height=32)
    env.reset(seed=0)
    pictures = env.render()
    assert [picture.shape for picture in pictures] == [(32, 48, 3)] * 2 and pictures[0].dtype == np.uint8
    assert not np.array_equal(*pictures)
    env.close()
    env.close()


def test_without_a_render_mode_nothing_is_drawn():
    env = TaskEnv("PushLeft")
    env.reset(seed=0)
    assert env.render() is None


def test_drawing_leaves_the_simulation_as_it_is():
    ends = []
    for mode in (None, "rgb_array"):
        env = TaskEnv("PushLeft", render_mode=mode, width=16, height=16)
        env.reset(seed=0)
        for _ in range(3):
            observation, *_ = env.step(np.ones(3))
            env.render()
        ends.append(observation)
        env.close()
    assert np.array_equal(*ends)


def test_pictures_that_do_not_fit_and_unknown_modes_are_refused():
    env = TaskEnv("PushLeft", render_mode="rgb_array", width=5000)
    env.reset(seed=0)
    with pytest.raises(QomposeError, match="5000 x 480 pixels: the scene is drawn at up to 960 x 960"):
        env.render()
    with pytest.raises(QomposeError, match="render_mode='human'"):
        TaskEnv("PushLeft", render_mode="human")
