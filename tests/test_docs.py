"""The documents say what the results and the programme say."""

import re
from pathlib import Path

import pytest

from benchmarks import measurements, testing_page

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("source", [measurements, testing_page], ids=lambda source: source.PAGE.name)
def test_a_page_of_measurements_holds_what_the_results_hold(source):
    assert source.PAGE.read_text(encoding="utf-8") == source.write_page()


def test_every_result_stands_on_a_page():
    elsewhere = {"gates", "planted_bugs", "suite_time", "reliability"}  # docs/testing.md, a section of its own
    files = {path.stem for path in (ROOT / "results").glob("*.json")}
    assert files - elsewhere <= measurements.SECTIONS.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(document):
    for link, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]+)?\)", document.read_text(encoding="utf-8")):
        target = document.parent / link if link else document
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), f"{link}{anchor}"


def headings(document):
    """The anchors of a document's headings."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {"#" + measurements.anchor_of(title) for title in titles}
