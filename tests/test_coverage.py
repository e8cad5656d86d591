"""The interval of the certificate holds the exact regret about as often as it says."""

import numpy as np
import pytest

from benchmarks import coverage, line


def test_intervals_that_hold_the_truth_are_counted():
    rows = [
        {"truth": 2.0, "mean": mean, "low": mean - reach, "high": mean + reach, "seconds": 1.0}
        for mean, reach in ((2.0, 0.1), (2.5, 0.5), (1.0, 0.9), (3.0, 0.2))
    ]  # fmt: skip
    found = coverage.summarise(rows)
    assert found["coverage"] == 0.5 and found["regret"] == 2.0 and found["bias"] == pytest.approx(0.125)
    assert found["median_width"] == pytest.approx(0.7) and found["bar"]["median_width"] == 2.0


@pytest.mark.slow
def test_the_interval_of_the_regret_holds_it_in_at_least_seven_of_ten_seeds():
    exact = line.solve_exactly((0.1, 0.05), (0.5, 0.5))
    found = coverage.summarise([coverage.measure(exact, seed, 4000) for seed in range(10)])
    print({name: value for name, value in found.items() if name != "rows"})
    assert found["coverage"] >= 0.7 and found["median_width"] <= found["bar"]["median_width"]
    assert abs(found["bias"]) < 0.05 * found["regret"]
    assert np.std([row["truth"] for row in found["rows"]]) > 0.0
