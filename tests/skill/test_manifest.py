import copy
import json

import pytest

from qompose.skill import manifest as module
from qompose.skill.manifest import check_fields, check_manifest
from qompose.types import QomposeError


@pytest.fixture
def whole(make_skill, tmp_path):
    return json.loads((make_skill().save(tmp_path / "s") / "manifest.json").read_text())


def test_a_saved_manifest_is_returned_as_it_is(whole):
    assert check_manifest(copy.deepcopy(whole)) == whole


def test_checking_changes_nothing_and_shares_nothing(whole):
    before = copy.deepcopy(whole)
    checked = check_manifest(whole)
    checked["task"]["options"]["goal"] = 7
    checked["action"]["low"][0] = 7.0
    checked["provenance"]["versions"]["numpy"] = "7"
    assert whole == before


def test_whole_numbers_become_floats_where_a_float_is_meant(whole):
    checked = check_manifest({**whole, "temperature": 1, "control_period": 2})
    assert type(checked["temperature"]) is float
    assert type(checked["control_period"]) is float


def test_free_parts_keep_their_types(whole):
    free = {"i": 1, "f": 1.0, "b": True, "n": None, "s": "é", "l": [1, [2.5]], "d": {"e": {"g": 1}}}
    found = check_manifest({**whole, "provenance": free})["provenance"]
    assert found == free
    assert [type(v) for v in found.values()] == [type(v) for v in free.values()]


def test_the_free_parts_have_a_limit_of_entries(whole):
    check_manifest({**whole, "provenance": {"x": [0] * (module.MOST_ENTRIES - 2)}})
    with pytest.raises(QomposeError, match=f"more than {module.MOST_ENTRIES} entries"):
        check_manifest({**whole, "provenance": {"x": [0] * (module.MOST_ENTRIES - 1)}})


def test_options_may_hold_points_and_nothing_deeper(whole):
    check_manifest({**whole, "task": {"id": "x", "options": {"goals": [0, [1.0, 2.0]]}}})
    with pytest.raises(QomposeError, match=r"task\.options\.a.*: must be a string, a number, true, false or null"):
        check_manifest({**whole, "task": {"id": "x", "options": {"a": [[[]]]}}})


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, float("nan")])
def test_what_json_cannot_say_is_refused(whole, value):
    fields = {name: whole[name] for name in module.FIELDS}
    with pytest.raises(QomposeError, match=r"provenance\.x: must be"):
        check_fields({**fields, "provenance": {"x": value}})


def test_an_older_reader_of_a_newer_skill_says_upgrade(whole):
    with pytest.raises(QomposeError, match="upgrade qompose"):
        check_manifest({**whole, "version": module.VERSION + 1, "surprise": 1})
