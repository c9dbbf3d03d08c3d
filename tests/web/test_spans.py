"""The span routes on a real port: everything that create-span.txt lists, posted and read back."""

import asyncio
import base64
import gzip
import io
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway import config
from gateway.app import opened, served
from tests.conftest import KEY, OTHER_KEY, Gateway, StartGateway
from tests.fakes.clock import FakeClock

ID = f"{1:032x}"
USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

# What every span reads as that says nothing but its model, and is no call of a language model.
PLAIN = {
    "id": ID,
    "unique_id": ID,
    "span_unique_id": ID,
    "organization_id": "org-a",
    "unique_organization_id": "org-a",
    "organization_key_id": "team-a",
    "organization_key_name": "team-a",
    "environment": "prod",
    "log_method": "logging_api",
    "model": "m",
    "log_type": "chat",
    "stream": False,
    "status": "success",
    "status_code": 200,
    "timestamp": "2026-01-02T03:04:05.000000Z",
    "is_custom_prompt": False,
    "temperature": 1.0,
    "top_p": 1.0,
    "blurred": False,
    "scores": {},
}


def said(span: dict[str, Any]) -> dict[str, Any]:
    """What a reply says: the fields that are not null."""
    return {name: value for name, value in span.items() if value is not None}


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that takes bodies of 1 MB and keeps 10 KB of content."""
    text = f"""
    server = {{ port = 0, max_body_mb = 1 }}
    store = {{ path = '{tmp_path}/limited.db', max_content_mb = 0.01 }}
    keys = [{{ name = "team-a", key = "{KEY}", organization_id = "org-a" }}]
    """
    read = config.parse(text, "test.toml", {})
    headers = {"Authorization": f"Bearer {KEY}"}
    async with opened(read) as app, served(read, app) as url, aiohttp.ClientSession(url, headers=headers) as session:
        yield Gateway(url, session, read.store.path)


@pytest.fixture
async def still(start_gateway: StartGateway, clock: FakeClock) -> Gateway:
    """A gateway whose clock stands still."""
    return await start_gateway(clock=clock)


async def test_a_span_of_a_model_alone(still: Gateway) -> None:
    status, created = await still.post({"model": "m"})
    assert (status, said(created)) == (201, {**PLAIN, "message": "log successful"})
    assert said(await still.get(ID)) == PLAIN


# Every field of create-span.txt but model: what is sent, and what the span then says.
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"log_type": "tool"}, {"log_type": "tool"}),
    ({"log_type": "never heard of"}, {"log_type": "never heard of"}),
    ({"log_type": "tool", "input": {"a": [1]}}, {"log_type": "tool", "input": {"a": [1]}}),
    ({"log_type": "tool", "output": [1, None]}, {"log_type": "tool", "output": [1, None]}),
    (
        {"input": [USER], "output": ANSWER, "prompt_tokens": 3, "completion_tokens": 4},
        {
            **{"input": [USER], "output": ANSWER, "messages": [USER], "prompt_messages": [USER]},
            **{"completion_message": ANSWER, "prompt_tokens": 3, "completion_tokens": 4, "total_request_tokens": 7},
        },
    ),
    (
        {"messages": [USER], "prompt_tokens": 3},
        {
            **{"input": [USER], "messages": [USER], "prompt_messages": [USER]},
            **{"prompt_tokens": 3},
        },
    ),
    ({"log_type": "task", "prompt_messages": [USER]}, {"log_type": "task", "input": [USER]}),
    ({"log_type": "task", "completion_message": ANSWER}, {"log_type": "task", "output": ANSWER}),
    (
        {"usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {
            **{"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "prompt_tokens": 3, "completion_tokens": 4},
            "total_request_tokens": 7,
        },
    ),
    ({"cost": 0.25}, {"cost": 0.25}),
    ({"latency": 2}, {"latency": 2.0, "start_time": "2026-01-02T03:04:03.000000Z"}),
    ({"generation_time": 2}, {"latency": 2.0, "start_time": "2026-01-02T03:04:03.000000Z"}),
    ({"time_to_first_token": 0.5}, {"time_to_first_token": 0.5}),
    ({"ttft": 0.5}, {"time_to_first_token": 0.5}),
    ({"tokens_per_second": 9.5}, {"tokens_per_second": 9.5}),
    ({"metadata": {"a": 1, "_b": 2}}, {"metadata": {"a": "1"}}),
    ({"properties": {"a": 1, "b": [True, None, 0.5]}}, {"properties": {"a": 1, "b": [True, None, 0.5]}}),
    ({"variables": {"a": 1}}, {"variables": {"a": 1}}),
    ({"customer_identifier": "c" * 254}, {"customer_identifier": "c" * 254}),
    (
        {"customer_params": {"customer_identifier": "c", "email": "e", "name": "n", "period_budget": 5}},
        {
            "customer_params": {"customer_identifier": "c", "email": "e", "name": "n", "period_budget": 5},
            **{"customer_identifier": "c", "customer_email": "e", "customer_name": "n"},
        },
    ),
    ({"thread_identifier": "t"}, {"thread_identifier": "t", "session_identifier": "t"}),
    *(
        ({name: "x"}, {name: "x"})
        for name in (
            *("custom_identifier", "group_identifier", "trace_unique_id", "span_workflow_name", "span_name"),
            *("span_parent_id", "prompt_id", "prompt_name", "error_code", "session_identifier", "customer_email"),
            *("customer_name", "evaluation_identifier", "note", "category", "provider_id", "warnings"),
        )
    ),
    ({"tools": [TOOL]}, {"tools": [TOOL]}),
    ({"tool_calls": [CALL]}, {"tool_calls": [CALL]}),
    ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
    ({"tool_choice": TOOL}, {"tool_choice": TOOL}),
    ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    *(({name: 0.5}, {name: 0.5}) for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")),
    *(({name: 0.5}, {name: 0.5}) for name in ("prompt_unit_price", "completion_unit_price", "routing_time")),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"stop": "END"}, {"stop": "END"}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"status_code": 418}, {"status_code": 418, "status": "failed"}),
    ({"error_message": "no"}, {"error_message": "no", "status": "failed"}),
    ({"warnings": {"a": 1}}, {"warnings": {"a": 1}}),
    ({"status": "error"}, {"status": "failed"}),
    ({"status": "success", "status_code": 500}, {"status": "success", "status_code": 500}),
    ({"status": "unheard of"}, {"status": "unheard of"}),
    ({"stream": True}, {"stream": True}),
    ({"is_custom_prompt": True}, {"is_custom_prompt": True}),
    ({"timestamp": "2026-01-01T01:00:00+01:00"}, {"timestamp": "2026-01-01T00:00:00.000000Z"}),
    ({"start_time": "2026-01-02T00:00:00Z"}, {"start_time": "2026-01-02T00:00:00.000000Z"}),
    (
        {"start_time": "2026-01-01T00:00:00Z", "timestamp": "2026-01-01T00:00:01.5Z"},
        {
            **{"start_time": "2026-01-01T00:00:00.000000Z", "timestamp": "2026-01-01T00:00:01.500000Z"},
            "latency": 1.5,
        },
    ),
    ({"full_request": {"a": {"b": 1}}}, {"full_request": {"a": {"b": 1}}}),
    ({"full_response": {"a": {"b": 1}}}, {"full_response": {"a": {"b": 1}}}),
    (
        {"respan_params": {"note": "n"}, "keywordsai_params": {"note": "o", "category": "c"}},
        {"note": "n", "category": "c"},
    ),
    ({"respan_params": '{"note": "n"}'}, {"note": "n"}),
    ({"respan_params": "no json"}, {}),
    ({"positive_feedback": False}, {"positive_feedback": False}),
    ({"unique_id": "my/own id"}, {"id": "my/own id", "unique_id": "my/own id", "span_unique_id": "my/own id"}),
    ({"id": "mine"}, {"id": "mine", "unique_id": "mine", "span_unique_id": "mine"}),
    ({"span_unique_id": "s"}, {"span_unique_id": "s"}),
    (
        {"prompt_cache_hit_tokens": 1, "prompt_cache_creation_tokens": 2, "reasoning_tokens": 3},
        {"prompt_cache_hit_tokens": 1, "prompt_cache_creation_tokens": 2, "reasoning_tokens": 3},
    ),
    ({"total_request_tokens": 9}, {"total_request_tokens": 9}),
    (
        {"disable_log": True, "input": "x", "own": "x", "prompt_tokens": 1},
        {"disable_log": True, "prompt_tokens": 1},
    ),
    ({"organization_id": "x", "environment": "test", "organization_key_id": "x"}, {}),
    ({"anything": [1, {"a": None}], "message": "kept"}, {"anything": [1, {"a": None}], "message": "kept"}),
]


@pytest.mark.parametrize(("sent", "changes"), FIELDS, ids=lambda value: ",".join(value))
async def test_every_field_is_stored_and_read_back(
    still: Gateway, sent: dict[str, Any], changes: dict[str, Any]
) -> None:
    status, created = await still.post({"model": "m", **sent})
    expected = {**PLAIN, **changes}
    assert (status, said(created)) == (201, {**expected, "message": "log successful"})
    assert said(await still.get(expected["id"])) == expected
    assert [said(span) for span in await still.spans()] == [expected]


async def test_every_optional_field_also_takes_null(still: Gateway) -> None:
    names = {name for sent, _ in FIELDS for name in sent}
    status, created = await still.post({"model": "m", **dict.fromkeys(names)})
    assert (status, said(created)) == (201, {**PLAIN, "message": "log successful"})
    for name in sorted(names):
        status, created = await still.post({"model": "m", name: None})
        assert status == 201, (name, created)


async def test_all_bad_fields_are_named_at_once(gateway: Gateway) -> None:
    status, reply = await gateway.post(
        {
            **{
                "log_type": 1,
                "messages": "x",
                "usage": 1,
                "cost": "x",
                "metadata": [],
                "customer_identifier": "c" * 255,
            },
            **{
                "stop": 1,
                "status_code": "x",
                "stream": "x",
                "timestamp": "x",
                "ttft": [],
                "tools": {},
                "temperature": {},
            },
            **{"respan_params": {"note": 1}},
        }
    )
    assert status == 422
    assert sorted(reply) == ["detail", "errors"]
    assert sorted(reply["errors"]) == sorted(
        [
            *("model", "log_type", "messages", "usage", "cost", "metadata", "customer_identifier", "stop", "note"),
            *("status_code", "stream", "timestamp", "time_to_first_token", "tools", "temperature"),
        ]
    )
    assert all(name in reply["detail"] for name in reply["errors"])
    assert await gateway.spans() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *((body, 400) for body in (b"", b"{", b"[]", b'"text"', b"null", b"5", b"\xff\xfe\xfd", b"{'model': 'm'}")),
        (b'{"a":' + b"[" * 100_000, 400),
        (b'{"model":"m","a":' + b"[" * 300 + b"]" * 300 + b"}", 400),
        (b'{"model":"m","n":' + b"9" * 5000 + b"}", 201),
        (b"{}", 422),
        (b'{"model": null}', 422),
        (b'{"model": "m", "cost": NaN}', 422),
        (b'{"model": "m", "cost": 1e999}', 422),
        (b'{"model": "m", "max_tokens": 9223372036854775808}', 422),
        (b'{"model": "m", "unique_id": "bulk"}', 422),
        (b'{"model": "m", "unique_id": "\\ud800"}', 422),
        (b'{"model": "m", "log_type": "tool", "input": [NaN, -Infinity, 1e999]}', 201),
        (b'{"model": "m", "note": "\\ud800", "\\ud800": "\\ud800", "metadata": {"\\ud800": 1}}', 201),
    ],
)
async def test_bodies(gateway: Gateway, body: bytes, status: int) -> None:
    async with gateway.session.post("/api/request-logs/", data=body) as response:
        assert response.status == status, await response.text()
        reply = await response.json()
        assert status == 201 or isinstance(reply["detail"], str)


async def test_numbers_that_are_no_json_keep_their_text(gateway: Gateway) -> None:
    body = b'{"model": "m", "unique_id": "u", "log_type": "tool", "input": [NaN, -Infinity, 1e999]}'
    await gateway.session.post("/api/request-logs/", data=body)
    assert (await gateway.get("u"))["input"] == ["NaN", "-Infinity", "Infinity"]


@pytest.mark.parametrize(
    "path", [f"/api/request-logs{rest}" for rest in ("", "/", "/create", "/create/")]
)  # fmt: skip
async def test_each_form_of_the_route_answers_by_itself(gateway: Gateway, path: str) -> None:
    async with gateway.session.post(path, json={"model": "m"}, allow_redirects=False) as response:
        assert response.status == 201
        unique_id = (await response.json())["id"]
    for form in (f"/api/request-logs/{unique_id}", f"/api/request-logs/{unique_id}/"):
        async with gateway.session.get(form, allow_redirects=False) as response:
            assert (response.status, (await response.json())["id"]) == (200, unique_id)


async def test_an_id_may_hold_slashes(gateway: Gateway) -> None:
    for unique_id in ("a/b", "/a", "list/x"):
        assert (await gateway.post({"model": "m", "unique_id": unique_id}))[0] == 201
        for slash in ("", "/"):
            async with gateway.session.get(f"/api/request-logs/{unique_id}{slash}") as response:
                assert (await response.json())["id"] == unique_id


@pytest.mark.parametrize("unique_id", ["a/", "list/", ".", "..", "a/../b"])
async def test_an_id_that_no_path_leads_to_is_refused(gateway: Gateway, unique_id: str) -> None:
    status, body = await gateway.post({"model": "m", "unique_id": unique_id})
    assert (status, list(body["errors"])) == (422, ["unique_id"])


async def test_a_page_of_long_spans_is_bounded_and_says_what_it_leaves_out(gateway: Gateway) -> None:
    long = "x" * 1_000_000
    for number in range(20):
        await gateway.post({"model": "m", "log_type": "tool", "input": long, "cost": 0.5, "unique_id": str(number)})
    listed = await gateway.spans()
    whole = [span for span in listed if "content_omitted" not in span]
    assert [span["unique_id"] for span in listed] == [str(number) for number in reversed(range(20))]
    assert len(whole) == 16
    assert all(span["input"] == long for span in whole)
    assert all(span["input"] is None and span["cost"] == 0.5 for span in listed if span not in whole)
    assert (await gateway.get("0"))["input"] == long


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 201),
        ({"Authorization": f"bearer  {KEY}"}, 201),
        ({"Authorization": KEY}, 201),
        ({"x-api-key": KEY}, 201),
        ({"Authorization": "Bearer", "x-api-key": KEY}, 201),
        ({"Authorization": "Bearer wrong", "x-api-key": KEY}, 401),
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "wrong"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"Authorization": f"Bearer {KEY}ü"}, 401),
    ],
)
async def test_keys(gateway: Gateway, headers: dict[str, str], status: int) -> None:
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        async with session.post("/api/request-logs/", json={"model": "m"}) as response:
            assert response.status == status
            reply = await response.json()
        for path in ("/api/request-logs/bulk", "/api/request-logs/list/"):
            async with session.post(path, json={"logs": [{"model": "m"}]}) as response:
                assert response.status in ({201, 200} if status == 201 else {401})
    if status == 401:
        assert list(reply) == ["detail"]
        assert KEY not in reply["detail"]


async def test_bodies_may_be_compressed(gateway: Gateway) -> None:
    body = gzip.compress(json.dumps({"model": "m", "note": "n"}).encode())
    for encoding, status in (("gzip", 201), ("GZIP", 201), ("br", 400)):
        headers = {"Content-Encoding": encoding}
        async with gateway.session.post("/api/request-logs/", data=body, headers=headers) as response:
            assert response.status == status
    async with gateway.session.post(
        "/api/request-logs/", data=body[:-9], headers={"Content-Encoding": "gzip"}
    ) as response:
        assert response.status == 400


async def test_a_body_over_max_body_mb(limited: Gateway) -> None:
    head = b'{"model":"m","x":"'
    fits = head + b"x" * (2**20 - len(head) - 2) + b'"}'
    bomb = gzip.compress(head + b"x" * 2**21 + b'"}')

    async def in_pieces() -> Any:
        yield fits
        yield b" "

    for body, headers, status in (
        (io.BytesIO(fits), {}, 201),
        (io.BytesIO(fits + b" "), {}, 413),
        (in_pieces(), {}, 413),
        (bomb, {"Content-Encoding": "gzip"}, 413),
    ):
        async with limited.session.post("/api/request-logs/", data=body, headers=headers) as response:
            assert response.status == status
            assert status == 201 or "detail" in await response.json()


async def test_long_content_is_cut_and_the_span_says_so(limited: Gateway) -> None:
    status, span = await limited.post({"model": "m", "log_type": "tool", "input": "ü" * 20_000, "note": "stays"})
    assert (status, span["status"], span["note"]) == (201, "warning", "stays")
    assert span["warnings"] == "input cut to fit [store] max_content_mb"
    assert span["input"].endswith("... [cut]") and len(span["input"].encode()) <= 0.01 * 2**20


def header(params: Any, name: str = "X-Data-Respan-Params") -> dict[str, str]:
    return {name: base64.b64encode(json.dumps(params).encode()).decode()}


@pytest.mark.parametrize("name", ["X-Data-Respan-Params", "x-data-keywordsai-params"])
async def test_params_in_a_header_stand_between_the_top_level_and_respan_params(gateway: Gateway, name: str) -> None:
    params = {"note": "header", "category": "header", "variables": {"a": "header", "b": "header"}}
    sent = {"model": "m", "note": "top", "variables": {"a": "top"}, "respan_params": {"category": "nested"}}
    _, span = await gateway.post(sent, headers=header(params, name))
    assert (span["note"], span["category"]) == ("header", "nested")
    assert span["variables"] == {"a": "top", "b": "header"}
    bulk = {"logs": [{"model": "m", "unique_id": "a"}, {"model": "m", "unique_id": "b", "note": "top"}]}
    async with gateway.session.post("/api/request-logs/bulk/", json=bulk, headers=header(params, name)) as response:
        assert response.status == 201
    assert [(await gateway.get(unique_id))["note"] for unique_id in ("a", "b")] == ["header", "header"]


async def test_a_header_that_cannot_be_read_is_passed_over(gateway: Gateway) -> None:
    for headers in ({"X-Data-Respan-Params": "%%"}, header([1]), header({"note": None})):
        assert (await gateway.post({"model": "m", "note": "top"}, headers=headers))[1]["note"] == "top"


MULTIMODAL = [
    {"role": "system", "content": "Look."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
]
REASONED = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "Hm.",
    "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}],
    "tool_calls": [CALL],
    "refusal": None,
}


@pytest.mark.parametrize("as_text", [False, True])
async def test_parts_tool_calls_and_reasoning_survive_whole(gateway: Gateway, as_text: bool) -> None:
    pair = [json.dumps(value) if as_text else value for value in (MULTIMODAL, REASONED)]
    _, created = await gateway.post({"model": "m", "input": pair[0], "output": pair[1]})
    span = await gateway.get(created["id"])
    assert span["input"] == span["prompt_messages"] == MULTIMODAL
    assert span["output"] == span["completion_message"] == REASONED
    assert span["tool_calls"] == [CALL]


async def test_a_plain_text_chat(gateway: Gateway) -> None:
    _, span = await gateway.post({"model": "m", "input": "hi", "output": '{"answer": 42}'})
    assert (span["input"], span["output"]) == ("hi", '{"answer": 42}')
    assert span["prompt_messages"] == [USER]
    assert span["completion_message"] == {"role": "assistant", "content": '{"answer": 42}'}


async def test_tokens_that_nobody_reported_are_counted_and_marked(gateway: Gateway) -> None:
    _, span = await gateway.post(
        {"model": "gpt-4o-mini", "input": [{"role": "user", "content": "tiktoken is great!"}], "output": "hello world"}
    )
    # OpenAI's cookbook: 3 a message, 1 the role, 6 the text, 3 to open the answer
    assert (span["prompt_tokens"], span["completion_tokens"], span["total_request_tokens"]) == (13, 2, 15)
    assert span["cost"] == 13 * 0.15e-6 + 2 * 0.6e-6
    assert span["status"] == "warning"
    assert span["warnings"] == "prompt_tokens and completion_tokens not reported, counted with o200k_base"


PRICES = """
[prices."mine-*"]
prompt = 1
completion = 2
cached_prompt = 0.1
cache_creation = 3
[prices."mine-exact"]
prompt = 10
completion = 20
[prices."mi*"]
prompt = 100
completion = 200
"""
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"model": "mine-exact"}, 1200e-6),
        ({"model": "mine-other"}, 84e-6),
        ({"model": "mi-other"}, 12000e-6),
        ({"model": "mine-exact", "prompt_unit_price": 5, "completion_unit_price": 7}, 570e-6),
        ({"model": "mine-exact", "prompt_unit_price": 5, "cost": 0.5}, 0.5),
        ({"model": "gpt-4o-mini"}, 18e-6),
        ({"model": "nobody's"}, None),
    ],
)
async def test_the_order_of_prices(start_gateway: StartGateway, fields: dict[str, Any], cost: float | None) -> None:
    gateway = await start_gateway(PRICES)
    assert (await gateway.post({"usage": USAGE, **fields}))[1]["cost"] == cost


@pytest.mark.parametrize("cost", [1e9, -1e9, 9_300_000.5, 1e290, -0.1, 123456.789012])
async def test_huge_and_negative_costs(gateway: Gateway, cost: float) -> None:
    _, span = await gateway.post({"model": "m", "cost": cost})
    assert span["cost"] == cost


async def bulk(gateway: Gateway, body: Any) -> tuple[int, Any]:
    async with gateway.session.post("/api/request-logs/bulk/", json=body) as response:
        return response.status, await response.json()


async def test_bulk_rows_stand_each_on_its_own(gateway: Gateway) -> None:
    logs = [{"model": "a"}, {"model": 5}, "no object", None, {"model": "b", "cost": "x", "stop": 5}, {"model": "c"}]
    status, reply = await bulk(gateway, {"logs": logs})
    assert status == 201
    assert (reply["success_count"], reply["error_count"]) == (2, 4)
    assert [error["index"] for error in reply["errors"]] == [1, 2, 3, 4]
    assert "model" in reply["errors"][0]["error"]
    assert "cost" in reply["errors"][3]["error"] and "stop" in reply["errors"][3]["error"]
    assert sorted(span["model"] for span in await gateway.spans()) == ["a", "c"]


async def test_bulk_of_one_of_500_and_of_none(gateway: Gateway) -> None:
    row = {"model": "m", "log_type": "tool"}
    assert await bulk(gateway, {"logs": [row]}) == (201, {"success_count": 1, "error_count": 0, "errors": []})
    assert await bulk(gateway, {"logs": [row] * 500}) == (201, {"success_count": 500, "error_count": 0, "errors": []})
    assert len(await gateway.spans()) == 501
    assert await bulk(gateway, {"logs": []}) == (400, {"success_count": 0, "error_count": 0, "errors": []})
    status, reply = await bulk(gateway, {"logs": [{}, {}]})
    assert (status, reply["success_count"], reply["error_count"]) == (400, 0, 2)
    for body in ({"logs": [row] * 501}, {}, {"logs": None}, {"logs": "x"}, {"logs": {}}):
        status, reply = await bulk(gateway, body)
        assert (status, list(reply["errors"])) == (422, ["logs"])
    assert (await bulk(gateway, []))[0] == 400
    assert len(await gateway.spans()) == 501


async def listed(gateway: Gateway, query: str = "", method: str = "GET", **kwargs: Any) -> tuple[int, Any]:
    async with gateway.session.request(method, f"/api/request-logs/list/{query}", **kwargs) as response:
        return response.status, await response.json()


async def test_pages(gateway: Gateway) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    logs = [
        {"model": "m", "unique_id": str(number), "timestamp": (start + timedelta(seconds=number)).isoformat()}
        for number in (3, 0, 4, 1, 2)
    ]
    assert (await bulk(gateway, {"logs": logs}))[0] == 201
    for method in ("GET", "POST"):
        pages = [(await listed(gateway, f"?page={page}&page_size=2", method))[1] for page in (1, 2, 3, 4)]
        assert [[span["id"] for span in page["results"]] for page in pages] == [["4", "3"], ["2", "1"], ["0"], []]
        assert [page["count"] for page in pages] == [2, 2, 1, 0]
        assert [
            page["next"] and re.sub("&cursor=.*", "&cursor", page["next"].rpartition("?")[2]) for page in pages
        ] == [
            *("page=2&page_size=2&cursor", "page=3&page_size=2&cursor"),
            *(None, None),
        ]
        assert [page["previous"] and page["previous"].rpartition("?")[2] for page in pages] == [
            None,
            *("page=1&page_size=2", "page=2&page_size=2", "page=3&page_size=2"),
        ]
    async with gateway.session.get(pages[0]["next"]) as response:
        assert await response.json() == pages[1]
    assert await listed(gateway, "?page=999999999999") == (
        200,
        {
            "count": 0,
            "next": None,
            "previous": f"{gateway.url}/api/request-logs/list/?page=999999999998",
            "results": [],
        },
    )


async def test_a_list_holds_the_whole_spans(gateway: Gateway) -> None:
    await gateway.post({"model": "m", "unique_id": "a", "log_type": "tool", "input": {"a": 1}, "metadata": {"_h": 1}})
    status, page = await listed(gateway)
    assert (status, page["results"]) == (200, [await gateway.get("a")])
    for path in ("/api/request-logs", "/api/request-logs/", "/api/request-logs/list"):
        async with gateway.session.get(path, allow_redirects=False) as response:
            assert (await response.json())["results"] == page["results"]


async def test_list_parameters(gateway: Gateway) -> None:
    for number, log_type in enumerate(("tool", "task", "tool")):
        span = {
            "model": "m",
            "unique_id": str(number),
            "log_type": log_type,
            "timestamp": f"2026-01-0{number + 1}T00:00:00Z",
        }
        assert (await gateway.post(span))[0] == 201  # fmt: skip

    async def ids(query: str, **kwargs: Any) -> list[str]:
        status, page = await listed(gateway, query, **kwargs)
        assert status == 200, page
        return [span["id"] for span in page["results"]]

    assert await ids("?log_type=tool") == ["2", "0"]
    assert await ids("?environment=prod&sort_by=-timestamp&include_fields=model") == ["2", "1", "0"]
    assert await ids("?environment=test") == []
    assert await ids("?start_time=2026-01-02T00:00:00Z") == ["2", "1"]
    assert await ids("?end_time=2026-01-02T01:00:00+01:00") == ["1", "0"]
    assert await ids("?log_type=%FF%00&environment=%ED%A0%80") == []
    for nothing in ({}, {"filters": {}}, {"filters": None}, {"filters": []}):
        assert await ids("?page_size=5000", method="POST", json=nothing) == ["2", "1", "0"]
    for query in ("?page=0", "?page=x", "?page_size=-1", "?sort_by=note", "?start_time=soon", "?modell=m"):
        status, reply = await listed(gateway, query)
        assert (status, list(reply)) == (400, ["detail"])
    for body in ({"filters": {"modell": {"operator": "", "value": ["m"]}}}, {"filters": False}, {"filters": ""}, []):
        assert (await listed(gateway, method="POST", json=body))[0] == 400


async def test_another_organizations_spans_are_not_there(gateway: Gateway) -> None:
    await gateway.post({"model": "m", "unique_id": "a"})
    async with aiohttp.ClientSession(gateway.url, headers={"Authorization": f"Bearer {OTHER_KEY}"}) as session:
        async with session.get("/api/request-logs/a/") as response:
            assert (response.status, await response.json()) == (404, {"detail": "Span not found."})
        async with session.get("/api/request-logs/list/") as response:
            assert (await response.json())["results"] == []
        async with session.post("/api/request-logs/", json={"model": "other", "unique_id": "a"}) as response:
            span = await response.json()
            assert (response.status, span["organization_id"], span["environment"]) == (201, "org-b", "test")
    assert (await gateway.get("a"))["model"] == "m"
    for unknown in ("b", "%FF", "%00", "%ED%A0%80", "a%2Fb"):
        async with gateway.session.get(f"/api/request-logs/{unknown}/") as response:
            assert response.status == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", "bulk"), ("GET", "bulk"), ("GET", "create/")])
async def test_other_methods_are_named(gateway: Gateway, method: str, path: str) -> None:
    async with gateway.session.request(method, f"/api/request-logs/{path}") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert list(await response.json()) == ["detail"]


@pytest.mark.parametrize("unique_id", ["\n", "a\r\nb", "a/b", "/a", "a%2Fb", "%", "?#;", "ä \0", "list/a", ".a"])
async def test_a_span_is_found_under_whatever_id_it_has(gateway: Gateway, unique_id: str) -> None:
    assert (await gateway.post({"model": "m", "unique_id": unique_id}))[0] == 201
    for slash in ("", "/"):
        path = f"{gateway.url}/api/request-logs/{quote(unique_id, safe='')}{slash}"
        async with gateway.session.get(URL(path, encoded=True)) as response:
            assert (response.status, (await response.json())["id"]) == (200, unique_id)


async def test_another_program_reads_the_running_database(gateway: Gateway) -> None:
    await gateway.post({"model": "m", "unique_id": "a", "cost": 0.1, "input": [USER], "prompt_tokens": 5})
    await gateway.post({"model": "m", "unique_id": "b", "cost": 0.2})
    db = sqlite3.connect(f"file:{gateway.path}?mode=ro", uri=True)
    rows = db.execute("SELECT unique_id, model, status, cost, prompt_tokens, input FROM spans ORDER BY timestamp, seq")
    assert rows.fetchall() == [
        ("a", "m", "success", 0.1, 5, '[{"role":"user","content":"hi"}]'),
        ("b", "m", "success", 0.2, None, None),
    ]
    assert db.execute("SELECT sum(cost_picos) FROM span").fetchone() == (300_000_000_000,)
    db.close()


async def test_many_posts_at_once_are_all_there(gateway: Gateway) -> None:
    ends = await asyncio.gather(*(gateway.post({"model": "m", "unique_id": f"u{number}"}) for number in range(300)))
    assert {status for status, _ in ends} == {201}
    assert {span["id"] for span in await gateway.spans()} == {f"u{number}" for number in range(300)}


async def test_one_id_posted_many_times_is_one_span(gateway: Gateway) -> None:
    ends = await asyncio.gather(*(gateway.post({"model": str(number), "unique_id": "u"}) for number in range(50)))
    assert {status for status, _ in ends} == {201}
    assert len({span["model"] for _, span in ends}) == len(await gateway.spans()) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**30, 10**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\0", "\ud800", "[]", '{"role": "user", "content": 1}', "[1", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "messages", "choices", "message", "output", "text"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
LOG_TYPES = st.sampled_from(
    [
        *("chat", "completion", "response", "embedding", "speech", "transcription", "workflow", "agent", "task"),
        *("tool", "guardrail", "reranker", "other", "text", "generation", "handoff", "unheard of"),
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LOG_TYPES, JSON, JSON, JSON)
async def test_any_json_is_taken_as_input_and_output_of_any_type(
    gateway: Gateway, log_type: str, given_input: Any, given_output: Any, extra: Any
) -> None:
    sent = {"model": "m", "log_type": log_type, "input": given_input, "output": given_output, "own": extra}
    status, created = await gateway.post(sent)
    assert status == 201, created
    created.pop("message")
    assert await gateway.get(created["id"]) == created
    assert created.get("own") == extra
    if log_type != "chat":
        assert (created["input"], created["output"]) == (given_input, given_output)
    assert isinstance(created["prompt_messages"] or [], list)
    assert isinstance(created["completion_message"] or {}, dict)
