"""What is read off the curves of the scaling study."""

import pytest

pytest.importorskip("mujoco.mjx")

from benchmarks import measurements, scaling


def rows_of(sizes, seconds, shares=None):
    rows = [
        {"size": size, "seconds": time, "updates_per_second": size / time, "gigaflop_per_second": size / time}
        for size, time in zip(sizes, seconds, strict=True)
    ]
    shares = shares or [0.1] * len(rows)
    return [{**row, "share_of_matrix_rate": share} for row, share in zip(rows, shares, strict=True)]


def test_the_knee_is_the_smallest_size_near_the_best_throughput():
    rows = rows_of([1, 2, 4, 8], [1.0, 1.0, 1.6, 3.2])  # 1, 2, 2.5, 2.5 a second
    assert scaling.find_knee("runs", rows) == 2
    assert scaling.find_knee("runs", rows_of([1, 2, 4], [1.0, 1.0, 1.0])) == 4


def test_what_bounds_is_told_by_the_growth_of_the_time_and_the_share_of_the_matrix_rate():
    assert "overhead" in scaling.name_bound("runs", rows_of([1, 4], [1.0, 1.1], [0.1, 0.4]))
    assert "arithmetic" in scaling.name_bound("runs", rows_of([1, 4], [1.0, 3.9], [0.6, 0.6]))
    assert "elementwise" in scaling.name_bound("runs", rows_of([1, 4], [1.0, 3.9], [0.1, 0.1]))


@pytest.mark.parametrize("small", [True, False])
def test_every_size_is_measured_once_and_the_default_is_shared_by_the_axes(small, monkeypatch):
    asked = []

    def compile_updates(agent, runs, seed):
        asked.append((agent, runs))
        row = {name: value for name, value in rows_of([runs], [1.0])[0].items() if name != "size"}
        return lambda timer: row

    monkeypatch.setattr(scaling, "matrix_rates", lambda: {"any": 2.0})
    monkeypatch.setattr(scaling, "compile_updates", compile_updates)
    lanes = {"seconds": 0.1, "steps_per_second": 10.0}
    monkeypatch.setattr(scaling, "compile_environments", lambda simulator, count, seed: lambda timer: lanes)
    monkeypatch.setattr(scaling, "choose_simulator", lambda: "jax" if small else "warp")
    axes = scaling.measure(0, small, lambda call: 1.0)["axes"]
    assert {axis: tuple(row["size"] for row in found["rows"]) for axis, found in axes.items()} == {
        axis: sizes[small] for axis, sizes in scaling.SIZES.items() if axis != "warp" or not small
    }
    sizes = sum(len(scaling.SIZES[axis][small]) for axis in ("runs", "halved", "particles", "units"))
    assert len(asked) == len(set(asked)) == sizes - (2 if small else 1)
    assert axes["runs"]["rows"][-1]["share_of_matrix_rate"] == scaling.SIZES["runs"][small][-1] / 2.0


def test_the_picture_and_the_page_take_what_a_run_gives_and_say_that_it_was_small(tmp_path):
    lanes = [{"size": n, "seconds": 0.1, "steps_per_second": 10.0 * n} for n in (8, 64)]
    axes = {
        axis: {"rows": rows_of([1, 2, 4], [1.0, 1.0, 1.6]), "knee": 2, "bound": "overhead"}
        for axis in ("runs", "halved", "particles", "units")
    } | {"environments": {"rows": lanes, "knee": 64, "bound": "overhead"}}
    result = {"matrix_rate": 100.0, "axes": axes, "small": True, "device": "cpu"}
    scaling.draw(tmp_path / "scaling.png", result)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    page = measurements.scaling(result)
    assert (
        "not yet measured" in page
        and "| environments | 64 | 100.0 | 640 control steps |  |  | the largest tried |" in page
    )
    assert "not yet measured" not in measurements.scaling({**result, "small": False})
