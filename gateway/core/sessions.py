"""Signed texts: the session that a cookie holds, and the link that signs in once.

Both name a key, by an id that says nothing of it to those without the secret. Times are seconds since 1970.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from typing import NamedTuple

SESSION_S = 14 * 24 * 3600
# How long a link is good, and that in words.
LINK_S, LINK_FOR = 3600, "an hour"

# What a text is, and the version of its fields: one that is signed as the one is not taken for the other.
_SESSION, _LINK = "s2", "l1"
_KEY_ID_BYTES = 16
# Longer ones are none of ours, and are not worth a look.
_LONGEST = 256
_session_shape = re.compile(rf"{_SESSION}\.[\w-]+\.\d+\.[\w-]+\.[\w-]{{43}}", re.ASCII)


class Session(NamedTuple):
    """What a session says: with which key, until when, and by which id it is known once it was ended."""

    key_id: str
    expires_at: int
    id: str


class Link(NamedTuple):
    """What a link that signs in says: with which key, until when, and by which nonce it is known once it was used."""

    key_id: str
    expires_at: int
    nonce: str


def key_id(secret: bytes, digest: bytes) -> str:
    """What a key is named by, whose SHA-256 this is."""
    return _text(hmac.digest(secret, b"key " + digest, "sha256")[:_KEY_ID_BYTES])


def signed_session(secret: bytes, session: Session) -> str:
    """The text of a session."""
    return _signed(secret, _SESSION, session.key_id, str(session.expires_at), session.id)


def may_be_session(text: str) -> bool:
    """Whether a text looks like a session, which takes no time to tell."""
    return len(text) <= _LONGEST and _session_shape.fullmatch(text) is not None


def read_session(secret: bytes, text: str, now: int) -> Session | None:
    """What such a text says; None where it is none, or is over. It may have been ended."""
    fields = _fields(secret, _SESSION, text)
    if fields is None:
        return None
    key, expires_at, session_id = fields
    return Session(key, int(expires_at), session_id) if now < int(expires_at) else None


def signed_link(secret: bytes, link: Link) -> str:
    """The text that a link is opened with."""
    return _signed(secret, _LINK, link.key_id, str(link.expires_at), link.nonce)


def read_link(secret: bytes, text: str, now: int) -> Link | None:
    """What such a text says; None where it is none, or is too old."""
    fields = _fields(secret, _LINK, text)
    if fields is None:
        return None
    key, expires_at, nonce = fields
    return Link(key, int(expires_at), nonce) if now < int(expires_at) else None


def _signed(secret: bytes, *fields: str) -> str:
    said = ".".join(fields)
    return f"{said}.{_signature(secret, said)}"


def _fields(secret: bytes, kind: str, text: str) -> list[str] | None:
    """The fields of a text of this kind that was signed here."""
    if len(text) > _LONGEST or not text.startswith(f"{kind}."):
        return None
    said, _, signature = text.rpartition(".")
    if not hmac.compare_digest(_bytes(signature), _bytes(_signature(secret, said))):
        return None
    return said.split(".")[1:]


def _signature(secret: bytes, said: str) -> str:
    return _text(hmac.digest(secret, b"text " + _bytes(said), "sha256"))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    # Headers may hold any bytes, which then stand in a text as surrogates.
    return text.encode("utf-8", "surrogatepass")
