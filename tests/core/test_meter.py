"""What is measured of an answer, whatever its bytes are."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.meter import BodyMeter, Meter, Reading, StreamMeter
from tests.core.pieces import cut, one_by_one, places

LIMIT = 100_000
USAGE = {"prompt_tokens": 9, "completion_tokens": 2}
DIALECTS = ["chat", "completion", "response", "message", "other"]


def chunk(text: str | None = None, **members: Any) -> bytes:
    delta = {"role": "assistant"} if text is None else {"content": text}
    event = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}], **members}
    return f"data: {json.dumps(event)}\n\n".encode()


USAGE_CHUNK = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def read(meter: Meter, *pieces: bytes) -> Reading:
    """The reading of pieces that come a second apart, the first at second 1."""
    for second, piece in enumerate(pieces, start=1):
        meter.feed(float(second), piece)
    return meter.read()


def content(reading: Reading) -> Any:
    return reading.response["choices"][0]["message"]["content"]


# Streams


def test_times_are_those_of_generated_content() -> None:
    pieces = [b": ping\n\n", chunk(), chunk(""), chunk("a"), b": ping\n\n", chunk("b"), USAGE_CHUNK, DONE]
    reading = read(StreamMeter("chat", LIMIT), *pieces)
    assert (reading.first_generated_at, reading.last_generated_at, reading.generating_s) == (4.0, 6.0, 2.0)
    assert (reading.done, reading.understood, reading.usage, reading.model) == (True, True, USAGE, "m")
    assert (content(reading), reading.warnings) == ("ab", [])


def test_an_event_arrives_with_the_piece_that_completes_it() -> None:
    event = chunk("a")
    reading = read(StreamMeter("chat", LIMIT), chunk("x"), event[:20], event[20:-1], event[-1:])
    assert (reading.first_generated_at, reading.last_generated_at) == (1.0, 4.0)


def test_two_events_in_one_read_share_one_arrival() -> None:
    reading = read(StreamMeter("chat", LIMIT), chunk("a") + chunk("b") + chunk("c"), DONE)
    assert reading.first_generated_at == reading.last_generated_at == 1.0
    assert reading.generating_s is None


def test_nothing_generated_has_no_times() -> None:
    reading = read(StreamMeter("chat", LIMIT), chunk(), USAGE_CHUNK, DONE)
    assert (reading.first_generated_at, reading.last_generated_at, reading.generating_s) == (None, None, None)


@settings(max_examples=100)
@given(st.lists(st.text(max_size=10), min_size=1), places, st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_any_cut_reads_the_same_answer(texts: list[str], places: list[int], end: bytes) -> None:
    stream = (b"".join(map(chunk, texts)) + USAGE_CHUNK + DONE).replace(b"\n", end)
    for pieces in (cut(stream, places), one_by_one(stream)):
        reading = read(StreamMeter("chat", LIMIT), *pieces)
        assert (content(reading), reading.usage, reading.done) == ("".join(texts), USAGE, True)


@pytest.mark.parametrize("missing", [1, 2])
def test_the_last_event_may_lack_its_blank_line(missing: int) -> None:
    assert read(StreamMeter("chat", LIMIT), chunk("a"), USAGE_CHUNK[:-missing]).usage == USAGE
    assert read(StreamMeter("chat", LIMIT), chunk("a"), DONE[:-missing]).done


def test_half_an_event_at_a_cut_is_no_warning() -> None:
    reading = read(StreamMeter("chat", LIMIT), chunk("a"), chunk("b")[:-10])
    assert (content(reading), reading.warnings, reading.done) == ("a", [], False)


def test_a_stream_that_makes_no_sense_is_not_understood() -> None:
    reading = read(StreamMeter("chat", LIMIT), b"<html>\n\ndata: nonsense\n\ndata: 7\n\ndata: \n\n")
    assert (reading.understood, reading.response) == (False, None)
    assert reading.warnings == ["2 events of the stream were no JSON objects"]


def test_an_error_in_a_stream_is_read() -> None:
    assert read(StreamMeter("chat", LIMIT), chunk("a"), b'data: {"error":{"code":"x"}}\n\n').error == {"code": "x"}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP ", "deflate", "raw"])
def test_a_compressed_copy_is_read(encoding: str) -> None:
    wbits = {"deflate": zlib.MAX_WBITS, "raw": -zlib.MAX_WBITS}.get(encoding, zlib.MAX_WBITS | 16)
    compressor = zlib.compressobj(wbits=wbits)
    sent = b"".join(
        compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for piece in (chunk("a"), chunk("b"), USAGE_CHUNK)
    )
    meter = StreamMeter("chat", LIMIT, "deflate" if encoding == "raw" else encoding)
    reading = read(meter, *one_by_one(sent + compressor.flush()))
    assert (content(reading), reading.usage, reading.warnings) == ("ab", USAGE, [])


def test_an_unknown_compression_is_no_nonsense() -> None:
    reading = read(StreamMeter("chat", LIMIT, "br"), b"\x8b\x01", b"\x02")
    assert (reading.understood, reading.response) == (True, None)
    assert reading.warnings == ["the answer is compressed in a way that cannot be read"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_of_a_stream_that_is_too_long_time_and_usage_still_count(dialect: str) -> None:
    long = "x" * 900
    events: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "chat": ({"choices": [{"index": 0, "delta": {"content": long}}]}, {"choices": [], "usage": USAGE}),
        "completion": ({"choices": [{"index": 0, "text": long}]}, {"choices": [], "usage": USAGE}),
        "response": (
            {"type": "response.output_text.delta", "delta": long},
            {"type": "response.completed", "response": {"usage": USAGE, "output": [long]}},
        ),
        "message": (
            {"type": "content_block_delta", "index": 0, "delta": {"text": long}},
            {"type": "message_delta", "delta": {}, "usage": USAGE},
        ),
        "other": ({"delta": long}, {"response": {"usage": USAGE}}),
    }
    delta, last = (f"data: {json.dumps(event)}\n\n".encode() for event in events[dialect])
    reading = read(StreamMeter(dialect, 5000), *[delta] * 100, last)
    assert (reading.first_generated_at, reading.last_generated_at) == (1.0, 100.0)
    assert reading.usage == USAGE
    assert reading.warnings == ["the stream was too long to keep whole"]
    assert len(json.dumps(reading.response)) < 6000


def test_an_event_that_is_too_long_is_passed_over() -> None:
    reading = read(StreamMeter("chat", 5000), chunk("a"), chunk("x" * 10_000), chunk("b"), USAGE_CHUNK)
    assert (content(reading), reading.usage) == ("ab", USAGE)
    assert reading.warnings == ["the stream was too long to keep whole"]


# Bodies

ANSWER = {"model": "m", "choices": [{"message": {"content": "é"}}], "usage": USAGE}


@settings(max_examples=50)
@given(places, st.sampled_from(["", "identity", "gzip", "deflate"]))
def test_a_body_is_read(places: list[int], encoding: str) -> None:
    body = json.dumps(ANSWER, ensure_ascii=False).encode()
    sent = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}.get(encoding, body)
    reading = read(BodyMeter(LIMIT, encoding), *cut(sent, places))
    assert (reading.response, reading.usage, reading.model) == (ANSWER, USAGE, "m")
    assert reading.understood


def test_a_gzip_body_of_several_members_is_read_whole() -> None:
    body = json.dumps(ANSWER).encode()
    members = [gzip.compress(piece) for piece in cut(body, [10, 20])]
    assert read(BodyMeter(LIMIT, "gzip"), b"".join(members)).response == ANSWER
    assert read(BodyMeter(LIMIT, "gzip"), *members).response == ANSWER


def test_a_body_that_is_no_json_is_its_text() -> None:
    reading = read(BodyMeter(LIMIT), b"<html>", b"\xc3\xa9\xff")
    assert (reading.response, reading.understood) == ("<html>é\ufffd", False)


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b""])
def test_a_body_that_is_no_object_is_not_understood(body: bytes) -> None:
    assert not read(BodyMeter(LIMIT), body).understood


def test_a_body_with_fields_of_the_wrong_type() -> None:
    reading = read(BodyMeter(LIMIT), b'{"usage":[1],"model":{},"error":null}')
    assert (reading.usage, reading.model, reading.error, reading.understood) == (None, None, None, True)


def test_a_body_of_sound_is_only_counted() -> None:
    meter = BodyMeter(10, json=False)
    reading = read(meter, *[b"\x00" * 100] * 3)
    assert (reading.response, reading.understood, meter._pieces) == ({"bytes": 300}, True, [])


@pytest.mark.parametrize("size", [1, 100, 70_000, 10**6])
@pytest.mark.parametrize("behind", ['"x":1}', '"usage":null}', '"y":"\\"usage\\": {}"}', '"z":"' + "z" * 1000 + '"}'])
def test_of_a_body_that_is_too_long_the_usage_at_its_end_still_counts(size: int, behind: str) -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}
    body = f'{{"data":"{"x" * 2 * LIMIT}","usage" : {json.dumps(usage)},{behind}'.encode()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    # The last piece alone may be what makes the body too long.
    for limit in (LIMIT, len(body) - 1):
        reading = read(BodyMeter(limit), *pieces)
        assert (reading.usage, reading.understood, reading.response) == (usage, True, None)
        assert reading.warnings == ["the answer was too long to keep"]


@pytest.mark.parametrize("end", ['"usage":null,"x":{"a":1}}', '"usage":{"a":', '"x":{}}', '"usage":{' + "}" * 1000])
def test_a_body_that_is_too_long_may_have_no_usage(end: str) -> None:
    reading = read(BodyMeter(100), b'{"data":"' + b"x" * 1000 + b'",' + end.encode())
    assert reading.usage in (None, {})


def test_a_bomb_is_read_up_to_the_limit() -> None:
    bomb = gzip.compress(b"x" * 10**7)
    for meter in (BodyMeter(1000, "gzip"), StreamMeter("chat", 1000, "gzip")):
        reading = read(meter, bomb)
        assert reading.warnings[-1] == "the answer is too long once it is decompressed"
        assert reading.understood


# Anything at all

fragments = st.lists(
    st.binary(max_size=20)
    | st.sampled_from(
        [b"data: ", b"\n\n", b"\r\n", b"{", b"}", b'"choices":', b"[", b"]", b'"usage":{}', b"[DONE]", b"null", DONE]
    )
    | st.just(chunk("a"))
    | st.just(gzip.compress(b"data: {}\n\n")),
    max_size=20,
).map(b"".join)


@settings(max_examples=200)
@given(fragments, places, st.sampled_from(["", "gzip", "deflate", "br"]), st.sampled_from([1, 50, LIMIT]))
def test_no_bytes_make_a_meter_fail(sent: bytes, places: list[int], encoding: str, limit: int) -> None:
    pieces = cut(sent, places)
    for dialect in DIALECTS:
        read(StreamMeter(dialect, limit, encoding), *pieces)
    read(BodyMeter(limit, encoding), *pieces)
    read(BodyMeter(limit, encoding, json=False), *pieces)


def test_deep_nesting_makes_no_meter_fail() -> None:
    deep = b'{"choices":[{"delta":{"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}}]}"
    assert not read(StreamMeter("chat", 10**6), b"data: " + deep + b"\n\n").understood
    assert not read(BodyMeter(10**6), deep).understood
