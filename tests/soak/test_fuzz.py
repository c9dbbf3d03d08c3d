"""Whatever comes in, the gateway answers: never 500, never an exception in its log, errors in their shape.

Hypothesis makes the requests, a socket of ours sends them, and the answers are held against the OpenAPI document.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.aliases import NESTED
from gateway.core.span import RESERVED_IDS, Span
from tests.conftest import KEY, Gateway
from tests.fakes.upstream import Received, ScriptedUpstream, Wire
from tests.soak import oddities as odd
from tests.soak.conftest import Figures, HowLong

# A test that hangs ends; nothing is measured with it.
_AT_MOST_S = 20


@dataclass(frozen=True)
class Reply:
    """An answer; without its body where it was cut, or has no end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Sender:
    """Sends requests to a gateway, each on a connection of its own, and holds answers against its document."""

    def __init__(self, url: str, document: dict[str, Any]) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._components = document["components"]
        self._validators: dict[str, Any] = {}

    def raw(self, data: bytes) -> Reply | None:
        """Sends the bytes and no more: the first answer, if there is one."""
        with socket.create_connection(self._address, timeout=_AT_MOST_S) as connection:
            with contextlib.suppress(ConnectionError):
                # It may answer before it has read everything, and hang up.
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            try:
                return _read(connection, data.partition(b" ")[0].decode("latin-1"))
            except (http.client.BadStatusLine, http.client.UnknownProtocol, ConnectionError):
                return None

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str | None] | None = None
    ) -> Reply:
        """A whole request, with the key unless `headers` say otherwise; a header that is None is left out."""
        lines = {"Host": "gateway", "Authorization": f"Bearer {KEY}", "Connection": "close", **(headers or {})}
        if body or method == "POST":
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {text}\r\n" for name, text in lines.items() if text is not None)
        with socket.create_connection(self._address, timeout=_AT_MOST_S) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
            return _read(connection, method)

    def post(self, path: str, value: Any, headers: dict[str, str] | None = None) -> Reply:
        """A POST of JSON, with NaN and lone surrogates as Python programs send them."""
        return self.request("POST", path, json.dumps(value).encode(), headers)

    def fits(self, reply: Reply, schema: str) -> None:
        """The answer is JSON of this schema. Raises ValidationError."""
        assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
        if schema not in self._validators:
            whole = {"$ref": f"#/components/schemas/{schema}", "components": self._components}
            self._validators[schema] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        self._validators[schema].validate(reply.json())

    def refused(self, reply: Reply, *statuses: int) -> None:
        """The answer is a refusal of a span route."""
        assert reply.status in statuses, (reply.status, reply.body)
        self.fits(reply, "InvalidFields" if reply.status == 422 else "Refusal")

    def refused_call(self, reply: Reply, *statuses: int) -> None:
        """The answer is the gateway's own, at a route of the proxy."""
        assert reply.status in statuses, (reply.status, reply.body)
        if reply.body:
            self.fits(reply, "CallRefusal")

    def span(self, unique_id: str, slash: str = "/") -> dict[str, Any]:
        """A stored span."""
        reply = self.request("GET", f"/api/request-logs/{quote(unique_id, safe='')}{slash}")
        assert reply.status == 200, (unique_id, reply.status, reply.body)
        self.fits(reply, "Span")
        span: dict[str, Any] = reply.json()
        return span

    def settled(self, unique_id: str) -> dict[str, Any]:
        """The span of a call, once the call has ended: one that broke off may do so after its answer."""
        until = time.monotonic() + _AT_MOST_S
        while True:
            reply = self.request("GET", f"/api/request-logs/{unique_id}")
            if reply.status == 200 and reply.json()["status"] != "running":
                self.fits(reply, "Span")
                span: dict[str, Any] = reply.json()
                return span
            assert time.monotonic() < until, (unique_id, reply.status, reply.body)


def _read(connection: socket.socket, method: str) -> Reply:
    with contextlib.closing(http.client.HTTPResponse(connection, method=method)) as response:
        response.begin()
        if response.msg.get_content_type() == "text/event-stream":
            return Reply(response.status, response.msg, b"")
        try:
            return Reply(response.status, response.msg, response.read())
        except (http.client.IncompleteRead, ConnectionError):
            return Reply(response.status, response.msg, b"")


