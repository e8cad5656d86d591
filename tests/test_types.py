from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pytest

from qompose.types import QomposeError, check_kinds, check_options, find_misfit


@dataclass(frozen=True)
class Settings:
    count: int = 1
    rate: float = 0.5
    limit: int | None = None
    flag: bool = True
    layers: tuple[int, ...] = (8, 8)
    word: Literal["a"] = "a"

    def __post_init__(self):
        check_kinds(self)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 4e1}, "count is 40.0; give an integer"), ({"count": True}, "count is True; give an integer"),
        ({"rate": "0.1"}, "rate is '0.1'; give a number"), ({"rate": None}, "rate is None; give a number"),
        ({"rate": False}, "rate is False; give a number"), ({"limit": 1.5}, "limit is 1.5; give an integer"),
        ({"flag": 1}, "flag is 1; give true or false"), ({"layers": 8}, "layers is 8; give integers"),
        ({"layers": (8, 8.0)}, r"layers is \(8, 8.0\); give integers"),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_kind_is_refused_in_one_line(given, message):
    with pytest.raises(QomposeError, match=message):
        Settings(**given)


def test_what_is_meant_is_taken_and_made_plain():
    settings = Settings(count=np.int64(3), rate=np.float32(0.5), limit=None, layers=[np.int64(4), 4], word="anything")
    assert type(settings.count) is int and settings == Settings(count=3, rate=0.5, layers=(4, 4), word="anything")
    assert type(settings.rate) is float and [type(size) for size in settings.layers] == [int, int]
    hash(settings)


def test_annotations_that_are_unknown_are_not_looked_at():
    assert find_misfit("Literal['a']", 3) is None


class Place(NamedTuple):
    x: float
    y: float


def test_options_are_plain_and_what_is_no_number_stays_what_it_is():
    place, array = Place(1.0, 2.0), np.zeros(2)
    found = check_options({"goals": [np.int64(1), (np.float32(0.5),)], "place": place, "array": array, "none": None})
    assert found == {"goals": [1, (0.5,)], "place": place, "array": array, "none": None}
    assert type(found["goals"][0]) is int and type(found["goals"][1][0]) is float and found["place"].x == 1.0
