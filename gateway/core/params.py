"""The caller's Respan fields in a proxied call: which are taken out of the body, and which the span takes over."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.aliases import NESTED
from gateway.core.span import FIELDS

# Descriptive: they say whose a call is and what it belongs to.
DESCRIPTIVE = frozenset(
    {
        "customer_identifier",
        "customer_params",
        "customer_email",
        "customer_name",
        "thread_identifier",
        "custom_identifier",
        "group_identifier",
        "session_identifier",
        "evaluation_identifier",
        "trace_unique_id",
        "trace_group_identifier",
        "trace_name",
        "span_unique_id",
        "span_parent_id",
        "span_name",
        "span_path",
        "span_workflow_name",
        "metadata",
        "properties",
        "variables",
        "prompt_id",
        "prompt_name",
        "is_custom_prompt",
        "positive_feedback",
        "note",
        "category",
    }
)
# Controls that this gateway acts on, and those it knows but does not act on.
ACTED_ON = frozenset({"disable_log"})
_CONTROLS = frozenset(
    {
        "prompt",
        "cache_enabled",
        "cache_ttl",
        "cache_options",
        "fallback_models",
        "load_balance_group",
        "load_balance_models",
        "loadbalance_models",
        "retry_params",
        "retries",
        "disable_fallback",
        "request_breakdown",
        "credential_override",
        "customer_credentials",
        "model_name_map",
        "exclude_models",
        "exclude_providers",
        "weight",
        "respan_api_controls",
        "keywordsai_api_controls",
    }
)
# The same, but only inside respan_params: at the top level of a chat these are the upstream's.
_NESTED_CONTROLS = frozenset(
    {
        "models",
        "first_token_timeout",
        "field_name",
        "delimiter",
        "mock_response",
        "eval_params",
        "is_log_omitted",
        "has_webhook",
        "is_test",
    }
)
# What the gateway measures; at the top level of a chat these go on to the upstream, and are not believed.
_MEASURED = frozenset(
    {
        "cost",
        "prompt_unit_price",
        "completion_unit_price",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "latency",
        "generation_time",
        "time_to_first_token",
        "ttft",
        "tokens_per_second",
        "routing_time",
        "timestamp",
        "start_time",
        "status",
        "status_code",
        "error_message",
        "unique_id",
        "id",
    }
)
# Taken out of the body of every route, and of chats only, at the top level.
STRIPPED = frozenset(NESTED)
_NOT_AT_TOP_LEVEL = frozenset({"trace_name", "span_path", "metadata"})
STRIPPED_FROM_CHATS = STRIPPED | (DESCRIPTIVE - _NOT_AT_TOP_LEVEL) | ACTED_ON | _CONTROLS
_OWN = STRIPPED | {"metadata"}
_OWN_OF_CHATS = STRIPPED_FROM_CHATS | _MEASURED | _OWN
_TAKEN = DESCRIPTIVE | ACTED_ON


def stripped(body: Mapping[str, Any], *, is_chat: bool) -> set[str]:
    """The names of the top-level members that do not go on to the upstream."""
    if not is_chat:
        return set(STRIPPED & body.keys())
    names = set(STRIPPED_FROM_CHATS & body.keys())
    # OpenAI keeps metadata only with stored completions, and refuses it otherwise.
    if "metadata" in body and body.get("store") is not True:
        names.add("metadata")
    return names


def own_fields(body: Mapping[str, Any], *, is_chat: bool) -> dict[str, Any]:
    """The members of a body that are the span's, before they are merged with the other layers."""
    names = _OWN_OF_CHATS if is_chat else _OWN
    return {name: value for name, value in body.items() if name in names}


def descriptive(merged: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the span takes over of the merged fields, and a warning for each that has no effect."""
    taken = {name: value for name, value in merged.items() if name in _TAKEN}
    if len(taken) == len(merged):
        return taken, []
    ignored = sorted(merged.keys() - taken.keys())
    return taken, [f"{name} ignored: {_reason(name)}" for name in ignored]


def _reason(name: str) -> str:
    if name in _CONTROLS | _NESTED_CONTROLS:
        return "not supported by this gateway yet"
    return "measured or set by the gateway" if name in FIELDS else "not a known field"


def other_fields(body: Mapping[str, Any], removed: Iterable[str]) -> dict[str, Any]:
    """The request as the span keeps it: without what is stripped."""
    names = set(removed)
    return {name: value for name, value in body.items() if name not in names} if names else dict(body)
