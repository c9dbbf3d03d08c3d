"""What a reader gets of a row."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from gateway.core.complete import Draft, complete
from gateway.core.reading import BOOL_COLUMNS, JSON_COLUMNS, public, stored_time
from gateway.core.span import validate
from gateway.store.rows import CONTENT_COLUMNS, SPAN_COLUMNS, view_row

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row(**fields: Any) -> dict[str, Any]:
    """A row of the view, as the store would give it."""
    draft = Draft(validate({"model": "m", "unique_id": "u", "organization_id": "o", "environment": "prod", **fields}))
    complete(draft, NOW)
    return {"row_id": 1, "seq": 2, **view_row(draft)}


def test_the_shape_of_retrieve_span() -> None:
    shown = public(row())
    assert {name: value for name, value in shown.items() if value is not None} == {
        "id": "u",
        "unique_id": "u",
        "span_unique_id": "u",
        "organization_id": "o",
        "unique_organization_id": "o",
        "environment": "prod",
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
    documented = {
        *("id", "unique_id", "span_unique_id", "trace_unique_id", "span_name", "span_parent_id", "span_workflow_name"),
        *("timestamp", "start_time", "period_start", "period_end", "input", "output", "properties", "warnings"),
        *("prompt_messages", "tools", "tool_calls", "completion_message", "completion_messages", "full_request"),
        *("full_response", "metadata", "variables", "response_format", "model", "provider_id", "environment"),
        *("log_type", "log_method", "status", "error_code", "error_message", "status_code", "prompt_tokens"),
        *("completion_tokens", "total_request_tokens", "prompt_cache_hit_tokens", "prompt_cache_creation_tokens"),
        *("reasoning_tokens", "max_tokens", "prompt_version_number", "cost", "latency", "time_to_first_token"),
        *("tokens_per_second", "routing_time", "temperature", "top_p", "scores", "customer_identifier"),
        *("customer_email", "customer_name", "custom_identifier", "group_identifier", "session_identifier"),
        *("thread_identifier", "organization_id", "unique_organization_id", "organization_key_id"),
        *("organization_key_name", "prompt_id", "prompt_name", "deployment_id", "deployment_name", "stream"),
        *("blurred", "limit_info"),
    }
    assert documented <= shown.keys()
    assert not {"row_id", "seq", "extras"} & shown.keys()


def test_unknown_fields_are_shown_and_never_stand_before_a_known_one() -> None:
    shown = public(row(own=[1], seq="mine", row_id="mine", extras="mine", id="mine", period_start="2026"))
    assert (shown["own"], shown["seq"], shown["row_id"], shown["extras"]) == ([1], "mine", "mine", "mine")
    assert (shown["id"], shown["period_start"]) == ("u", "2026")


def test_of_what_is_not_ours_only_what_clients_can_read_is_shown() -> None:
    odd = {"period_end": "soon", "deployment_id": 5, "deployment_name": ["x"], "limit_info": {"is_allowed": "?"}}
    shown = public(row(**odd, prompt_version_number="x"))
    assert not [name for name in (*odd, "prompt_version_number") if shown[name] is not None]
    good = {"period_end": "2026-01-02T03:04:05Z", "deployment_id": "5", "prompt_version_number": 3}
    shown = public(row(**good))
    assert {name: shown[name] for name in good} == good


def test_metadata_is_text_and_reserved_keys_are_hidden() -> None:
    metadata = {"a": "text", "b": 1, "c": True, "d": None, "e": [1.5], "_f": "hidden", "": "empty"}
    shown = public(row(metadata=metadata, properties=metadata))
    assert shown["metadata"] == {"a": "text", "b": "1", "c": "true", "d": "null", "e": "[1.5]", "": "empty"}
    assert shown["properties"] == metadata


@pytest.mark.parametrize("log_type", ["chat", "completion", "text", "response", "generation"])
def test_conversations_carry_the_legacy_fields(log_type: str) -> None:
    shown = public(row(log_type=log_type, input="hi", output="hello"))
    messages = [{"role": "user", "content": "hi"}]
    assert (shown["input"], shown["output"]) == ("hi", "hello")
    assert shown["messages"] == shown["prompt_messages"] == messages
    assert shown["completion_message"] == {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize("log_type", ["tool", "workflow", "embedding", "my-own"])
def test_other_types_do_not(log_type: str) -> None:
    shown = public(row(log_type=log_type, input="hi", output="hello"))
    assert shown["messages"] is shown["prompt_messages"] is shown["completion_message"] is None


def test_several_choices_are_shown_as_completion_messages() -> None:
    choices = [{"role": "assistant", "content": text} for text in ("a", "b")]
    shown = public(row(output=choices))
    assert (shown["completion_message"], shown["completion_messages"]) == (choices[0], choices)


def test_the_column_kinds_are_columns() -> None:
    assert {*JSON_COLUMNS, *BOOL_COLUMNS} <= {*SPAN_COLUMNS, *CONTENT_COLUMNS}


def test_times_sort_as_text() -> None:
    cet = timezone(timedelta(hours=1))
    assert stored_time(NOW) == "2026-01-02T03:04:05.000000Z"
    assert stored_time(datetime(2026, 1, 2, 4, 4, 5, 1, tzinfo=cet)) == "2026-01-02T03:04:05.000001Z"
    assert stored_time(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"
