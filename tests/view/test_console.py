import io

import pytest
from rich.console import Console

from qompose.view.console import Bars, bars, describe, print_table


def test_figures_are_described_in_a_few_words():
    figures = {"rollout/distance": 0.12345, "rollout/ep_rew_mean": -12.34, "time/fps": 801.7, "train/q": 3.0}
    assert describe(figures) == "distance 0.123  return -12.3  steps/s 802"
    assert describe({}) == ""


def test_without_a_terminal_there_is_a_line_for_every_tenth(capsys):
    with bars() as shown:
        for step in range(0, 1001, 50):
            shown.update("left", step, 1000, {"rollout/distance": 1.0})
        shown.update("right", 3, 10)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""  # standard output stays for the answer
    assert len(lines) == 11 and lines[0] == "left            10 %  distance 1.000"
    assert lines[9].startswith("left           100 %") and lines[10].strip() == "right           30 %"


def test_bars_that_are_not_wanted_are_silent(capsys):
    with bars(False) as shown:
        for step in range(10):
            shown.update("left", step, 10)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_are_bars_with_figures_and_no_lines():
    stream = io.StringIO()
    shown = Bars(Console(file=stream, force_terminal=True, width=120))
    with shown._progress:
        shown.update("left", 250, 1000, {"rollout/distance": 0.5})
        shown.update("right", 0, 1000)
        shown._progress.refresh()
    text = stream.getvalue()
    assert "left" in text and "25 %" in text and "distance 0.500" in text and "right" in text


@pytest.mark.parametrize("total", [0, 1])
def test_nothing_to_do_is_no_division_by_zero(total, capsys):
    with bars() as shown:
        shown.update("left", total, total)
    assert ("100 %" in capsys.readouterr().err) == (total == 1)


def test_markup_in_names_is_shown_as_it_is(capsys):
    with bars() as shown:
        shown.update("[red]x[/red]", 5, 10)
    print_table("[b]t[/b]", ("a",), [("[i]cell[/i]",)])
    out, err = capsys.readouterr()
    assert "[red]x[/red]" in err and "[b]t[/b]" in out and "[i]cell[/i]" in out


def test_a_table_goes_to_standard_output_whatever_the_cells_are(capsys):
    print_table("title", ("name", "steps"), [("left", 600), ("right", None), ("top", 1.5)])
    out, err = capsys.readouterr()
    assert err == "" and all(word in out for word in ("title", "name", "left", "600", "None", "1.5"))


def test_a_title_wider_than_its_table_stays_on_one_line(capsys):
    print_table("a title of many words " * 5, ("a",), [(1,)])
    assert capsys.readouterr().out.splitlines()[0].strip() == ("a title of many words " * 5).strip()
