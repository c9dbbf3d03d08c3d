"""Content-Encoding: bodies as they were before they were compressed, within bounds."""

import zlib

from gateway.errors import BodyTooLarge, MalformedBody

_PLAIN = ("", "identity")
_ZLIB = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """A whole body without its gzip or deflate encoding. Raises BodyTooLarge and MalformedBody."""
    encoding = encoding.strip().lower()
    if encoding in _PLAIN:
        return body
    if encoding not in _ZLIB:
        raise MalformedBody(f"The Content-Encoding must be one of {', '.join(_ZLIB)}, not {encoding}.")
    pieces: list[bytes] = []
    left = limit
    while body:
        # A gzip file may have several members, one behind the other (RFC 1952, section 2.2).
        inflate = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
        try:
            piece = inflate.decompress(body, left + 1)
        except zlib.error:
            raise MalformedBody(f"The body is not valid {encoding}.") from None
        left -= len(piece)
        if left < 0:
            raise BodyTooLarge("The body is too large once it is decompressed.")
        if not inflate.eof:
            raise MalformedBody(f"The body is not valid {encoding}: it is cut short.")
        pieces.append(piece)
        body = inflate.unused_data
    return b"".join(pieces)


class BodyDecoder:
    """Takes off a Content-Encoding of gzip or deflate, up to a limit in bytes."""

    def __init__(self, content_encoding: str, limit: int) -> None:
        encoding = content_encoding.strip().lower()
        self.readable = encoding in _PLAIN + _ZLIB
        self._left = limit
        self._inflate = zlib.decompressobj(wbits=_GZIP_OR_ZLIB) if encoding in _ZLIB else None
        self._first = encoding == "deflate"

    def feed(self, piece: bytes) -> bytes:
        """The bytes as they were before encoding; empty from where they cannot be read."""
        if not self.readable:
            return b""
        if self._inflate is None or not piece:
            return piece
        try:
            plain = self._decompress(piece)
        except zlib.error:
            self.readable = False
            return b""
        self._left -= len(plain)
        if self._left < 0:
            self.readable = False
        return plain

    def _decompress(self, piece: bytes) -> bytes:
        assert self._inflate is not None
        first, self._first = self._first, False
        try:
            return self._inflate.decompress(piece, self._left + 1)
        except zlib.error:
            if not first:
                raise
            # Some send raw deflate data where RFC 9110 asks for the zlib format.
            self._inflate = zlib.decompressobj(wbits=_RAW_DEFLATE)
            return self._inflate.decompress(piece, self._left + 1)
