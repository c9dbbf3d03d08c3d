"""What the span of a proxied call holds, whatever the caller says about it."""

import base64
import json
import sqlite3
from typing import Any

import pytest

from gateway.core.jsontext import dump
from tests.conftest import OTHER_KEY, Gateway, StartGateway
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "gpt-4o-mini", "messages": MESSAGES}
ROUTE = "/v1/chat/completions"


def picked(span: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: span[name] for name in wanted}


def as_header(params: dict[str, Any]) -> dict[str, str]:
    return {"X-Data-Respan-Params": base64.b64encode(json.dumps(params).encode()).decode()}


async def test_the_whole_span_of_a_call(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        clock.advance(0.5)
        await wire.json(COMPLETION)

    upstream.play = play
    gateway = await start_gateway(clock=clock)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    request = {
        **CHAT, "tools": tools, "tool_choice": "auto", "response_format": {"type": "text"}, "temperature": 0.3,
        "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2, "max_tokens": 16.0, "stop": ["x"], "seed": 7,
    }  # fmt: skip
    reply = await gateway.call(ROUTE, json={**request, "customer_params": {"customer_identifier": "c", "email": "e"}})
    message = COMPLETION["choices"][0]["message"]  # type: ignore[index]
    assert await gateway.get(reply.log_id) == {
        "id": reply.log_id, "unique_id": reply.log_id, "span_unique_id": reply.log_id,
        "model": "gpt-4o-mini", "response_model": "gpt-4o-mini-2024-07-18", "upstream": "main", "provider_id": None,
        "log_type": "chat", "log_method": "inference", "stream": False,
        "organization_id": "org-a", "unique_organization_id": "org-a", "organization_key_id": "team-a",
        "organization_key_name": "team-a", "environment": "prod",
        "status": "success", "status_code": 200, "error_code": None, "error_message": None, "warnings": None,
        "start_time": "2026-01-02T03:04:05.000000Z", "timestamp": "2026-01-02T03:04:05.500000Z",
        "latency": 0.5, "time_to_first_token": None, "tokens_per_second": 4.0, "routing_time": 0.0,
        "usage": COMPLETION["usage"], "prompt_tokens": 9, "completion_tokens": 2, "total_request_tokens": 11,
        "prompt_cache_hit_tokens": None, "prompt_cache_creation_tokens": None, "reasoning_tokens": None,
        "cost": 0.00000255, "prompt_unit_price": None, "completion_unit_price": None,
        "customer_identifier": "c", "customer_email": "e", "customer_name": None,
        "customer_params": {"customer_identifier": "c", "email": "e"},
        "thread_identifier": None, "session_identifier": None, "custom_identifier": None, "group_identifier": None,
        "evaluation_identifier": None, "trace_unique_id": None, "trace_group_identifier": None,
        "span_parent_id": None, "span_name": None, "span_workflow_name": None, "metadata": None, "properties": None,
        "positive_feedback": None, "note": None, "category": None,
        "input": MESSAGES, "messages": MESSAGES, "prompt_messages": MESSAGES,
        "output": message, "completion_message": message, "completion_messages": None, "tool_calls": None,
        "full_request": request, "full_response": COMPLETION,
        "tools": tools, "tool_choice": "auto", "response_format": {"type": "text"}, "temperature": 0.3, "top_p": 0.9,
        "frequency_penalty": 0.1, "presence_penalty": 0.2, "max_tokens": 16, "stop": ["x"],
        "prompt_id": None, "prompt_name": None, "is_custom_prompt": False, "variables": None, "disable_log": None,
        "gateway_log_id": None,
        "blurred": False, "scores": {}, "period_start": None, "period_end": None, "deployment_id": None,
        "deployment_name": None, "prompt_version_number": None, "limit_info": None,
    }  # fmt: skip


# What callers may say


DESCRIPTIVE = {
    "customer_identifier": "c-1",
    "customer_email": "a@b.c",
    "customer_name": "A",
    "thread_identifier": "th",
    "custom_identifier": "cu",
    "group_identifier": "gr",
    "session_identifier": "se",
    "evaluation_identifier": "ev",
    "trace_unique_id": "tr",
    "trace_group_identifier": "tg",
    "span_unique_id": "su",
    "span_parent_id": "sp",
    "span_name": "sn",
    "span_workflow_name": "sw",
    "metadata": {"plan": "pro"},
    "properties": {"n": 1, "b": True},
    "variables": {"name": "Ann"},
    "prompt_id": "p-1",
    "prompt_name": "greet",
    "is_custom_prompt": True,
    "positive_feedback": True,
    "note": "n",
    "category": "ca",
}


@pytest.mark.parametrize("place", ["top level", "respan_params", "keywordsai_params", "JSON string", "header"])
async def test_descriptive_params_are_taken_from_everywhere(
    gateway: Gateway, upstream: ScriptedUpstream, place: str
) -> None:
    body: dict[str, Any] = {
        "top level": DESCRIPTIVE,
        "respan_params": {"respan_params": DESCRIPTIVE},
        "keywordsai_params": {"keywordsai_params": DESCRIPTIVE},
        "JSON string": {"respan_params": json.dumps(DESCRIPTIVE)},
        "header": {},
    }[place]
    headers = as_header(DESCRIPTIVE) if place == "header" else {}
    span = await gateway.span_of(ROUTE, json={**CHAT, **body}, headers=headers)
    assert picked(span, DESCRIPTIVE) == DESCRIPTIVE
    assert (span["warnings"], span["status"]) == (None, "success")
    assert (span["full_request"], upstream.requests[0].json()) == (CHAT, CHAT)


async def test_the_nested_params_win_over_the_header_and_that_over_the_top_level(gateway: Gateway) -> None:
    span = await gateway.span_of(
        ROUTE,
        json={**CHAT, "note": "top", "category": "top", "span_name": "top", "respan_params": {"note": "nested"}},
        headers=as_header({"note": "header", "category": "header"}),
    )
    assert (span["note"], span["category"], span["span_name"]) == ("nested", "header", "top")


@pytest.mark.parametrize("route", [ROUTE, "/v1/embeddings"])
async def test_names_that_have_no_column_are_kept(gateway: Gateway, route: str) -> None:
    params = {"trace_name": "t", "span_path": "a.b"}
    span = await gateway.span_of(route, json={**CHAT, "respan_params": params})
    assert picked(span, params) == params


MEASURED: dict[str, Any] = {
    "cost": 99.0,
    "prompt_unit_price": 5.0,
    "completion_unit_price": 5.0,
    "usage": {"prompt_tokens": 1000, "completion_tokens": 1000},
    "prompt_tokens": 1000,
    "completion_tokens": 1000,
    "total_request_tokens": 2000,
    "latency": 9.0,
    "time_to_first_token": 9.0,
    "tokens_per_second": 9.0,
    "routing_time": 9.0,
    "timestamp": "2020-01-01T00:00:00Z",
    "start_time": "2020-01-01T00:00:00Z",
    "status": "failed",
    "status_code": 500,
    "error_message": "no",
    "unique_id": "mine",
    "model": "mine",
    "log_type": "tool",
    "log_method": "mine",
    "stream": True,
    "input": "mine",
    "output": "mine",
    "full_response": {"mine": 1},
    "upstream": "mine",
    "response_model": "mine",
    "warnings": "mine",
}


@pytest.mark.parametrize("place", ["respan_params", "header"])
async def test_what_was_measured_wins(gateway: Gateway, upstream: ScriptedUpstream, place: str) -> None:
    body = {**CHAT, "respan_params": MEASURED} if place == "respan_params" else CHAT
    reply = await gateway.call(ROUTE, json=body, headers=as_header(MEASURED) if place == "header" else {})
    span = await gateway.get(reply.log_id)
    expected = {
        "cost": 0.00000255, "prompt_tokens": 9, "completion_tokens": 2, "usage": COMPLETION["usage"],
        "status": "success", "status_code": 200, "error_message": None, "unique_id": reply.log_id,
        "model": "gpt-4o-mini", "log_type": "chat", "log_method": "inference", "stream": False, "input": MESSAGES,
        "full_response": COMPLETION, "upstream": "main", "response_model": "gpt-4o-mini-2024-07-18",
        "prompt_unit_price": None, "time_to_first_token": None,
    }  # fmt: skip
    assert picked(span, expected) == expected
    assert span["latency"] != 9.0
    assert set(span["warnings"].split("; ")) == {f"{name} ignored: measured or set by the gateway" for name in MEASURED}


async def test_measured_fields_at_the_top_level_go_on_and_are_not_believed(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    sent = {**CHAT, "cost": 99.0, "ttft": 1.0, "id": "mine"}
    span = await gateway.span_of(ROUTE, json=sent)
    assert upstream.requests[0].json() == sent
    assert span["cost"] == 0.00000255
    assert {text.partition(" ")[0] for text in span["warnings"].split("; ")} == {
        "cost", "time_to_first_token", "unique_id",
    }  # fmt: skip


async def test_the_caller_is_told_by_the_key_alone(gateway: Gateway) -> None:
    params = {"organization_id": "org-a", "environment": "prod", "organization_key_id": "team-a"}
    async with gateway.session.post(
        ROUTE, json={**CHAT, "respan_params": params}, headers={"Authorization": f"Bearer {OTHER_KEY}"}
    ) as response:
        await response.read()
        log_id = response.headers["X-Respan-Log-Id"]
    assert await gateway.spans() == []
    async with gateway.session.get(
        f"/api/request-logs/{log_id}", headers={"Authorization": f"Bearer {OTHER_KEY}"}
    ) as response:
        span = await response.json()
    expected = {"organization_id": "org-b", "environment": "test", "organization_key_id": "team-b", "warnings": None}
    assert picked(span, expected) == expected


@pytest.mark.parametrize("place", ["top level", "respan_params"])
async def test_fields_of_a_wrong_type_are_dropped_and_named(gateway: Gateway, place: str) -> None:
    wrong: dict[str, Any] = {
        "customer_identifier": "x" * 255,
        "thread_identifier": 7,
        "metadata": ["no"],
        "properties": "no",
        "positive_feedback": "perhaps",
        "note": {"no": 1},
        "variables": 3,
        "span_name": True,
    }
    body = wrong if place == "top level" else {"respan_params": wrong}
    reply = await gateway.call(ROUTE, json={**CHAT, **body, "category": "kept"})
    assert (reply.status, reply.json()) == (200, COMPLETION)
    span = await gateway.get(reply.log_id)
    assert picked(span, wrong) == dict.fromkeys(wrong)
    assert span["category"] == "kept"
    assert {text.partition(" ")[0] for text in span["warnings"].split("; ")} == set(wrong)
    assert span["status"] == "success"


@pytest.mark.parametrize(
    "params", ["nonsense", 7, [1], {"metadata": None}, {"disable_log": "perhaps"}, {"deep": None}, {"\ud800": "\ud800"}]
)
async def test_no_params_make_a_call_fail_or_its_span_vanish(gateway: Gateway, params: Any) -> None:
    if isinstance(params, dict) and "deep" in params:
        params = {"metadata": json.loads("[" * 300 + "]" * 300), "unknown": json.loads("[" * 300 + "]" * 300)}
    reply = await gateway.call(ROUTE, json={**CHAT, "respan_params": params})
    assert (reply.status, reply.json()) == (200, COMPLETION)
    assert (await gateway.get(reply.log_id))["output"]["content"] == "Hello there"


@pytest.mark.parametrize("header", ["not base64 at all!", "bm9uc2Vuc2U=", "W10=", ""])
async def test_a_header_that_cannot_be_read_counts_as_not_sent(gateway: Gateway, header: str) -> None:
    span = await gateway.span_of(ROUTE, json=CHAT, headers={"X-Data-Respan-Params": header})
    assert (span["status"], span["warnings"]) == ("success", None)


async def test_controls_that_have_no_effect_are_named(gateway: Gateway) -> None:
    nested = {"models": ["a"], "first_token_timeout": 1, "cache_ttl": 5, "made_up": 1}
    span = await gateway.span_of(
        ROUTE, json={**CHAT, "cache_enabled": True, "fallback_models": ["m2"], "respan_params": nested}
    )
    assert set(span["warnings"].split("; ")) == {
        *(
            f"{name} ignored: not supported by this gateway yet"
            for name in ("models", "first_token_timeout", "cache_ttl", "cache_enabled", "fallback_models")
        ),
        "made_up ignored: not a known field",
    }
    assert span["status"] == "success"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("place", ["top level", "respan_params", "header"])
async def test_disable_log_keeps_numbers_only(
    gateway: Gateway, upstream: ScriptedUpstream, place: str, streamed: bool
) -> None:
    params = {"disable_log": True, "variables": {"a": "private"}, "customer_identifier": "c", "trace_name": "private"}
    secret = {
        **CHAT,
        "messages": [{"role": "user", "content": "private"}],
        "tools": [{"type": "function", "function": {"name": "private"}}],
        "stop": "private",
        "stream": streamed,
    }
    body = {"top level": {**params}, "respan_params": {"respan_params": params}, "header": {}}[place]
    headers = as_header(params) if place == "header" else {}
    span = await gateway.span_of(ROUTE, json={**secret, **body}, headers=headers)
    expected = {
        "input": None, "output": None, "full_request": None, "full_response": None, "tools": None, "stop": None,
        "variables": None, "prompt_tokens": 9, "completion_tokens": 2, "cost": 0.00000255, "status": "success",
        "customer_identifier": "c", "disable_log": True, "model": "gpt-4o-mini",
    }  # fmt: skip
    assert picked(span, expected) == expected
    assert "private" not in json.dumps(span)
    assert "Hello" not in json.dumps(span)


async def test_disable_log_still_counts_tokens(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({name: value for name, value in COMPLETION.items() if name != "usage"})

    upstream.play = play
    span = await gateway.span_of(ROUTE, json={**CHAT, "disable_log": True})
    span = await gateway.eventually(span["unique_id"], lambda span: span["completion_tokens"] is not None)
    assert (span["completion_tokens"], span["output"], span["status"]) == (2, None, "warning")


# Prices


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({"answered": 1, "asked": 2}, 11e-6),
        ({"asked": 2, "answered": 1}, 11e-6),
        ({"asked": 2}, 22e-6),
        ({"gpt-4o-mini*": 3, "gpt-*": 4}, 33e-6),
        ({"gpt-*": 4, "*": 5}, 44e-6),
        ({"something": 1}, 9 * 0.15e-6 + 2 * 0.6e-6),
    ],
)
async def test_the_order_of_prices(start_gateway: StartGateway, prices: dict[str, int], expected: float) -> None:
    names = {"answered": "gpt-4o-mini-2024-07-18", "asked": "gpt-4o-mini"}
    more = "".join(
        f'[prices."{names.get(name, name)}"]\nprompt = {usd}\ncompletion = {usd}\n' for name, usd in prices.items()
    )
    gateway = await start_gateway(more)
    span = await gateway.span_of(ROUTE, json=CHAT)
    assert span["cost"] == pytest.approx(expected, rel=1e-12)


async def test_a_model_without_a_price_has_no_cost(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({**COMPLETION, "model": "made-up-2"})

    upstream.play = play
    span = await gateway.span_of(ROUTE, json={**CHAT, "model": "made-up"})
    assert (span["cost"], span["prompt_tokens"], span["response_model"]) == (None, 9, "made-up-2")


async def test_what_the_metrics_say(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "no"}}, 500)

    await gateway.call(ROUTE, json=CHAT)
    await gateway.call(ROUTE, json={**CHAT, "stream": True})
    upstream.play = play
    await gateway.call(ROUTE, json=CHAT)
    await gateway.call(ROUTE, data=b"no")
    async with gateway.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    counted = {line for line in lines if line.startswith("gateway_calls_total")}
    assert counted == {
        'gateway_calls_total{outcome="success",upstream="main"} 2.0',
        'gateway_calls_total{outcome="5xx",upstream="main"} 1.0',
        'gateway_calls_total{outcome="4xx",upstream="none"} 1.0',
    }
    assert 'gateway_time_to_first_token_seconds_count{upstream="main"} 1.0' in lines
    assert "gateway_spans_dropped_total 0.0" in lines


