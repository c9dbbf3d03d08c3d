"""Masks secrets in what is recorded, and tells an error without its own words.

A secret is known by the name it stands under, of a header, a member or a query parameter. What an answer repeats of it
is known by its text.
"""

import json
import re
import traceback
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from gateway.core.jsontext import dump

MASK = "***"

# Without anything but letters and digits: xApiKey, X-API-Key and x_api_key are one name.
_NAMES = frozenset(
    {
        *("authorization", "proxyauthorization", "xauthorization", "cfaigauthorization", "heliconeauth"),
        *("cookie", "cookies", "setcookie", "setcookie2"),
        *("xfunctionskey", "xgoogiapjwtassertion", "cfaccessjwtassertion"),
        *("password", "passwd", "credentials", "credentialoverride", "customercredentials"),
    }
)
_ENDINGS = (
    *("apikey", "authkey", "secretkey", "privatekey", "accesskey", "subscriptionkey", "clientsecret"),
    *("authtoken", "apitoken", "accesstoken", "refreshtoken", "bearertoken", "sessiontoken", "securitytoken"),
    *("privatetoken", "vaulttoken", "csrftoken", "xsrftoken"),
)
# Of query parameters alone; elsewhere these are names of much that is no secret.
_QUERY_NAMES = frozenset({"key", "token", "secret", "sig", "signature", "auth"})
# Headers as objects: {"name": "Cookie", "value": "a=b"}.
_NAMING = frozenset({"name", "key", "header"})
_VALUE = frozenset({"value", "values"})
# What may stand before the secret of a header (RFC 9110, section 11.1).
_SCHEMES = frozenset({"bearer", "basic", "token", "key", "apikey", "negotiate"})
# A shorter text would be masked in the middle of words.
_LENGTH_AT_LEAST = 8

_other_signs = re.compile(r"[^a-z0-9]+")
_telling = re.compile(r"auth|key|token|secret|pass|cred|cookie|assertion|signature", re.IGNORECASE)
_word = re.compile(r"[\w-]+")
_url = re.compile(r"[a-z][a-z0-9+.-]{0,20}://\S+", re.IGNORECASE)
# As long as the beginning of a URL may be, with its colon and slashes.
_SCHEME_AT_MOST = 24
_userinfo = re.compile(r"(?<=://)[^/?#]*@")
# These begin where they can, and nowhere within: no text, however long and odd, is gone through more than once.
_parameter = re.compile(r"(?<=[?&])([^=&#?]+)=([^&#]+)")
_cookie = re.compile(r"(?<![^\s;])=*[^\s;=]+=([^\s;]+)(?:;|$)")


def is_secret(name: str) -> bool:
    """Whether a header or member of this name holds a secret."""
    name = name.lower()
    # Python's bytes, put into JSON as text.
    name = _other_signs.sub("", name[2:] if name.startswith(("b'", 'b"')) else name)
    return name in _NAMES or name.endswith(_ENDINGS)


class _Name(Enum):
    """What the name of a member says of its value."""

    PLAIN = auto()
    SECRET = auto()  # it is one
    NAMING = auto()  # it may be the name of one
    VALUE = auto()  # it may be the value of one
    HEADERS = auto()  # one may be among them


def _kind_of(name: str) -> _Name:
    lower = name.lower()
    if is_secret(name):
        return _Name.SECRET
    if lower in _NAMING:
        return _Name.NAMING
    if lower in _VALUE:
        return _Name.VALUE
    return _Name.HEADERS if lower.endswith("headers") else _Name.PLAIN


def _is_quiet(name: str) -> bool:
    """Whether a name says nothing of the value that stands under it; kept in `_quiet`, since nearly all do, and most of
    what is recorded has the same few."""
    if _kind_of(name) not in (_Name.PLAIN, _Name.NAMING):
        return False
    if len(name) <= _LONGEST_KEPT:
        if len(_quiet) >= _QUIET_KEPT:
            _quiet.clear()
        _quiet.add(name)
    return True


