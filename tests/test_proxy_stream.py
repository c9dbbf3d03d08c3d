"""Streams: each piece as it arrives, what is kept back, and the times that are measured on the way."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import raw_client, soon, unchunked
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
BODY = json.dumps(CHAT).encode()
DONE = "data: [DONE]\n\n"
ROLE = chunk({"role": "assistant", "content": ""})
FINISH = chunk({}, finish_reason="stop")


def event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def text(content: str, **more: Any) -> str:
    return event(chunk({"content": content}, **more))


def pieces(*sent: bytes | str, headers: dict[str, str] | None = None) -> Any:
    """A script that sends these pieces, one HTTP chunk each."""

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head(headers)
        await wire.chunk(*sent)
        await wire.end_chunks()

    return play


class Dialogue:
    """An upstream that sends its next piece only when the client has read the last one."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._next: asyncio.Queue[tuple[float, str | None]] = asyncio.Queue()

    async def play(self, received: Received, wire: Wire) -> None:
        await wire.stream_head()
        while True:
            seconds, piece = await self._next.get()
            self._clock.advance(seconds)
            if piece is None:
                await wire.end_chunks()
                return
            await wire.chunk(piece)

    def say(self, piece: str | None, after: float = 0.0) -> None:
        """The clock moves by `after` seconds, then the piece is sent; None ends the answer."""
        self._next.put_nowait((after, piece))