@pytest.mark.parametrize("choices", [1, 2])
async def test_what_is_a_part_of_the_whole_is_kept_once(
    gateway: Gateway, upstream: ScriptedUpstream, choices: int
) -> None:
    answer = {**COMPLETION, "choices": COMPLETION["choices"] * choices}

    async def play(received: Received, wire: Wire) -> None:
        await wire.json(answer)

    upstream.play = play
    messages = [{"role": "user", "content": "Hi"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = {"model": "m", "messages": messages, "tools": tools, "tool_choice": "auto", "stop": ["x"]}
    span = await gateway.span_of("/v1/chat/completions", json=body)
    message = COMPLETION["choices"][0]["message"]
    assert (span["input"], span["output"]) == (messages, message if choices == 1 else [message, message])
    assert (span["tools"], span["tool_choice"], span["stop"]) == (tools, "auto", ["x"])
    assert (span["usage"], span["full_request"], span["full_response"]) == (COMPLETION["usage"], body, answer)
    db = sqlite3.connect(gateway.path)
    kept = db.execute("SELECT input, output, usage, tools, tool_choice, stop, full_request FROM content").fetchone()
    assert kept == ("=", "=" if choices == 1 else dump(span["output"]), "=", "=", "=", "=", dump(body))
    db.close()
