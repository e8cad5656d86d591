"""Every agent learns what it must, within the limits of clean trainings; and the limits can be passed."""

import pytest

from benchmarks.gates import CALIBRATING, GATES, find_alarms, find_limits, read_gates, read_limits

SEED = 1000  # none of those that the limits were set from


def limits_of(name):
    if name not in read_gates():
        pytest.skip(f"the limits of {name} have not been measured: python -m benchmarks.gates --resume")
    return read_limits(name)


@pytest.mark.slow  # trains an agent
@pytest.mark.parametrize("name", GATES)
def test_a_clean_training_passes(name):
    limits = limits_of(name)
    figures = GATES[name].run(SEED)
    assert find_alarms(limits, figures) == [], f"{figures} beyond {limits}"


def test_limits_lie_beyond_the_worst_clean_run_by_half_as_much_again_as_the_median_for_the_goals():
    runs = [
        {"spread over goals (bits)": bits, "failures": share, "distance": 1.0, "lost return": 0.0}
        for bits, share in ((1.9, 0.0), (1.8, 0.2), (2.0, 0.1))
    ]
    limits = find_limits(GATES["goals"], runs)
    assert limits["spread over goals (bits)"] == (pytest.approx(1.65), None)
    assert limits["failures"] == (None, pytest.approx(0.35))
    assert limits["distance"] == (None, 1.0)


@pytest.mark.parametrize(
    ("figure", "alarms"),
    [(1.0, []), (2.0, []), (2.1, ["error"]), (0.9, ["error"]), (float("nan"), ["error"])],
)
def test_a_figure_beyond_its_limits_or_no_number_is_an_alarm(figure, alarms):
    assert find_alarms({"error": (1.0, 2.0)}, {"error": figure, "other": 5.0}) == alarms


def test_a_figure_is_free_where_it_has_no_limit():
    assert find_alarms({"error": (None, 2.0)}, {"error": -9.0}) == []
    assert find_alarms({"error": (1.0, None)}, {"error": 9.0}) == []


@pytest.mark.parametrize("name", GATES)
def test_the_limits_are_those_of_the_first_clean_runs_and_no_later_one_is_an_alarm(name):
    limits, runs = limits_of(name), read_gates()[name]["runs"]
    assert limits == find_limits(GATES[name], runs[:CALIBRATING])
    assert [find_alarms(limits, run) for run in runs[CALIBRATING:]] == [[]] * (len(runs) - CALIBRATING)
