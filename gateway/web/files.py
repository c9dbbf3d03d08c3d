"""The dashboard's files, read once and then served from memory, by their exact names and no others."""

import hashlib
import zlib
from functools import cache, cached_property
from pathlib import Path

from aiohttp import web

from gateway.core.headers import takes_gzip

_FOLDER = Path(__file__).with_name("dashboard")
# Not HTML: the page itself is at `/`, with a policy of its own.
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_GZIP = 16 + zlib.MAX_WBITS


class File:
    """What is in a file, as it is and compressed, and a tag for each of the two."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type
        self.tag = hashlib.sha256(body).hexdigest()[:32]

    @cached_property
    def gzipped(self) -> bytes:
        """Made when it is first asked for."""
        compressor = zlib.compressobj(zlib.Z_BEST_COMPRESSION, wbits=_GZIP)
        return compressor.compress(self.body) + compressor.flush()


@cache
def files() -> dict[str, File]:
    """The files that pages are made of, by name."""
    found = (path for path in _FOLDER.iterdir() if path.suffix in _TYPES)
    return {path.name: File(path.read_bytes(), _TYPES[path.suffix]) for path in found}


@cache
def index() -> File:
    """The dashboard itself."""
    return File((_FOLDER / "index.html").read_bytes(), "text/html")


def reply(request: web.Request, file: File, headers: dict[str, str]) -> web.Response:
    """A file, compressed for who takes that."""
    compressed = takes_gzip(", ".join(request.headers.getall("Accept-Encoding", [])))
    headers = {
        **headers,
        "Content-Type": f"{file.content_type}; charset=utf-8",
        "Vary": "Accept-Encoding",
        **({"Content-Encoding": "gzip"} if compressed else {}),
    }
    return web.Response(body=file.gzipped if compressed else file.body, headers=headers)


def reply_if_new(request: web.Request, file: File, headers: dict[str, str]) -> web.Response:
    """A file; 304 to those who have it."""
    answer = reply(request, file, headers)
    # Strong ones: what is compressed is another sequence of bytes.
    tag = f"{file.tag}-gzip" if "Content-Encoding" in answer.headers else file.tag
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        kept = {name: answer.headers[name] for name in (*headers, "Vary")}
        answer = web.Response(status=304, headers=kept)
    answer.etag = tag
    return answer
