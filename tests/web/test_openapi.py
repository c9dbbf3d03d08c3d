"""The document at /openapi.json: every route is in it, and answers are as it says."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock

import aiohttp
import jsonschema_rs
import pytest
from schemathesis import openapi

from gateway.core.span import Span
from gateway.web.openapi import METHODS, Description, Route
from gateway.web.routes import Keyed, Open, table
from tests.conftest import KEY, Gateway
from tests.web.test_spans import FIELDS

Document = dict[str, Any]


@pytest.fixture
async def document(gateway: Gateway) -> AsyncIterator[Document]:
    """As anyone gets it, without a key."""
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        yield await response.json()


def fits(document: Document, schema: str, value: Any) -> None:
    """Raises ValidationError."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def lines() -> list[Keyed | Open]:
    return table(*(MagicMock() for _ in range(12)))


OF_THE_PROXY = ("/v1/chat/completions", "/v1/models", "/v1/traces", "/v1/traces/ingest")


def test_every_route_and_method_of_the_table_is_described_and_nothing_else() -> None:
    described = json.loads(Description(Route(line.method, line.path, True) for line in lines()).text)["paths"]
    served = {
        (method, re.sub(r"{(\w+):.*}", r"{\1}", line.path))
        for line in lines()
        for method in (METHODS if line.method == "*" else (line.method.lower(),))
    }
    # The relay takes what these leave of /v1.
    served |= {(method, path) for method in METHODS for path in OF_THE_PROXY}
    assert {(method, path.rstrip("/") or "/") for path, methods in described.items() for method in methods} == served


def test_a_route_that_is_not_described_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="/api/new"):
        assert Description([Route("GET", "/api/new", needs_key=True)]).text


async def test_answers_say_when_to_try_again_and_which_span_a_call_left(document: Document) -> None:
    shared = document["components"]["responses"]

    def headers(answer: Document) -> set[str]:
        return set((shared[answer["$ref"].rsplit("/", 1)[1]] if "$ref" in answer else answer)["headers"])

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if status in ("429", "503"):
                    assert "Retry-After" in headers(answer), (method, path, status)
                if "leaves a span" in operation["summary"]:
                    assert "X-Respan-Log-Id" in headers(answer), (method, path, status)


async def test_who_may_call_a_route_is_what_the_table_says(document: Document) -> None:
    open_to_all = {re.sub(r"{(\w+):.*}", r"{\1}", line.path) for line in lines() if isinstance(line, Open)}
    assert document["security"] == [{name: []} for name in document["components"]["securitySchemes"]]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation.get("security") == ([] if path in open_to_all else None), path


async def test_one_is_let_in_by_each_way_that_is_told(gateway: Gateway, document: Document) -> None:
    async with aiohttp.ClientSession(gateway.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        form, own = {"key": KEY}, {"Origin": gateway.url}
        async with session.post("/login", data=form, headers=own, allow_redirects=False) as response:
            cookies = {name: cookie.value for name, cookie in response.cookies.items()}
        ways = {}
        for scheme in document["components"]["securitySchemes"].values():
            match scheme:
                case {"type": "http", "scheme": "bearer"}:
                    ways["bearer"] = {"Authorization": f"Bearer {KEY}"}
                case {"type": "apiKey", "in": "header", "name": name}:
                    ways["header"] = {name: KEY}
                case {"type": "apiKey", "in": "cookie", "name": name}:
                    ways["cookie"] = {"Cookie": f"{name}={cookies[name]}"}
        assert set(ways) == {"bearer", "header", "cookie"}
        for expected, headers in ((401, {}), *((200, headers) for headers in ways.values())):
            async with session.get("/api/session", headers=headers) as response:
                assert response.status == expected, headers


async def test_the_document_is_valid_and_every_operation_has_a_name_of_its_own(document: Document) -> None:
    loaded = openapi.from_dict(document)
    loaded.validate()
    operations = [found.ok() for found in loaded.get_all_operations()]
    names = {operation.definition.raw["operationId"] for operation in operations}
    assert len(names) == len(operations) == sum(map(len, document["paths"].values()))


async def test_every_operation_is_in_a_group_that_is_described(document: Document) -> None:
    groups = [tag["name"] for tag in document["tags"]]
    used = {
        tag for methods in document["paths"].values() for operation in methods.values() for tag in operation["tags"]
    }
    assert used == set(groups)
    assert len(groups) == len(used)
    assert all(len(operation["tags"]) == 1 for methods in document["paths"].values() for operation in methods.values())


async def test_the_examples_of_bodies_are_as_described(document: Document) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for medium in operation.get("requestBody", {}).get("content", {}).values():
                if "example" in medium and "schema" in medium:
                    fits(document, medium["schema"]["$ref"].rsplit("/", 1)[1], medium["example"])


async def test_a_stored_span_has_every_field_that_is_described_and_no_other(
    gateway: Gateway, document: Document
) -> None:
    _, created = await gateway.post({"model": "m"})
    described = document["components"]["schemas"]["Span"]
    assert set(created) - {"message"} == set(described["properties"]) == set(described["required"])
    assert set(Span.model_fields) <= set(document["components"]["schemas"]["SpanFields"]["properties"])


async def test_spans_of_every_kind_are_as_described(gateway: Gateway, document: Document) -> None:
    for sent, _ in FIELDS:
        fits(document, "NewSpan", {"model": "m", **sent})
        status, created = await gateway.post({"model": "m", **sent})
        assert status == 201
        fits(document, "CreatedSpan", created)
    async with gateway.session.get("/api/request-logs/list/?page_size=1000") as response:
        page = await response.json()
    assert page["results"]
    fits(document, "Page", page)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_span_of_a_call_is_as_described(gateway: Gateway, document: Document, stream: bool) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    fits(document, "ChatRequest", body)
    reply = await gateway.call("/v1/chat/completions", json=body)
    if not stream:
        fits(document, "ChatCompletion", reply.json())
    fits(document, "Span", await gateway.get(reply.log_id))


async def test_refusals_are_as_described(gateway: Gateway, document: Document) -> None:
    for path, body, schema in (
        ("/api/request-logs/", b"", "Refusal"),
        ("/api/request-logs/", b"{}", "InvalidFields"),
        ("/api/request-logs/bulk/", b'{"logs": [{}]}', "BulkResult"),
        ("/api/request-logs/bulk/", b'{"logs": 5}', "InvalidFields"),
        ("/api/chat/completions", b"", "CallRefusal"),
    ):
        async with gateway.session.post(path, data=body) as response:
            fits(document, schema, await response.json())
    for path, schema in (("/api/request-logs/x/", "Refusal"), ("/api/request-logs/audit/", "Audit")):
        async with gateway.session.get(path) as response:
            fits(document, schema, await response.json())
