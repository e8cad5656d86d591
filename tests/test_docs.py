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
    elsewhere = {"gates", "planted_bugs", "reliability"}  # docs/testing.md, a section of its own
    files = {path.stem for path in (ROOT / "results").glob("*.json")}
    assert files - elsewhere <= measurements.SECTIONS.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / link).exists(), link