async def test_each_piece_is_passed_on_before_the_next_is_sent(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    gateway = await start_gateway(clock=clock)
    dialogue = Dialogue(clock)
    upstream.play = dialogue.play
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", BODY)
        await client.read_head()
        for piece in (": ping\n\n", event(ROLE), text("Hel"), text("lo"), event(FINISH)):
            dialogue.say(piece)
            data = piece.encode()
            assert (await client.read_until(data + b"\r\n")).endswith(b"%x\r\n%s\r\n" % (len(data), data))
        dialogue.say(DONE)
        await client.read_until(DONE.encode() + b"\r\n")
        dialogue.say(None)
        assert (await client.read_until(b"0\r\n\r\n")).endswith(b"\r\n0\r\n\r\n")


async def test_the_times_of_a_stream(start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock) -> None:
    gateway = await start_gateway(clock=clock)
    dialogue = Dialogue(clock)
    upstream.play = dialogue.play
    started = clock.wall
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", "/v1/chat/completions", f"Content-Length: {len(BODY)}", "Expect: 100-continue")
        await client.read_head()
        assert client.status == 100
        clock.advance(0.25)
        await client.send(BODY)
        dialogue.say(event(ROLE), after=1)
        dialogue.say(": ping\n\n")
        await client.read_head()
        await client.read_until(b": ping\n\n\r\n")
        dialogue.say(text("Hello"), after=2)
        await client.read_until(text("Hello").encode() + b"\r\n")
        dialogue.say(text(" there"), after=4)
        await client.read_until(text(" there").encode() + b"\r\n")
        dialogue.say(event(FINISH), after=8)
        await client.read_until(event(FINISH).encode() + b"\r\n")
        # The usage chunk is kept back, so there is nothing to wait for before [DONE].
        dialogue.say(event({**USAGE_CHUNK, "usage": {"prompt_tokens": 9, "completion_tokens": 21}}) + DONE, after=16)
        await client.read_until(DONE.encode() + b"\r\n")
        dialogue.say(None, after=32)
        await client.read_until(b"0\r\n\r\n")
    span = await gateway.only_span()
    assert span["start_time"] == started.isoformat(timespec="microseconds").replace("+00:00", "Z")
    expected = {
        "timestamp": "2026-01-02T03:04:36.250000Z",
        "latency": 31.25,
        "time_to_first_token": 3.25,
        "tokens_per_second": 20 / 4,
        "routing_time": 0.25,
        "prompt_tokens": 9,
        "completion_tokens": 21,
        "stream": True,
        "status": "success",
    }
    assert {name: span[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("delta", "counts"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": "x"}, True),
        ({"reasoning_content": "x"}, True),
        ({"refusal": "x"}, True),
        ({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}, True),
        ({"audio": {"data": "AAAA"}}, True),
        ({"content": None}, False),
    ],
)
async def test_what_counts_as_the_first_token(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock, delta: dict[str, Any], counts: bool
) -> None:
    gateway = await start_gateway(clock=clock)

    async def play(received: Received, wire: Wire) -> None:
        clock.advance(0.5)
        await wire.events(chunk(delta), FINISH)

    upstream.play = play
    span = await gateway.span_of("/v1/chat/completions", json=CHAT)
    assert span["time_to_first_token"] == (0.5 if counts else None)


async def test_the_times_of_an_answer_in_one_piece(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    gateway = await start_gateway(clock=clock)

    async def play(received: Received, wire: Wire) -> None:
        clock.advance(0.5)
        await wire.json(COMPLETION)

    upstream.play = play
    span = await gateway.span_of("/v1/chat/completions", json={**CHAT, "stream": False})
    expected = {"latency": 0.5, "time_to_first_token": None, "tokens_per_second": 4.0, "routing_time": 0.0}
    assert {name: span[name] for name in expected} == expected


# The usage chunk


async def relayed(gateway: Gateway, body: dict[str, Any] = CHAT) -> tuple[bytes, dict[str, Any]]:
    """What the client got, and the span."""
    reply = await gateway.call("/v1/chat/completions", json=body)
    return reply.body, await gateway.get(reply.log_id)


USAGE_EVENT = event(USAGE_CHUNK)


@pytest.mark.parametrize("cut_at", [1, 7, 60, len(USAGE_EVENT) // 2, len(USAGE_EVENT) - 1])
async def test_a_usage_chunk_in_two_reads_is_kept_back(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock, cut_at: int
) -> None:
    gateway = await start_gateway(clock=clock)
    half_read = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event(ROLE), text("Hello") + USAGE_EVENT[:cut_at])
        await half_read.wait()
        await wire.chunk(USAGE_EVENT[cut_at:], DONE)
        await wire.end_chunks()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", BODY)
        await client.read_head()
        await client.read_until(text("Hello").encode() + b"\r\n")
        half_read.set()
        await client.read_until(b"0\r\n\r\n")
        assert "Content-Length" not in client.headers
    assert unchunked(client.body) == ((event(ROLE) + text("Hello") + DONE).encode(), True)
    span = await gateway.only_span()
    assert (span["prompt_tokens"], span["completion_tokens"], span["status"]) == (9, 2, "success")


async def test_who_asks_for_usage_gets_it(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sent = [event(ROLE), text("Hello", usage=None), USAGE_EVENT, DONE]
    upstream.play = pieces(*sent)
    got, span = await relayed(gateway, {**CHAT, "stream_options": {"include_usage": True}})
    assert got == "".join(sent).encode()
    assert span["prompt_tokens"] == 9


@pytest.mark.parametrize(
    "sent",
    [
        [text("Hello", usage=COMPLETION["usage"]), DONE],
        [text("Hello", usage=None), text("", usage=COMPLETION["usage"]), DONE],
        [text("Hello").replace("\n", "\r\n"), event(FINISH).replace("\n", "\r\n"), "data: [DONE]\r\n\r\n"],
        [text("Hello").replace("\n", "\r"), "data: [DONE]\r\r"],
        [text("Hello")],
        [text("Hello"), event(FINISH)[:-1]],
        [": comment\n", "event: x\nid: 7\nretry: 5\n" + text("Hello"), "\n\n\n", DONE],
        ["\ufeff" + text("Hello"), DONE],
        [text("data: [DONE]"), text("Hello"), DONE],
        ["data: nonsense {\n\n", text("Hello"), DONE],
        [text("Hello"), DONE, "data: after the end\n\n"],
    ],
)
async def test_every_other_byte_passes(gateway: Gateway, upstream: ScriptedUpstream, sent: list[str]) -> None:
    upstream.play = pieces(*sent)
    got, span = await relayed(gateway)
    assert got == "".join(sent).encode()
    assert "Hello" in span["completion_message"]["content"]
    assert span["status"] in ("success", "warning")


async def test_a_stream_in_crlf_loses_only_its_usage_chunk(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sent = [piece.replace("\n", "\r\n") for piece in (text("Hello"), USAGE_EVENT, DONE)]
    upstream.play = pieces(*sent)
    got, span = await relayed(gateway)
    assert got == (sent[0] + sent[2]).encode()
    assert span["completion_tokens"] == 2


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_compressed_stream_passes_untouched(
    gateway: Gateway, upstream: ScriptedUpstream, encoding: str
) -> None:
    body = gzip.compress((text("Hello") + USAGE_EVENT + DONE).encode())
    upstream.play = pieces(body[:20], body[20:], headers={"Content-Encoding": encoding})
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", BODY)
        await client.read_head()
        await client.read_until(b"0\r\n\r\n")
    assert client.headers["Content-Encoding"] == encoding
    assert unchunked(client.body) == (body, True)
    span = await gateway.only_span()
    if encoding == "gzip":
        assert (span["completion_message"]["content"], span["completion_tokens"]) == ("Hello", 2)
    else:
        assert "compressed" in span["warnings"]
    assert span["status"] in ("success", "warning")


async def test_an_encoding_called_identity_is_none(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.play = pieces(text("Hello"), USAGE_EVENT, DONE, headers={"Content-Encoding": "identity"})
    got, span = await relayed(gateway)
    assert got == (text("Hello") + DONE).encode()
    assert span["completion_tokens"] == 2


async def test_a_stream_that_names_its_length_still_loses_its_usage_chunk(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    body = (text("Hello") + USAGE_EVENT + DONE).encode()

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Content-Length": str(len(body))})
        await wire.send(body)

    upstream.play = play
    got, _ = await relayed(gateway)
    assert got == (text("Hello") + DONE).encode()


# What the span holds


async def test_a_stream_is_put_together_as_if_not_streamed(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.play = pieces(
        event(chunk({"role": "assistant", "content": "", "refusal": None})),
        text("Hello"),
        text(" there"),
        event({**FINISH, "choices": [{**FINISH["choices"][0], "logprobs": None}]}),
        USAGE_EVENT,
        DONE,
    )
    _, span = await relayed(gateway)
    assert span["full_response"] == COMPLETION
    assert span["output"] == COMPLETION["choices"][0]["message"]


async def test_several_choices(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    def choice(index: int, content: str) -> str:
        value = chunk({"content": content})
        value["choices"][0]["index"] = index
        return event(value)

    upstream.play = pieces(choice(1, "b"), choice(0, "a"), choice(1, "B"), choice(0, "A"), DONE)
    _, span = await relayed(gateway, {**CHAT, "n": 2})
    assert [message["content"] for message in span["completion_messages"]] == ["aA", "bB"]


async def test_tool_calls(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    first = {"id": "call_1", "type": "function", **call(0, name="weather", arguments="")}
    second = {"id": "call_2", "type": "function", **call(1, name="time", arguments="{")}
    upstream.play = pieces(
        event(chunk({"role": "assistant", "content": None, "tool_calls": [first]})),
        event(chunk({"tool_calls": [call(0, arguments='{"city":')]})),
        event(chunk({"tool_calls": [second, call(0, arguments='"Paris"}')]})),
        event(chunk({"tool_calls": [call(1, arguments="}")]})),
        event(chunk({}, finish_reason="tool_calls")),
        DONE,
    )
    _, span = await relayed(gateway)
    assert span["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert span["completion_message"]["content"] is None


async def test_tokens_that_nobody_reported_are_counted_after_the_call(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.play = pieces(text("Hello"), text(" there"), DONE)
    _, span = await relayed(gateway)
    span = await gateway.eventually(span["unique_id"], lambda span: span["completion_tokens"] is not None)
    assert (span["completion_tokens"], span["status"]) == (2, "warning")
    assert "counted with o200k_base" in span["warnings"]


@pytest.mark.parametrize(
    ("path", "events", "expected"),
    [
        (
            "completions",
            [{"model": "m-1", "choices": [{"index": 0, "text": part}]} for part in ("Hel", "lo")],
            {"log_type": "completion", "output": "Hello", "response_model": "m-1"},
        ),
        (
            "messages",
            [
                {
                    "type": "message_start",
                    "message": {"model": "m-1", "role": "assistant", "usage": {"input_tokens": 7}},
                },
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
                {"type": "message_stop"},
            ],
            {
                "log_type": "chat",
                "output": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
                "response_model": "m-1",
                "prompt_tokens": 7,
                "completion_tokens": 3,
            },
        ),
        (
            "responses",
            [
                {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hello"},
                {
                    "type": "response.completed",
                    "response": {
                        "model": "m-1",
                        "output": [{"type": "message", "content": []}],
                        "usage": {"input_tokens": 7, "output_tokens": 3},
                    },
                },
            ],
            {
                "log_type": "response",
                "output": [{"type": "message", "content": []}],
                "response_model": "m-1",
                "prompt_tokens": 7,
                "completion_tokens": 3,
            },
        ),
        (
            "audio/transcriptions",
            [
                {"type": "transcript.text.delta", "delta": "Hel"},
                {"type": "transcript.text.done", "text": "Hello", "usage": {"input_tokens": 7, "output_tokens": 3}},
            ],
            {"log_type": "transcription", "prompt_tokens": 7, "completion_tokens": 3},
        ),
    ],
)
async def test_streams_of_other_routes(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, events: list[Any], expected: dict[str, Any]
) -> None:
    sent = [f"event: {one.get('type', 'x')}\n{event(one)}" for one in events]
    upstream.play = pieces(*sent)
    reply = await gateway.call(f"/v1/{path}", json={"model": "m", "stream": True})
    assert reply.body == "".join(sent).encode()
    span = await gateway.get(reply.log_id)
    expected = {**expected, "stream": True, "model": "m"}
    assert {name: span[name] for name in expected} == expected
    assert span["status"] in ("success", "warning")


# A slow client


async def test_a_slow_client_slows_the_upstream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    piece = b"data: " + b"x" * 65530
    count = 800
    accepted = 0
    all_accepted = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        nonlocal accepted
        await wire.stream_head()
        for _ in range(count):
            await wire.chunk(piece)
            accepted += 1
        await wire.end_chunks()
        all_accepted.set()

    upstream.play = play
    async with raw_client(gateway.url, KEY, receive_buffer=65536) as client:
        await client.post("/v1/responses", b'{"model":"m","stream":true}')
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        # Until nothing moves any more: an upstream that is not held back gets to the end instead.
        while accepted != before and not all_accepted.is_set():
            before = accepted
            await asyncio.sleep(0.2)
        assert accepted < count // 2
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.read_head()
        got = bytearray()
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += await soon(client.reader.read(2**20))
    content, is_whole = unchunked(bytes(got))
    assert is_whole
    assert content == piece * count
