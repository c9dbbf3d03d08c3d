"""Spans of ours as spans of OpenTelemetry, with the names of its GenAI conventions; protobuf."""

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.core import content
from gateway.core.jsontext import dump, parse_or_none
from gateway.core.reading import public
from gateway.core.trace import LLM_CALLS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPERATIONS = {
    "chat": "chat",
    "response": "chat",
    "generation": "chat",
    "completion": "text_completion",
    "text": "text_completion",
    "embedding": "embeddings",
    "tool": "execute_tool",
    "function": "execute_tool",
    "agent": "invoke_agent",
}
# Attributes and the fields that they say.
_FIELDS: Mapping[str, str] = {
    "gen_ai.provider.name": "provider_id",
    "gen_ai.request.model": "model",
    "gen_ai.response.model": "response_model",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.stream": "stream",
    "gen_ai.usage.input_tokens": "prompt_tokens",
    "gen_ai.usage.output_tokens": "completion_tokens",
    "gen_ai.usage.cache_read.input_tokens": "prompt_cache_hit_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "prompt_cache_creation_tokens",
    "gen_ai.usage.reasoning_tokens": "reasoning_tokens",
    "gen_ai.usage.cost": "cost",
    "gen_ai.server.time_to_first_token": "time_to_first_token",
    "gen_ai.conversation.id": "thread_identifier",
    "respan.entity.log_id": "unique_id",
    "respan.entity.log_type": "log_type",
    "respan.gateway.log_id": "gateway_log_id",
    "respan.customer_params.customer_identifier": "customer_identifier",
    "respan.customer_params.email": "customer_email",
    "respan.customer_params.name": "customer_name",
    "respan.sessions.session_identifier": "session_identifier",
    "respan.trace.trace_group_identifier": "trace_group_identifier",
    "respan.span_params.custom_identifier": "custom_identifier",
    "respan.evaluation_params.evaluation_identifier": "evaluation_identifier",
    "traceloop.workflow.name": "span_workflow_name",
}


def request(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """An ExportTraceServiceRequest of rows of the view `spans`, compressed with gzip."""
    message = ExportTraceServiceRequest()
    places: dict[tuple[str, str], Any] = {}
    for row in rows:
        whose = (str(row["organization_id"]), str(row["environment"]))
        if whose not in places:
            of_resource = message.resource_spans.add()
            told = {"service.name": "span-gateway", "deployment.environment.name": whose[1]}
            for key, value in (told | {"respan.organization_id": whose[0]}).items():
                of_resource.resource.attributes.add(key=key, value=AnyValue(string_value=value))
            places[whose] = of_resource.scope_spans.add()
            places[whose].scope.name = "span-gateway"
        _fill(places[whose].spans.add(), public(row))
    return gzip.compress(message.SerializeToString(), 1)


def rejected(answer: bytes) -> tuple[int, str]:
    """How many of the spans a collector says that it has not taken, and why; none where it says nothing."""
    try:
        told = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return 0, ""
    return told.rejected_spans, told.error_message


def _fill(made: Span, span: Mapping[str, Any]) -> None:
    is_call = span["log_type"] in LLM_CALLS
    operation = _OPERATIONS.get(span["log_type"], span["log_type"])
    made.trace_id = _id(span["trace_unique_id"] or span["unique_id"], 16)
    made.span_id = _id(span["span_unique_id"] or span["unique_id"], 8)
    if span["span_parent_id"]:
        made.parent_span_id = _id(span["span_parent_id"], 8)
    made.name = span["span_name"] or f"{operation} {span['model']}".strip()
    made.kind = Span.SPAN_KIND_CLIENT if is_call else Span.SPAN_KIND_INTERNAL
    made.end_time_unix_nano = _nanoseconds(span["timestamp"])
    made.start_time_unix_nano = _nanoseconds(span["start_time"] or span["timestamp"])
    for key, value in _attributes(span, operation):
        made.attributes.add(key=_text(key), value=_any(value))
    if span["status"] == "failed":
        made.status.code = Status.STATUS_CODE_ERROR
        made.status.message = span["error_message"] or ""


def _id(text: str, length: int) -> bytes:
    """An id as it is, where it is one of OpenTelemetry's; else one that is made of it, always the same."""
    if re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text) and int(text, 16):
        return bytes.fromhex(text)
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:length]


def _nanoseconds(time: str) -> int:
    since = datetime.fromisoformat(time) - _EPOCH
    nanoseconds = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    # What 64 bits can say: the years 1970 to 2554.
    return max(0, min(nanoseconds, 2**64 - 1))


def _attributes(span: Mapping[str, Any], operation: str) -> Iterator[tuple[str, Any]]:
    yield "gen_ai.operation.name", operation
    for key, name in _FIELDS.items():
        if span[name] is not None and span[name] != "":
            yield key, span[name]
    if span["provider_id"] is None and span["upstream"] is not None:
        yield "gen_ai.provider.name", span["upstream"]
    if span["status"] == "failed":
        yield "error.type", span["error_code"] or str(span["status_code"])
    if span["log_type"] in content.CONVERSATIONS:
        if span["prompt_messages"] is not None:
            yield "gen_ai.input.messages", dump([_message(one) for one in span["prompt_messages"]])
        if span["completion_message"] is not None:
            answers = span["completion_messages"] or [span["completion_message"]]
            yield "gen_ai.output.messages", dump([_message(one) for one in answers])
    else:
        for key, name in (("traceloop.entity.input", "input"), ("traceloop.entity.output", "output")):
            if span[name] is not None:
                yield key, span[name] if isinstance(span[name], str) else dump(span[name])
    if span["tools"] is not None:
        yield "gen_ai.tool.definitions", dump(span["tools"])
    if span["properties"] is not None:
        yield "respan.properties", dump(span["properties"])
    for key, value in (span["metadata"] or {}).items():
        yield f"respan.metadata.{key}", value


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the form that the conventions have had since 1.37: a role and parts."""
    said = message.get("content")
    parts: list[dict[str, Any]] = []
    if message.get("tool_call_id") is not None:
        parts.append({"type": "tool_call_response", "id": message["tool_call_id"], "response": said})
    elif isinstance(said, str):
        parts.append({"type": "text", "content": said})
    elif isinstance(said, list):
        parts += [_part(one) for one in said]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            read = parse_or_none(arguments) if isinstance(arguments, str) else arguments
            told = {"id": call.get("id"), "name": function.get("name")}
            parts.append({"type": "tool_call", **told, "arguments": arguments if read is None else read})
    made: dict[str, Any] = {"role": message.get("role") or "user", "parts": parts}
    if message.get("finish_reason") is not None:
        made["finish_reason"] = message["finish_reason"]
    return made


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {"type": "text", "content": str(part)}
    return {"type": "text", "content": part["text"]} if isinstance(part.get("text"), str) else part


def _any(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and abs(value) < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    text = value if isinstance(value, str) else dump(value)
    return AnyValue(string_value=_text(text))


def _text(text: str) -> str:
    """The text without lone surrogates, which protobuf does not take."""
    return text.encode("utf-8", "replace").decode()
