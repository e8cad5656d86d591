import json
import sys

import numpy as np
import pytest
from PIL import Image

from qompose.types import QomposeError
from qompose.view.pictures import draw_final_positions, draw_learning_curves

RNG = np.random.default_rng(0)
LEFT, BOTTOM = RNG.normal((-1, 0), 0.1, (20, 2)), RNG.normal((0.5, -1), 0.1, (20, 2))
BOTH = RNG.normal((-1, -1), 0.05, (20, 2))
GROUPS = [("left", LEFT, "tab:blue"), ("bottom", BOTTOM, "tab:orange"), ("both", BOTH, "tab:green")]
GOALS = [(-1.0, None), (None, -1.0)]


def has(path, colour):
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(pixels - colour) < 12).all(axis=-1).sum())


@pytest.fixture
def run(tmp_path):
    def make(name, lines):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


def test_numbers_lie_beside_the_picture_of_final_positions(tmp_path):
    numbers = draw_final_positions(tmp_path / "a.png", GROUPS, title="Figure", goals=GOALS)
    assert json.loads((tmp_path / "a.json").read_text()) == numbers
    assert [group["label"] for group in numbers["groups"]] == ["left", "bottom", "both"]
    assert numbers["groups"][0]["mean"] == pytest.approx(LEFT.mean(axis=0).tolist())
    assert np.allclose(numbers["groups"][2]["positions"], BOTH, atol=1e-4)
    assert numbers["goals"] == [[-1.0, None], [None, -1.0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_average_is_that_of_the_constituents_means(tmp_path):
    numbers = draw_final_positions(tmp_path / "a.png", GROUPS, title="Figure", goals=GOALS)
    expected = (LEFT.mean(axis=0) + BOTTOM.mean(axis=0)) / 2
    assert numbers["average_of_constituents"] == pytest.approx(expected.tolist())
    alone = draw_final_positions(tmp_path / "b.png", GROUPS[:2], title="Figure", goals=GOALS)
    assert alone["average_of_constituents"] is None


def test_picture_shows_every_group_in_its_colour(tmp_path):
    draw_final_positions(tmp_path / "a.png", GROUPS, title="Figure", goals=GOALS)
    blue, green = (31, 119, 180), (44, 160, 44)
    assert has(tmp_path / "a.png", blue) > 50 and has(tmp_path / "a.png", green) > 50
    draw_final_positions(tmp_path / "b.png", GROUPS[:1], title="Figure", goals=[(-1.0, -1.0)])
    assert has(tmp_path / "b.png", blue) > 50 and has(tmp_path / "b.png", green) == 0


def test_puck_far_away_is_still_inside_the_picture(tmp_path):
    far = np.array([[3.0, 0.0]] * 30)
    draw_final_positions(tmp_path / "a.png", [("far", far, "#ff0000")], title="Figure", goals=[])
    assert has(tmp_path / "a.png", (255, 0, 0)) > 30


@pytest.mark.parametrize("positions", [np.zeros((0, 2)), np.zeros((3, 3)), np.full((2, 2), np.nan)])
def test_positions_that_are_none_are_refused(tmp_path, positions):
    with pytest.raises(QomposeError, match="group 'left': positions must be finite"):
        draw_final_positions(tmp_path / "a.png", [("left", positions, "red")], title="Figure", goals=[])
    assert list(tmp_path.iterdir()) == []


def test_learning_curves_hold_training_and_evaluation(tmp_path, run):
    lines = [
        {"step": 1000, "train/loss": 1.0},
        {"step": 2000, "rollout/ep_rew_mean": -3.0, "rollout/distance": 0.5, "rollout/success_rate": 0.0},
        {"step": 3000, "rollout/ep_rew_mean": -2.0, "rollout/distance": None, "eval/mean_reward": -1.5},
    ]
    numbers = draw_learning_curves(tmp_path / "a.png", [run("left", lines), run("bottom", lines[:2])])
    left, bottom = numbers["runs"]
    assert left["rollout/ep_rew_mean"] == [(2000, -3.0), (3000, -2.0)] and left["eval/mean_reward"] == [(3000, -1.5)]
    assert left["rollout/distance"] == [(2000, 0.5)] and bottom["run"] == "bottom" and "eval/mean_reward" not in bottom
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(numbers))
    assert has(tmp_path / "a.png", (0, 114, 178)) > 20 and has(tmp_path / "a.png", (230, 159, 0)) > 20


def test_only_what_the_runs_have_is_drawn(tmp_path, run):
    one = run("one", [{"step": s, "rollout/ep_rew_mean": 1.0} for s in (1, 2)])
    two = run("two", [{"step": s, "rollout/ep_rew_mean": 1.0, "rollout/distance": 1.0} for s in (1, 2)])
    widths = []
    for name, folder in (("a", one), ("b", two)):
        draw_learning_curves(tmp_path / f"{name}.png", [folder])
        with Image.open(tmp_path / f"{name}.png") as picture:
            widths.append(picture.width)
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.02)


def test_runs_of_the_same_name_are_told_apart(tmp_path, run):
    lines = [{"step": 1, "rollout/ep_rew_mean": 1.0}]
    folders = [run("seed-0/left", lines), run("seed-1/left", lines)]
    numbers = draw_learning_curves(tmp_path / "a.png", folders)
    assert [item["run"] for item in numbers["runs"]] == ["seed-0/left", "seed-1/left"]


@pytest.mark.parametrize(
    ("lines", "message"), [([], "has no metrics"), ([{"step": 1, "time/fps": 2.0}], "no episode had ended")]
)
def test_run_with_nothing_to_draw_is_refused(tmp_path, run, lines, message):
    with pytest.raises(QomposeError, match=message):
        draw_learning_curves(tmp_path / "a.png", [run("left", lines)])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["a", "a.jpeg", "a.json"])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(QomposeError, match=r"use \.png, \.svg, \.pdf"):
        draw_final_positions(tmp_path / name, GROUPS, title="Figure", goals=GOALS)


def test_json_of_somebody_else_is_not_overwritten(tmp_path, run):
    (tmp_path / "config.json").write_text("{}")
    folder = run("left", [{"step": 100, "rollout/ep_rew_mean": -1.0}])
    with pytest.raises(QomposeError, match=r"config\.json exists"):
        draw_learning_curves(tmp_path / "config.png", [folder])
    assert (tmp_path / "config.json").read_text() == "{}"
    for suffix in ("png", "png", "svg"):  # its own it may replace
        draw_learning_curves(tmp_path / f"curves.{suffix}", [folder])


def test_vector_pictures_are_written_too(tmp_path):
    draw_final_positions(tmp_path / "a.svg", GROUPS, title="Figure", goals=GOALS)
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_pyplot_is_never_loaded(tmp_path):
    draw_final_positions(tmp_path / "a.png", GROUPS, title="Figure", goals=GOALS)
    assert "matplotlib.pyplot" not in sys.modules
