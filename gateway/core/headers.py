"""Which headers go on, both ways."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multidict import CIMultiDict

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
# Of those that do not go on.
_DECIDING = frozenset({"connection", "accept-encoding"})
# What is decided by a name is kept, for names as they occur; whoever makes them up fills no memory with them.
_NAMES_KEPT = 2048
_NAME_LENGTH_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Name:
    """What a header's name decides."""

    lower: str
    to_upstream: bool
    to_client: bool
    # Whether what goes to an upstream depends on it.
    decides: bool


def deciding(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those of a request's headers that `to_upstream` depends on."""
    return tuple([field for field in headers if (_names.get(field[0]) or _known(field[0])).decides])


def to_upstream(headers: Iterable[tuple[str, str]], *, streamed: bool, own: Mapping[str, str]) -> CIMultiDict[str]:
    """The request headers that go on, and ours: the upstream's key and what its configuration adds.

    Repeated ones stay repeated, all spelled like the first.
    """
    passed: list[tuple[str, str]] = []
    spelled: dict[str, str] = {}
    connection: list[str] = []
    accepted: list[str] = []
    for name, text in headers:
        known = _names.get(name) or _known(name)
        if known.to_upstream:
            passed.append((spelled.setdefault(known.lower, name), text))
        elif known.lower == "connection":
            connection.append(text)
        elif known.lower == "accept-encoding":
            accepted.append(text)
    going = CIMultiDict(passed)
    for name in _named_by(connection):
        going.popall(name, None)
    going["Accept-Encoding"] = "identity" if streamed else _agreed(", ".join(accepted))
    for name, text in own.items():
        going[name] = text
    return going


def to_client(headers: Iterable[tuple[str, str]], *, same_length: bool) -> CIMultiDict[str]:
    """The answer's headers that go on; repeated ones stay repeated. One with control characters cannot be sent."""
    passed: list[tuple[str, str]] = []
    connection: list[str] = []
    for name, text in headers:
        known = _names.get(name) or _known(name)
        if known.to_client:
            # Most values are printable, which is found out faster than that there is no control character.
            if text.isprintable() or not _control.search(text):
                passed.append((name, text))
        elif known.lower == "connection":
            connection.append(text)
    going = CIMultiDict(passed)
    for name in _named_by(connection):
        going.popall(name, None)
    if not same_length:
        going.popall("Content-Length", None)
    return going


def takes_gzip(accepted: str) -> bool:
    """Whether who sends this Accept-Encoding takes gzip; who says nothing does not."""
    return "gzip" in _agreed(accepted)


def value(headers: Iterable[tuple[str, str]], wanted: str) -> str:
    """The first value of a header, or an empty text."""
    return next((text for name, text in headers if name.lower() == wanted), "")


_names: dict[str, _Name] = {}


def _known(name: str) -> _Name:
    lower = name.lower()
    to_upstream = lower not in _NOT_TO_UPSTREAM and not lower.startswith(_GATEWAY_PREFIXES)
    known = _Name(lower, to_upstream, lower not in _NOT_TO_CLIENT, to_upstream or lower in _DECIDING)
    if len(_names) < _NAMES_KEPT and len(name) <= _NAME_LENGTH_KEPT:
        _names[name] = known
    return known


def _named_by(connection: list[str]) -> set[str]:
    """The headers that Connection names."""
    return {token.strip() for text in connection for token in text.split(",")}


_agreements: dict[str, str] = {}


def _agreed(accepted: str) -> str:
    """As `_both_can`; clients of one kind all say the same."""
    agreed = _agreements.get(accepted)
    if agreed is None:
        agreed = _both_can(accepted)
        if len(_agreements) < _NAMES_KEPT and len(accepted) <= _NAME_LENGTH_KEPT:
            _agreements[accepted] = agreed
    return agreed


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
