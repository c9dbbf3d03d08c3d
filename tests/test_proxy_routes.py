"""Where a call goes, what is refused, and what each kind of route leaves as a span."""

import gzip
import json
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp.http import SERVER_SOFTWARE

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import raw_client
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


def answer(value: Any, status: int = 200) -> Any:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(value, status)

    return play


def picked(span: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: span[name] for name in wanted}


EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-4o-mini-2024-07-18",
    "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 23,
    },
}
TEXT_COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "model": "babbage-002",
    "choices": [{"index": 0, "text": " there", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-20250514",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 5,
        "output_tokens": 4,
    },
}


@pytest.mark.parametrize(
    ("path", "body", "answered", "expected"),
    [
        (
            "embeddings",
            {"model": "text-embedding-3-small", "input": ["a", "b"]},
            EMBEDDING,
            {
                "log_type": "embedding",
                "input": ["a", "b"],
                "output": [[0.5, -0.25]],
                "prompt_tokens": 4,
                "completion_tokens": None,
                "total_request_tokens": 4,
                "cost": 4 * 0.02e-6,
            },
        ),
        (
            "responses",
            {"model": "gpt-4o-mini", "input": "Hi"},
            RESPONSE,
            {
                "log_type": "response",
                "input": "Hi",
                "output": RESPONSE["output"],
                "response_model": "gpt-4o-mini-2024-07-18",
                "prompt_tokens": 20,
                "completion_tokens": 3,
                "prompt_cache_hit_tokens": 8,
                "reasoning_tokens": 1,
                "total_request_tokens": 23,
                "cost": 12 * 0.15e-6 + 8 * 0.075e-6 + 3 * 0.6e-6,
            },
        ),
        (
            "completions",
            {"model": "babbage-002", "prompt": "Hello"},
            TEXT_COMPLETION,
            {
                "log_type": "completion",
                "input": "Hello",
                "output": " there",
                "prompt_tokens": 1,
                "completion_tokens": 1,
            },
        ),
        (
            "messages",
            {"model": "claude-sonnet-4-20250514", "max_tokens": 9, "system": "Be kind", "messages": CHAT["messages"]},
            MESSAGE,
            {
                "log_type": "chat",
                "input": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
                "output": {"role": "assistant", "content": MESSAGE["content"]},
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "prompt_cache_hit_tokens": 100,
                "prompt_cache_creation_tokens": 5,
                "total_request_tokens": 119,
                "cost": 10 * 3e-6 + 100 * 0.3e-6 + 5 * 3.75e-6 + 4 * 15e-6,
            },
        ),
        (
            "moderations",
            {"model": "omni-moderation-latest", "input": "Hi"},
            {"id": "m", "model": "omni-moderation-latest", "results": []},
            {"log_type": "other", "input": None, "output": None, "prompt_tokens": None},
        ),
    ],
)
async def test_each_route_leaves_its_kind_of_span(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, body: Any, answered: Any, expected: dict[str, Any]
) -> None:
    upstream.play = answer(answered)
    reply = await gateway.call(f"/v1/{path}", json=body)
    assert reply.json() == answered
    assert upstream.requests[0].target == f"/v1/{path}"
    assert upstream.requests[0].json() == body
    span = await gateway.get(reply.log_id)
    expected = {
        **expected, "model": body["model"], "response_model": answered["model"], "full_request": body,
        "full_response": answered, "status": "success", "stream": False, "upstream": "main",
    }  # fmt: skip
    assert {**picked(span, expected), "cost": 0} == {**expected, "cost": 0}
    if "cost" in expected:
        assert span["cost"] == pytest.approx(expected["cost"], rel=1e-12)


async def test_speech_comes_back_as_it_is(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sound = bytes(range(256)) * 300

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Type": "audio/mpeg", "Transfer-Encoding": "chunked"})
        await wire.chunk(sound[:1000], sound[1000:])
        await wire.end_chunks()

    upstream.play = play
    reply = await gateway.call("/v1/audio/speech", json={"model": "tts-1", "input": "Hello", "voice": "alloy"})
    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, sound, "audio/mpeg")
    span = await gateway.get(reply.log_id)
    expected = {
        "log_type": "speech",
        "model": "tts-1",
        "input": "Hello",
        "output": None,
        "full_response": {"bytes": len(sound)},
        "status": "success",
        "prompt_tokens": None,
    }
    assert picked(span, expected) == expected


