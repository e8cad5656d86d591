import mujoco
import numpy as np
import pytest

from qompose.tasks.kinematics import locate_hand
from qompose.tasks.scenes.sawyer import BRICK_MOUNT, GOAL, stack_scene
from qompose.tasks.starts import BANK_SIZE, GOAL_ANGLES, MOUNT, forced_bank, start_bank


def offsets_of(bank):
    positions, rotations, _ = locate_hand(bank, BRICK_MOUNT)
    return positions - GOAL, rotations @ MOUNT.T


@pytest.mark.parametrize(("name", "tower"), [("around", False), ("both", True), ("behind", True)])
def test_bank_holds_4096_different_poses_where_nothing_touches(name, tower):
    bank = start_bank(name, tower)
    assert bank.shape == (BANK_SIZE, 7) == np.unique(bank, axis=0).shape
    model = mujoco.MjModel.from_xml_string(stack_scene(0.0015, tower))
    data = mujoco.MjData(model)
    for row in bank[::8]:
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


def test_starts_around_the_goal_are_far_hovering_or_low_beside_it():
    offsets, turns = offsets_of(start_bank("around", False))
    aside, height = np.linalg.norm(offsets[:, :2], axis=1), offsets[:, 2]
    hovering = (aside < 0.0301) & (height > 0.0)
    low = ~hovering & (aside < 0.0801)
    far = ~hovering & ~low
    assert hovering.mean() == pytest.approx(0.2, abs=0.06) and low.mean() == pytest.approx(0.1, abs=0.05)
    assert aside[far].min() > 0.0999 and aside[far].max() < 0.2501
    assert height[far].min() > 0.0299 and height[far].max() < 0.2001
    tilt = np.arccos(np.clip(turns[:, 2, 2], -1, 1))
    assert tilt.max() < 0.151 and tilt.max() > 0.14


def test_starts_behind_the_tower_have_it_between_them_and_the_goal():
    offsets, _ = offsets_of(start_bank("behind", True))
    np.testing.assert_allclose(offsets.mean(axis=0), [0.0, -0.24, 0.03], atol=2e-3)
    assert (np.abs(offsets - [0.0, -0.24, 0.03]) < 0.0202).all()
    mixed, _ = offsets_of(start_bank("both", True))
    assert (mixed[:, 1] < -0.2199).mean() == pytest.approx(0.5, abs=0.15)


def test_forced_poses_are_within_their_spread():
    bank = forced_bank(0.4, False)
    assert bank.shape == (BANK_SIZE, 7)
    assert np.abs(bank - GOAL_ANGLES).max() <= 0.4
    offsets, _ = offsets_of(bank)
    assert 0.1 < np.median(np.linalg.norm(offsets, axis=1)) < 0.3
