"""Steps of traces as tracers send them: how they are known, and what they may lack."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.core.jsontext import is_unicode
from gateway.errors import InvalidSpan

_IDS = ("trace_unique_id", "span_unique_id")


def identified(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a step has besides what was sent: no model, if it names none, and an id made of its ids in the trace, so
    that one that is sent again is known. Raises InvalidSpan where it has no such ids."""
    if missing := [name for name in _IDS if fields.get(name) in (None, "")]:
        raise InvalidSpan({name: ["This field is required."] for name in missing})
    trace_id, own_id = (str(fields[name]) for name in _IDS)
    if odd := [name for name in _IDS if not is_unicode(str(fields[name]))]:
        raise InvalidSpan({name: ["Must be text without lone surrogates."] for name in odd})
    return {"model": fields.get("model") or "", "unique_id": fields.get("unique_id") or made_id(trace_id, own_id)}


def made_id(trace_id: str, own_id: str) -> str:
    """The unique_id of a step that has none: 32 hexadecimal digits."""
    return hashlib.sha256(f"{trace_id}:{own_id}".encode("utf-8", "replace")).hexdigest()[:32]
