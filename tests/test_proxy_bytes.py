"""What goes on to the upstream and back to the client, byte for byte, and what does not."""

import base64
import gzip
import json
import re
import zlib
from typing import Any

import pytest

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import raw_client
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
JSON = {"Content-Type": "application/json"}
CHAT_PATHS = ["/v1/chat/completions", "/api/chat/completions", "/api/openai/v1/chat/completions"]

# The contract's list, word for word.
STRIPPED_FROM_CHATS = re.findall(r"\w+", """
respan_params keywordsai_params customer_identifier customer_params customer_email customer_name
thread_identifier custom_identifier group_identifier session_identifier trace_unique_id trace_group_identifier
span_unique_id span_parent_id span_name span_workflow_name properties prompt prompt_id prompt_name
is_custom_prompt variables cache_enabled cache_ttl cache_options fallback_models load_balance_group
load_balance_models loadbalance_models retry_params retries disable_log disable_fallback request_breakdown
credential_override customer_credentials model_name_map exclude_models exclude_providers positive_feedback note
category weight evaluation_identifier respan_api_controls keywordsai_api_controls
""")  # fmt: skip


async def post(gateway: Gateway, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    reply = await gateway.call(path, data=body, headers=headers or JSON)
    return reply.status, reply.body


@pytest.mark.parametrize("path", [form for path in CHAT_PATHS for form in (path, f"{path}/")])
async def test_every_chat_route_goes_to_the_same_place(gateway: Gateway, upstream: ScriptedUpstream, path: str) -> None:
    reply = await gateway.call(f"{path}?a=1&b=%26", json=CHAT, allow_redirects=False)
    assert (reply.status, reply.json()) == (200, COMPLETION)
    assert (upstream.requests[0].method, upstream.requests[0].target) == ("POST", "/v1/chat/completions?a=1&b=%26")


ODD = (
    b' {\n "model" :\t"gpt-4o-mini", "n": 1.0000, "seed":12345678901234567890123, "temperature": 1E-2, '
    b'"x": "\\u00e9\\/\xc3\xa9", "messages":[ ], "a": 1, "a": 2, "stop": null}\r\n'
)


@pytest.mark.parametrize(
    "body",
    [
        ODD,
        b'{"model":"gpt-4o-mini","messages":[],"stream":false,"stream_options":null}',
        b'\xef\xbb\xbf{"model":"gpt-4o-mini","messages":[]}',
        '{"model":"gpt-4o-mini","messages":["é"]}'.encode("utf-16"),
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"\\ud800"}],"temperature":NaN}',
        b'{"messages":[]}',
        b'{"model":17}',
        b"{}",
    ],
)
async def test_a_body_with_nothing_to_strip_goes_on_as_it_came(
    gateway: Gateway, upstream: ScriptedUpstream, body: bytes
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(COMPLETION)

    upstream.play = play
    assert (await post(gateway, "/v1/chat/completions", body))[0] == 200
    assert upstream.requests[0].body == body


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        (
            b'{ "respan_params" : {"a":[1,{"}":2}]},\n "model":"m" , "n": 1.00, "note": "n", "a": 1e5 ,"a":"\\u0041" }',
            b'{ "model":"m" , "n": 1.00, "a": 1e5 ,"a":"\\u0041" }',
        ),
        (b'{"model":"m","customer_identifier":"c","messages":[ ]}', b'{"model":"m","messages":[ ]}'),
        (b'{"note":"a","model":"m","note":"b"}', b'{"model":"m"}'),
        (b'{"disable_log":true}', b"{}"),
        (b'{"model":"m","messages":[{"note":"kept","metadata":{}}],"metadata":null}',
         b'{"model":"m","messages":[{"note":"kept","metadata":{}}]}'),
        (b'{"not\\u0065":"an escaped name","model":"m"}', b'{"model":"m"}'),
        ('{"model":"m","note":"é","x":"é"}'.encode("utf-16-le"), '{"model":"m","x":"é"}'.encode("utf-16-le")),
    ],
)  # fmt: skip
async def test_exactly_the_stripped_members_go(
    gateway: Gateway, upstream: ScriptedUpstream, sent: bytes, forwarded: bytes
) -> None:
    assert (await post(gateway, "/v1/chat/completions", sent))[0] == 200
    assert upstream.requests[0].body == forwarded


