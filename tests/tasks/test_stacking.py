from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from qompose.envs.gym import TaskEnv
from qompose.envs.lanes import Lanes
from qompose.tasks import make_task
from qompose.tasks.sawyer import ELAPSED
from qompose.tasks.scenes.sawyer import LINKS
from qompose.tasks.stacking import OFFSET_HIGH, OFFSET_LOW, PUSH_STEPS, tower_distance
from qompose.tasks.starts import GOAL_ANGLES, forced_bank, start_bank
from qompose.tasks.task import relabel
from qompose.types import QomposeError, Transition
from tests.tasks.test_sawyer import held_at, press

UPRIGHT = (0.0, 0.0, 0.0)
LEAD_INS = [
    (1.0, 0.0018, True), (1.0, 0.0025, False), (1.5, 0.0022, True), (1.5, 0.0028, False),
    (2.0, 0.0026, True), (2.0, 0.0033, False),
]  # fmt: skip


def pose(brick, turn=UPRIGHT, press=0.0):
    return {"brick": np.array(brick), "turn": np.array(turn), "force": np.array([0.0, 0.0, -press])}


def rank(task, *poses):
    return [float(sum(task.pose_terms(one).values())) for one in poses]


def test_brick_goes_in_with_three_and_a_half_newtons_and_not_with_three():
    ends = {force: press(held_at((0.0, 0.0, 0.006)), force, 40) for force in (3.0, 3.5)}
    assert ends[3.0]["height"][0] > 0.0015 and not ends[3.0]["seated"][0]
    assert ends[3.5]["seated"][0] and ends[3.5]["studs"][0] == 4


def test_seated_brick_rests_on_its_studs_and_holds():
    lanes = held_at((0.0, 0.0, 0.004))
    press(lanes, 6.0, 30)
    rest = press(lanes, 0.0, 60)
    assert rest["height"][0] == pytest.approx(2e-4, abs=5e-5) and rest["aside"][0] < 1e-5
    assert lanes.judge()["success"][0] and lanes.judge()["studs"][0] == 4
    assert press(lanes, -1.0, 20)["height"][0] < 1e-3  # 1 N does not pull it off ...
    assert press(lanes, -4.0, 20)["height"][0] > 1e-2  # ... 4 N do


def test_brick_one_row_aside_is_not_seated_though_it_is_at_the_right_height():
    lanes = held_at((0.016, 0.0, 0.004))
    readings = press(lanes, 6.0, 40)
    assert readings["studs"][0] >= 2 and not readings["seated"][0]


@pytest.mark.parametrize(("lead_in", "aside", "goes_in"), LEAD_INS)
def test_lead_in_decides_how_far_aside_a_brick_still_slides_in(lead_in, aside, goes_in):
    lanes = held_at((aside, 0.0, 0.006), make_task("SawyerStack", lead_in=lead_in))
    assert bool(press(lanes, 6.0, 30)["seated"][0]) == goes_in


def test_reward_ranks_the_way_into_the_studs():
    task = make_task("SawyerStack")
    seated = (0.0, 0.0, 2e-4)
    way = rank(
        task,
        pose((0.2, 0.1, 0.1)), pose((0.1, 0.1, 0.05)), pose((0.0, 0.0, 0.03)), pose((0.0, 0.0, 0.01)),
        pose((0.0, 0.0, 0.0045)), pose((0.0, 0.0, 0.002)), pose(seated), pose(seated, press=6.0),
    )  # fmt: skip
    assert way == sorted(way) and min(np.diff(way)) > 0.05


def test_leaning_on_the_studs_and_pressing_is_worth_less_than_standing_upright_above_them():
    task = make_task("SawyerStack")
    leaning, upright = rank(task, pose((0.005, 0.0, 0.005), (0.0, 0.3, 0.0), press=10.0), pose((0.0, 0.0, 0.005)))
    assert leaning < upright - 0.3


def test_stack_reward_is_as_written():
    task = make_task("SawyerStack")
    total, terms = task.reward(pose(UPRIGHT), np.full(7, 0.5), pose((0.003, 0.0, 0.004), press=20.0))
    assert terms["distance"] == pytest.approx(-10 * 25e-6)
    assert terms["precision"] == pytest.approx(-0.15 * np.log(26e-6))
    assert terms["press"] == pytest.approx(0.02 * 10 * np.exp(-25 / 16))
    assert terms["action"] == pytest.approx(-1e-3 * 7 * 0.25) and total == pytest.approx(sum(terms.values()))


