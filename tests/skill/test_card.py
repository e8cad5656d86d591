"""The card of a skill: what people read first, and what nobody's words can spoil."""

import itertools

import pytest
from markdown_it import MarkdownIt

from qompose.skill.artifact import load

PAST = {
    "command": "qompose train", "steps": 60_000, "seed": 3, "results": {"distance": 0.0291234, "success": 1.0},
    "start": {"name": "early", "sha256": "0" * 4}, "experience": [{"name": "right"}, {"name": "top"}],
    "versions": {"qompose": "0.1.0", "numpy": "2"},
}  # fmt: skip


def cells(directory):
    """The rows of the card's table, as (what, words), after Markdown has been read."""
    text = (directory / "README.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert not [token for token in tokens if token.type == "html_block"]
    found = [after for token, after in itertools.pairwise(tokens) if token.type == "td_open"]
    assert all(child.type in ("text", "code_inline") for cell in found for child in cell.children)
    words = ["".join(child.content for child in cell.children) for cell in found]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_card_says_what_the_skill_is_and_how_to_load_it(make_skill, tmp_path):
    directory = make_skill("left", provenance=PAST).save(tmp_path / "left")
    assert cells(directory) == {
        "task": "qompose/PushLeft-v0 fork=True goal=-1",
        "algorithm": "soft Q-learning, discount 0.99, temperature 0.1 in units of the reward",
        "observation": "4 numbers: x, y, dx, dy",
        "action": "2 numbers, in the environment -3 to 3, 0 to 0.1",
        "control period": "0.05 s",
        "environment steps": "60000",
        "seed": "3",
        "also learned from the experience of": "right, top",
        "started from": "name=early, sha256=0000",
        "at the end of its training": "distance=0.02912, success=1",
        "experience": "5 transitions",
        "made with": "qompose 0.1.0",
        "command": "qompose train",
    }
    text = (directory / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# left\n") and 'qp.load("path/to/this/folder")' in text


def test_a_card_without_data_says_what_the_skill_is_not_good_for(make_skill, make_naf, tmp_path):
    stripped = cells(make_skill().save(tmp_path / "left", replay=False))
    assert stripped["experience"] == "none: it acts, but cannot be composed by extraction, corrected or explained"
    assert cells(make_naf().save(tmp_path / "naf"))["algorithm"] == "NAF, discount 0.99"


@pytest.mark.parametrize(
    "words", ["`<img src=x onerror=alert(1)>`", "a | b \\| c", "[here](http://x)", "x" * 4000, "**"]
)
def test_nobodys_words_leave_their_cell(make_skill, tmp_path, words):
    task = {"id": words[:200], "options": {}}
    directory = make_skill(provenance={**PAST, "command": words}, task=task).save(tmp_path / "left")
    found = cells(directory)
    assert len(found) == 13 and len(found["command"]) <= 1000
    assert found["command"][:900] == words[:900].replace("`", "'")
    assert load(directory).provenance["command"] == words
