"""Headers as the contract lists them, each on a real wire: what stays behind, what goes on, both ways."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client
from tests.fakes.upstream import COMPLETION, Received, Script, ScriptedUpstream, Wire

ROUTE = "/v1/chat/completions"
REQUEST = b'{"model":"m"}'
BODY = json.dumps(COMPLETION).encode()
SPELLED = [str, str.lower, str.upper, str.title]

# Header and values; `canary` must not be seen on the other side.
HOP_BY_HOP = {
    "Connection": ["keep-alive, X-Canary", "X-canary"],
    "Keep-Alive": ["timeout=5, canary=1", "canary"],
    "Proxy-Authenticate": ["Basic realm=canary", "canary"],
    "Proxy-Authorization": ["Basic canary", "canary"],
    "Proxy-Connection": ["canary", "canary"],
    "TE": ["canary;q=0.5", "trailers, canary"],
    "Trailer": ["X-Canary", "canary"],
    "Upgrade": ["canary/2", "canary"],
}
NOT_TO_UPSTREAM = {
    "Authorization": ["Bearer canary", "canary"],
    "x-api-key": ["canary", "canary"],
    "api-key": ["canary", "canary"],
    "x-goog-api-key": ["canary", "canary"],
    "Cookie": ["session=canary", "a=canary; b=canary"],
    "X-Respan-Dogfood": ["canary", "canary"],
    "X-Respan-Anything": ["canary", "canary"],
    "X-Data-Respan-Params": ["eyJub3RlIjoiY2FuYXJ5In0=", "canary"],
    "X-Data-Keywordsai-Params": ["canary", "canary"],
    "X-Data-Anything": ["canary", "canary"],
    "OpenAI-Organization": ["org-canary", "canary"],
    "OpenAI-Project": ["proj-canary", "canary"],
    "Accept-Encoding": ["canary", "x-canary;q=1"],
}
NOT_TO_CLIENT = {
    "Set-Cookie": ["session=canary; Path=/", "a=canary"],
    "Alt-Svc": ['h3="canary:443"', "canary"],
    "Strict-Transport-Security": ["max-age=1; canary", "canary"],
}


def lines(name: str, values: list[str], spelled: Callable[[str], str]) -> list[str]:
    """The header, repeated, among others that go on."""
    return ["X-Before: 1", *(f"{spelled(name)}: {value}" for value in values), "X-Canary-Free: 2", "X-Before: 3"]


def answering(*head: str, body: bytes = BODY) -> Script:
    """A script: an answer with these header lines and a Content-Length."""

    async def play(received: Received, wire: Wire) -> None:
        text = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *head])
        await wire.send(text.encode() + b"\r\n\r\n" + body)

    return play


async def call(gateway: Gateway, *head: str, method: str = "POST", key: str = KEY) -> RawClient:
    """A call with these header lines, its answer read."""
    async with raw_client(gateway.url, key) as client:
        target = ROUTE if method == "POST" else "/v1/files"
        body = REQUEST if method == "POST" else b""
        await client.send_head(method, target, f"Content-Length: {len(body)}", *head)
        await client.send(body)
        await client.read_answer()
        return client


# To the upstream


@pytest.mark.parametrize("name", HOP_BY_HOP | NOT_TO_UPSTREAM)
async def test_it_does_not_reach_the_upstream(gateway: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    values = (HOP_BY_HOP | NOT_TO_UPSTREAM)[name]
    upstream.play = answering()
    for method in ("POST", "GET"):
        for spelled in SPELLED:
            more = ["X-Canary: canary"] if name == "Connection" else []
            client = await call(gateway, *lines(name, values, spelled), *more, method=method)
            assert client.status == 200, client.body
            received = upstream.requests.pop()
            assert received.method == method
            seen = str(list(received.headers.items())).replace("X-Canary-Free", "")
            assert ("canary" in seen.lower(), KEY in seen) == (False, False), seen
            assert received.headers.getall("X-Before") == ["1", "3"]
            assert received.headers["X-Canary-Free"] == "2"
            assert received.headers.getall("Authorization") == ["Bearer upstream-secret"]


@pytest.mark.parametrize("how", ["Authorization: Bearer {key}", "authorization: {key}", "X-API-KEY: {key}"])
async def test_the_callers_key_does_not_reach_an_upstream_that_has_none(
    start_gateway: StartGateway, upstream: ScriptedUpstream, how: str
) -> None:
    upstream.play = answering()
    gateway = await start_gateway(f'models = ["x"]\n[[upstreams]]\nname = "open"\nbase_url = "{upstream.url}/v1"\n')
    async with raw_client(gateway.url, "") as client:
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n{how.format(key=KEY)}\r\nContent-Length: {len(REQUEST)}\r\n\r\n"
        await client.send(head.encode() + REQUEST)
        await client.read_answer()
    assert client.status == 200
    assert sorted(upstream.requests[0].headers) == ["Accept-Encoding", "Content-Length", "Host"]


async def test_a_chunked_request_goes_on_with_its_length_and_without_trailers(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", ROUTE, "TRANSFER-ENCODING: Chunked", "Trailer: X-Canary")
        await client.send(
            b"5;a=b\r\n" + REQUEST[:5] + b"\r\n8\r\n" + REQUEST[5:] + b"\r\n0\r\nX-Canary: canary\r\n\r\n"
        )
        await client.read_answer()
    received = upstream.requests[0]
    assert received.body == REQUEST
    assert received.headers.getall("Content-Length") == [str(len(REQUEST))]
    assert sorted(received.headers) == ["Accept-Encoding", "Authorization", "Content-Length", "Host"]


async def test_the_upstream_is_not_made_to_say_that_it_goes_on(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", ROUTE, f"Content-Length: {len(REQUEST)}", "EXPECT: 100-continue")
        await client.read_head()
        assert client.status == 100
        await client.send(REQUEST)
        await client.read_answer()
    assert client.status == 200
    assert "Expect" not in upstream.requests[0].headers


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
async def test_who_offers_another_protocol_is_served_in_http(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    client = await call(gateway, "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMA")
    assert (client.status, json.loads(client.body)) == (200, COMPLETION)
    assert upstream.requests[0].body == REQUEST
    assert sorted(upstream.requests[0].headers) == ["Accept-Encoding", "Authorization", "Content-Length", "Host"]


# To the client


@pytest.mark.parametrize("name", HOP_BY_HOP | NOT_TO_CLIENT)
async def test_it_does_not_reach_the_client(gateway: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    values = (HOP_BY_HOP | NOT_TO_CLIENT)[name]
    for method in ("POST", "GET"):
        for spelled in SPELLED:
            more = ["X-Canary: canary"] if name == "Connection" else []
            upstream.play = answering(*lines(name, values, spelled), *more)
            client = await call(gateway, method=method)
            assert (client.status, client.body) == (200, BODY)
            seen = str(list(client.headers.items())).replace("X-Canary-Free", "")
            assert "canary" not in seen.lower(), seen
            assert client.headers.getall("X-Before") == ["1", "3"]
            assert client.headers["X-Canary-Free"] == "2"


PASSED = [
    "Retry-After: 20",
    "retry-after-ms: 20000",
    "x-ratelimit-limit-requests: 60",
    "x-ratelimit-remaining-tokens: 149984",
    "X-RateLimit-Reset-Tokens: 6m0s",
    "anthropic-ratelimit-tokens-remaining: 7",
    "openai-organization: theirs",
    "openai-processing-ms: 812",
    "OpenAI-Version: 2020-10-01",
    "x-request-id: req_1",
    "request-id: req_2",
    "cf-ray: 8f-FRA",
    "Server: cloudflare",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT",
    "Cache-Control: no-store",
    "ETag: W/1",
]


@pytest.mark.parametrize("line", PASSED, ids=lambda line: line.partition(":")[0])
@pytest.mark.parametrize("kind", ["body", "stream", "error", "get"])
async def test_it_reaches_the_client(gateway: Gateway, upstream: ScriptedUpstream, line: str, kind: str) -> None:
    name, value = line.split(": ", 1)

    async def play(received: Received, wire: Wire) -> None:
        if kind == "stream":
            await wire.stream_head({name: value})
            await wire.chunk("data: [DONE]\n\n")
            await wire.end_chunks()
        else:
            await wire.json(COMPLETION, 429 if kind == "error" else 200, headers={name: value})

    upstream.play = play
    client = await call(gateway, method="GET" if kind == "get" else "POST")
    assert client.status == (429 if kind == "error" else 200)
    assert client.headers.getall(name) == [value]


async def test_repeated_headers_stay_repeated_and_in_order_both_ways(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    many = ["X-Many: 1", "x-many: 2, 3", "Via: a", "X-MANY: 1", "Via: b", "X-Many: "]
    upstream.play = answering(*many)
    client = await call(gateway, *many)
    for headers in (client.headers, upstream.requests[0].headers):
        passed = [f"{name}: {value}".lower() for name, value in headers.items() if name.lower() in ("x-many", "via")]
        assert passed == [line.lower() for line in many]


async def test_trailers_of_an_answer_stay_behind(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Transfer-Encoding": "chunked", "Trailer": "X-Canary"})
        await wire.chunk(BODY[:9], BODY[9:])
        await wire.send("0\r\nX-Canary: canary\r\n\r\n")

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        for _ in range(2):
            await client.post(ROUTE, REQUEST)
            # A trailer that was passed on would be taken for the end of the body, or for the next head.
            assert await client.read_answer() == BODY
            assert "Trailer" not in client.headers
    assert [received.connection for received in upstream.requests] == [1, 1]


async def test_interim_answers_stay_behind(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Canary: canary\r\n\r\n")
        await wire.json(COMPLETION)

    upstream.play = play
    client = await call(gateway)
    assert (client.status, client.body) == (200, BODY)
    assert "X-Canary" not in client.headers


@pytest.mark.parametrize("value", ["é ✓", "a\tb", "  inner  space", '"quoted, text"', "x" * 30_000])
async def test_values_pass_as_they_are(gateway: Gateway, upstream: ScriptedUpstream, value: str) -> None:
    upstream.play = answering(f"X-Odd: {value}")
    async with raw_client(gateway.url, KEY) as client:
        head = (
            f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nX-Odd: {value}\r\nContent-Length: 13\r\n\r\n"
        )
        await client.send(head.encode() + REQUEST)
        await client.read_answer()
    sent = value.strip().encode()
    assert upstream.requests[0].headers["X-Odd"].encode("latin-1") == sent
    assert client.headers["X-Odd"].encode("latin-1") == sent
