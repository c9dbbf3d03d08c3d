"""Masks secrets in what is recorded, and tells an error without its own words.

A secret is known by the name it stands under, of a header, a member or a query parameter. What an answer repeats of it
is known by its text.
"""

import json
import re
import traceback
from base64 import b64encode
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import quote, unquote

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
_userinfo = re.compile(r"(?<=://)[^/?#]*@")
_parameter = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]+)")
_cookie = re.compile(r"[^\s;=]+=([^\s;]+)(?:;|$)")


def is_secret(name: str) -> bool:
    """Whether a header or member of this name holds a secret."""
    name = name.lower()
    # Python's bytes, put into JSON as text.
    name = _other_signs.sub("", name[2:] if name.startswith(("b'", 'b"')) else name)
    return name in _NAMES or name.endswith(_ENDINGS)


# What is recorded


def masked(value: Any, texts: Collection[str] = (), found: set[str] | None = None) -> Any:
    """The value without what stands under secret names and without `texts`; itself where it holds none of these.

    `found` takes up the texts that stood under secret names.
    """
    if isinstance(value, str):
        return _masked_text(value, texts, found)
    if isinstance(value, dict):
        names_one = any(
            isinstance(name, str) and key.lower() in _NAMING and is_secret(name) for key, name in value.items()
        )
        members = {}
        for key, item in value.items():
            hides = is_secret(key) or (names_one and key.lower() in _VALUE) or _are_headers_as_text(key, item)
            members[key] = _hidden(item, found) if hides else masked(item, texts, found)
        return members if any(members[key] is not item for key, item in value.items()) else value
    if isinstance(value, list) and any(isinstance(item, (str, dict, list)) for item in value):
        items = []
        for item in value:
            if _is_secret_pair(item):
                items.append([item[0], _hidden(item[1], found)])
            else:
                items.append(masked(item, texts, found))
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _hidden(item: Any, found: set[str] | None) -> Any:
    if found is not None:
        found.update(text for text in (item if isinstance(item, list) else [item]) if isinstance(text, str))
        masked(item, (), found)
    return MASK if item else item


def _is_secret_pair(item: Any) -> bool:
    """One of a list of headers: ["Cookie", "a=b"]."""
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and is_secret(item[0])


def _are_headers_as_text(key: str, item: Any) -> bool:
    """Headers in lines, or however else a program prints them, with a secret one among them."""
    if not key.lower().endswith("headers"):
        return False
    lines = item if isinstance(item, list) else [item]
    return any(isinstance(line, str) and any(map(is_secret, _word.findall(line))) for line in lines)


def _masked_text(text: str, texts: Collection[str], found: set[str] | None) -> str:
    for secret in texts:
        text = text.replace(secret, MASK)
    if _url.fullmatch(text) is None:
        return text
    if found is not None:
        found.update(in_url(text))
    shown = _parameter.sub(_masked_parameter, _userinfo.sub(f"{MASK}@", text, count=1))
    return text if shown == text else shown


def _masked_parameter(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}={MASK}" if _is_secret_in_query(unquote(parameter[1])) else parameter[0]


def _is_secret_in_query(name: str) -> bool:
    return is_secret(name) or name.lower() in _QUERY_NAMES


# What a request carries


def in_headers(headers: Iterable[tuple[str, str]]) -> set[str]:
    """The values of headers that may be secret: more of them than are masked by their names."""
    return {value for name, value in headers if _telling.search(name)}


def in_url(url: str) -> set[str]:
    """The password of a URL and the secret parameters of its query, as they stand there and as they are meant."""
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


# Errors


def trace(error: BaseException | None) -> str:
    """Types and lines of code of an unexpected error and its causes; its words may hold a key, and are left out."""
    told: list[str] = []
    while error is not None:
        told.append(f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(told)
