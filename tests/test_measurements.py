"""What the page says of bars: met only where they are."""

from benchmarks import measurements


def row(algorithm, task, mean, *, merged=False, mode="sample"):
    return {"algorithm": algorithm, "task": task, "merged": merged, "mode": mode, "mean": mean,
            "paper": [0.1, 0.05]}  # fmt: skip


def rows_of_table1(composed, trained, line=0.05):
    corners = [
        row("sql", task, mean, merged=merged)
        for merged, mean in ((True, composed), (False, trained)) for task in measurements.CORNERS
    ]  # fmt: skip
    others = [row(algorithm, task, line) for algorithm in ("sql", "naf") for task in measurements.CONSTITUENTS]
    distracting = [row("sql", "PushLeft", 9.0, mode="best")]
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
    bars = measurements.fig2_bars(rows)
    assert list(bars.values()) == [False, True, True, False]
    assert [f"most in {count} of 2 seeds" in name for count, name in zip((0, 2), bars, strict=False)] == [True, True]


def test_bars_of_fig_4():
    def rows(one, steps, random):
        return [
            {"algorithm": "sql", "task": "SawyerReach", "seeds": [0.01, one], "steps_to_bar": [5000, steps]},
            {"algorithm": "sql", "task": "SawyerReachRandom", "seeds": [0.01, random]},
            {"algorithm": "naf", "task": "SawyerReach", "seeds": [0.9, 0.9], "steps_to_bar": [None, None]},
        ]

    assert list(measurements.fig4_bars(rows(0.019, 6000, 0.019)).values()) == [True, True, True]
    assert list(measurements.fig4_bars(rows(0.021, 6001, 0.021)).values()) == [False, False, False]
    assert not list(measurements.fig4_bars(rows(0.019, None, 0.019)).values())[1]


def test_bars_of_fig_5():
    def rows(shares, counts, first):
        trials = dict(zip(("undisturbed", "pushed", "forced"), ([1.0, share] for share in shares), strict=True))
        idle = {name: [0.0, 0.0] for name in trials}
        return [{"algorithm": "sql", "success": {"best": trials}, "of_twenty": {"best": counts},
                 "first_success": [first, 10_000]},
                {"algorithm": "naf", "success": {"best": idle}, "of_twenty": {"best": [0, 0]},
                 "first_success": [None, None]}]  # fmt: skip

    assert all(measurements.fig5_bars(rows((0.95, 0.9, 0.9), [20, 20, 19], 18_000)).values())
    assert not any(measurements.fig5_bars(rows((0.94, 0.89, 0.89), [20, 19, 19], 36_001)).values())
    assert list(measurements.fig5_bars(rows((1.0, 1.0, 1.0), [20, 20], 18_001)).values())[-2:] == [True, False]
    assert not list(measurements.fig5_bars(rows((1.0, 1.0, 1.0), [20, 20], None)).values())[-2]


def test_bars_of_fig_6():
    def row(policy, mode, seated, collided, success):
        return {"policy": policy, "mode": mode, "seated": seated, "collided": collided, "success": success}

    avoid, stack = row("avoid", "best", [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]), row("stack", "best", [], [1.0, 0.9], [1.0])
    good, other = (row("composed 1:3", mode, [], [], [0.9, 1.0]) for mode in ("resample", "best"))
    better = row("extracted 1:3", "best", [], [], [1.0, 1.0])  # is not chosen for being better
    found = measurements.fig6_bars([avoid, stack, good, other, better])
    assert all(found.values()) and ["`best`" in what for what in found] == [False, False, False, True]
    poor = {**good, "success": [0.89, 1.0]}
    worse = [{**avoid, "seated": [0.0, 0.02]}, {**stack, "collided": [1.0, 0.89]}, poor, other, better]
    assert list(measurements.fig6_bars(worse).values()) == [False, False, False, True]


def test_bar_of_a_control_step():
    rows = [{"what": what, "milliseconds_per_step": {"median": ms}} for what, ms in (("reach", 0.2), ("stack", 1.0))]
    assert list(measurements.sawyer_expert_bars(rows).values()) == [True]
    rows[1]["milliseconds_per_step"]["median"] = 1.01
    found = measurements.sawyer_expert_bars(rows)
    assert list(found.values()) == [False] and "(slowest: stack, 1.01 ms" in next(iter(found))


def operator(problem, name, seeds):
    return {"problem": problem, "operator": name, "loss": {"mean": sum(seeds) / len(seeds), "seeds": seeds}}


def test_bars_of_the_correction():
    rows = [
        operator("modes", "mean", [0.4, 0.6]), operator("modes", "corrected", [0.2, 0.3]),
        operator("opposite", "mean", [0.4, 0.4]), operator("opposite", "corrected", [0.2, 0.22]),
    ]  # fmt: skip
    assert list(measurements.composition_bars(rows).values()) == [True, False]
    corners = [
        operator("left", "mean", [0.1, 0.3]), operator("left", "corrected", [0.12, 0.26]),
        operator("right", "mean", [0.1]), operator("right", "corrected", [0.11]),
    ]  # fmt: skip
    bars = measurements.corners_bars(corners)
    assert list(bars.values()) == [True, False]
    assert [name.partition("(")[2] for name in bars] == ["-0.010 ± 0.381)", "+0.010)"]
