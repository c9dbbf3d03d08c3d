"""Any span that can be stored can be exported."""

import gzip
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.core import otlp, otlp_export, otlp_protobuf
from gateway.core.complete import Draft, complete, price
from gateway.core.span import validate
from gateway.store.rows import view_row

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.text(max_size=5)}, optional={"content": JSON, "tool_calls": JSON, "tool_call_id": JSON}
    ),
    max_size=3,
)
TEXTS = st.text(max_size=20)
SPANS = st.fixed_dictionaries(
    {"model": TEXTS, "log_type": st.sampled_from(["chat", "tool", "response", "odd", ""])},
    optional={
        **dict.fromkeys(("trace_unique_id", "span_unique_id", "span_parent_id", "span_name", "error_message"), TEXTS),
        **dict.fromkeys(("input", "output"), JSON | MESSAGES),
        **dict.fromkeys(("metadata", "properties"), st.dictionaries(TEXTS, JSON, max_size=2)),
        "tools": st.lists(st.dictionaries(TEXTS, JSON, max_size=2), max_size=2),
        "prompt_tokens": st.integers(-(2**63), 2**63 - 1),
        "cost": st.floats(allow_nan=False, allow_infinity=False),
        "status": st.sampled_from(["success", "failed"]),
        "timestamp": st.datetimes(timezones=st.just(UTC)),
        "latency": st.floats(-1e12, 1e12),
    },
)


def row(fields: dict[str, Any]) -> dict[str, Any]:
    own = {"unique_id": "u", "organization_id": "o", "environment": "prod"}
    draft = Draft(validate({**fields, **own}))
    complete(draft, datetime(2026, 1, 2, tzinfo=UTC))
    price(draft, lambda *_: None)
    return view_row(draft)


@given(st.lists(SPANS, min_size=1, max_size=3))
def test_any_span(spans: list[dict[str, Any]]) -> None:
    body = gzip.decompress(otlp_export.request([row(fields) for fields in spans]))
    assert len(ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans) == len(spans)
    # And read back.
    for found in otlp_protobuf.spans(body):
        assert isinstance(found, otlp.OtlpSpan)
        otlp.raw_span(found)
