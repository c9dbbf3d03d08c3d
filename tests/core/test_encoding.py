"""Compressed bodies, within bounds."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.encoding import BodyDecoder, decoded
from gateway.errors import BodyTooLarge, MalformedBody
from tests.core.pieces import cut, one_by_one, places


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


ENCODINGS = [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]
encodings = st.sampled_from([*ENCODINGS, ("", bytes), ("identity", bytes), (" GZip ", gzip.compress)])


@settings(max_examples=200)
@given(st.binary(max_size=10_000), encodings, places)
def test_a_body_comes_out_as_it_went_in(body: bytes, encoding: tuple[str, object], places: list[int]) -> None:
    name, compress = encoding
    sent = compress(body)  # type: ignore[operator]
    assert decoded(sent, name, len(body)) == body
    decoder = BodyDecoder(name, max(1, len(body)))
    assert b"".join(map(decoder.feed, cut(sent, places))) == body
    assert not decoder.problem


@pytest.mark.parametrize(("name", "compress"), ENCODINGS)
def test_a_body_that_comes_byte_by_byte(name: str, compress: object) -> None:
    decoder = BodyDecoder(name, 1000)
    assert b"".join(map(decoder.feed, one_by_one(compress(b"hello" * 10)))) == b"hello" * 10  # type: ignore[operator]


def test_several_gzip_members_are_one_body() -> None:
    sent = gzip.compress(b"a" * 9000) + gzip.compress(b"") + gzip.compress(b"b")
    assert decoded(sent, "gzip", 9001) == b"a" * 9000 + b"b"
    decoder = BodyDecoder("gzip", 9001)
    assert b"".join(map(decoder.feed, one_by_one(sent))) == b"a" * 9000 + b"b"
    with pytest.raises(BodyTooLarge):
        decoded(sent, "gzip", 9000)


def test_what_follows_the_last_member_is_passed_over() -> None:
    for garbage in (b"\0" * 100, b"\n", b"x" * 10_000):
        assert decoded(gzip.compress(b"a") + garbage, "gzip", 10) == b"a"
        assert BodyDecoder("gzip", 10).feed(gzip.compress(b"a") + garbage) == b"a"


@pytest.mark.parametrize(("name", "compress"), ENCODINGS)
def test_a_bomb_is_refused(name: str, compress: object) -> None:
    bomb = compress(b"\0" * 10**7)  # type: ignore[operator]
    with pytest.raises(BodyTooLarge):
        decoded(bomb, name, 10**6)
    decoder = BodyDecoder(name, 1000)
    assert len(decoder.feed(bomb)) <= 1001
    assert decoder.problem == "the answer is too long once it is decompressed"
    assert decoder.feed(bomb) == b""


def test_the_limit_itself_is_allowed() -> None:
    assert decoded(gzip.compress(b"x" * 100), "gzip", 100) == b"x" * 100
    decoder = BodyDecoder("gzip", 100)
    assert (decoder.feed(gzip.compress(b"x" * 100)), decoder.problem) == (b"x" * 100, "")


@pytest.mark.parametrize(("name", "compress"), ENCODINGS)
@pytest.mark.parametrize("missing", [1, 5])
def test_a_body_cut_short_is_refused(name: str, compress: object, missing: int) -> None:
    with pytest.raises(MalformedBody):
        decoded(compress(b"hello" * 100)[:-missing], name, 1000)  # type: ignore[operator]


@pytest.mark.parametrize("body", [b"x", b"{}", b"hello world", b"\x1f\x8b", b"\x1f\x8bxxxxxxxxxx", b"\xff" * 20])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_not_compressed_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(MalformedBody):
        decoded(body, encoding, 1000)


def test_an_empty_body_is_empty_in_any_encoding() -> None:
    assert decoded(b"", "gzip", 10) == b""


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_not_read(encoding: str) -> None:
    with pytest.raises(MalformedBody, match="must be one of gzip, x-gzip, deflate"):
        decoded(b"x", encoding, 10)
    decoder = BodyDecoder(encoding, 10)
    assert (decoder.feed(b"x"), decoder.problem) == (b"", "the answer is compressed in a way that cannot be read")


def test_a_copy_that_breaks_gives_what_came_before() -> None:
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    sent = compressor.compress(b"hello") + compressor.flush(zlib.Z_SYNC_FLUSH)
    block_of_no_type = b"\x07"
    decoder = BodyDecoder("gzip", 10_000)
    assert decoder.feed(sent) == b"hello"
    assert decoder.feed(block_of_no_type) + decoder.feed(b"x") == b""
    assert decoder.problem == "the answer is not compressed as it says"
