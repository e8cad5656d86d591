import mujoco
import numpy as np
import pytest

from qompose.tasks import make_task
from qompose.types import QomposeError


def at(x, y):
    return {"position": np.array([x, y])}


def test_the_point_moves_by_its_action():
    task = make_task("MultiGoal")
    model, data = task.model(), mujoco.MjData(task.model())
    for action in ([1.0, -0.5], [-1.0, 0.0], [0.25, 1.0]):
        start, data.ctrl[:] = data.qpos.copy(), action
        mujoco.mj_step(model, data, nstep=task.substeps)
        np.testing.assert_allclose(data.qpos - start, action, atol=0.03)


def test_walls_hold():
    task = make_task("MultiGoal", goals=((0.0, 0.0),))
    data = mujoco.MjData(task.model())
    data.ctrl[:] = 1.0
    mujoco.mj_step(task.model(), data, nstep=20 * task.substeps)
    assert (data.qpos > 6.5).all() and (data.qpos < 7.5).all()


def test_reward_counts_distance_action_and_arrival():
    task = make_task("MultiGoal")
    total, terms = task.reward(at(9.0, 9.0), np.array([0.6, 0.8]), at(3.0, 0.0))
    assert (terms["distance"], terms["action"], terms["bonus"]) == pytest.approx((-0.4, -3.0, 0.0))
    assert total == pytest.approx(-3.4)
    total, terms = task.reward(at(0.0, 0.0), np.zeros(2), at(0.0, 4.5))
    assert total == pytest.approx(1.0 - 0.1 * 0.25)


def test_the_episode_ends_at_a_goal_and_nowhere_else():
    task = make_task("MultiGoal")
    for position in ((4.1, 0.0), (-5.9, 0.0), (0.3, 5.5), (0.0, -4.5)):
        assert task.terminated(at(*position)) and task.success(at(*position))
    for position in ((0.0, 0.0), (3.9, 0.0), (5.0, 5.0)):
        assert not task.terminated(at(*position))


def test_goals_are_equally_worthy_from_the_middle():
    task = make_task("MultiGoal")
    rewards = [
        task.reward(at(0, 0), np.array(a), at(*a))[0] for a in ([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0])
    ]
    assert np.ptp(rewards) == pytest.approx(0.0, abs=1e-12)


def test_goals_by_index_or_by_point_are_the_same_task():
    by_index, by_point = make_task("MultiGoal", goals=(0, 2)), make_task("MultiGoal", goals=[[5, 0], [0, 5]])
    assert by_index == by_point and by_index.options() == {"goals": ((5.0, 0.0), (0.0, 5.0))}
    assert not by_index.terminated(at(-5.0, 0.0))
    assert by_index.metrics(at(0.0, 4.0)) == {"distance": 1.0, "goal": 1, "x": 0.0, "y": 4.0}


@pytest.mark.parametrize("goals", [(), (4,), ((1.0,),), ((8.0, 0.0),), ((float("nan"), 0.0),), ("ab",)])
def test_goals_that_make_no_sense_are_refused(goals):
    with pytest.raises(QomposeError, match="MultiGoal"):
        make_task("MultiGoal", goals=goals)
