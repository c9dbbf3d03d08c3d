"""Who may call what, and whose spans they see."""

import gc
import hmac
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway import config
from gateway.app import opened, served
from gateway.errors import Unauthorized, UndeclaredRoute
from gateway.recorder import Caller
from gateway.web.keys import Keys
from gateway.web.routes import DECLARED, Keyed, Open
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

PROD, TEST, OTHER = "prod-key-of-org-a", "test-key-of-org-a", "prod-key-of-org-b"
SECRET = bytes(range(32))
CONFIG = """
[server]
port = 0
[store]
path = '{folder}/spans.db'
commit_wait_ms = 60000         # who has read a reply finds its span, however slow the disk
[[keys]]
name = "prod"
key = "prod-key-of-org-a"
organization_id = "org-a"
[[keys]]
name = "test"
key = "test-key-of-org-a"
organization_id = "org-a"
environment = "test"
[[keys]]
name = "other"
key = "prod-key-of-org-b"
organization_id = "org-b"
[[upstreams]]
name = "main"
base_url = "{upstream}/v1"
"""

NO_KEY: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "wrong"},
    {"x-api-key": "wrong"},
    {"Authorization": f"Basic {PROD}"},
    {"Authorization": f"Bearer {PROD} x"},
    {"Authorization": f"Bearer {PROD[:-1]}"},
    {"Authorization": "Bearer wrong", "x-api-key": PROD},
    {"api-key": PROD},
    {"Cookie": f"key={PROD}"},
]
KEY_OF_A: list[dict[str, str]] = [
    {"Authorization": f"Bearer {PROD}"},
    {"Authorization": f"bearer  {PROD}"},
    {"Authorization": PROD},
    {"x-api-key": PROD},
    {"Authorization": "Bearer", "x-api-key": PROD},
    {"Authorization": f"Bearer {TEST}"},
]
KEY_OF_B: list[dict[str, str]] = [{"Authorization": f"Bearer {OTHER}"}]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "logs": [{"model": "m"}]}

# What is sent to change something, by where the path begins.
CHANGES: dict[str, dict[str, Any]] = {
    "/api/request-logs/batch-update": {"logs": [{"unique_id": "a", "note": "n"}]},
    "/api/request-logs/": {"note": "n"},
    "/api/users/": {"name": "n"},
    "/api/traces/": {"is_public": True},
}
# Everything that can be asked for by an id: a span, of this trace, user and thread.
SPAN_A = {
    **{"model": "m", "unique_id": "a", "trace_unique_id": "a", "customer_identifier": "a"},
    "thread_identifier": "a",
}