async def test_a_body_without_a_model_goes_to_the_first_upstream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.play = answer({"ok": True})
    body = b"\x00\xffany bytes"
    reply = await gateway.call("/v1/some/thing/?x=%20y", data=body, headers={"Content-Type": "application/x-odd"})
    assert reply.json() == {"ok": True}
    assert (upstream.requests[0].target, upstream.requests[0].body) == ("/v1/some/thing?x=%20y", body)
    span = await gateway.get(reply.log_id)
    expected = {"model": "unknown", "log_type": "other", "upstream": "main", "full_request": {"bytes": len(body)}}
    assert picked(span, expected) == expected


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
async def test_what_is_no_post_is_relayed_without_a_span(
    gateway: Gateway, upstream: ScriptedUpstream, method: str
) -> None:
    upstream.play = answer({"deleted": True}, 202)
    data = b"body" if method in ("PUT", "PATCH") else None
    async with gateway.session.request(method, "/v1/files/file-1?a=b", data=data) as response:
        assert (response.status, await response.json()) == (202, {"deleted": True})
        assert "X-Respan-Log-Id" not in response.headers
    received = upstream.requests[0]
    assert (received.method, received.target, received.body) == (method, "/v1/files/file-1?a=b", data or b"")
    assert received.headers["Authorization"] == "Bearer upstream-secret"
    assert await gateway.spans() == []


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [("HEAD", 200, {"Content-Length": "10", "X-A": "1"}), ("DELETE", 204, {"X-A": "1"}), ("GET", 304, {"ETag": "e"})],
)
async def test_answers_without_a_body_pass(
    gateway: Gateway, upstream: ScriptedUpstream, method: str, status: int, headers: dict[str, str]
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(status, headers)

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        for _ in range(2):
            await client.send_head(method, "/v1/files/file-1")
            await client.read_head()
            assert client.status == status
            assert {name: client.headers[name] for name in headers} == headers
    assert [received.connection for received in upstream.requests] == [1, 1]


async def test_a_head_gets_no_body_from_an_upstream_that_has_one(start_gateway: StartGateway) -> None:
    gateway = await start_gateway('[[upstreams]]\nname = "own"\nkind = "echo"\n')
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("HEAD", "/v1/models/own/echo")
        await client.read_head()
        assert (client.status, client.headers["Content-Type"]) == (404, "application/json")
        # The next answer begins where the last one ended.
        await client.send_head("GET", "/health")
        await client.read_head()
        assert client.status == 200


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [("gpt-4o", "gpt-4o"), ("main/org/gpt-4o", "org/gpt-4o"), ("main%2Forg%2Fgpt-4o?x=1", "org/gpt-4o?x=1")],
)
async def test_one_model_is_asked_of_its_upstream(
    gateway: Gateway, upstream: ScriptedUpstream, asked: str, forwarded: str
) -> None:
    upstream.play = answer({"id": "gpt-4o"})
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("GET", f"/v1/models/{asked}")
        await client.read_head()
    assert client.status == 200
    assert upstream.requests[0].target == f"/v1/models/{forwarded}"