# Callers choose names as they like.
_quiet: set[str] = set()
_QUIET_KEPT = 4096
_LONGEST_KEPT = 64


# What is recorded


def masked(value: Any, texts: Collection[str] = (), found: set[str] | None = None) -> Any:
    """The value without what stands under secret names and without `texts`; itself where it holds none of these.

    `found` takes up the texts that stood under secret names.
    """
    mask = _MASKS.get(type(value))
    return value if mask is None else mask(value, texts, found)


def _masked_object(value: dict[str, Any], texts: Collection[str], found: set[str] | None) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, item in value.items():
        if key in _quiet or _is_quiet(key):
            # What holds nothing that could be masked is passed over without a further look.
            mask = _MASKS.get(type(item))
            if mask is None or (mask is _masked_text and not texts and "://" not in item[:_SCHEME_AT_MOST]):
                continue
            new = mask(item, texts, found)
        else:
            new = _hidden(item, found) if _hides(_kind_of(key), item, value) else masked(item, texts, found)
        if new is not item:
            changed[key] = new
    return {**value, **changed} if changed else value


def _hides(kind: _Name, item: Any, beside: dict[str, Any]) -> bool:
    """Whether a member of this kind holds a secret; `beside`: the object that it is in."""
    if kind is _Name.HEADERS:
        return _are_headers_as_text(item)
    return kind is _Name.SECRET or _names_one(beside)


def _masked_list(value: list[Any], texts: Collection[str], found: set[str] | None) -> list[Any]:
    changed: dict[int, Any] = {}
    for at, item in enumerate(value):
        if isinstance(item, list) and _is_secret_pair(item):
            new: Any = [item[0], _hidden(item[1], found)]
        elif (mask := _MASKS.get(type(item))) is not None:
            new = mask(item, texts, found)
        else:
            continue
        if new is not item:
            changed[at] = new
    return [changed.get(at, item) for at, item in enumerate(value)] if changed else value


def _names_one(value: dict[str, Any]) -> bool:
    """Whether an object says by one of its members that another holds a secret: {"name": "Cookie", …}."""
    return any(
        isinstance(name, str) and _kind_of(key) is _Name.NAMING and is_secret(name) for key, name in value.items()
    )


def _hidden(item: Any, found: set[str] | None) -> Any:
    if found is not None:
        found.update(text for text in (item if isinstance(item, list) else [item]) if isinstance(text, str))
        masked(item, (), found)
    return MASK if item else item


def _is_secret_pair(item: list[Any]) -> bool:
    """One of a list of headers: ["Cookie", "a=b"]."""
    return len(item) == 2 and isinstance(item[0], str) and is_secret(item[0])


def _are_headers_as_text(item: Any) -> bool:
    """Headers in lines, or however else a program prints them, with a secret one among them."""
    lines = item if isinstance(item, list) else [item]
    return any(isinstance(line, str) and any(map(is_secret, _word.findall(line))) for line in lines)


def _masked_text(text: str, texts: Collection[str], found: set[str] | None) -> str:
    for secret in texts:
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" not in text[:_SCHEME_AT_MOST] or _url.fullmatch(text) is None:
        return text
    if found is not None:
        found.update(in_url(text))
    shown = _parameter.sub(_masked_parameter, _userinfo.sub(f"{MASK}@", text, count=1))
    return text if shown == text else shown


# By what may hold something that has to be masked: JSON's own types, and no others.
_MASKS: dict[type, Callable[[Any, Collection[str], set[str] | None], Any]] = {
    str: _masked_text,
    dict: _masked_object,
    list: _masked_list,
}


def _masked_parameter(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}={MASK}" if _is_secret_in_query(unquote(parameter[1])) else parameter[0]


def _is_secret_in_query(name: str) -> bool:
    return is_secret(name) or name.lower() in _QUERY_NAMES