def test_avoid_rewards_a_detour_and_nothing_of_the_last_millimetres():
    task = make_task("SawyerAvoid")
    inside, beside, over, goal = rank(
        task, pose((0.0, -0.12, 0.0)), pose((0.0, -0.19, 0.0)), pose((0.0, -0.12, 0.15)), pose((0.0, 0.0, 0.0))
    )
    assert inside < -1.5 and beside < over - 0.1 and over < goal == 0.0
    assert set(task.pose_terms(pose(UPRIGHT))) == {"distance", "clearance", "collision"}


def test_composed_reward_is_the_mean_of_the_two():
    action, before, after = np.full(7, 0.3), pose(UPRIGHT), pose((0.01, -0.1, 0.1), (0.1, 0.0, 0.2), press=3.0)
    stack, avoid, both = (
        make_task(name).reward(before, action, after)[0] for name in ("SawyerStack", "SawyerAvoid", "SawyerStackAvoid")
    )
    assert both == pytest.approx((stack + avoid) / 2)


def test_tower_distance_is_positive_only_without_contact():
    # Hand computed: the brick's middle is 20 mm above the tower's top, in the middle of it.
    above = pose((0.0, -0.12, 0.096 + 0.02 - 0.0096))
    assert tower_distance(above) == pytest.approx(0.02 - 0.0246)
    task = make_task("SawyerAvoid")
    model, data = task.model(), mujoco.MjData(task.model())
    checked = {model.geom(name).id for name in ("hull", "gripper", "l6")}
    rng, touched = np.random.default_rng(0), 0
    lanes = Lanes(task, 1)
    lanes.begin(np.ones(1, bool), seed=0)
    for row in start_bank("behind", True)[:300]:
        data.qpos[:] = row + rng.uniform(-0.2, 0.2, 7) + [0.2, 0, 0, 0, 0, 0, 0]
        mujoco.mj_forward(model, data)
        hits = (data.contact.geom == model.geom("tower").id).any(axis=1)
        if not any({*pair} & checked for pair in data.contact.geom[hits].tolist()):
            continue
        touched += 1
        lanes.datas[0].qpos[:] = data.qpos
        lanes._refresh(0)
        assert tower_distance({name: value[0] for name, value in lanes._read().items()}) < 0.0
    assert touched > 20


def test_a_touch_of_the_tower_is_remembered_and_rules_success_out():
    lanes = held_at((0.0, -0.19, 0.02), make_task("SawyerStackAvoid"))
    turning = np.eye(7)[:1]  # of the first joint: the hand swings towards the tower
    for action in [turning] * 20 + [-turning] * 20:
        lanes.advance(action)
    assert not lanes.readings["touches_tower"][0]  # it has left again
    assert lanes.judge()["collided"][0] and lanes.model.sensor("tower").id == 4
    held = {**lanes.readings, "held": np.array([99.0])}
    assert not lanes.task.success(held)[0] and make_task("SawyerStack").success(held)[0]
    lanes.begin(np.ones(1, bool))
    assert not lanes.judge()["collided"][0]


def test_a_bump_between_two_observations_counts():
    lanes = Lanes(make_task("SawyerStackAvoid"), 1)
    lanes.begin(np.ones(1, bool), seed=3)
    for _ in range(14):  # the hand swings into the tower with all its might, and is off it again at once
        assert not lanes.judge()["collided"][0]
        lanes.advance(np.eye(7)[:1])
    assert lanes.datas[0].sensor("tower").data[0] == 0.0
    assert lanes.readings["touches_tower"][0] and lanes.judge()["collided"][0]
    other = Lanes(lanes.task, 1)
    other.set_state(lanes.get_state())
    assert other.judge()["collided"][0]


def test_transitions_of_stacking_are_relabelled_for_avoiding():
    stack, avoid = make_task("SawyerStack"), make_task("SawyerAvoid")
    env, rng, rows, expected = TaskEnv(stack), np.random.default_rng(0), [], []
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        action = rng.uniform(-1, 1, 7).astype(np.float32)
        before = env._lanes.readings
        following, reward, *_ = env.step(action)
        rows.append((observation, action, reward, following, 0.0))
        expected.append(avoid.reward(before, action[None], env._lanes.readings)[0][0])
        observation = following
    again = relabel(avoid, Transition(*(np.array(column, np.float32) for column in zip(*rows, strict=True))))
    np.testing.assert_allclose(again.reward, expected, atol=1e-5)


