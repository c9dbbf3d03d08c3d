"""Exports spans of OpenTelemetry's SDK to the gateway, each time the same ones: its arguments are paths.

Before a path, `json:` has them sent as OTLP's JSON; else they go as protobuf, zipped, by the SDK's exporter.
"""

import base64
import gzip
import json
import os
import sys
from typing import Any

import requests
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import IdGenerator, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, set_span_in_context

URL, HEADERS = os.environ["GATEWAY_URL"], {"Authorization": f"Bearer {os.environ['GATEWAY_KEY']}"}
NOON_NS = 1_767_355_200_000_000_000
SECOND_NS = 1_000_000_000


class Counting(IdGenerator):
    """The same ids in each run."""

    def __init__(self) -> None:
        self._last = 0xA0

    def generate_span_id(self) -> int:
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        return 0xABC


def made_spans() -> tuple[ReadableSpan, ...]:
    """A request that asks a model, which answers, and then calls a tool, which fails."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), id_generator=Counting())
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("shop.tracer", "1.2")
    elsewhere = SpanContext(trace_id=0xDEF, span_id=0xB1, is_remote=True)
    root = tracer.start_span("request", kind=SpanKind.SERVER, start_time=NOON_NS, links=[Link(elsewhere)])
    root.set_attributes({"user.id": "u-1", "session.id": "s-1", "tags": ["a", "b"], "ratio": 0.5, "is_new": True})
    of_root = set_span_in_context(root)

    asked = tracer.start_span("chat gpt-4o-mini", of_root, SpanKind.CLIENT, start_time=NOON_NS + SECOND_NS)
    asked.set_attributes(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0.25,
            "gen_ai.request.max_tokens": 64,
            "gen_ai.usage.input_tokens": 1_000_000,
            "gen_ai.usage.output_tokens": 500_000,
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"}]
            ),
        }
    )
    asked.end(NOON_NS + 3 * SECOND_NS)

    called = tracer.start_span("execute_tool", of_root, start_time=NOON_NS + 3 * SECOND_NS)
    called.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": '{"word": "Hi"}'})
    called.record_exception(KeyError("Hi"), timestamp=NOON_NS + 4 * SECOND_NS)
    called.set_status(Status(StatusCode.ERROR, "not found"))
    called.end(NOON_NS + 4 * SECOND_NS + 1)
    root.end(NOON_NS + 5 * SECOND_NS)
    return kept.get_finished_spans()


def as_json(spans: tuple[ReadableSpan, ...]) -> dict[str, Any]:
    """OTLP's JSON is protobuf's but for the ids, which are hexadecimal there."""
    found: dict[str, Any] = MessageToDict(encode_spans(spans))
    for of_resource in found["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for one in [*of_scope["spans"], *(link for span in of_scope["spans"] for link in span.get("links", []))]:
                for name in {"traceId", "spanId", "parentSpanId"} & one.keys():
                    one[name] = base64.b64decode(one[name]).hex()
    return found


def send(spans: tuple[ReadableSpan, ...], target: str) -> None:
    path = target.removeprefix("json:")
    if path == target:
        exporter = OTLPSpanExporter(URL + path, headers=HEADERS, compression=Compression.Gzip)
        assert exporter.export(spans) is SpanExportResult.SUCCESS
        exporter.shutdown()
    else:
        body = gzip.compress(json.dumps(as_json(spans)).encode())
        headers = {**HEADERS, "Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = requests.post(URL + path, body, headers=headers, timeout=60)
        assert answer.json() == {"partialSuccess": {"rejectedSpans": 0, "errorMessage": ""}}, answer.text


finished = made_spans()
for target in sys.argv[1:]:
    send(finished, target)
