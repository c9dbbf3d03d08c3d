"""What tracers send, over HTTP."""

import gzip
import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.conftest import Gateway
from tests.fakes.upstream import Received, ScriptedUpstream, Wire

TRACE, PARENT, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "00f067aa0ba902b8"


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def span(span_id: str = SPAN, **attributes: str) -> dict[str, Any]:
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    return {
        **{"traceId": TRACE, "spanId": span_id, "name": "n", "startTimeUnixNano": "1767355200000000000"},
        **{"endTimeUnixNano": "1767355201000000000", "attributes": listed},
    }


def protobuf() -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(
        trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN), name="n"
    )
    return message


async def send(gateway: Gateway, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with gateway.session.post(path, data=data, headers=sent) as response:
        read = await response.read()
        return response.status, json.loads(read) if response.content_type == "application/json" else read


async def trace(gateway: Gateway, trace_id: str = TRACE) -> dict[str, Any]:
    async with gateway.session.get(f"/api/traces/{trace_id}") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


ALL_WELL = {"partialSuccess": {"rejectedSpans": 0, "errorMessage": ""}}


@pytest.mark.parametrize("path", ["/api/v2/traces", "/api/v1/traces", "/v1/traces", "/v1/traces/"])
async def test_otlp_in_json(gateway: Gateway, path: str) -> None:
    sent = otlp(span(**{"gen_ai.request.model": "gpt-4o-mini", "traceloop.span.kind": "llm", "k": "v"}))
    compressed = gzip.compress(json.dumps(sent).encode())
    assert await send(gateway, path, compressed, Content_Encoding="gzip") == (200, ALL_WELL)
    # What is sent again is known.
    assert await send(gateway, path, sent) == (200, ALL_WELL)
    (stored,) = await gateway.spans()
    assert (stored["model"], stored["log_type"], stored["latency"]) == ("gpt-4o-mini", "chat", 1.0)
    assert (stored["metadata"], stored["start_time"]) == ({"k": "v"}, "2026-01-02T12:00:00.000000Z")
    assert (await trace(gateway))["span_count"] == 1


async def test_otlp_in_protobuf(gateway: Gateway) -> None:
    body = gzip.compress(protobuf().SerializeToString())
    headers = {"Content_Type": "application/x-protobuf", "Content_Encoding": "gzip"}
    status, reply = await send(gateway, "/v1/traces", body, **headers)
    assert status == 200 and not ExportTraceServiceResponse.FromString(reply).HasField("partial_success")
    (stored,) = await gateway.spans()
    assert (stored["span_name"], stored["model"], stored["log_type"]) == ("n", "", "workflow")
    assert (await send(gateway, "/v1/traces", b"\xff", Content_Type="application/x-protobuf"))[0] == 400


async def test_what_cannot_be_stored_is_a_partial_success(gateway: Gateway) -> None:
    odd = span(**{"gen_ai.usage.input_tokens": "many", "gen_ai.input.messages": '[{"parts": 5}]'})
    status, reply = await send(gateway, "/api/v2/traces", otlp(span(PARENT), {"traceId": "x"}, odd))
    told = reply["partialSuccess"]
    assert (status, told["rejectedSpans"]) == (200, 1)
    assert "traceId: must be 32 hexadecimal digits" in told["errorMessage"]
    assert len(await gateway.spans()) == 2
    # What has a wrong type is left out.
    (kept,) = [one for one in await gateway.spans() if one["span_unique_id"] == SPAN]
    assert kept["prompt_tokens"] is None and "prompt_tokens dropped" in kept["warnings"]
    for wrong in (b"[]", b"{", b"5"):
        assert (await send(gateway, "/v1/traces", wrong))[0] == 400


@pytest.mark.parametrize(
    "path", ["/api/v1/traces/ingest", "/api/openai/v1/traces/ingest", "/api/traces/ingest/", "/v1/traces/ingest"]
)
async def test_rows(gateway: Gateway, path: str) -> None:
    rows = [
        {"trace_unique_id": "t", "span_unique_id": "a", "generation_time": 2, "posthog_integration": {"x": 1}},
        {"trace_unique_id": "t", "span_unique_id": "b", "span_parent_id": "a", "model": "m", "status": "error"},
        {"span_unique_id": "c"},
        {"trace_unique_id": "t", "span_unique_id": "d", "latency": "long"},
        5,
    ]
    status, reply = await send(gateway, path, rows if "openai" in path else {"data": rows})
    assert status == 200
    assert [error["index"] for error in reply.pop("errors")] == [2, 3, 4]
    assert reply == {
        **{
            "message": "Ingested 2 spans.",
            "status": "partial",
            "success": False,
            "ingested_spans": 2,
            "ingested_count": 2,
        },
        **{"created_traces": 1, "trace_ids": ["t"]},
    }
    found = await trace(gateway, "t")
    assert (found["span_count"], found["error_count"], len(found["span_tree"])) == (2, 1, 1)
    assert (await send(gateway, path, [{"span_unique_id": "c"}]))[0] == 400
    assert (await send(gateway, path, {"rows": []}))[0] == 400


async def summary(gateway: Gateway) -> tuple[int, int]:
    async with gateway.session.get("/api/request-logs/summary") as response:
        found = await response.json()
        return found["number_of_requests"], found["total_prompt_tokens"]


async def call(gateway: Gateway) -> dict[str, Any]:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    return await gateway.span_of("/v1/chat/completions", json={"model": "m", "messages": []}, headers=headers)


OF_CLIENT = {"traceloop.span.kind": "llm", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "100"}


async def test_a_client_s_span_of_a_call_is_counted_once(gateway: Gateway) -> None:
    logged = await call(gateway)
    before = await summary(gateway)
    await send(gateway, "/v1/traces", otlp(span(PARENT, **OF_CLIENT)))
    found = await trace(gateway)
    assert (found["span_count"], found["llm_call_count"]) == (2, 1)
    assert found["total_prompt_tokens"] == logged["prompt_tokens"]
    assert await summary(gateway) == before
    (of_client,) = [one for one in await gateway.spans() if one["unique_id"] != logged["unique_id"]]
    assert of_client["gateway_log_id"] == logged["unique_id"]


async def test_it_is_so_too_where_the_span_comes_first(gateway: Gateway) -> None:
    await send(gateway, "/v1/traces", otlp(span(PARENT, **OF_CLIENT)))
    logged = await call(gateway)
    assert await summary(gateway) == (1, logged["prompt_tokens"])


@pytest.mark.parametrize("call_comes_first", [True, False])
async def test_it_is_so_too_where_an_http_client_s_span_stands_between(
    gateway: Gateway, call_comes_first: bool
) -> None:
    spans = otlp({**span(PARENT), "parentSpanId": SPAN}, span(**OF_CLIENT))
    if call_comes_first:
        logged = await call(gateway)
        await send(gateway, "/v1/traces", spans)
    else:
        await send(gateway, "/v1/traces", spans)
        logged = await call(gateway)
    found = await trace(gateway)
    assert (found["span_count"], found["llm_call_count"]) == (3, 1)
    assert await summary(gateway) == (2, logged["prompt_tokens"])


async def test_a_tool_that_makes_a_call_of_its_own_stands_between_as_well(gateway: Gateway) -> None:
    tool = {**span(PARENT, **{"traceloop.span.kind": "tool"}), "parentSpanId": SPAN}
    await send(gateway, "/v1/traces", otlp(tool, span(**OF_CLIENT)))
    await call(gateway)
    assert (await trace(gateway))["llm_call_count"] == 2


async def test_a_span_that_names_its_call_is_counted_once(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    logged = await gateway.span_of("/v1/chat/completions", json={"model": "m", "messages": []})
    before = await summary(gateway)
    named = {"traceloop.span.kind": "llm", "gen_ai.request.model": "m", "respan.gateway.log_id": logged["unique_id"]}
    await send(gateway, "/v1/traces", otlp(span(**named)))
    assert await summary(gateway) == before
    (of_client,) = [one for one in await gateway.spans() if one["unique_id"] != logged["unique_id"]]
    assert (of_client["status"], of_client["prompt_tokens"]) == ("success", None)


async def test_a_step_above_a_call_is_no_second_call(gateway: Gateway) -> None:
    await call(gateway)
    await send(gateway, "/v1/traces", otlp(span(PARENT, **{"traceloop.span.kind": "agent"})))
    assert (await summary(gateway))[0] == 2


async def test_rows_that_cannot_be_of_a_trace_fail_alone(gateway: Gateway) -> None:
    rows = [
        {"trace_unique_id": "t", "span_unique_id": "a", "unique_id": "same"},
        {"trace_unique_id": "t", "span_unique_id": "\ud800"},
        {"trace_unique_id": "t", "span_unique_id": "b", "unique_id": "same"},
        {"trace_unique_id": "t", "span_unique_id": "a", "unique_id": "same"},
    ]
    status, reply = await send(gateway, "/api/v1/traces/ingest", rows)
    assert (status, reply["ingested_spans"]) == (200, 2)
    assert [(error["index"], error["error"]) for error in reply["errors"]] == [
        (1, "span_unique_id: Must be text without lone surrogates."),
        (2, "unique_id: Belongs to another span."),
    ]


async def test_a_lone_surrogate_in_a_trace_id_is_no_failure(gateway: Gateway) -> None:
    body = b'{"model": "m", "trace_unique_id": "\\ud800", "span_unique_id": "\\ud800"}'
    status, _ = await send(gateway, "/api/request-logs/", body)
    assert status == 201


async def test_a_client_s_span_counts_again_once_its_call_is_deleted(gateway: Gateway) -> None:
    logged = await call(gateway)
    await send(gateway, "/v1/traces", otlp(span(PARENT, **OF_CLIENT)))
    async with gateway.session.delete(f"/api/request-logs/{logged['unique_id']}") as response:
        assert response.status == 204
    assert await summary(gateway) == (1, 100)


async def test_a_call_that_is_not_there_or_failed_stands_for_nothing(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    named = {**OF_CLIENT, "respan.gateway.log_id": "none"}
    await send(gateway, "/v1/traces", otlp(span(**named)))
    assert await summary(gateway) == (1, 100)

    async def fail(received: Received, wire: Wire) -> None:
        await wire.json({"error": {}}, 500)

    upstream.play = fail
    await call(gateway)
    await send(gateway, "/v1/traces", otlp(span(PARENT, **OF_CLIENT)))
    assert await summary(gateway) == (3, 200)


async def test_a_conversation_has_what_was_told_twice_once(gateway: Gateway) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "respan_params": {"thread_identifier": "t"}}
    await gateway.call("/v1/chat/completions", json=body, headers=headers)
    await send(gateway, "/v1/traces", otlp(span(PARENT, **OF_CLIENT, **{"respan.thread.id": "t"})))
    async with gateway.session.get("/api/log_threads/t") as response:
        assert (await response.json())["log_count"] == 1
    async with gateway.session.get("/api/log_threads/t?environment=test") as response:
        assert response.status == 404
