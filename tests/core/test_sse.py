"""Server-sent events: the same events, however the bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.sse import Event, EventParser
from tests.core.pieces import cut, one_by_one, places

LIMIT = 1000

line_ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
lines = st.one_of(
    st.sampled_from(
        [b"", b"data", b"data:", b"data: ", b":", b": ping", b"event: x", b"event:y", b"id: 1", b"nonsense", b"\xff"]
    ),
    st.text(max_size=8).map(lambda text: b"data: " + text.encode().replace(b"\n", b"").replace(b"\r", b"")),
)
streams = st.builds(
    lambda mark, parts: mark + b"".join(line + end for line, end in parts),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(lines, line_ends), max_size=30),
)


def parsed(pieces: list[bytes], limit: int = LIMIT) -> tuple[list[Event], int, Event | None]:
    parser = EventParser(limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    last = parser.end()
    return events, parser.overlong, last


def data_of(stream: bytes) -> list[str]:
    return [event.data for event in parsed([stream])[0]]


@settings(max_examples=300)
@given(streams, places, st.sampled_from([8, 30, LIMIT]))
def test_any_cut_gives_the_same_events(stream: bytes, places: list[int], limit: int) -> None:
    whole = parsed([stream], limit)
    assert parsed(cut(stream, places), limit) == whole
    assert parsed(one_by_one(stream), limit) == whole


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), min_size=1), line_ends, places)
def test_text_comes_back_as_it_was_sent(texts: list[str], end: bytes, places: list[int]) -> None:
    stream = b"".join(b"data: " + text.encode("utf-8", "replace") + end * 2 for text in texts)
    events, _, _ = parsed(cut(stream, places), 10**6)
    assert [event.data for event in events] == [text.encode("utf-8", "replace").decode() for text in texts]


@settings(max_examples=200)
@given(st.binary(max_size=200), places)
def test_garbage_is_cut_anywhere_with_the_same_result(garbage: bytes, places: list[int]) -> None:
    assert parsed(cut(garbage, places)) == parsed([garbage])


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends(end: bytes) -> None:
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b": comment", b"data:3", b"", b""])
    assert parsed([stream])[0] == [Event("a", "1\n2"), Event("", "3")]


def test_mixed_line_ends() -> None:
    assert data_of(b"data: 1\r\rdata: 2\n\r\ndata: 3\r\n\ndata: 4\n\n") == ["1", "2", "3", "4"]


def test_only_one_space_is_taken_off() -> None:
    assert data_of(b"data:  two\n\n") == [" two"]


def test_an_event_without_data_is_none() -> None:
    assert parsed([b"event: ping\n\n: comment\n\nid: 4\n\ndata: x\n\n"])[0] == [Event("", "x")]


def test_data_without_a_colon_is_an_empty_line_of_data() -> None:
    assert data_of(b"data\ndata: x\n\ndata\n\n") == ["\nx", ""]


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    assert data_of(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n") == ["1"]
    assert parsed(one_by_one(b"\xef\xbb\xbfdata: 1\n\n"))[0] == [Event("", "1")]


def test_many_events_in_one_piece() -> None:
    assert len(parsed([b"data: x\n\n" * 10_000])[0]) == 10_000


def test_an_incomplete_event_is_given_at_the_end() -> None:
    assert parsed([b"data: 1\n\ndata: 2"])[2] == Event("", "2")
    assert parsed([b"data: 1\n\ndata: 2\n"])[2] == Event("", "2")
    assert parsed([b"data: 1\n\ndata: 2\r\n\r"])[2] is None
    assert parsed([b"data: 1\n\n"])[2] is None


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_an_overlong_event_is_passed_over_and_the_next_ones_come(size: int) -> None:
    stream = b"event: long\ndata: " + b"x" * 5000 + b"\ndata: more\n\ndata: next\n\n"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert parsed(pieces) == ([Event("", "next")], 1, None)


def test_an_event_of_many_lines_is_overlong_too() -> None:
    assert parsed([b"data: 12345678\n"] * 200 + [b"\n", b"data: next\n\n"]) == ([Event("", "next")], 1, None)


def test_comments_do_not_count_however_long() -> None:
    stream = b"data: 1\n:" + b"c" * 5000 + b"\ndata: 2\n\n"
    for pieces in ([stream], one_by_one(stream)):
        assert parsed(pieces) == ([Event("", "1\n2")], 0, None)


@pytest.mark.parametrize("start", [b"data: ", b": ", b"", b"data: x\ndata: "])
def test_memory_is_bounded(start: bytes) -> None:
    parser = EventParser(LIMIT)
    parser.feed(start)
    for _ in range(1000):
        parser.feed(b"x" * 100)
        assert sum(map(len, parser._rest)) <= LIMIT
        assert sum(map(len, parser._data)) <= LIMIT
