"""Spans of OpenTelemetry as ours."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from gateway.core import otlp, otlp_protobuf
from gateway.core.otlp import Event, OtlpSpan, raw_span
from gateway.errors import MalformedBody

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def span(*, parent: str = "", name: str = "n", **more: Any) -> dict[str, Any]:
    """What a span without times becomes, by its attributes, but for its ids."""
    attributes = more.pop("attributes", {})
    raw = raw_span(OtlpSpan(TRACE, SPAN, parent, name, 0, 0, attributes, **more))
    return {name: value for name, value in raw.items() if name not in ("trace_unique_id", "span_unique_id")}


PLAIN = {"span_parent_id": None, "span_name": "n", "log_method": "tracing_integration", "metadata": {}}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {"log_type": "workflow"}),
        ({"traceloop.span.kind": "tool"}, {"log_type": "tool"}),
        ({"openinference.span.kind": "LLM"}, {"log_type": "chat"}),
        ({"respan.entity.log_type": "agent", "traceloop.span.kind": "tool"}, {"log_type": "agent"}),
        ({"gen_ai.operation.name": "invoke_agent"}, {"log_type": "agent"}),
        (
            {"gen_ai.request.model": "gpt", "gen_ai.response.model": "gpt-1", "gen_ai.provider.name": "openai"},
            {"log_type": "chat", "model": "gpt-1", "response_model": "gpt-1", "provider_id": "openai"},
        ),
        (
            {
                "gen_ai.usage.input_tokens": 5,
                "gen_ai.usage.output_tokens": "7",
                "gen_ai.usage.cache_read_input_tokens": 1,
            },
            {"log_type": "workflow", "prompt_tokens": 5, "completion_tokens": "7", "prompt_cache_hit_tokens": 1},
        ),
        (
            {"respan.customer_params.customer_identifier": "u", "respan.threads.thread_identifier": "t"},
            {"log_type": "workflow", "customer_identifier": "u", "thread_identifier": "t"},
        ),
        (
            {"respan.metadata": '{"a": 1}', "respan.metadata.b": True, "service.name": "s", "x": [1]},
            {"log_type": "workflow", "metadata": {"a": 1, "b": True, "service.name": "s", "x": [1]}},
        ),
        (
            {
                "traceloop.entity.input": '{"args": []}',
                "traceloop.entity.output": "plain",
                "traceloop.workflow.name": "w",
            },
            {"log_type": "workflow", "input": {"args": []}, "output": "plain", "span_workflow_name": "w"},
        ),
        (
            {"respan.gateway.log_id": "g", "llm.is_streaming": True},
            {"log_type": "workflow", "gateway_log_id": "g", "stream": True},
        ),
        ({"gen_ai.is_streaming": True}, {"log_type": "workflow", "stream": True}),
        ({"llm.request.reasoning_effort": []}, {"log_type": "workflow"}),
        (
            {"llm.request.reasoning_effort": [], "gen_ai.request.reasoning_effort": "high"},
            {"log_type": "workflow", "reasoning_effort": "high"},
        ),
        (
            {
                "keywordsai.customer_params.customer_identifier": "u",
                "keywordsai.entity.log_method": "python_tracing",
                "keywordsai.metadata.plan": "pro",
            },
            {
                "log_type": "workflow",
                "customer_identifier": "u",
                "log_method": "python_tracing",
                "metadata": {"plan": "pro"},
            },
        ),
        ({"prompt_tokens": True}, {"log_type": "workflow"}),
    ],
)
def test_attributes(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert span(attributes=attributes) == PLAIN | expected


def test_messages_one_by_one() -> None:
    found = span(
        attributes={
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": "Hi",
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "Be kind."}]',
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.finish_reason": "tool_calls",
            "gen_ai.completion.0.tool_calls.0.id": "c",
            "gen_ai.completion.0.tool_calls.0.name": "f",
            "gen_ai.completion.0.tool_calls.0.arguments": "{}",
            "llm.request.functions.0.name": "f",
            "llm.request.functions.0.parameters": '{"type": "object"}',
        }
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert found == PLAIN | {
        "log_type": "workflow",
        "input": [
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "Hi"},
        ],
        "output": {"role": "assistant", "content": None, "finish_reason": "tool_calls", "tool_calls": [call]},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    }


def test_messages_of_openinference() -> None:
    found = span(
        attributes={
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt",
            "llm.token_count.prompt": 3,
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "Hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "f",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
            "llm.tools.0.tool.json_schema": '{"type": "function"}',
            "input.value": "left out: the messages say more",
            "input.mime_type": "text/plain",
        }
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert found == PLAIN | {
        **{"log_type": "chat", "model": "gpt", "prompt_tokens": 3, "tools": [{"type": "function"}]},
        "input": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "output": {"role": "assistant", "content": None, "tool_calls": [call]},
    }


def test_messages_in_parts() -> None:
    asked = [
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "42"}]},
    ]
    calls = [{"type": "tool_call", "id": "d", "name": "f", "arguments": {"a": 1}}]
    found = span(
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}]),
            "gen_ai.input.messages": json.dumps(asked),
            "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": calls, "finish_reason": "tool_call"}]),
        }
    )
    call = {"id": "d", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert found == PLAIN | {
        "log_type": "chat",
        "input": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "tool", "content": "42", "tool_call_id": "c"},
        ],
        "output": {"role": "assistant", "content": None, "finish_reason": "tool_call", "tool_calls": [call]},
    }


def test_failures() -> None:
    event = Event("exception", {"exception.message": "boom", "exception.type": "ValueError"})
    failed = {"status": "failed", "status_code": 500, "log_type": "workflow"}
    assert span(failed=True, message="told") == PLAIN | failed | {"error_message": "told"}
    assert span(events=[event]) == PLAIN | failed | {"error_message": "boom", "error_code": "ValueError"}


def test_what_happened_meanwhile_is_kept() -> None:
    first, second = (Event("exception", {"exception.message": text}) for text in ("boom", "again"))
    event = Event("gen_ai.user.message", {"content": "Hi"}, 1_500_000_000)
    raw = span(events=[event, first, second, Event("late", {}, 2**64 - 1)])
    assert raw["error_message"] == "boom"
    assert raw["span_events"] == [
        {"name": event.name, "timestamp": "1970-01-01T00:00:01.500000Z", "attributes": {"content": "Hi"}},
        {"name": "exception", "timestamp": None, "attributes": {"exception.message": "again"}},
        {"name": "late", "timestamp": "2554-07-21T23:34:33.709551Z", "attributes": {}},
    ]
    many = {"traceId": TRACE, "spanId": SPAN, "events": [{"name": "e"}] * 2000}
    (found,) = otlp.from_json({"resourceSpans": [{"scopeSpans": [{"spans": [many]}]}]})
    message = ExportTraceServiceRequest()
    made = (
        message.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN))
    )
    for _ in range(2000):
        made.events.add(name="e")
    assert isinstance(found, OtlpSpan) and len(found.events) == 1000
    assert otlp_protobuf.spans(message.SerializeToString()) == [found]


def test_times_links_and_parents() -> None:
    raw = raw_span(OtlpSpan(TRACE, SPAN, "p", "n", 1_500_000_000, 3_000_000_999, {}, links=[{"trace_id": "x"}]))
    assert (raw["start_time"], raw["timestamp"]) == (
        datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC),
    )
    assert (raw["latency"], raw["span_links"], raw["log_type"]) == (1.500000999, [{"trace_id": "x"}], "task")
    assert "timestamp" not in raw_span(OtlpSpan(TRACE, SPAN, "", "n", 1, 0, {}))
    assert "start_time" not in raw_span(OtlpSpan(TRACE, SPAN, "", "n", 2**63, 2**70, {}))


VALUES = {
    "s": ({"stringValue": "x"}, AnyValue(string_value="x")),
    "b": ({"boolValue": True}, AnyValue(bool_value=True)),
    "i": ({"intValue": "5"}, AnyValue(int_value=5)),
    "d": ({"doubleValue": 0.5}, AnyValue(double_value=0.5)),
    "a": (
        {"arrayValue": {"values": [{"intValue": 1}]}},
        AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1)])),
    ),
    "k": (
        {"kvlistValue": {"values": [{"key": "x", "value": {"boolValue": False}}]}},
        AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="x", value=AnyValue(bool_value=False))])),
    ),
    "y": ({"bytesValue": "AQI="}, AnyValue(bytes_value=b"\1\2")),
    "n": ({}, AnyValue()),
}


def test_both_encodings_say_the_same() -> None:
    attributes = [{"key": name, "value": as_json} for name, (as_json, _) in VALUES.items()]
    one = {
        **{"traceId": TRACE, "spanId": SPAN.upper(), "parentSpanId": "", "name": "n", "startTimeUnixNano": "1"},
        **{"endTimeUnixNano": "2", "attributes": attributes, "status": {"code": "STATUS_CODE_ERROR", "message": "m"}},
        "events": [
            {"name": "exception", "timeUnixNano": "7", "attributes": [{"key": "a", "value": {"stringValue": "b"}}]}
        ],
        "links": [{"traceId": TRACE, "spanId": SPAN}],
    }
    tier = [{"key": "tier", "value": {"intValue": "2"}}, {"key": "name", "value": {"stringValue": "?"}}]
    scope = {"scope": {"name": "lib", "version": "1", "attributes": tier}, "spans": [one, {"traceId": "x"}]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]}
    found = otlp.from_json({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})

    message = ExportTraceServiceRequest()
    of_resource = message.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name", value=AnyValue(string_value="s"))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = "lib", "1"
    of_scope.scope.attributes.add(key="tier", value=AnyValue(int_value=2))
    of_scope.scope.attributes.add(key="name", value=AnyValue(string_value="?"))
    made = of_scope.spans.add(
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        name="n",
        start_time_unix_nano=1,
        end_time_unix_nano=2,
    )
    for name, (_, value) in VALUES.items():
        made.attributes.add(key=name, value=value)
    made.status.code, made.status.message = 2, "m"
    made.events.add(name="exception", time_unix_nano=7).attributes.add(key="a", value=AnyValue(string_value="b"))
    made.links.add(trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN))
    of_scope.spans.add(trace_id=b"x")
    assert otlp_protobuf.spans(message.SerializeToString()) == found
    assert found[0] == OtlpSpan(
        *(TRACE, SPAN, "", "n", 1, 2),
        {
            **{"service.name": "s", "otel.scope.name": "lib", "otel.scope.version": "1", "otel.scope.tier": 2},
            **{"s": "x", "b": True, "i": 5},
            **{"d": 0.5, "a": [1], "k": {"x": False}, "y": "AQI=", "n": None},
        },
        *(True, "m", [Event("exception", {"a": "b"}, 7)], [{"trace_id": TRACE, "span_id": SPAN}]),
    )
    assert found[1] == "traceId: must be 32 hexadecimal digits, not all 0."


def test_what_is_no_request() -> None:
    with pytest.raises(MalformedBody):
        otlp.from_json([])
    with pytest.raises(MalformedBody):
        otlp_protobuf.spans(b"\xff\xff")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        *(
            "gen_ai.prompt.0.content",
            "gen_ai.completion.0.tool_calls.0.name",
            "gen_ai.input.messages",
            "respan.metadata",
        ),
        *(
            "llm.tools.0.tool.json_schema",
            "traceloop.span.kind",
            "gen_ai.usage.input_tokens",
            "respan.properties",
            "model",
        ),
    ]
)


@given(st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=5), JSON)
def test_nothing_that_attributes_hold_is_too_much(attributes: dict[str, Any], anything: Any) -> None:
    raw_span(OtlpSpan(TRACE, SPAN, "", "", 0, 0, attributes))
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE, "spanId": SPAN, "attributes": listed}]}]}]}
    assert len(otlp.from_json(body)) == 1
    assert len(otlp.from_json({"resourceSpans": [{"scopeSpans": [{"spans": [anything]}]}], "x": anything})) == 1
    for odd in ([{"scopeSpans": [anything]}], [anything], anything, [{"scopeSpans": [{"spans": anything}]}]):
        with suppress(MalformedBody):
            otlp.from_json({"resourceSpans": odd})


def test_several_answers_of_tools_are_several_messages() -> None:
    parts = [{"type": "tool_call_response", "id": str(n), "response": n} for n in range(2)]
    for odd in (None, 5, "x"):
        assert otlp_messages([{"role": "user", "parts": odd}]) == [{"role": "user", "content": None}]
    assert otlp_messages([{"role": "tool", "parts": parts}]) == [
        {"role": "tool", "content": n, "tool_call_id": str(n)} for n in range(2)
    ]


def otlp_messages(messages: Any) -> Any:
    return span(attributes={"gen_ai.input.messages": json.dumps(messages)})["input"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"llm.is_streaming": "false"}, {"stream": False}),
        ({"llm.is_streaming": "true"}, {"stream": True}),
        ({"traceloop.entity.name": "ask", "traceloop.span.kind": "task"}, {"span_name": "ask", "metadata": {}}),
        ({"gen_ai.tool.name": "search"}, {"span_name": "search", "log_type": "tool"}),
        ({"user.id": "u" * 300}, {"customer_identifier": "u" * 254}),
        ({"metadata": '{"a": 1}', "b": 2}, {"metadata": {"a": 1, "b": 2}}),
        ({f"gen_ai.prompt.{'9' * 5000}.role": "user"}, {"log_type": "workflow"}),
    ],
)
def test_oddities(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = span(name="", attributes=attributes)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"parentSpanId": "xyz"}, "parentSpanId: must be 16 hexadecimal digits, not all 0."),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano: must be a whole number of nanoseconds."),
        ({"endTimeUnixNano": "1_0"}, "endTimeUnixNano: must be a whole number of nanoseconds."),
    ],
)
def test_what_is_wrong_with_a_span(odd: dict[str, Any], told: str) -> None:
    one = {"traceId": TRACE, "spanId": SPAN, **odd}
    assert otlp.from_json({"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}) == [told]
