import pytest

from qompose.envs.gym import TaskVectorEnv
from qompose.tasks import make_task
from qompose.tasks.experts import make_expert
from qompose.types import QomposeError


def run(name, episodes, steps=None, **options):
    """The last info of episodes that the expert plays side by side."""
    task = make_task(name, **options)
    steps = steps or task.horizon
    env, expert = TaskVectorEnv(task, episodes, max_episode_steps=steps), make_expert(task)
    observations, _ = env.reset(seed=0)
    for step in range(steps):
        observations, *_, info = env.step(expert(observations, step))
    return info["final_info"]


@pytest.mark.parametrize("name", ["SawyerReach", "SawyerReachRandom", "SawyerStack", "SawyerAvoid", "SawyerStackAvoid"])
def test_expert_solves_every_episode(name):
    info = run(name, 2)
    assert info["success"].all()
    if name == "SawyerAvoid":
        assert not info["seated"].any() and not info["collided"].any()


def test_straight_way_to_the_goal_hits_the_tower():
    task = make_task("SawyerStackAvoid")
    env, blind = TaskVectorEnv(task, 2), make_expert(make_task("SawyerStack"))
    observations, _ = env.reset(seed=0)
    for step in range(task.horizon):
        observations, *_, info = env.step(blind(observations, step))
    assert info["final_info"]["collided"].all() and not info["final_info"]["success"].any()


@pytest.mark.slow
def test_expert_inserts_forty_bricks_of_forty():
    assert run("SawyerStack", 40)["success"].all()


@pytest.mark.slow
def test_expert_stacks_behind_the_tower_forty_times_of_forty():
    info = run("SawyerStackAvoid", 40)
    assert info["success"].all() and not info["collided"].any()


@pytest.mark.slow
def test_expert_recovers_from_a_push():
    assert run("SawyerStack", 20, push=10.0)["success"].all()


@pytest.mark.slow
def test_expert_finds_back_from_where_it_is_put():
    assert run("SawyerStack", 20, steps=240, forced=0.4)["success"].all()  # 8 s after it


def test_tasks_without_an_expert_say_so():
    with pytest.raises(QomposeError, match="PushLeft has no scripted expert"):
        make_expert(make_task("PushLeft"))
