"""OTLP's protobuf, read and answered."""

import base64
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.core.otlp import (
    ATTRIBUTES_AT_MOST,
    ERRORS,
    EVENTS_AT_MOST,
    Event,
    OtlpSpan,
    hex_id,
    of_scope,
    parent_id,
)
from gateway.errors import MalformedBody


def spans(body: bytes) -> list[OtlpSpan | str]:
    """The spans of an ExportTraceServiceRequest, or what is wrong with one of them. Raises MalformedBody."""
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise MalformedBody("The body is no ExportTraceServiceRequest in protobuf.") from None
    found: list[OtlpSpan | str] = []
    for of_resource in message.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_one in of_resource.scope_spans:
            scope = {"name": of_one.scope.name, "version": of_one.scope.version}
            shared = {**resource, **of_scope(scope, _attributes(of_one.scope.attributes))}
            found += [_span(one, shared) for one in of_one.spans]
    return found


def reply(rejected: int, message: str) -> bytes:
    """An ExportTraceServiceResponse; of a whole success nothing is said."""
    made = ExportTraceServiceResponse()
    if rejected:
        made.partial_success.rejected_spans = rejected
        made.partial_success.error_message = message
    return bytes(made.SerializeToString())


def _span(one: Span, shared: Mapping[str, Any]) -> OtlpSpan | str:
    try:
        return OtlpSpan(
            hex_id(one.trace_id.hex(), 32, "traceId"),
            hex_id(one.span_id.hex(), 16, "spanId"),
            parent_id(one.parent_span_id.hex()),
            one.name,
            one.start_time_unix_nano,
            one.end_time_unix_nano,
            {**shared, **_attributes(one.attributes)},
            one.status.code in ERRORS,
            one.status.message,
            [
                Event(event.name, _attributes(event.attributes), event.time_unix_nano)
                for event in islice(one.events, EVENTS_AT_MOST)
            ],
            [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in one.links],
        )
    except ValueError as error:
        return str(error)


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in list(attributes)[:ATTRIBUTES_AT_MOST]}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(one) for one in value.array_value.values]
        case "kvlist_value":
            return {one.key: _value(one.value) for one in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case kind:
            return getattr(value, kind)
