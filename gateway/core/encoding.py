"""Content-Encoding: bodies as they were before they were compressed, within bounds."""

import zlib

from gateway.errors import BodyTooLarge, MalformedBody

_PLAIN = ("", "identity")
_ZLIB = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15
# zlib copies what follows a gzip member: fed in slices, a body of many tiny members stays cheap.
_SLICE = 4096


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """A whole body without its gzip or deflate encoding. Raises BodyTooLarge and MalformedBody."""
    encoding = encoding.strip().lower()
    if encoding in _PLAIN or not body:
        return body
    if encoding not in _ZLIB:
        raise MalformedBody(f"The Content-Encoding must be one of {', '.join(_ZLIB)}, not {encoding}.")
    inflate = _Inflate(encoding, limit)
    try:
        plain = inflate.feed(body)
    except zlib.error:
        raise MalformedBody(f"The body is not valid {encoding}.") from None
    if inflate.left < 0:
        raise BodyTooLarge("The body is too large once it is decompressed.")
    if not inflate.complete:
        raise MalformedBody(f"The body is not valid {encoding}: it is cut short.")
    return plain


class BodyDecoder:
    """Takes off a Content-Encoding of gzip or deflate, up to a limit in bytes.

    `problem` says why the bytes cannot be read, or no longer.
    """

    def __init__(self, content_encoding: str, limit: int) -> None:
        encoding = content_encoding.strip().lower()
        known = encoding in _PLAIN + _ZLIB
        self.problem = "" if known else "the answer is compressed in a way that cannot be read"
        self._inflate = _Inflate(encoding, limit) if encoding in _ZLIB else None

    def feed(self, piece: bytes) -> bytes:
        """The bytes as they were before encoding; empty from where they cannot be read."""
        if self.problem:
            return b""
        if self._inflate is None:
            return piece
        try:
            plain = self._inflate.feed(piece)
        except zlib.error:
            self.problem = "the answer is not compressed as it says"
            return b""
        if self._inflate.left < 0:
            self.problem = "the answer is too long once it is decompressed"
        return plain


class _Inflate:
    """Decompresses piece by piece, up to a limit: `left` is below zero when there was more.

    A gzip file may have several members, one behind the other (RFC 1952, section 2.2). What follows the last one and
    does not begin like a member is passed over.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self.left = limit

    @property
    def complete(self) -> bool:
        return self._inflate is not None and self._inflate.eof

    def feed(self, piece: bytes) -> bytes:
        """What the piece gives. Raises zlib.error."""
        if self._inflate is None:
            piece = self._head = self._head + piece
            if len(piece) < 2:
                return b""
            self._inflate = zlib.decompressobj(wbits=_wbits(piece, self._encoding))
        plain: list[bytes] = []
        for at in range(0, len(piece), _SLICE):
            rest = piece[at : at + _SLICE]
            while rest and self.left >= 0:
                if self._inflate.eof:
                    if not rest.startswith(b"\x1f"):
                        return b"".join(plain)
                    self._inflate = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
                plain.append(self._inflate.decompress(rest, self.left + 1))
                self.left -= len(plain[-1])
                rest = self._inflate.unused_data
        return b"".join(plain)


def _wbits(head: bytes, encoding: str) -> int:
    # Some send raw deflate data where RFC 9110 asks for the zlib format (RFC 1950, section 2.2).
    is_zlib = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return _RAW_DEFLATE if encoding == "deflate" and not is_zlib and head[0] != 0x1F else _GZIP_OR_ZLIB