async def test_an_upstream_that_cuts_a_get_cuts_the_client(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": "10"})
        await wire.send("half")
        wire.close()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("GET", "/v1/files/f/content")
        await client.read_head()
        assert await client.read_rest() == b"half"


async def test_an_upstream_that_refuses_a_get_is_a_502(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    await upstream.stop()
    async with gateway.session.get("/v1/files") as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "upstream_unreachable"


@pytest.mark.parametrize("target", ["/v1/traces", "/v1/traces/", "/v1/traces/ingest", "/v1/%74races"])
async def test_what_tracers_post_to_is_not_relayed(gateway: Gateway, upstream: ScriptedUpstream, target: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        async with raw_client(gateway.url, KEY) as client:
            await client.send_head(method, target, "Content-Length: 2")
            await client.send(b"{}")
            await client.read_head()
        assert client.status == 404
    assert upstream.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1//traces",
        "/v1/Traces",
        "/v1/..",
        "/v1/../secret",
        "/v1/a/../../secret",
        "/v1/%2e%2E/secret",
        "/v1/a%2f..%2fsecret",
        "/v1/a/..%5csecret",
        "/v1/./chat/completions",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_paths_that_are_ours_or_lead_out_are_refused(
    gateway: Gateway, upstream: ScriptedUpstream, method: str, target: str
) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head(method, target, "Content-Length: 2")
        await client.send(b"{}")
        await client.read_head()
    assert client.status == 404
    assert upstream.requests == []


async def test_an_unknown_model_is_named_with_what_is_served(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway('models = ["gpt-*", "o1"]\n[[upstreams]]\nname = "parrot"\nkind = "echo"\n')
    reply = await gateway.call("/v1/chat/completions", json={**CHAT, "model": "claude", "note": "n"})
    assert reply.status == 404
    error = reply.json()["error"]
    message = error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": "model_not_found"}
    assert all(word in message for word in ("'claude'", "main: gpt-*, o1", "parrot: echo", "NAME/model"))
    assert upstream.requests == []
    span = await gateway.get(reply.log_id)
    expected = {
        "model": "claude", "upstream": None, "status": "failed", "status_code": 404, "error_code": "model_not_found",
        "error_message": message, "input": CHAT["messages"], "output": None, "note": "n", "prompt_tokens": None,
        "full_request": {**CHAT, "model": "claude"},
    }  # fmt: skip
    assert picked(span, expected) == expected


@pytest.mark.parametrize(
    ("model", "upstream_name"),
    [("gpt-4o", "main"), ("o1", "second"), ("second/gpt-4o", "second"), ("else", "third"), ("nobody/gpt-4o", "third")],
)
async def test_the_first_upstream_whose_models_match_serves(
    start_gateway: StartGateway, upstream: ScriptedUpstream, model: str, upstream_name: str
) -> None:
    more = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "{upstream.url}/{name}"\n{models}\n'
        for name, models in (("second", 'models = ["o1", "gpt-*"]'), ("third", ""))
    )
    gateway = await start_gateway(f'models = ["gpt-*"]\n{more}')
    span = await gateway.span_of("/v1/chat/completions", json={**CHAT, "model": model})
    assert (span["upstream"], span["model"]) == (upstream_name, model)
    base = {"main": "/v1", "second": "/second", "third": "/third"}[upstream_name]
    assert upstream.requests[0].target == f"{base}/chat/completions"


@pytest.mark.parametrize("body", [b"", b"[]", b"17", b'{"model":', b"\xff\xfe\x00", b'{"model":"m"} x'])
async def test_a_chat_that_is_no_json_object_is_refused(
    gateway: Gateway, upstream: ScriptedUpstream, body: bytes
) -> None:
    reply = await gateway.call("/v1/chat/completions", data=body, headers={"X-Data-Respan-Params": "eyJub3RlIjoibiJ9"})
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    span = await gateway.get(reply.log_id)
    expected = {"status": "failed", "status_code": 400, "model": "unknown", "upstream": None, "note": "n"}
    assert picked(span, expected) == expected
    assert span["error_message"] == reply.json()["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(
    start_gateway: StartGateway, upstream: ScriptedUpstream, chunked: bool
) -> None:
    gateway = await start_gateway(server="max_body_mb = 0.001")

    async def pieces() -> Any:
        yield b"x" * 2000

    reply = await gateway.call("/v1/chat/completions", data=pieces() if chunked else b"x" * 2000)
    assert reply.status == 413
    assert reply.json()["error"]["code"] == "body_too_large"
    span = await gateway.get(reply.log_id)
    assert (span["status"], span["status_code"], span["error_code"]) == ("failed", 413, "body_too_large")


async def test_a_body_that_is_too_large_once_decompressed_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server="max_body_mb = 0.01")
    body = gzip.compress(b"[" + b" " * 1_000_000 + b"]")
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        assert (await gateway.call(path, data=body, headers={"Content-Encoding": "gzip"})).status == 413


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"x-api-key": "wrong"}],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/anything", "/api/chat/completions/", "/v1/models"])
async def test_no_key_or_a_wrong_one_is_a_401(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, headers: dict[str, str]
) -> None:
    async with (
        aiohttp.ClientSession(gateway.url) as session,
        session.request("GET" if path == "/v1/models" else "POST", path, json=CHAT, headers=headers) as response,
    ):
        assert response.status == 401
        error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert upstream.requests == []
    assert await gateway.spans() == []


@pytest.mark.parametrize("headers", [{"Authorization": KEY}, {"x-api-key": KEY}, {"Authorization": f"bearer  {KEY}"}])
async def test_the_key_is_taken_in_every_form(gateway: Gateway, headers: dict[str, str]) -> None:
    async with (
        aiohttp.ClientSession(gateway.url, headers=headers) as session,
        session.post("/v1/chat/completions", json=CHAT) as response,
    ):
        assert (response.status, await response.json()) == (200, COMPLETION)


