"""What the page says of bars: met only where they are."""

from benchmarks import measurements


def row(algorithm, task, mean, *, merged=False, mode="sample", informed=False):
    return {"algorithm": algorithm, "task": task, "merged": merged, "mode": mode, "informed": informed, "mean": mean,
            "paper": [0.1, 0.05]}  # fmt: skip


def rows_of_table1(composed, trained, line=0.05):
    corners = [
        row("sql", task, mean, merged=merged)
        for merged, mean in ((True, composed), (False, trained)) for task in measurements.CORNERS
    ]  # fmt: skip
    others = [row(algorithm, task, line) for algorithm in ("sql", "naf") for task in measurements.CONSTITUENTS]
    distracting = [row("sql", "PushLeft", 9.0, mode="best"), row("sql", "PushBottom", 9.0, informed=True)]
    # Corners are asked of soft Q-learning alone.
    return [*corners, *others, *distracting, row("naf", "PushBottomLeft", 9.0)]


def test_bars_of_table_1():
    assert all(measurements.table1_bars(rows_of_table1(0.1, 0.06)).values())
    near = measurements.table1_bars(rows_of_table1(0.11, 0.05))
    assert [name.partition(",")[0] for name, met in near.items() if not met] == ["sql"] * 4
    assert any("composed at most 0.05 m behind trained (+0.060)" in name for name in near)
    lines = measurements.table1_bars(rows_of_table1(0.1, 0.06, line=0.11))
    missed = [name for name, met in lines.items() if not met]
    assert len(missed) == 2 and all("PushLeft, PushMiddle, PushRight, PushBottom" in name for name in missed)


def test_bars_of_fig_2():
    def seed(left, bottom, to_goal):
        return {"spread_of_left": left, "spread_of_bottom": bottom, "composed_to_goal": to_goal, "average_to_goal": 0.5}

    rows = [
        {"algorithm": "sql", "seeds": [seed(0.1, 0.3, 0.1), seed(0.1, 0.3, 0.2)]},
        {"algorithm": "ddpg", "seeds": [seed(0.2, 0.2, 0.1), seed(0.2, 0.2, 0.6)]},
    ]
    assert list(measurements.fig2_bars(rows).values()) == [False, True, True, False]