def may_be_within(written: str) -> bool:
    """Whether `masked` may find anything in a value, told from its JSON, where that is faster than a walk: most hold
    nothing."""
    beginning = written[:_BEGINNING]
    if beginning.count(":") * _CHARACTERS_A_MEMBER < len(beginning):
        # Few members with long texts, which a walk passes over.
        return True
    lower = written.lower()
    for stem in _STEMS:
        if stem in lower:
            return True
    # Every answer counts its tokens.
    return lower.count("token") != lower.count("tokens")


# What tells how a value is made up; and how many characters are looked through in the time that a member takes.
_BEGINNING, _CHARACTERS_A_MEMBER = 4096, 50
# Each secret name, and each that may stand before or hold one, has one of these in it; or `token`, which see.
_STEMS = ("key", "auth", "cookie", "pass", "secret", "credential", "assertion", "header", "value", "://")


# What a request carries


def in_headers(headers: Iterable[tuple[str, str]]) -> set[str]:
    """The values of headers that may be secret: more of them than are masked by their names."""
    return {value for name, value in headers if _may_hold_one(name)}


@lru_cache(maxsize=1024)
def _may_hold_one(header: str) -> bool:
    return _telling.search(header) is not None


def in_url(url: str) -> set[str]:
    """The password of a URL and the secret parameters of its query, as they stand there and as they are meant."""
    if "?" not in url and "@" not in url:
        return set()
    found = {text for name, text in _parameter.findall(url) if _is_secret_in_query(unquote(name))}
    if (userinfo := _userinfo.search(url)) is not None:
        user, _, password = userinfo[0][:-1].partition(":")
        # It is sent as Basic authentication.
        found |= {password or user, b64encode(unquote(f"{user}:{password}").encode("utf-8", "replace")).decode()}
    return found | {unquote(text) for text in found}


def repeated_as(found: Iterable[str]) -> list[str]:
    """The texts that an answer may repeat secrets in, of those that are long enough to be told from other words.

    The longest come first: one may begin with another.
    """
    texts: set[str] = set()
    for secret in map(str.strip, found):
        scheme, _, credentials = secret.partition(" ")
        texts |= {secret, *_cookie.findall(secret), credentials if scheme.lower() in _SCHEMES else secret}
    texts |= {form for text in texts for form in (json.dumps(text)[1:-1], quote(text, safe="", errors="replace"))}
    return sorted((text for text in texts if len(text) >= _LENGTH_AT_LEAST), key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Texts that must not be recorded, the longest first, and each as JSON writes it."""

    texts: tuple[str, ...]
    as_json: tuple[str, ...]
    # What holds none of these holds none at all: those are left out that hold another.
    shortest: tuple[str, ...]

    def within(self, written: str) -> list[str]:
        """Those that a JSON text holds."""
        for text in self.shortest:
            if text in written:
                return [text for text, as_json in zip(self.texts, self.as_json, strict=True) if as_json in written]
        return []


_COMPARED = 32


# Most calls carry the key that the one before carried.
@lru_cache(maxsize=64)
def hidden(texts: tuple[str, ...], carried: frozenset[str]) -> Hidden:
    """These texts, and whatever a request carried in every form in which it may be repeated."""
    found = sorted({*texts, *repeated_as(carried)}, key=len, reverse=True)
    as_json = tuple(dump(text)[1:-1] for text in found)
    shortest = as_json
    if len(found) <= _COMPARED:
        # Each with each: a request may carry thousands.
        shortest = tuple(text for text in as_json if not any(other in text for other in as_json if other != text))
    return Hidden(tuple(found), as_json, shortest)


# Errors


def trace(error: BaseException | None) -> str:
    """Types and lines of code of an unexpected error and its causes; its words may hold a key, and are left out."""
    told: list[str] = []
    while error is not None:
        told.append(f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(told)