# What each route of the table answers to those whom it lets in: the span that is asked for is org-a's.
ANSWERS = {
    ("POST", "/v1/chat/completions"): 200,
    ("POST", "/api/chat/completions"): 200,
    ("POST", "/api/openai/v1/chat/completions"): 200,
    ("GET", "/v1/models"): 200,
    ("GET", "/api/models"): 200,
    ("POST", "/v1/traces"): 200,
    ("POST", "/v1/traces/ingest"): 200,
    ("*", "/v1/{rest}"): 200,
    ("POST", "/api/request-logs"): 201,
    ("POST", "/api/request-logs/create"): 201,
    ("POST", "/api/request-logs/bulk"): 201,
    ("GET", "/api/request-logs"): 200,
    ("GET", "/api/request-logs/list"): 200,
    ("POST", "/api/request-logs/list"): 200,
    ("GET", "/api/request-logs/summary"): 200,
    ("POST", "/api/request-logs/summary"): 200,
    ("GET", "/api/request-logs/groups"): 200,
    ("POST", "/api/request-logs/groups"): 200,
    ("GET", "/api/request-logs/series"): 200,
    ("POST", "/api/request-logs/series"): 200,
    ("GET", "/api/prices"): 200,
    ("GET", "/api/request-logs/live"): 200,
    ("GET", "/api/request-logs/values"): 200,
    ("GET", "/api/request-logs/export"): 200,
    ("GET", "/api/request-logs/audit"): 200,
    ("POST", "/api/request-logs/batch/create"): 201,
    ("PATCH", "/api/request-logs/batch-update"): 200,
    ("GET", "/api/request-logs/{unique_id}"): 200,
    ("PATCH", "/api/request-logs/{unique_id}"): 200,
    ("DELETE", "/api/request-logs/{unique_id}"): 204,
    ("POST", "/api/v2/traces"): 200,
    ("POST", "/api/v1/traces"): 200,
    ("POST", "/api/v1/traces/ingest"): 200,
    ("POST", "/api/openai/v1/traces/ingest"): 200,
    ("POST", "/api/traces/ingest"): 200,
    ("GET", "/api/users/list"): 200,
    ("POST", "/api/users/list"): 200,
    ("GET", "/api/users/{customer_identifier}"): 200,
    ("PATCH", "/api/users/{customer_identifier}"): 200,
    ("DELETE", "/api/users/{customer_identifier}"): 204,
    ("GET", "/api/log_threads"): 200,
    ("POST", "/api/log_threads"): 200,
    ("GET", "/api/log_threads/{thread_identifier}"): 200,
    ("GET", "/api/traces/list"): 200,
    ("POST", "/api/traces/list"): 200,
    ("POST", "/api/traces/bulk"): 200,
    ("POST", "/api/traces/bulk-delete"): 200,
    ("GET", "/api/traces/{trace_unique_id}"): 200,
    ("PATCH", "/api/traces/{trace_unique_id}"): 200,
    ("DELETE", "/api/traces/{trace_unique_id}"): 200,
    ("GET", "/api/{organization_id}/traces/{trace_unique_id}"): 200,
    ("GET", "/"): 303,
    ("HEAD", "/"): 303,
    ("GET", "/login"): 200,
    ("HEAD", "/login"): 200,
    ("POST", "/login"): 400,
    ("POST", "/logout"): 303,
    ("GET", "/dashboard/{file}"): 200,
    ("HEAD", "/dashboard/{file}"): 200,
    ("GET", "/api/session"): 200,
    ("GET", "/health"): 200,
    ("HEAD", "/health"): 200,
    ("GET", "/ready"): 200,
    ("HEAD", "/ready"): 200,
    ("GET", "/metrics"): 200,
    ("HEAD", "/metrics"): 200,
    ("GET", "/openapi.json"): 200,
    ("HEAD", "/openapi.json"): 200,
    ("GET", "/docs"): 200,
    ("HEAD", "/docs"): 200,
    ("GET", "/docs/style.css"): 200,
    ("HEAD", "/docs/style.css"): 200,
}
OPEN = {
    *("/health", "/ready", "/metrics", "/openapi.json", "/docs", "/docs/style.css"),
    *("/", "/login", "/logout", "/dashboard/{file}"),
    "/api/{organization_id}/traces/{trace_unique_id}",
}
# What these answer is not told by the route alone: for a body that asks for nothing.
OF_BODY = {
    "/api/prices": 400,
    **dict.fromkeys(("/api/traces/bulk", "/api/traces/bulk-delete"), 400),
    **{f"{start}/traces/ingest": 400 for start in ("/v1", "/api/v1", "/api/openai/v1", "/api")},
}


async def answer_anything(received: Received, wire: Wire) -> None:
    if received.method == "HEAD":
        await wire.head(200, {"Content-Length": "5"})
    else:
        await wire.json(COMPLETION)


class Running:
    """A running gateway and its route table."""

    def __init__(self, url: str, table: list[Keyed | Open]) -> None:
        self.url = url
        self.table = table
        self.session = aiohttp.ClientSession(url)

    async def ask(self, method: str, path: str, headers: dict[str, str], **kwargs: Any) -> tuple[int, Any]:
        """Status, and the answer if it is JSON."""
        async with self.session.request(method, path, headers=headers, allow_redirects=False, **kwargs) as response:
            if path.rstrip("/").endswith("/live"):
                # It has no end.
                return response.status, None
            body = await response.read()
            return response.status, await response.json() if body and response.content_type.endswith("json") else None

    async def signed_in(self, key: str) -> dict[str, str]:
        """The headers of a page's request, once someone has signed in with a key."""
        async with self.session.post("/login", data={"key": key}, allow_redirects=False) as response:
            return {"Cookie": f"gw_session={response.cookies['gw_session'].value}", "Sec-Fetch-Site": "same-origin"}

    def first_that_fits(self, method: str, path: str) -> Keyed | Open | None:
        """The table's entry for a request: the first whose method and path are those."""
        for route in self.table:
            pattern = re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:(.*)\}$", r"\1", route.path))
            if re.fullmatch(f"{pattern}/?", path) and route.method in (method, "*"):
                return route
        return None


