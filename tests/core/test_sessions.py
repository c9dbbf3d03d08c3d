"""Signed texts: what was signed is read, and nothing else, whatever it looks like."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sessions import (
    Link,
    Session,
    key_id,
    may_be_session,
    read_link,
    read_session,
    signed_link,
    signed_session,
)

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
KEY = key_id(SECRET, hashlib.sha256(b"key").digest())
SESSION = signed_session(SECRET, Session(KEY, 1000, "id"))
LINK = signed_link(SECRET, Link(KEY, 1000, "nonce"))


def test_a_session_is_read_until_it_is_over() -> None:
    assert read_session(SECRET, SESSION, 0) == read_session(SECRET, SESSION, 999) == Session(KEY, 1000, "id")
    assert read_session(SECRET, SESSION, 1000) is None
    assert read_session(OTHER, SESSION, 0) is None


def test_a_link_is_read_until_it_is_too_old() -> None:
    assert read_link(SECRET, LINK, 999) == Link(KEY, 1000, "nonce")
    assert read_link(SECRET, LINK, 1000) is None
    assert read_link(OTHER, LINK, 0) is None


def test_neither_is_taken_for_the_other() -> None:
    assert read_session(SECRET, LINK, 0) is None
    assert read_link(SECRET, SESSION, 0) is None


def test_the_id_of_a_key_depends_on_the_secret_and_is_no_part_of_its_digest() -> None:
    digest = hashlib.sha256(b"key").digest()
    assert key_id(SECRET, digest) == KEY != key_id(OTHER, digest)
    assert key_id(SECRET, hashlib.sha256(b"another").digest()) != KEY
    assert digest.hex()[:8] not in KEY


def test_both_fit_into_a_cookie_and_a_fragment_as_they_are() -> None:
    for text in (SESSION, LINK):
        assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert len(text) < 200


# Any characters at all, lone surrogates too.
_texts = st.text(st.characters(exclude_categories=()))
_signed = st.sampled_from([SESSION, LINK])


@st.composite
def _changed(draw: st.DrawFn) -> str:
    """A signed text with a piece of it replaced, doubled or taken out."""
    text = draw(_signed)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    return text[:start] + draw(_texts | st.sampled_from(["", "=", ".", text[start:end] * 2])) + text[end:]


@given(_texts | _changed(), st.integers(0, 2000))
def test_no_other_text_is_read(text: str, now: int) -> None:
    if text not in (SESSION, LINK):
        assert read_session(SECRET, text, now) is None
        assert read_link(SECRET, text, now) is None


@pytest.mark.parametrize("text", [SESSION, LINK])
def test_no_character_can_be_another(text: str) -> None:
    for at in range(len(text)):
        for other in "Aa1.-_= \x00é":
            changed = text[:at] + other + text[at + 1 :]
            if changed != text:
                assert read_session(SECRET, changed, 0) is None
                assert read_link(SECRET, changed, 0) is None


def test_only_what_looks_like_a_session_may_be_one() -> None:
    assert may_be_session(SESSION)
    for text in ("", "a", LINK, SESSION[:-1], f"{SESSION}a", f"{SESSION}\n", SESSION.replace(".", ","), f"a{SESSION}"):
        assert not may_be_session(text)
    assert not may_be_session(signed_session(SECRET, Session("k" * 250, 1000, "id")))


def test_what_is_far_too_long_is_not_looked_at() -> None:
    long = signed_session(SECRET, Session("k" * 10_000, 1000, "id"))
    assert read_session(SECRET, long, 0) is None


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**40), st.integers(0, 2**40))
def test_what_is_signed_is_read_before_its_end_and_not_after(digest: bytes, expires_at: int, now: int) -> None:
    key = key_id(SECRET, digest)
    session = Session(key, expires_at, "0a")
    assert read_session(SECRET, signed_session(SECRET, session), now) == (session if now < expires_at else None)
    link = Link(key, expires_at, "n-_0")
    assert read_link(SECRET, signed_link(SECRET, link), now) == (link if now < expires_at else None)