def test_a_push_moves_the_brick_and_an_undisturbed_twin_shows_it():
    pushed, twin = (TaskEnv("SawyerStack", push=push) for push in (10.0, 0.0))
    gaps = []
    for env in (pushed, twin):
        env.reset(seed=1)
    for _ in range(60):
        places = [env.step(np.zeros(7))[0][14:17] / 8.0 for env in (pushed, twin)]
        gaps.append(np.linalg.norm(places[0] - places[1]))
    assert not any(gaps[:30]) and max(gaps) > 0.05  # m
    assert not pushed._lanes.datas[0].xfrc_applied.any()


def test_a_forced_configuration_comes_from_its_bank_at_four_seconds():
    env = TaskEnv("SawyerStack", forced=0.4)
    env.reset(seed=2)
    for step in range(81):
        before = env._lanes.datas[0].qpos.copy()
        observation, _, _, truncated, _ = env.step(np.zeros(7))
        assert not truncated
        if step < 80:
            np.testing.assert_allclose(observation[:7], before, atol=1e-5)
    assert np.abs(forced_bank(0.4, False) - observation[:7]).max(axis=1).min() < 1e-4


@pytest.mark.parametrize(
    "option", [{"lead_in": 1.2}, {"push": -1.0}, {"push": float("nan")}, {"forced": 2.0}, {"lead_in": "wide"}]
)
def test_senseless_options_are_refused(option):
    with pytest.raises(QomposeError, match=f"SawyerStack: {next(iter(option))}="):
        make_task("SawyerStack", **option)


def judge(task, *readings):
    """Whether the task is solved after each of these steps."""
    memory, seen = task.begin_memory(np.zeros(5)), []
    for each in readings:
        memory, judged = task.remember(memory, {"force": np.zeros(3), "touches_tower": np.array(False), **each})
        seen.append(bool(task.success(judged)))
    return seen


def test_success_of_stacking_is_four_steps_in_place():
    inside, out = {"seated": np.array(True)}, {"seated": np.array(False)}
    steps = [inside] * 3 + [out] + [inside] * 5 + [out]
    for name in ("SawyerStack", "SawyerStackAvoid"):
        assert judge(make_task(name), *steps) == [False] * 7 + [True, True, False]


def test_success_of_avoiding_is_to_be_near_without_a_touch():
    near, far = ({"brick": np.array([0.0, 0.03, y])} for y in (0.039, 0.041))  # 49 and 51 mm
    bump = {**near, "touches_tower": np.array(True)}
    assert judge(make_task("SawyerAvoid"), far, near, far, near) == [False, True, False, True]
    assert judge(make_task("SawyerAvoid"), near, bump, near) == [True, False, False]


def test_an_episode_is_cut_outside_the_workspace_or_near_a_joint_limit_unless_it_is_disturbed():
    low, high, angles = np.array(OFFSET_LOW), np.array(OFFSET_HIGH), np.array(GOAL_ANGLES)
    middle = {"brick": (low + high) / 2, "joint_angles": angles}
    beyond = [
        {**middle, "brick": np.where(np.arange(3) == axis, wall + side * 0.001, middle["brick"])}
        for side, walls in ((-1.0, low), (1.0, high)) for axis, wall in enumerate(walls)
    ]  # fmt: skip
    limits = np.array([link.limits for link in LINKS])
    bent = [
        {**middle, "joint_angles": np.where(np.arange(7) == joint, limits[joint, end] + inside, angles)}
        for end, inside in ((0, 0.049), (1, -0.049)) for joint in range(7)
    ]  # fmt: skip
    for name in ("SawyerStack", "SawyerAvoid", "SawyerStackAvoid"):
        task = make_task(name)
        assert not task.truncated(middle) and all(task.truncated(each) for each in beyond + bent)
        for option in ({"push": 1.0}, {"forced": 0.4}):
            assert not any(make_task(name, **option).truncated(each) for each in beyond + bent)


def test_a_push_has_its_force_for_its_time():
    task, data = make_task("SawyerStack", push=7.0), SimpleNamespace(xfrc_applied=np.zeros((40, 6)))
    rng = np.random.default_rng(0)
    for u in rng.random((20, 5)):
        memory, found = task.begin_memory(u), []
        for elapsed in range(1, 60):
            memory[ELAPSED] = elapsed
            task.disturb(data, memory)
            found.append(np.linalg.norm(data.xfrc_applied))
        at = np.flatnonzero(found)
        assert (at[0], at[-1] + 1) == PUSH_STEPS == (30, 40)
        np.testing.assert_allclose(np.array(found)[at], 7.0)
