"""What a proxied call's Respan fields do: which are stripped, taken over, or named as without effect."""

from typing import Any

import pytest

from gateway.core import params
from gateway.core.span import Span


@pytest.mark.parametrize(
    ("body", "of_chats", "of_others"),
    [
        ({"model": 1, "messages": 1, "user": 1}, set(), set()),
        ({"note": 1, "prompt": 1, "cache_enabled": 1, "disable_log": 1}, "all", set()),
        ({"respan_params": 1, "keywordsai_params": 1}, "all", "all"),
        ({"metadata": 1}, "all", set()),
        ({"metadata": 1, "store": True}, set(), set()),
        ({"metadata": 1, "store": 1}, {"metadata"}, set()),
        ({"cost": 1, "usage": 1, "models": 1, "trace_name": 1, "span_path": 1, "id": 1}, set(), set()),
    ],
)
def test_what_is_stripped(body: dict[str, Any], of_chats: Any, of_others: Any) -> None:
    assert params.stripped(body, is_chat=True) == (set(body) if of_chats == "all" else of_chats)
    assert params.stripped(body, is_chat=False) == (set(body) if of_others == "all" else of_others)


def test_what_is_the_spans_of_a_body() -> None:
    body = {"model": 1, "note": 2, "cost": 3, "metadata": 4, "respan_params": 5, "retries": 6, "disable_log": 7}
    assert params.own_fields(body, is_chat=True) == {name: body[name] for name in body if name != "model"}
    assert params.own_fields(body, is_chat=False) == {"metadata": 4, "respan_params": 5}


def test_what_the_span_takes_over() -> None:
    merged = {"note": "n", "disable_log": True, "trace_name": "t", "cost": 1, "cache_ttl": 2, "models": 3, "zzz": 4}
    assert params.descriptive(merged) == (
        {"note": "n", "disable_log": True, "trace_name": "t"},
        [
            "cache_ttl ignored: not supported by this gateway yet",
            "cost ignored: measured or set by the gateway",
            "models ignored: not supported by this gateway yet",
            "zzz ignored: not a known field",
        ],
    )


def test_no_descriptive_field_is_measured() -> None:
    measured = {
        "cost", "usage", "latency", "time_to_first_token", "tokens_per_second", "routing_time", "timestamp",
        "start_time", "status", "status_code", "unique_id", "prompt_tokens", "completion_tokens", "model", "input",
        "output", "full_request", "full_response", "warnings", "organization_id", "environment", "log_method",
    }  # fmt: skip
    assert measured <= Span.model_fields.keys()
    assert not measured & (params.DESCRIPTIVE | params.ACTED_ON)


def test_the_request_as_the_span_keeps_it() -> None:
    body = {"a": 1, "note": 2}
    assert params.other_fields(body, {"note"}) == {"a": 1}
    assert body == {"a": 1, "note": 2}