# Models


def listing(*ids: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "them"} for name in ids]}


async def models(gateway: Gateway, path: str = "/v1/models") -> list[str]:
    async with gateway.session.get(path) as response:
        assert response.status == 200
        answered = await response.json()
    assert answered["object"] == "list"
    return [model["id"] for model in answered["data"]]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/api/models", "/api/models/"])
async def test_models_are_listed(start_gateway: StartGateway, upstream: ScriptedUpstream, path: str) -> None:
    upstream.play = answer(listing("gpt-4o", "gpt-5", "o1", "whisper-1", "gpt-4o"))
    gateway = await start_gateway('models = ["gpt-*", "literal"]\n[[upstreams]]\nname = "parrot"\nkind = "echo"\n')
    assert await models(gateway, path) == ["literal", "gpt-4o", "gpt-5", "echo"]
    assert [(one.method, one.target) for one in upstream.requests] == [("GET", "/v1/models")]
    assert upstream.requests[0].headers["Authorization"] == "Bearer upstream-secret"


async def test_an_upstreams_list_is_kept_for_five_minutes(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: Any
) -> None:
    upstream.play = answer(listing("one"))
    gateway = await start_gateway(clock=clock)
    assert await models(gateway) == ["one"]
    upstream.play = answer(listing("two"))
    clock.advance(299.9)
    assert await models(gateway) == ["one"]
    clock.advance(0.1)
    assert await models(gateway) == ["two"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "answered", [("[]", 200), ('{"data": {}}', 200), ("nonsense", 200), (json.dumps(listing("a")), 500)]
)
async def test_an_upstream_whose_list_fails_counts_as_empty(
    start_gateway: StartGateway, upstream: ScriptedUpstream, answered: tuple[str, int]
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(answered[1], {"Content-Length": str(len(answered[0]))})
        await wire.send(answered[0])

    upstream.play = play
    gateway = await start_gateway()
    assert await models(gateway) == []
    # What failed is asked again.
    upstream.play = answer({"data": [{"id": "a"}, {"id": 1}, "b"]})
    assert await models(gateway) == ["a"]


async def test_an_upstream_that_is_gone_has_no_models(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    await upstream.stop()
    assert await models(gateway) == []


async def test_respan_params_that_an_sdk_writes_into_a_form_are_taken_out_and_read(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The openai SDK writes an object of `extra_body` as fields called `name[key]`."""

    async def play(received: Received, wire: Wire) -> None:
        await wire.json({"text": "hello"})

    upstream.play = play
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = await client.audio.transcriptions.create(
            model="main/whisper-1",
            file=("a.wav", b"RIFF", "audio/wav"),
            extra_body={"respan_params": {"customer_identifier": "u-1", "metadata": {"plan": "pro"}}},
        )
    assert answer.text == "hello"
    body = upstream.requests[0].body
    assert b"respan_params" not in body
    assert b"whisper-1" in body and b"main/whisper-1" not in body
    span = await gateway.only_span()
    assert (span["customer_identifier"], span["metadata"]) == ("u-1", {"plan": "pro"})
    assert (span["log_type"], span["output"]) == ("transcription", "hello")


async def test_what_is_no_post_is_stripped_and_routed_too(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})

    upstream.play = play
    body = b'{"x": 1.0, "respan_params": {"a": 1}, "model": "main/m"}'
    async with gateway.session.put("/v1/things/1", data=body) as response:
        assert response.status == 200
    assert upstream.requests[0].body == b'{"x": 1.0, "model": "m"}'
    assert await gateway.spans() == []


@pytest.mark.parametrize("server", ["nginx", SERVER_SOFTWARE])
async def test_the_upstreams_server_header_passes(gateway: Gateway, upstream: ScriptedUpstream, server: str) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({}, headers={"Server": server})

    upstream.play = play
    assert (await gateway.call("/v1/things", json={})).headers["Server"] == server
    async with gateway.session.get("/health") as response:
        assert "Server" not in response.headers


async def test_a_form_whose_model_is_no_text_goes_to_the_first_upstream(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})

    upstream.play = play
    form = b'--B\r\nContent-Disposition: form-data; name="model[x]"\r\n\r\n1\r\n--B--\r\n'
    span = await gateway.span_of(
        "/v1/audio/transcriptions", data=form, headers={"Content-Type": "multipart/form-data; boundary=B"}
    )
    assert (span["model"], span["upstream"], upstream.requests[0].body) == ("unknown", "main", form)