@dataclass
class Fuzz:
    """A gateway under random requests."""

    gateway: Gateway
    sender: Sender
    how_long: HowLong
    caplog: pytest.LogCaptureFixture
    figures: Figures

    async def run(self, stride: int, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
        """Runs a check on examples, beside the gateway's event loop; a stride takes the same ones each time."""
        examples = 0

        def counted(drawn: tuple[Any, ...]) -> None:
            nonlocal examples
            examples += 1
            check(*drawn)

        property_ = settings(
            max_examples=stride,
            deadline=None,
            database=None,
            derandomize=self.how_long.minutes is None,
            suppress_health_check=list(HealthCheck),
        )(given(st.tuples(*strategies))(counted))
        for _ in self.how_long.rounds(1):
            await asyncio.to_thread(property_)
        self.figures(examples=examples, log_lines=len(self.caplog.records))
        # From warnings on, of aiohttp and asyncio too.
        assert self.caplog.text == ""
        async with self.gateway.session.get("/ready") as response:
            assert response.status == 200


@pytest.fixture
async def fuzz(gateway: Gateway, how_long: HowLong, caplog: pytest.LogCaptureFixture, figures: Figures) -> Fuzz:
    async with gateway.session.get("/openapi.json") as response:
        sender = Sender(gateway.url, await response.json())
    return Fuzz(gateway, sender, how_long, caplog, figures)


async def test_any_json_in_any_field_of_a_span_is_stored_or_refused_by_name(fuzz: Fuzz) -> None:
    sender = fuzz.sender

    def check(fields: dict[str, Any], nested: dict[str, Any], where: str) -> None:
        headers = {}
        if where == "header":
            headers["X-Data-Respan-Params"] = odd.in_base64(nested)
        else:
            fields = {**fields, where: nested if len(nested) % 2 else json.dumps(nested)}
        reply = sender.post("/api/request-logs/", {"model": "m", **fields}, headers)
        if reply.status != 201:
            sender.refused(reply, 422)
            assert set(reply.json()["errors"]) <= set(Span.model_fields)
            return
        sender.fits(reply, "CreatedSpan")
        created = reply.json()
        assert {**sender.span(created["unique_id"]), "message": "log successful"} == created

    await fuzz.run(200, check, odd.FIELDS, odd.FIELDS, st.sampled_from([*NESTED, "header"]))


async def test_any_rows_of_a_bulk_are_judged_one_by_one(fuzz: Fuzz) -> None:
    sender = fuzz.sender

    def check(rows: list[Any]) -> None:
        reply = sender.post("/api/request-logs/bulk", {"logs": rows})
        sender.fits(reply, "BulkResult")
        said = reply.json()
        assert reply.status == (201 if said["success_count"] else 400)
        assert said["success_count"] + said["error_count"] == len(rows)
        assert [error["index"] for error in said["errors"]] == sorted({error["index"] for error in said["errors"]})

    await fuzz.run(100, check, st.lists(odd.JSON | odd.FIELDS.map(lambda fields: {"model": "m", **fields}), max_size=4))


async def test_any_body_and_headers_at_a_span_route_are_taken_or_refused(fuzz: Fuzz) -> None:
    sender = fuzz.sender

    def check(path: str, body: bytes, headers: dict[str, str]) -> None:
        reply = sender.request("POST", path, body, headers)
        if reply.status >= 400 and not (reply.status == 400 and "success_count" in reply.json()):
            sender.refused(reply, 400, 413, 422)

    await fuzz.run(200, check, st.sampled_from(odd.SPAN_POSTS), odd.BODIES, odd.HEADERS)


async def test_any_query_of_a_list_is_answered_with_a_page_or_refused(fuzz: Fuzz) -> None:
    sender = fuzz.sender
    names = st.sampled_from(
        ["page", "page_size", "sort_by", "start_time", "end_time", "environment", "log_type", "is_test"]
    )
    texts = odd.ODD_TEXTS | st.text(max_size=4) | st.integers().map(str) | st.datetimes().map(str) | st.just("-id")
    await fuzz.gateway.post({"model": "m"})

    def check(query: list[tuple[str, str]], method: str, junk: str) -> None:
        reply = sender.request(method, f"/api/request-logs/list/?{urlencode(query, errors='surrogatepass')}{junk}")
        if reply.status == 200:
            sender.fits(reply, "Page")
        else:
            sender.refused(reply, 400)

    junk = st.sampled_from(["", "&=x", "&page", "%zz", "&%ff=%ff"]) | st.text("&=%+;?[]", max_size=4)
    await fuzz.run(200, check, st.lists(st.tuples(names, texts), max_size=4), st.sampled_from(["GET", "POST"]), junk)


async def test_a_span_is_found_under_whatever_id_it_was_stored(fuzz: Fuzz) -> None:
    sender = fuzz.sender

    def check(unique_id: str, slash: str) -> None:
        reply = sender.post("/api/request-logs", {"model": "m", "unique_id": unique_id})
        if reply.status == 201:
            stored = reply.json()["unique_id"]
            assert stored == unique_id or not unique_id
            assert sender.span(stored, slash)["id"] == stored
            return
        sender.refused(reply, 422)
        assert list(reply.json()["errors"]) == ["unique_id"]
        path = quote(unique_id, safe="/", errors="surrogatepass")
        reply = sender.request("GET", f"/api/request-logs/{path}{slash}")
        if reply.status == 200:
            assert unique_id.strip("/") in RESERVED_IDS or reply.json()["id"] != unique_id
        else:
            sender.refused(reply, 404, 405)

    odd_parts = [".", "..", "", "%2F", "%", "?", "#", "a b", "\\", ";", ":", "@", "{x}"]
    part = st.sampled_from(sorted(RESERVED_IDS) + odd_parts)
    ids = st.lists(part | odd.ODD_TEXTS | st.text(max_size=3), min_size=1, max_size=3).map("/".join)
    await fuzz.run(200, check, ids, st.sampled_from(["", "/"]))


async def test_any_call_is_answered_by_its_upstream_or_refused_in_openais_shape(
    fuzz: Fuzz, upstream: ScriptedUpstream
) -> None:
    sender = fuzz.sender
    next_answer: list[odd.Answered] = []

    async def play(received: Received, wire: Wire) -> None:
        await next_answer[0].play(wire, with_body=received.method != "HEAD")

    upstream.play = play

    def check(method: str, path: str, body: bytes, headers: dict[str, str], answer: odd.Answered) -> None:
        next_answer[:] = [answer]
        reply = sender.request(method, path, body, headers)
        if "X-Scripted" not in reply.headers:
            sender.refused_call(reply, 400, 404, 405, 413, 502)
        else:
            assert reply.status == answer.status
        if method == "POST" and (unique_id := reply.headers["X-Respan-Log-Id"]):
            assert sender.settled(unique_id)["log_method"] == "inference"

    methods = st.sampled_from(["POST"] * 6 + ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    paths = st.sampled_from([*odd.CHAT, *odd.RELAYED]) | st.text(max_size=5).map(lambda text: f"/v1/{quote(text)}")
    calls = st.dictionaries(odd.CALL_FIELD, odd.JSON, max_size=5)
    messages = calls.map(lambda fields: json.dumps({"model": "m", "messages": [], **fields}).encode())
    await fuzz.run(300, check, methods, paths, messages | odd.BODIES | odd.FORMS, odd.HEADERS, odd.ANSWERS)


async def test_any_bytes_on_a_connection_are_answered_or_cut_off(fuzz: Fuzz, upstream: ScriptedUpstream) -> None:
    sender = fuzz.sender

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": "0"})

    upstream.play = play

    def check(request: bytes) -> None:
        reply = sender.raw(request)
        if reply is None or reply.status < 400:
            return
        assert reply.status < 500, reply
        if reply.body:
            sender.fits(reply, "CallRefusal" if "error" in reply.json() else "Refusal")

    await fuzz.run(400, check, odd.REQUESTS | st.binary(max_size=60))


async def test_any_key_but_the_right_one_is_refused(fuzz: Fuzz) -> None:
    sender = fuzz.sender

    def check(path: str, headers: dict[str, str], authorization: str | None, api_key: str | None) -> None:
        given = {"Authorization": authorization, "x-api-key": api_key}
        reply = sender.request("POST", path, b"{}", {**headers, **given})
        (sender.refused if path.startswith("/api/request-logs") else sender.refused_call)(reply, 401)

    keys = (
        st.none()
        | odd.HEADER_TEXT
        | odd.HEADER_TEXT.map(lambda text: f"Bearer {text}")
        | st.sampled_from(
            [f"Bearer {KEY}x", KEY[:-1], f"Basic {KEY}", f"Bearer Bearer {KEY}", f"Bearer {KEY},", KEY.upper()]
        )
    )
    await fuzz.run(200, check, st.sampled_from([*odd.CHAT, *odd.RELAYED, *odd.SPAN_POSTS]), odd.HEADERS, keys, keys)
