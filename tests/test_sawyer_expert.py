"""How the scripted experts are measured."""

import numpy as np
import pytest

from benchmarks.sawyer_expert import play
from qompose.tasks import make_task


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_episode_that_is_cut_early_is_not_taken_for_a_whole_one(lanes):
    def leave(observations, step):
        return np.tile(np.eye(7, dtype=np.float32)[0], (len(observations), 1))

    with pytest.raises(RuntimeError, match=r"SawyerReach was cut at step [0-8]?\d$"):
        play(make_task("SawyerReach"), leave, episodes=lanes, steps=100, seed=0, lanes=lanes)
