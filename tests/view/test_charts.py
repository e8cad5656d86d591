import json

import numpy as np
import pytest
from PIL import Image

from qompose.types import QomposeError
from qompose.view.charts import draw_comparison, draw_curves

ROWS = [("left", (0.1, 0.02), (0.13, 0.06)), ("right", (0.3, 0.1), (0.1, 0.08))]
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def has(path, colour):
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(pixels - colour) < 12).all(axis=-1).sum())


def test_comparison_shows_both_figures_and_writes_them_beside(tmp_path):
    numbers = draw_comparison(tmp_path / "a.png", {"sql": ROWS}, names=("here", "paper"), label="distance (m)")
    assert json.loads((tmp_path / "a.json").read_text()) == numbers
    assert numbers == {
        "names": ["here", "paper"],
        "panels": {"sql": [["left", [0.1, 0.02], [0.13, 0.06]], ["right", [0.3, 0.1], [0.1, 0.08]]]},
    }
    assert has(tmp_path / "a.png", BLUE) > 50 and has(tmp_path / "a.png", ORANGE) > 50


def test_every_panel_takes_its_room(tmp_path):
    widths = []
    for count in (1, 3):
        panels = {str(index): ROWS for index in range(count)}
        draw_comparison(tmp_path / "a.png", panels, names=("here", "paper"), label="m")
        with Image.open(tmp_path / "a.png") as picture:
            widths.append(picture.width)
    assert widths[1] > 2 * widths[0]


def test_curves_have_a_colour_each_and_a_line_for_each_seed(tmp_path):
    curves = {"fast": [[(1, 0.9), (100, 0.2)], [(1, 0.8), (100, 0.1)]], "slow": [[(1000, 0.9), (100_000, 0.2)]]}
    labels = ("steps", "distance (m)")
    numbers = draw_curves(tmp_path / "a.png", {"Figure": curves}, labels=labels, logarithmic="x")
    assert json.loads((tmp_path / "a.json").read_text()) == numbers
    assert numbers["panels"]["Figure"]["fast"] == [[[1, 0.9], [100, 0.2]], [[1, 0.8], [100, 0.1]]]
    assert has(tmp_path / "a.png", BLUE) > 50 and has(tmp_path / "a.png", ORANGE) > 50


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(QomposeError, match=r"use \.png, \.svg, \.pdf"):
        draw_curves(tmp_path / "a.txt", {}, labels=("", ""), logarithmic="x")


def test_curves_of_several_panels_share_their_levels_with_nobody(tmp_path):
    panels = {title: {"sql": [[(1, 0.9), (100, 0.02)]]} for title in ("one", "two")}
    numbers = draw_curves(
        tmp_path / "a.png", panels, labels=("minutes", "m"), logarithmic="y", levels={"two": {"2 cm": 0.02}}
    )
    assert list(numbers["panels"]) == ["one", "two"] and numbers["levels"] == {"two": {"2 cm": 0.02}}
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1.5 * picture.height


def test_panels_share_an_axis_that_holds_the_curves_of_all(tmp_path):
    panels = {title: {"sql": [[(1, height), (100, height)]]} for title, height in (("low", 0.1), ("high", 1.0))}
    draw_curves(tmp_path / "a.png", panels, labels=("steps", "m"), logarithmic="x")
    with Image.open(tmp_path / "a.png") as picture:
        right = picture.crop((picture.width // 2, 0, picture.width, picture.height // 2))
        right.save(tmp_path / "right.png")
    assert has(tmp_path / "right.png", BLUE) > 50
