"""A span as rows of the database."""

from typing import Any

import pytest

from gateway.core.complete import complete
from gateway.core.span import Span
from gateway.store.rows import CONTENT_COLUMNS, SPAN_COLUMNS, content_row, span_row, view_row
from tests.store.spans import NOON, draft

OBJECTS = ("metadata", "properties", "customer_params", "usage", "variables", "full_request", "full_response")
TOLD: dict[str, Any] = {
    **dict.fromkeys(("stream", "positive_feedback", "is_custom_prompt", "disable_log"), True),
    **dict.fromkeys(("start_time", "timestamp"), NOON),
    **{name: {"a": "b"} for name in OBJECTS},
    **{name: [{"a": "b"}] for name in ("tools", "tool_calls")},
}


@pytest.mark.parametrize("name", sorted({*SPAN_COLUMNS, *CONTENT_COLUMNS} - {"extras", "cost_picos"}))
def test_whatever_a_span_fills_is_in_its_rows(name: str) -> None:
    annotation = str(Span.model_fields[name].annotation)
    value = TOLD.get(name, 2 if "int" in annotation or "float" in annotation else "s")
    made = draft(**{"unique_id": "u", name: value})
    complete(made, NOON)
    assert view_row(made)[name] is not None


def test_the_usual_span_fills_half_of_the_columns() -> None:
    usual = draft("u", input="Hi", output="Hello", start_time=NOON, customer_identifier="c")
    assert len(span_row(usual).columns) < len(SPAN_COLUMNS) * 0.6
    assert len(content_row(usual).columns) < len(CONTENT_COLUMNS) * 0.6
    assert span_row(usual, whole=True).columns == SPAN_COLUMNS
    assert content_row(draft("u", own="extra")).columns == CONTENT_COLUMNS
