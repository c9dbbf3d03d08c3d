"""Which caller a request's key belongs to, or the session that was begun with it."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from gateway.clock import Clock
from gateway.core import sessions, sites
from gateway.core.sessions import Link, Session
from gateway.errors import FromElsewhere, Unauthorized
from gateway.recorder import Caller

SESSION_COOKIE = "gw_session"
# So many are looked at: each costs a signature, also where it comes from nobody.
_SESSIONS_AT_MOST = 8
_session_cookie = re.compile(rf"(?:^|;)[ \t]*{SESSION_COOKIE}=([^;]*)")


class Keys:
    """The keys, as SHA-256 only, and the sessions with them, which last no longer than the keys are here."""

    def __init__(self, callers: Iterable[tuple[str, Caller]], secret: bytes, clock: Clock) -> None:
        """`secret` signs the sessions."""
        self._secret = secret
        self._clock = clock
        self._ended: dict[str, int] = {}
        self.replace(callers)

    def replace(self, callers: Iterable[tuple[str, Caller]]) -> None:
        """From now on only these are let in."""
        self._callers = [(key_digest(key), caller) for key, caller in callers]
        self._by_id = {sessions.key_id(self._secret, digest): caller for digest, caller in self._callers}

    def caller(self, headers: Mapping[str, str], method: str) -> Caller:
        """The caller whose key the headers carry; without one, who is signed in. Raises Unauthorized and
        FromElsewhere."""
        key = key_in(headers)
        if not key:
            return self._caller_in_session(headers, method)
        digest = key_digest(key)
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, digest)]
        if not found:
            raise Unauthorized("Your API key is invalid or expired.")
        return found[0]

    def _caller_in_session(self, headers: Mapping[str, str], method: str) -> Caller:
        caller = self.signed_in(headers)
        if caller is None:
            raise Unauthorized("No API key: send it as 'Authorization: Bearer KEY'.")
        if not sites.may_use_session(method, headers):
            raise FromElsewhere(
                f"Only the gateway's own pages may use its session cookie: send an API key. {sites.PASS_HOST_ON}"
            )
        return caller

    def signed_in(self, headers: Mapping[str, str]) -> Caller | None:
        """Whose session the cookies carry."""
        return next((self._by_id[session.key_id] for session in self.sessions(headers)), None)

    def sessions(self, headers: Mapping[str, str]) -> Iterator[Session]:
        """The sessions that the cookies carry, of those that last."""
        for text in islice(_sessions_in(headers), _SESSIONS_AT_MOST):
            session = sessions.read_session(self._secret, text, self._now())
            if session is not None and session.key_id in self._by_id and session.id not in self._ended:
                yield session

    def end(self, ended: dict[str, int]) -> None:
        """From now on these sessions let nobody in: the id of each, and when it would be over."""
        now = self._now()
        self._ended = {found: expires_at for found, expires_at in (self._ended | ended).items() if now < expires_at}

    def session_with_key(self, key: str) -> str | None:
        """A new session with a key; None where it is not let in."""
        # How long this look-up takes tells nothing: without the secret nobody knows what is compared.
        return self._session(sessions.key_id(self._secret, key_digest(key)))

    def session_by_link(self, link: Link) -> str | None:
        """A new session with the key of a link; None where that key is not let in any more."""
        return self._session(link.key_id)

    def read_link(self, text: str) -> Link | None:
        """What a link that signs in says; None where it is too old, or none of ours. It may have been used."""
        return sessions.read_link(self._secret, text, self._now())

    def _session(self, key_id: str) -> str | None:
        if key_id not in self._by_id:
            return None
        session = Session(key_id, self._now() + sessions.SESSION_S, self._clock.new_id())
        return sessions.signed_session(self._secret, session)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def key_digest(key: str) -> bytes:
    """What a key is known by."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _sessions_in(headers: Mapping[str, str]) -> Iterator[str]:
    """Several where another server on this host has set a cookie of this name for some path too."""
    for found in _session_cookie.finditer(headers.get("Cookie", "")):
        text = found[1].strip()
        if sessions.may_be_session(text):
            yield text


def is_by_session(headers: Mapping[str, str]) -> bool:
    """Whether a request that was let in was so by a session, and comes from a browser's page."""
    return "Cookie" in headers and not key_in(headers)


def key_in(headers: Mapping[str, str]) -> str:
    """The key of a request, or nothing: `Authorization: Bearer K` or bare `K`, else `x-api-key: K`."""
    authorization = headers.get("Authorization", "").strip()
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() == "bearer":
        authorization = key.strip()
    return authorization or headers.get("x-api-key", "").strip()
