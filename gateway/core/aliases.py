"""From what callers send to one flat dict under public names.

Precedence: respan_params (keywordsai_params under them), then the base64 header, then the top level. Inside one
layer the public name wins over its aliases, whatever the order of the keys. A null counts as not sent.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from gateway.core.jsontext import parse_or_none

# alias → public name; the first alias of a name wins over the later ones
ALIASES = {
    "id": "unique_id",
    "generation_time": "latency",
    "ttft": "time_to_first_token",
    "keywordsai_api_controls": "respan_api_controls",
}
NESTED = ("respan_params", "keywordsai_params")
PARAMS_HEADERS = ("X-Data-Respan-Params", "X-Data-Keywordsai-Params")

# These come from the key and the gateway; a body never sets them.
OURS = frozenset({"organization_id", "organization_key_id", "organization_key_name", "environment"})
# What an object holds that is a field of the span too: (its name there, the field's name).
OF_CUSTOMER = (("customer_identifier", "customer_identifier"), ("email", "customer_email"), ("name", "customer_name"))
OF_PROMPT = ("prompt_id", "prompt_name", "is_custom_prompt")
_traceparent = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?$"
)
_NESTED = frozenset(NESTED)
_NOT_AS_IT_IS = OURS | frozenset(ALIASES) | _NESTED
# Of these, other fields are made.
_TELLING_MORE = frozenset(ALIASES) | {"customer_params", "prompt"}


def merge(raw: Mapping[str, Any], header_params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that one request says about its span, under public names. `raw` is not changed."""
    top = _layer(raw)
    if not header_params and _NESTED.isdisjoint(raw):
        return top
    header = _layer(header_params or {})
    preferred, legacy = (_layer(_as_object(raw.get(name)) or {}) for name in NESTED)
    merged = {**top, **header, **legacy, **preferred}
    # For variables alone the top level wins, name by name.
    variables = [layer["variables"] for layer in (header, legacy, preferred, top) if "variables" in layer]
    if len(variables) > 1:
        merged["variables"] = _merged_objects(variables)
    return merged


def header_params(headers: Mapping[str, str]) -> dict[str, Any]:
    """The params that came as base64 JSON in a header; what cannot be read counts as not sent."""
    found: dict[str, Any] = {}
    for name in reversed(PARAMS_HEADERS):
        text = headers.get(name)
        if text:
            try:
                decoded = base64.b64decode(text.strip() + "==", altchars=b"-_" if set("-_") & set(text) else None)
            except (binascii.Error, ValueError):
                continue
            value = parse_or_none(decoded)
            if isinstance(value, dict):
                found.update({key: item for key, item in value.items() if item is not None})
    return found


def traced(traceparent: str) -> dict[str, str]:
    """The trace and the parent that a header `traceparent` names (W3C Trace Context, section 3.2); empty where it is
    none."""
    found = _traceparent.match(traceparent.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return {}
    trace_id, parent_id = found["trace"], found["parent"]
    return (
        {}
        if not int(trace_id, 16) or not int(parent_id, 16)
        else {
            "trace_unique_id": trace_id,
            "span_parent_id": parent_id,
        }
    )


def _layer(fields: Mapping[str, Any]) -> dict[str, Any]:
    layer = {name: value for name, value in fields.items() if value is not None and name not in _NOT_AS_IT_IS}
    if _TELLING_MORE.isdisjoint(fields):
        return layer
    for alias, name in ALIASES.items():
        if fields.get(alias) is not None:
            layer.setdefault(name, fields[alias])
    if customer := _as_object(layer.get("customer_params")):
        for name, promoted in OF_CUSTOMER:
            if customer.get(name) is not None:
                layer[promoted] = customer[name]
    if prompt := _as_object(layer.get("prompt")):
        for name in OF_PROMPT:
            if prompt.get(name) is not None:
                layer.setdefault(name, prompt[name])
    return layer


def _as_object(value: object) -> dict[str, Any] | None:
    if isinstance(value, str):
        value = parse_or_none(value)
    return value if isinstance(value, dict) else None


def _merged_objects(values: list[Any]) -> Any:
    merged: dict[str, Any] = {}
    for value in values:
        item = _as_object(value)
        if item is None:
            return value
        merged.update(item)
    return merged
