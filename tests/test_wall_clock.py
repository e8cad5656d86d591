"""What is said of the demonstration's time: met only where enough seeds end in time and at their distances."""

import pytest

from benchmarks import measurements, wall_clock

BAR = wall_clock.SECONDS


def rows_of(*seeds):
    """Seconds of each seed, and whether it is at its bars of distance."""
    return [
        {"seed": seed, "seconds": seconds, "at_bar": at_bar, "distances": {"push-left": 0.1}}
        for seed, (seconds, at_bar) in enumerate(seeds)
    ]


@pytest.mark.parametrize(
    ("seeds", "met"),
    [
        ([(BAR, True), (BAR + 1, True), (BAR - 1, True)], True),
        ([(BAR, True), (BAR + 1, True), (BAR + 1, True)], False),
        ([(BAR - 9, True), (BAR - 9, False), (BAR - 9, False)], False),  # quick, and nowhere near
        ([(BAR - 9, True), (BAR - 9, True), (BAR - 9, False)], True),
        ([(BAR - 9, False)], False),
        ([(BAR - 9, True), (BAR - 9, False)], False),
    ],
)
def test_a_seed_that_misses_its_distances_is_never_done(seeds, met):
    rows = rows_of(*seeds)
    assert (wall_clock.median_seconds(rows) <= BAR) is met
    result = {"rows": rows, "total_steps": 1, "bar": BAR, "bars_of_distances": wall_clock.DISTANCES}
    page = measurements.wall_clock(result)
    assert ("**missed**" in page) is not met and (": met" in page or ":\nmet" in page) is met
