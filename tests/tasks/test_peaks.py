import numpy as np
import pytest

from qompose.tasks import make_task
from qompose.types import QomposeError


def at(x, y):
    return {"position": np.array([x, y])}


def test_rewards_of_a_sum_of_tasks_are_the_weighted_sum_of_their_rewards():
    first, second = make_task("Peaks", peaks=[[0, 0, 1.0], [3, 3, 2.0]]), make_task("Peaks", peaks=[[0, 0, 0.5]])
    both = make_task("Peaks", peaks=[[0, 0, 0.7 * 1.0 + 0.3 * 0.5], [3, 3, 0.7 * 2.0]])
    rng = np.random.default_rng(0)
    readings, action = {"position": rng.uniform(-5, 5, (50, 2))}, rng.uniform(-1, 1, (50, 2))
    one, other, whole = (task.reward({}, action, readings)[0] for task in (first, second, both))
    np.testing.assert_allclose(0.7 * one + 0.3 * other, whole, atol=1e-12)


def test_success_is_to_stand_almost_on_the_highest_peak():
    task = make_task("Peaks", peaks=[[0, 0, 0.7], [4, 4, 1.0]])
    assert task.success(at(4.0, 4.5)) and not task.success(at(0.0, 0.0)) and not task.success(at(4.0, 5.0))
    metrics = task.metrics(at(7.0, 4.0))
    assert metrics["distance"] == pytest.approx(3.0) and metrics["height"] == pytest.approx(np.exp(-4.5), rel=1e-3)
    assert not task.terminated(at(4.0, 4.0))


@pytest.mark.parametrize("peaks", [[], [[0, 0]], [[0, 0, -1.0]], [[8, 0, 1.0]], [[0, 0, float("nan")]], ["hill"], [3]])
def test_peaks_that_cannot_be_are_refused(peaks):
    with pytest.raises(QomposeError, match="Peaks"):
        make_task("Peaks", peaks=peaks)


def test_the_reward_is_the_height_less_the_effort():
    task = make_task("Peaks", peaks=[[1.0, 2.0, 0.7]])
    total, terms = task.reward({}, np.array([0.6, -0.8]), at(1.0, 3.0))
    assert terms["height"] == pytest.approx(0.7 * np.exp(-0.5)) and terms["action"] == pytest.approx(-0.05)
    assert total == pytest.approx(terms["height"] + terms["action"])
