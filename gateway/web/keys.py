"""Which caller a request's key belongs to."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from gateway.errors import Unauthorized
from gateway.recorder import Caller


class Keys:
    """The keys, as SHA-256 only."""

    def __init__(self, callers: Iterable[tuple[str, Caller]]) -> None:
        self.replace(callers)

    def replace(self, callers: Iterable[tuple[str, Caller]]) -> None:
        """From now on only these are let in."""
        self._callers = [(_digest(key), caller) for key, caller in callers]

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """The caller whose key the headers carry. Raises Unauthorized."""
        key = _key_in(headers)
        if not key:
            raise Unauthorized("No API key: send it as 'Authorization: Bearer KEY'.")
        digest = _digest(key)
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, digest)]
        if not found:
            raise Unauthorized("Your API key is invalid or expired.")
        return found[0]


def _key_in(headers: Mapping[str, str]) -> str:
    """`Authorization: Bearer K` or bare `K`, else `x-api-key: K`."""
    authorization = headers.get("Authorization", "").strip()
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() == "bearer":
        authorization = key.strip()
    return authorization or headers.get("x-api-key", "").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
