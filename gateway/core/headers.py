"""Which headers go on, both ways."""

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

Headers = list[tuple[str, str]]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_TO_UPSTREAM = _HOP_BY_HOP | {
    "host",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "openai-organization",
    "openai-project",
    "accept-encoding",
    "content-length",
    "expect",
}
_GATEWAY_PREFIXES = ("x-respan-", "x-data-")
_NOT_TO_CLIENT = _HOP_BY_HOP | {"set-cookie", "alt-svc", "strict-transport-security"}
# What RFC 9110, section 5.5 allows in no value; the tab it allows.
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DECODABLE = ("gzip", "deflate")


def to_upstream(headers: Iterable[tuple[str, str]], *, streamed: bool, own: Mapping[str, str]) -> CIMultiDict[str]:
    """The request headers that go on, and ours: the upstream's key and what its configuration adds.

    Repeated ones stay repeated, all spelled like the first: of others, aiohttp sends only the last.
    """
    sent = list(headers)
    named = _named_by_connection(sent)
    spelled: dict[str, str] = {}
    passed = CIMultiDict(
        (spelled.setdefault(lower, name), value)
        for name, value in sent
        if (lower := name.lower()) not in _NOT_TO_UPSTREAM
        and lower not in named
        and not lower.startswith(_GATEWAY_PREFIXES)
    )
    accepted = ", ".join(value for name, value in sent if name.lower() == "accept-encoding")
    passed["Accept-Encoding"] = "identity" if streamed else _both_can(accepted)
    for name, value in own.items():
        passed[name] = value
    return passed


def to_client(headers: Iterable[tuple[str, str]], *, same_length: bool) -> CIMultiDict[str]:
    """The answer's headers that go on; repeated ones stay repeated. One with control characters cannot be sent."""
    sent = list(headers)
    named = _named_by_connection(sent)
    return CIMultiDict(
        (name, value)
        for name, value in sent
        if (lower := name.lower()) not in _NOT_TO_CLIENT
        and lower not in named
        and not _control.search(value)
        and (same_length or lower != "content-length")
    )


def value(headers: Iterable[tuple[str, str]], wanted: str) -> str:
    """The first value of a header, or an empty text."""
    return next((text for name, text in headers if name.lower() == wanted), "")


def _named_by_connection(headers: Headers) -> set[str]:
    return {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }


def _both_can(accepted: str) -> str:
    """The encodings that the client accepts and we can decode (RFC 9110, section 12.5.3)."""
    weights: dict[str, float] = {}
    for item in accepted.split(","):
        name, _, parameter = item.partition(";")
        if name.strip():
            weights[name.strip().lower()] = _weight(parameter)
    both = [name for name in _DECODABLE if weights.get(name, weights.get("*", 0.0)) > 0]
    return ", ".join(both) or "identity"


def _weight(parameter: str) -> float:
    name, _, number = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(number)
    except ValueError:
        return 0.0
