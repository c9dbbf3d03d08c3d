"""What the client may have at once, what never, and when the answer is complete."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.gate import BodyGate, Gate, StreamGate, UsageGate
from tests.core.pieces import cut, one_by_one, places

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
HELD_AT_MOST = 64 * 1024
CONTENT = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n'
EXTRA = b'data: {"choices":[],"usage":{"prompt_tokens":9}}\n\n'


def passed(gate: Gate | UsageGate, pieces: list[bytes]) -> bytes:
    return b"".join([*(gate.feed(piece) for piece in pieces), gate.end()])


def chunk(**members: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **members}


def choices(text: str) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": text}, "finish_reason": None}]


content_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(['data: [DONE]\n\n{"usage":{"a":1},"choices":[]}', "\u2028[DONE]", '"usage":{']),
)
content_chunks = st.one_of(
    content_texts.map(lambda text: chunk(choices=choices(text))),
    content_texts.map(lambda text: chunk(choices=choices(text), usage=None)),
    content_texts.map(lambda text: chunk(usage=USAGE, choices=choices(text))),
    st.just(chunk(choices=[])),
    st.just(chunk(choices=[], usage=None)),
    st.just(chunk(error={"message": "no"}, usage=USAGE)),
    st.just({}),
)
extra_chunks = st.sampled_from(
    [chunk(choices=[], usage=USAGE), chunk(usage=USAGE), {"usage": USAGE, "choices": None}, {"usage": {}}]
)
other_data = st.sampled_from(
    [b"[DONE]", b"[]", b'{"usage":{"a":1},"choices":[]', b'{"usage":{}} x', b"7", b"", b"\xff"]
)
# JSON as compact as can be, as Python writes it, and over several data lines.
writings: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"ensure_ascii": False}, {"indent": 1}]
)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Bytes that begin at the start of a line with no event open, and whether they are an extra usage chunk."""
    end = draw(st.sampled_from([b"\n", b"\r", b"\r\n"]))
    kind = draw(st.sampled_from(["content", "extra", "other", "comment", "blank"]))
    if kind == "comment":
        return draw(st.sampled_from([b": ping", b":", b': {"usage":{}}'])) + end, False
    if kind == "blank":
        return end, False
    if kind == "other":
        data = draw(other_data)
    else:
        value = draw(extra_chunks if kind == "extra" else content_chunks)
        data = json.dumps(value, **draw(writings)).encode()
    space = draw(st.sampled_from([b"", b" "]))
    lines = [b"data:" + space + line for line in data.split(b"\n")]
    lines = draw(st.sampled_from([[], [b"event: message"], [b"id: 1", b": inside"]])) + lines
    return b"".join(line + end for line in lines) + end, kind == "extra"


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream and what the client is to see of it."""
    sent, seen = b"", b""
    for block, is_extra in draw(st.lists(blocks(), max_size=8)):
        if sent.endswith(b"\r") and block.startswith(b"\n"):
            continue  # that would be one line end, not two
        sent += block
        seen += b"" if is_extra else block
    return sent, seen


@settings(max_examples=400)
@given(streams(), places)
def test_only_the_extra_usage_chunks_are_missing(stream: tuple[bytes, bytes], places: list[int]) -> None:
    sent, seen = stream
    assert passed(UsageGate(), [sent]) == seen
    assert passed(UsageGate(), cut(sent, places)) == seen
    assert passed(UsageGate(), one_by_one(sent)) == seen
    assert passed(StreamGate(hold_usage=True), cut(sent, places)) == seen
    assert passed(StreamGate(hold_usage=False), cut(sent, places)) == sent


@settings(max_examples=200)
@given(st.binary(max_size=300), places)
def test_garbage_passes_whole(garbage: bytes, places: list[int]) -> None:
    assert passed(UsageGate(), cut(garbage, places)) == garbage


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_usage_chunk_at_the_very_end(end: str, missing: int) -> None:
    lines = ['data: {"choices":[],"usage":{"prompt_tokens":1}}', "", ""]
    stream = end.join(lines[: 3 - missing]).encode()
    assert passed(UsageGate(), one_by_one(stream)) == b""


@pytest.mark.parametrize(
    "start",
    [
        b'data: {"choices":[{"delta":{"content":"hel',
        b'data: {"id":"x", "choices" : [ {',
        b"data: [DONE]",
        b"data:[",
        b"data: hello",
        b'event: x\r\nid: 1\r\ndata: "',
        b'data: {"choices":\ndata: [{"ind',
    ],
)
def test_what_can_be_no_usage_chunk_passes_at_once(start: bytes) -> None:
    assert UsageGate().feed(start) == start
    gate = UsageGate()
    assert gate.feed(EXTRA + start) == start
    assert gate.feed(b"rest\n\n" + EXTRA + CONTENT) == b"rest\n\n" + CONTENT


@pytest.mark.parametrize(
    "start",
    [b"d", b"data:", b"data: {", b'data: {"id":"x","choices":[', b'data: {"choices":\ndata: [\nda', b"event: x\n"],
)
def test_what_may_become_a_usage_chunk_is_held(start: bytes) -> None:
    gate = UsageGate()
    assert gate.feed(start) == b""
    assert gate.end() == start


def test_complete_events_pass_at_once() -> None:
    gate = UsageGate()
    assert gate.feed(CONTENT + b'data: {"usage":') == CONTENT
    assert gate.feed(b'{"a":1}}\n') == b""
    assert gate.feed(b"\n" + CONTENT) == CONTENT


def test_a_line_feed_behind_a_dropped_chunk_goes_with_it() -> None:
    gate = UsageGate()
    assert gate.feed(EXTRA.replace(b"\n", b"\r\n")[:-1]) == b""
    assert gate.feed(b"\n" + CONTENT) == CONTENT


def test_a_line_feed_behind_a_passed_event_goes_with_it() -> None:
    gate = UsageGate()
    sent = CONTENT.replace(b"\n", b"\r\n")
    assert gate.feed(sent[:-1]) == sent[:-1]
    assert gate.feed(b"\n") == b"\n"


def test_comments_and_blank_lines_in_front_of_a_usage_chunk_stay() -> None:
    assert passed(UsageGate(), [b"\n: ping\n" + EXTRA + b": pong\n\n"]) == b"\n: ping\n: pong\n\n"


def test_a_byte_order_mark_in_front_of_a_usage_chunk_stays() -> None:
    mark = b"\xef\xbb\xbf"
    for pieces in ([mark + EXTRA + CONTENT], one_by_one(mark + EXTRA + CONTENT), [mark, EXTRA, CONTENT]):
        assert passed(UsageGate(), pieces) == mark + CONTENT
    # Anywhere else it is part of a field's name, and the event has no data.
    for pieces in ([CONTENT + mark + EXTRA], one_by_one(CONTENT + mark + EXTRA), [CONTENT, mark, EXTRA]):
        assert passed(UsageGate(), pieces) == CONTENT + mark + EXTRA


def test_choices_count_only_in_data() -> None:
    sent = EXTRA[:-1] + b'x: {"choices":[{"delta":{}}]}\n\n'
    assert passed(UsageGate(), [sent]) == passed(UsageGate(), one_by_one(sent)) == b""


def test_an_error_beside_usage_is_not_kept_from_the_client() -> None:
    sent = b'data: {"error":{"message":"overloaded"},"usage":{"prompt_tokens":1}}\n\n'
    assert passed(UsageGate(), [sent]) == sent


@pytest.mark.parametrize("start", [b'data: {"usage":{"x":"', b"nonsense", b": ", b"event: "])
@pytest.mark.parametrize("size", [1000, 64 * 1024 - 1, 64 * 1024, 200_000])
def test_never_more_is_held_than_allowed(start: bytes, size: int) -> None:
    gate = UsageGate()
    sent = start + b"x" * 300_000
    came = went = 0
    for at in range(0, len(sent), size):
        came += len(sent[at : at + size])
        went += len(gate.feed(sent[at : at + size]))
        assert came - went <= HELD_AT_MOST
        assert len(gate._event) <= HELD_AT_MOST
    assert went + len(gate.end()) == len(sent)


def test_after_an_event_that_was_too_long_to_hold_usage_is_held_again() -> None:
    long = b'data: {"x":"' + b"x" * 100_000 + b'"}\r\n\r\n'
    assert passed(UsageGate(), cut(long + EXTRA + CONTENT, [70_000, 90_000, 100_010, len(long) - 1])) == long + CONTENT


# Complete

DONE_LINES = [b"data: [DONE]", b"data:[DONE]", b"data: [DONE] \t"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("done", DONE_LINES)
@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("before", [b"", CONTENT, b": ping\n", CONTENT * 3 + EXTRA])
def test_complete_turns_true_with_the_byte_that_completes_done(
    before: bytes, hold: bool, done: bytes, end: bytes
) -> None:
    gate = StreamGate(hold_usage=hold)
    completing = len(before) + done.index(b"]") + 1
    for place, byte in enumerate(one_by_one(before.replace(b"\n", end) + done + end * 2), start=1):
        gate.feed(byte)
        assert gate.complete == (place >= completing + before.count(b"\n") * (len(end) - 1))


@settings(max_examples=200)
@given(streams(), places, st.sampled_from(DONE_LINES))
def test_complete_turns_true_with_the_piece_that_holds_done(
    stream: tuple[bytes, bytes], places: list[int], done: bytes
) -> None:
    sent = stream[0].replace(b"data: [DONE]", b"data: 1").replace(b"data:[DONE]", b"data: 1") + done + b"\n\n"
    gate = StreamGate(hold_usage=True)
    came = 0
    for piece in cut(sent, places):
        gate.feed(piece)
        came += len(piece)
        assert gate.complete == (came >= len(sent) - len(done[done.index(b"]") + 1 :]) - 2)


@settings(max_examples=200)
@given(places, st.integers(0, 40), st.integers(0, 40))
@pytest.mark.parametrize(
    "line", [b": data: [DONE]", b'data: "data: [DONE]', b"data: [DONE", b"xdata: [DONE]", b"[DONE]"]
)
def test_done_anywhere_else_does_not_complete(line: bytes, places: list[int], before: int, behind: int) -> None:
    stream = b"data: x\n\n" + b"y" * before + line + b"\n" + b"z" * behind + b"\n\n"
    for pieces in (cut(stream, places), one_by_one(stream)):
        gate = StreamGate(hold_usage=False)
        for piece in pieces:
            gate.feed(piece)
            assert not gate.complete


def test_done_is_not_held_without_its_line_end() -> None:
    gate = StreamGate(hold_usage=True)
    assert gate.feed(b"data: [DONE]") == b"data: [DONE]"
    assert gate.complete


# Bodies


def test_a_body_is_complete_with_its_last_byte() -> None:
    gate = BodyGate(5)
    assert (gate.feed(b"1234"), gate.complete) == (b"1234", False)
    assert (gate.feed(b"5"), gate.complete) == (b"5", True)
    assert gate.end() == b""


def test_a_body_of_unknown_length_is_complete_only_at_its_end() -> None:
    gate = BodyGate(None)
    assert gate.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert not gate.complete


@pytest.mark.parametrize("start", [b'data: {"usage": {', b"data: [", b'data: {"choices":[', b": "])
def test_an_event_that_comes_byte_by_byte_is_not_gone_through_with_each(start: bytes) -> None:
    gate = UsageGate()
    text = start + b"x" * 70_000
    passed = b"".join(gate.feed(text[at : at + 1]) for at in range(len(text)))
    assert passed + gate.end() == text
