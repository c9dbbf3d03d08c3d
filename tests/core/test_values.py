"""Which values a field has."""

from collections import Counter

import pytest

from gateway.core import values
from gateway.core.filters import Kind
from gateway.core.values import VALUE_AT_MOST, counted, held, most_frequent


def test_fields() -> None:
    assert list(held(["a", None, "", "A"], "model", None, Kind.TEXT)) == ["a", "A"]
    assert list(held([1, 0, None], "stream", None, Kind.BOOL)) == [True, False]
    assert list(held([200, 0, None], "status_code", None, Kind.WHOLE)) == [200, 0]


def test_keys_and_members_of_objects() -> None:
    stored = ['{"plan": "pro", "n": 1, "_h": 2}', None, '{"plan": "", "deep": {"a": [1]}, "t": true}', "5"]
    assert list(held(stored, "metadata", None, Kind.OBJECT)) == ["plan", "n", "plan", "deep", "t"]
    assert list(held(stored, "properties", None, Kind.OBJECT)) == ["plan", "n", "_h", "plan", "deep", "t"]
    for key, expected in (("plan", ["pro"]), ("n", ["1"]), ("deep", ['{"a":[1]}']), ("t", ["true"]), ("x", [])):
        assert list(held(stored, "metadata", key, Kind.TEXT)) == expected
        assert list(held(stored, "properties", key, Kind.TEXT)) == expected
    assert list(held(stored, "metadata", "_h", Kind.TEXT)) == []


def test_the_most_frequent_come_first_and_those_alike_by_their_text() -> None:
    found = Counter(["b", "a", "Grün", "b", "a", "c", "GRÜN"])
    assert most_frequent(found, "", 3) == [("a", 2), ("b", 2), ("GRÜN", 1)]
    assert most_frequent(found, "grü", 9) == [("GRÜN", 1), ("Grün", 1)]
    assert most_frequent(Counter([True, False, True]), "T", 9) == [(True, 2)]
    assert most_frequent(Counter([429, 200, 429]), "4", 9) == [(429, 2)]


def test_what_is_long_is_left_out_and_no_more_is_read_than_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * (VALUE_AT_MOST + 1)
    assert counted([long, long[1:], "a", None, "a"], "model", None, Kind.TEXT) == (5, {long[1:]: 1, "a": 2})
    assert counted([f'{{"{long}": 1, "k": "{long}"}}'], "metadata", None, Kind.OBJECT) == (1, {"k": 1})
    assert counted([f'{{"k": "{long}"}}'], "metadata", "k", Kind.TEXT) == (1, {})
    assert counted([1, 0], "stream", None, Kind.BOOL) == (2, {True: 1, False: 1})
    monkeypatch.setattr(values, "_ROOM", 6)
    stored = iter(["abc"] * 8)
    assert counted(stored, "model", None, Kind.TEXT) == (2, {"abc": 2})
    assert len(list(stored)) == 6