def shown(route: Keyed | Open) -> tuple[str, str]:
    return route.method, re.sub(r"\{(\w+):.*\}$", r"{\1}", route.path)


@pytest.fixture
async def running(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    upstream.play = answer_anything
    settings = config.parse(CONFIG.format(folder=tmp_path, upstream=upstream.url), "test.toml", {})
    async with opened(settings) as gateway, served(settings, gateway) as url:
        found = Running(url, list(dict.fromkeys(gateway.app[DECLARED].values())))
        async with found.session:
            yield found


def answers(route: Keyed | Open | None, path: str) -> tuple[int, int]:
    """What a request for something of org-a is answered, with a key of org-a and with one of org-b."""
    if route is None:
        return 405, 405
    method, shape = shown(route)
    known = ANSWERS[method, shape]
    if shape == "/v1/{rest}":
        # What tracers post to is not relayed.
        return (404, 404) if path.startswith("/v1/traces") else (known, known)
    if shape == "/dashboard/{file}":
        return known, known
    if not shape.endswith("}"):
        known = OF_BODY.get(shape, known)
        return known, 400 if shape.endswith("batch-update") else known
    # Whether there is such a trace or not, it may be shared and deleted; all else has to be there.
    if method != "GET" and "traces" in shape:
        return known, known
    # Other paths may be ids as well.
    of_a = known if path.endswith("/a") and "v1/traces" not in path else 404
    return of_a, of_a if shape.startswith("/api/{organization_id}") else 404


async def test_each_route_lets_in_whom_it_should(running: Running, upstream: ScriptedUpstream) -> None:
    assert [shown(route) for route in running.table] == list(ANSWERS)
    assert {shown(route)[1] for route in running.table if isinstance(route, Open)} == OPEN
    filled = {"{rest}": "embeddings", "{organization_id}": "org-a", "{file}": "login.css"}
    paths = sorted(
        {re.sub(r"\{\w+\}", lambda found: filled.get(found[0], "a"), shown(route)[1]) for route in running.table}
    )
    cookies = [await running.signed_in(PROD), await running.signed_in(OTHER)]
    seen: dict[tuple[str, str], list[set[int]]] = {}
    expected: dict[tuple[str, str], list[set[int]]] = {}

    async def status(method: str, path: str, headers: dict[str, str]) -> int:
        change = next((body for start, body in CHANGES.items() if path.startswith(start)), BODY)
        sent = change if method == "PATCH" else BODY
        # It may have been deleted, and the user with it, who comes back with a new one.
        await running.ask("DELETE", "/api/request-logs/a", KEY_OF_A[0])
        await running.ask("POST", "/api/request-logs/", KEY_OF_A[0], json=SPAN_A)
        await running.ask("PATCH", "/api/traces/a", KEY_OF_A[0], json={"is_public": True})
        body = {"json": sent} if method in ("POST", "PUT", "PATCH") else {}
        return (await running.ask(method, path, headers, **body))[0]

    async def statuses(method: str, path: str, keys: list[dict[str, str]]) -> set[int]:
        return {await status(method, path, headers) for headers in keys}

    for method in METHODS:
        for path in (*paths, *(f"{path}/" for path in paths if path != "/")):
            route = running.first_that_fits(method, path)
            known, of_b = answers(route, path.rstrip("/"))
            nobody = 401 if isinstance(route, Keyed) else known
            # Of the relay, a session opens only what the dashboard uses; to who is signed in, the pages themselves
            # answer otherwise.
            is_closed = route is not None and shown(route)[1] == "/v1/{rest}"
            in_session = [({403} if is_closed else {of}) if isinstance(route, Keyed) else set() for of in (known, of_b)]
            expected[method, path] = [{nobody}, {known}, {of_b}, *in_session]
            before = len(upstream.requests)
            seen[method, path] = [await statuses(method, path, NO_KEY)]
            assert len(upstream.requests) == before
            for keys in (KEY_OF_A, KEY_OF_B, *([cookie] if isinstance(route, Keyed) else [] for cookie in cookies)):
                seen[method, path].append(await statuses(method, path, keys))
    assert seen == expected


async def test_where_there_is_no_route_it_is_a_404_to_everyone(running: Running) -> None:
    nowhere = (
        "/v1",
        "/api",
        "/api/",
        "/admin",
        "/v1/traces",
        "/api/request-logs-of-others",
        "/dashboard",
        "/dashboard/",
    )
    for path in nowhere:
        for headers in (NO_KEY[0], KEY_OF_A[0], KEY_OF_B[0]):
            # Below /v1 it is found out by those who have a key.
            expected = 401 if path == "/v1/traces" and not headers else 404
            assert (await running.ask("GET", path, headers))[0] == expected, (path, headers)


async def test_spans_are_seen_within_their_organization_only(running: Running) -> None:
    of_a, test_of_a, of_b = KEY_OF_A[0], KEY_OF_A[-1], KEY_OF_B[0]
    ids = []
    for headers in (of_a, test_of_a, of_b):
        async with running.session.post("/v1/chat/completions", json=BODY, headers=headers) as response:
            ids.append(response.headers["X-Respan-Log-Id"])
        _, span = await running.ask("POST", "/api/request-logs/", headers, json={"model": "m"})
        ids.append(span["unique_id"])
    by_a, by_b = ids[:4], ids[4:]
    for headers, own, others in ((of_a, by_a, by_b), (test_of_a, by_a, by_b), (of_b, by_b, by_a)):
        for unique_id in own:
            assert (await running.ask("GET", f"/api/request-logs/{unique_id}", headers))[1]["unique_id"] == unique_id
        for unique_id in others:
            answer = await running.ask("GET", f"/api/request-logs/{unique_id}", headers)
            assert answer == (404, {"detail": "Span not found."})
        for method, path in (
            ("GET", "/api/request-logs/list/"),
            ("POST", "/api/request-logs/list/"),
            ("GET", "/api/request-logs"),
        ):
            for query in ("", "?environment=prod&page_size=1000", "?environment=test", "?organization_id=org-a"):
                status, page = await running.ask(method, f"{path}{query}", headers)
                listed = {span["unique_id"] for span in page["results"]} if status == 200 else set()
                assert listed <= set(own)
                assert query or listed == set(own)


POSTED_AS = [
    {"environment": "prod"},
    {"environment": "test"},
    {"is_test": True},
    {"organization_id": "org-b", "organization": "org-b", "organization_key_id": "other"},
    {"respan_params": {"environment": "prod", "organization_id": "org-b"}},
    {"metadata": {"environment": "prod"}},
]


@pytest.mark.parametrize(("key", "environment"), [(PROD, "prod"), (TEST, "test")])
async def test_the_environment_is_that_of_the_key(running: Running, key: str, environment: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    expected = ("org-a", environment)
    for more in POSTED_AS:
        status, span = await running.ask("POST", "/api/request-logs/", headers, json={"model": "m", **more})
        assert (status, span["organization_id"], span["environment"]) == (201, *expected)
        await running.ask("POST", "/api/request-logs/bulk/", headers, json={"logs": [{"model": "m", **more}]})
        async with running.session.post("/v1/chat/completions", json={**BODY, **more}, headers=headers) as response:
            assert (response.status, bool(await response.read())) == (200, True)
    _, page = await running.ask("GET", "/api/request-logs/list/?page_size=1000", headers)
    assert len(page["results"]) == 3 * len(POSTED_AS)
    assert {(span["organization_id"], span["environment"]) for span in page["results"]} == {expected}
    assert (await running.ask("GET", "/api/request-logs/list/", KEY_OF_B[0]))[1]["results"] == []


# The declaration


@pytest.mark.parametrize(
    ("add", "path"), [("route", "/extra/{id}"), ("static", "/extra"), ("application", "/extra/more")]
)
async def test_a_gateway_with_an_undeclared_route_does_not_start(tmp_path: Path, add: str, path: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response()

    settings = config.parse(f"[server]\nport = 0\n[store]\npath = '{tmp_path}/spans.db'", "test.toml", {})
    async with opened(settings) as gateway:
        if add == "route":
            gateway.app.router.add_get(path, handler)
        elif add == "static":
            gateway.app.router.add_static(path, tmp_path)
        else:
            below = web.Application()
            below.router.add_get("/more", handler)
            gateway.app.add_subapp("/extra", below)
        with pytest.raises(UndeclaredRoute, match=rf"^Nobody said who may call GET {path}, HEAD {path}: enter it into"):
            async with served(settings, gateway):
                pass


# The keys


def test_no_key_can_be_reached_from_those_that_are_held() -> None:
    callers = [(PROD, Caller("prod", "org-a", "prod")), (TEST, Caller("test", "org-a", "test"))]
    keys = Keys(callers, SECRET, FakeClock())
    keys.caller({"Authorization": f"Bearer {PROD}"}, "GET")
    keys.caller({"Cookie": f"gw_session={keys.session_with_key(PROD)}"}, "GET")
    with pytest.raises(Unauthorized):
        keys.caller({"Authorization": "Bearer wrong"}, "GET")
    held: list[Any] = []
    waiting: list[Any] = [keys]
    while waiting:
        found = waiting.pop()
        # Classes and functions lead to modules, and with them to this very test.
        if inspect.isclass(found) or inspect.isroutine(found) or any(found is other for other in held):
            continue
        held.append(found)
        waiting += gc.get_referents(found)
    texts = [
        found.encode() if isinstance(found, str) else bytes(found)
        for found in held
        if isinstance(found, (str, bytes, bytearray))
    ]
    assert len([text for text in texts if len(text) == 32 and text != SECRET]) == len(callers)
    for key in (PROD, TEST):
        assert not any(key.encode() in text or key[:8].encode() in text for text in texts)


def test_a_head_full_of_sessions_costs_a_few_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[bytes] = []

    def digest(secret: bytes, said: bytes, name: str) -> bytes:
        signed.append(said)
        return sign(secret, said, name)

    sign = hmac.digest
    keys = Keys([(PROD, Caller("prod", "org-a", "prod"))], SECRET, FakeClock())
    session = str(keys.session_with_key(PROD))
    monkeypatch.setattr(hmac, "digest", digest)
    forged = session[:-1] + ("A" if session[-1] != "A" else "Q")
    for text, looked_at in (("a", 0), (session[1:], 0), (forged, 8)):
        signed.clear()
        with pytest.raises(Unauthorized):
            keys.caller({"Cookie": ";".join([f"gw_session={text}"] * 4600)}, "GET")
        assert len(signed) == looked_at
    # What is none does not hide one that is.
    texts = ["a"] * 4600 + [forged] * 7 + [session]
    assert keys.caller({"Cookie": ";".join(f"gw_session={text}" for text in texts)}, "GET").name == "prod"


def test_each_key_is_compared_with_every_one_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return digests_equal(known, given)

    digests_equal = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    callers = [Caller(str(number), "org", "prod") for number in range(5)]
    keys = Keys(((f"key-{caller.name}", caller) for caller in callers), SECRET, FakeClock())
    for caller in callers:
        assert keys.caller({"x-api-key": f"key-{caller.name}"}, "GET") == caller
    with pytest.raises(Unauthorized):
        keys.caller({"x-api-key": "wrong"}, "GET")
    assert len(compared) == len(set(compared)) == 6 * 5
    assert {len(digest) for pair in compared for digest in pair} == {32}
