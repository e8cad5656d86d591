import numpy as np
import pytest

from qompose.soft import finite
from qompose.soft.correct import correction_target, soft_minimum
from qompose.soft.value import soft_value
from tests.soft.problems import Problem


@pytest.fixture(params=range(5))
def problem(request):
    return Problem(request.param)


def test_correction_is_the_fixed_point_of_its_target(problem):
    target = correction_target(problem.kappa, problem.c, problem.log_weight, 1.0, problem.alpha)
    np.testing.assert_allclose(problem.regress(target), problem.c, atol=1e-10)
    # The form of the algorithms' page: −α log E_U exp((Σ w A − C)/α).
    advantage = finite.combine(problem.weights, problem.q - problem.value[..., None])
    plain = -soft_value(advantage - problem.c, problem.flat, problem.alpha)
    np.testing.assert_allclose(target, plain, atol=1e-10)


def test_a_terminal_step_has_no_correction():
    assert correction_target(np.ones(1), np.ones((1, 3)), np.full((1, 3), -np.log(3.0)), np.zeros(1), 0.5) == 0.0


def test_minimum_lies_between_the_least_and_the_mean():
    x, log_weight = np.array([[1.0, 2.0, 4.0]]), np.log([[0.2, 0.3, 0.5]])
    assert soft_minimum(x, log_weight, 0.01) == pytest.approx(1.0, abs=0.02)
    assert soft_minimum(x, log_weight, 1000.0) == pytest.approx(2.8, abs=0.01)