async def test_every_respan_field_is_stripped_from_chats(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sent = {**CHAT, **dict.fromkeys(STRIPPED_FROM_CHATS, "x"), "user": "u", "models": ["a"], "usage": {"include": True}}
    assert (await gateway.call("/v1/chat/completions", json=sent)).status == 200
    assert upstream.requests[0].json() == {**CHAT, "user": "u", "models": ["a"], "usage": {"include": True}}


async def test_other_routes_are_stripped_of_the_nested_params_only(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({"object": "list", "model": "e", "data": []})

    upstream.play = play
    sent = {"model": "e", "input": "x", **dict.fromkeys(STRIPPED_FROM_CHATS, "x"), "metadata": {"a": "b"}}
    log_id = (await gateway.call("/v1/embeddings", json=sent)).log_id
    kept = {name: value for name, value in sent.items() if name not in ("respan_params", "keywordsai_params")}
    assert upstream.requests[0].json() == kept
    span = await gateway.get(log_id)
    assert span["metadata"] == {"a": "b"}
    assert span["customer_identifier"] is None


@pytest.mark.parametrize(
    ("more", "forwarded"),
    [
        ({}, False),
        ({"store": True}, True),
        ({"store": False}, False),
        ({"store": "true"}, False),
    ],
)
async def test_metadata_of_a_chat_goes_on_only_with_store(
    gateway: Gateway, upstream: ScriptedUpstream, more: dict[str, Any], forwarded: bool
) -> None:
    sent = {**CHAT, "metadata": {"plan": "pro"}, **more}
    log_id = (await gateway.call("/v1/chat/completions", json=sent)).log_id
    assert upstream.requests[0].json() == {**CHAT, **more, **({"metadata": {"plan": "pro"}} if forwarded else {})}
    assert (await gateway.get(log_id))["metadata"] == {"plan": "pro"}


async def test_an_upstream_named_in_the_model_is_taken_out(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway()
    sent = b'{"x":1.0,"model": "main/org/gpt" ,"model":"main/org/gpt-4o-mini"}'
    log_id = (await gateway.call("/v1/chat/completions", data=sent, headers=JSON)).log_id
    assert upstream.requests[0].body == b'{"x":1.0,"model": "org/gpt-4o-mini" ,"model":"org/gpt-4o-mini"}'
    span = await gateway.get(log_id)
    assert (span["model"], span["upstream"]) == ("main/org/gpt-4o-mini", "main")
    assert span["full_request"] == {"x": 1.0, "model": "main/org/gpt-4o-mini"}


@pytest.mark.parametrize(
    ("options", "forwarded"),
    [
        ("", b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'),
        (',"stream_options":null', b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
        (',"stream_options":{ }', b'{"model":"m","stream":true,"stream_options":{"include_usage":true }}'),
        (
            ',"stream_options":{"include_usage":false,"a":1.0}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"a":1.0}}',
        ),
        (
            ',"stream_options":{"include_usage":true }',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true }}',
        ),
        (',"stream_options":"odd"', b'{"model":"m","stream":true,"stream_options":"odd"}'),
    ],
)
async def test_a_stream_is_made_to_tell_its_usage(
    gateway: Gateway, upstream: ScriptedUpstream, options: str, forwarded: bytes
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.events()

    upstream.play = play
    await post(gateway, "/v1/chat/completions", f'{{"model":"m","stream":true{options}}}'.encode())
    assert upstream.requests[0].body == forwarded


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_inject_usage_can_be_turned_off(
    start_gateway: StartGateway, upstream: ScriptedUpstream, path: str
) -> None:
    gateway = await start_gateway("inject_usage = false\n")

    async def play(received: Received, wire: Wire) -> None:
        await wire.events()

    upstream.play = play
    body = b'{"model":"m","stream":true}'
    await post(gateway, path, body)
    assert upstream.requests[0].body == body


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/audio/speech", "/v1/other"])
async def test_other_streams_are_not_asked_for_usage(gateway: Gateway, upstream: ScriptedUpstream, path: str) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.events(done=False)

    upstream.play = play
    body = b'{"model":"m","stream":true}'
    await post(gateway, path, body)
    assert upstream.requests[0].body == body
    assert upstream.requests[0].headers["Accept-Encoding"] == "identity"


# Compressed requests


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_unchanged_compressed_body_goes_on_as_it_came(
    gateway: Gateway, upstream: ScriptedUpstream, encoding: str
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(COMPLETION)

    upstream.play = play
    plain = json.dumps(CHAT).encode()
    body = gzip.compress(plain, 1) if encoding == "gzip" else zlib.compress(plain, 1)
    span = await gateway.span_of("/v1/chat/completions", data=body, headers={**JSON, "Content-Encoding": encoding})
    received = upstream.requests[0]
    assert received.body == body
    assert received.headers.getall("Content-Encoding") == [encoding]
    assert (span["full_request"], span["status"]) == (CHAT, "success")


async def test_a_changed_compressed_body_goes_on_plain(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = gzip.compress(b'{ "model":"m", "note":"n", "n":1.0}')
    await post(gateway, "/v1/chat/completions", body, {**JSON, "Content-Encoding": "gzip"})
    assert upstream.requests[0].body == b'{ "model":"m", "n":1.0}'
    assert "Content-Encoding" not in upstream.requests[0].headers


async def test_a_body_in_an_unknown_encoding_goes_on_but_for_chats(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({"object": "list", "data": []})

    upstream.play = play
    odd = {**JSON, "Content-Encoding": "br"}
    status, answer = await post(gateway, "/v1/chat/completions", b"\x0b\x00", odd)
    assert status == 400
    assert "Content-Encoding" in json.loads(answer)["error"]["message"]
    assert upstream.requests == []
    assert (await post(gateway, "/v1/embeddings", b"\x0b\x00", odd))[0] == 200
    assert upstream.requests[0].body == b"\x0b\x00"
    assert upstream.requests[0].headers["Content-Encoding"] == "br"


# Forms

FORM = {"Content-Type": "multipart/form-data; boundary=XX"}


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form whose last part is a file."""
    fields = b"".join(
        b'--XX\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value + b"\r\n"
        for name, value in parts
    )
    file = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return fields + file + b"RIFF\x00\xff\r\n--X\r\n--XX--\r\n"


async def answer_transcription(received: Received, wire: Wire) -> None:
    await wire.json({"text": "Hello", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3}})


async def test_a_form_goes_on_as_it_came(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.play = answer_transcription
    body = form(("model", b"whisper-1"), ("metadata", b'{"a":"b"}'))
    log_id = (await gateway.call("/v1/audio/transcriptions", data=body, headers=FORM)).log_id
    assert upstream.requests[0].body == body
    assert upstream.requests[0].headers["Content-Type"] == FORM["Content-Type"]
    span = await gateway.get(log_id)
    assert (span["model"], span["log_type"], span["output"]) == ("whisper-1", "transcription", "Hello")
    assert (span["prompt_tokens"], span["completion_tokens"]) == (14, 3)
    assert span["full_request"] == {"model": "whisper-1", "bytes": len(body)}
    assert span["metadata"] == {"a": "b"}


@pytest.mark.parametrize("compressed", [False, True])
async def test_params_and_upstream_name_are_taken_out_of_a_form(
    gateway: Gateway, upstream: ScriptedUpstream, compressed: bool
) -> None:
    upstream.play = answer_transcription
    body = form(("respan_params", b'{"customer_identifier": "c-1"}'), ("model", b"main/whisper-1"), ("language", b"en"))
    headers = {**FORM, "Content-Encoding": "gzip"} if compressed else FORM
    sent = gzip.compress(body) if compressed else body
    log_id = (await gateway.call("/v1/audio/transcriptions", data=sent, headers=headers)).log_id
    assert upstream.requests[0].body == form(("model", b"whisper-1"), ("language", b"en"))
    assert "Content-Encoding" not in upstream.requests[0].headers
    span = await gateway.get(log_id)
    assert (span["model"], span["customer_identifier"]) == ("main/whisper-1", "c-1")


# Headers


async def test_the_headers_that_go_to_the_upstream(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway('headers = { "X-Team" = "ours", "anthropic-version" = "2023-06-01" }\n')
    params = base64.b64encode(b'{"customer_identifier": "c-1"}').decode()
    body = json.dumps(CHAT).encode()
    async with raw_client(gateway.url, KEY) as client:
        await client.post(
            "/v1/chat/completions",
            body,
            "Content-Type: application/json",
            "User-Agent: mine",
            "Accept: */*",
            "X-Team: theirs",
            "x-api-key: secret-1",
            "Api-Key: secret-2",
            "X-Goog-Api-Key: secret-3",
            "Cookie: session=secret-4",
            "Proxy-Authorization: secret-5",
            "OpenAI-Organization: org-secret",
            "OpenAI-Project: project-secret",
            "X-Respan-Beta: b",
            "X-Respan-Dogfood: 1",
            f"X-Data-Respan-Params: {params}",
            "X-Data-Other: d",
            "Connection: keep-alive, X-Hop",
            "X-Hop: hop",
            "Keep-Alive: 5",
            "TE: trailers",
            "OpenAI-Beta: one",
            "OpenAI-Beta: two",
            "X-Empty: ",
            "Idempotency-Key: k",
        )
        await client.read_head()
    assert client.status == 200
    received = upstream.requests[0]
    assert list(received.headers.items()) == [
        ("Host", upstream.url.removeprefix("http://")),
        ("Content-Type", "application/json"),
        ("User-Agent", "mine"),
        ("Accept", "*/*"),
        ("X-Team", "ours"),
        ("OpenAI-Beta", "one"),
        ("OpenAI-Beta", "two"),
        ("X-Empty", ""),
        ("Idempotency-Key", "k"),
        ("Accept-Encoding", "identity"),
        ("Authorization", "Bearer upstream-secret"),
        ("anthropic-version", "2023-06-01"),
        ("Content-Length", str(len(body))),
    ]


async def test_nothing_is_added_for_a_client_that_says_little(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", b"{}")
        await client.read_head()
    assert sorted(upstream.requests[0].headers) == ["Accept-Encoding", "Authorization", "Content-Length", "Host"]


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("br", "identity"),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip, deflate"),
        ("identity", "identity"),
    ],
)
async def test_answers_are_asked_for_in_what_both_sides_can_read(
    gateway: Gateway, upstream: ScriptedUpstream, accepted: str, asked: str
) -> None:
    await gateway.call("/v1/chat/completions", json=CHAT, headers={"Accept-Encoding": accepted})
    assert upstream.requests[0].headers.getall("Accept-Encoding") == [asked]


async def test_the_headers_that_come_back(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = json.dumps(COMPLETION).encode()

    async def play(received: Received, wire: Wire) -> None:
        await wire.send(
            b"HTTP/1.1 201 Very Well\r\n"
            b"Content-Type: application/json; odd=1\r\nContent-Length: %d\r\nServer: theirs\r\n"
            b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
            b"Retry-After: 7\r\nX-RateLimit-Remaining-Tokens: 9\r\nX-Request-ID: r-1\r\nOpenAI-Processing-Ms: 12\r\n"
            b"Via: one\r\nVia: two\r\nX-Empty: \r\n"
            b"Set-Cookie: a=b\r\nAlt-Svc: h3\r\nStrict-Transport-Security: max-age=1\r\n"
            b"Connection: keep-alive, X-Hop\r\nX-Hop: hop\r\nKeep-Alive: timeout=5\r\nTrailer: X-T\r\n"
            b"X-Respan-Log-Id: not-ours\r\n\r\n" % len(body) + body
        )

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", json.dumps(CHAT).encode())
        await client.read_head()
        assert await client.read_until(body) == body
    assert (client.status, client.reason) == (201, "Very Well")
    (span,) = await gateway.spans()
    assert list(client.headers.items()) == [
        ("Content-Type", "application/json; odd=1"),
        ("Content-Length", str(len(body))),
        ("Server", "theirs"),
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Retry-After", "7"),
        ("X-RateLimit-Remaining-Tokens", "9"),
        ("X-Request-ID", "r-1"),
        ("OpenAI-Processing-Ms", "12"),
        ("Via", "one"),
        ("Via", "two"),
        ("X-Empty", ""),
        ("X-Respan-Log-Id", span["unique_id"]),
    ]


async def test_no_content_type_or_server_of_ours_is_added(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": "2"})
        await wire.send("{}")

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", b"{}")
        await client.read_head()
    assert sorted(client.headers) == ["Content-Length", "Date", "X-Respan-Log-Id"]


async def test_a_compressed_answer_passes_as_it_is_and_is_read(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = gzip.compress(json.dumps(COMPLETION).encode())

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Encoding": "gzip", "Content-Length": str(len(body))})
        await wire.send(body)

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/chat/completions", json.dumps(CHAT).encode(), "Accept-Encoding: gzip")
        await client.read_head()
        assert await client.read_until(body) == body
    assert client.headers["Content-Encoding"] == "gzip"
    span = await gateway.only_span()
    assert (span["full_response"], span["status"]) == (COMPLETION, "success")


async def test_secrets_reach_neither_the_upstream_nor_the_span(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sent = {
        **CHAT,
        "customer_credentials": {"openai": {"api_key": "secret-a"}},
        "respan_params": {"credential_override": {"m": {"api_key": "secret-b"}}},
        "tools": [{"type": "mcp", "authorization": "secret-c", "headers": {"X-Api-Key": "secret-d"}}],
    }
    headers = {"x-api-key": "secret-e", "Cookie": "secret-f"}
    log_id = (await gateway.call("/v1/chat/completions", json=sent, headers=headers)).log_id
    received = upstream.requests[0]
    assert received.json() == {**CHAT, "tools": sent["tools"]}
    assert "secret" not in str([item for item in received.headers.items() if item[0] != "Authorization"])
    assert KEY not in str(received)
    span = await gateway.get(log_id)
    assert "secret" not in json.dumps(span)
    assert KEY not in json.dumps(span)
