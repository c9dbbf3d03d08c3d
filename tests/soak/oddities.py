"""What Hypothesis makes of requests and of upstreams' answers: nearly right, so that it gets far before it is wrong."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gateway.core.aliases import ALIASES, NESTED
from gateway.core.span import Span
from tests.conftest import KEY
from tests.fakes.upstream import COMPLETION, Wire, chunk

CHAT = ("/v1/chat/completions", "/api/chat/completions", "/api/openai/v1/chat/completions/")
RELAYED = ("/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions", "/v1/x")
SPAN_POSTS = ("/api/request-logs", "/api/request-logs/create/", "/api/request-logs/bulk/", "/api/request-logs/list")

ODD_TEXTS = st.sampled_from(
    [
        *("", " ", "\0", "\ud800", "\udfff\ud800", "\u2028", "\U0001f600", "é" * 300, "a" * 300),
        *("..", "/", "%00", "list"),
        *("NaN", "-Infinity", "1e400", "1_0", "0x1", "٣", "9" * 5000, "1.", " 1 ", "true", "null", "none", "-0"),
        *("2026-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "24:00"),
        *("[]", "{}", "[[", '{"a":', '{"a": 1}', '[{"role": "user"}]', '{"role": "user", "content": 5}', '"text"'),
    ]
)
ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400, 0.1, -0.0, 1e300, 5e-324]
) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
SCALARS = st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXTS | st.text(max_size=5) | st.integers() | st.floats()
NAMES = st.sampled_from(
    [
        *("role", "content", "tool_calls", "function", "arguments", "name", "type", "text", "image_url", "messages"),
        *("choices", "message", "output", "input", "instructions"),
        *("prompt_tokens", "completion_tokens", "input_tokens"),
        *("prompt_tokens_details", "cached_tokens", "customer_identifier", "email", "prompt_id", "is_custom_prompt"),
        *("_hidden", "authorization", "x-api-key", "", "\ud800", "gateway"),
    ]
) | st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=10
)
FIELD = st.sampled_from(
    sorted({*Span.model_fields, *ALIASES, "prompt", "own", "scores", "message", "row_id", "blurred"})
)
FIELDS = st.dictionaries(FIELD, JSON, max_size=5)
# Of a call, what is read on the way: the rest is the upstream's.
CALL_FIELD = st.sampled_from(
    [
        *("messages", "stream", "stream_options", "tools", "tool_choice", "metadata", "store", "prompt", "input", "n"),
        *("customer_identifier", "customer_params", "variables", "properties", "disable_log", "cache_enabled", "id"),
        *("cost", "usage", "max_tokens", "stop", "response_format", "temperature", "unique_id", *NESTED),
    ]
)


def in_base64(value: Any) -> str:
    """As X-Data-Respan-Params holds it."""
    return base64.b64encode(json.dumps(value).encode()).decode()


HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
PARAMS_HEADER = HEADER_TEXT | JSON.map(in_base64)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "X-Data-Respan-Params": PARAMS_HEADER,
        "X-Data-Keywordsai-Params": PARAMS_HEADER,
        "Content-Type": HEADER_TEXT
        | st.sampled_from(["application/json", "multipart/form-data; boundary=b", "multipart/form-data; boundary="]),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "x", ""]),
        "Accept-Encoding": HEADER_TEXT,
        "Connection": st.sampled_from(["keep-alive", "upgrade", "X-Data-Respan-Params", ","]),
        "Cookie": HEADER_TEXT,
        "X-Own": HEADER_TEXT,
    },
)
FORMS = st.lists(
    st.tuples(
        st.sampled_from(
            [b'"model"', b"model", b'"stream"', b'"metadata"', b'"respan_params"', b'"file"; filename=x', b""]
        ),
        st.binary(max_size=10) | JSON.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([b"--b\r\n", b"--b\n", b"\r\n--b\r\n", b"--b--\r\n", b""]),
    ),
    max_size=4,
).map(
    lambda parts: b"".join(
        before + b"Content-Disposition: form-data; name=" + name + b"\r\n\r\n" + value for name, value, before in parts
    )
)
BODIES = st.binary(max_size=40) | st.tuples(JSON, st.sampled_from(["utf-8", "utf-16", "utf-32-be"])).map(
    lambda drawn: json.dumps(drawn[0], ensure_ascii=False).encode(drawn[1], "surrogatepass")
)
# Of a request as bytes: what stands between the parts that are as they should be.
LINES = st.lists(
    st.sampled_from(
        [
            *(
                b"Host: g",
                b"Content-Length: 5",
                b"Content-Length: -1",
                b"Content-Length: 5, 6",
                b"Content-Length: 9" * 2,
            ),
            *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x, chunked", b"Transfer-Encoding: chunked, chunked"),
            *(b"Expect: 100-continue", b"Expect: x", b"Upgrade: h2c\r\nConnection: upgrade", b"Connection: close"),
            *(b"Content-Encoding: gzip", b"Content-Type: application/json"),
            *(b" folded", b"No colon", b": no name", b"\0: \0"),
            *(b"Range: bytes=0-1", b"If-None-Match: *", b"x-api-key: " + b"k" * 9000, b"A: b\nC: d", b"\xff: \xff"),
        ]
    ),
    max_size=5,
)
TARGETS = st.sampled_from([path.encode() for path in (*CHAT, *RELAYED, *SPAN_POSTS)]) | st.sampled_from(
    [
        *(b"*", b"", b"http://other/v1/x", b"other:80", b"//v1/x", b"/v1/../x", b"/v1/%2e%2e/x", b"/" + b"a" * 9000),
        *(b"/v1/\xff", b"/%zz", b"/v1/%00", b"/v1/x?%ff=%zz", b"/v1/x#y", b"/v1/x\ty"),
        *(b"/api/request-logs/%ED%A0%80/", b"/metrics?x"),
    ]
)
REQUESTS = st.builds(
    lambda method, target, version, lines, rest: (
        b"%s %s %s\r\nAuthorization: Bearer %s\r\n" % (method, target, version, KEY.encode())
        + b"".join(line + b"\r\n" for line in lines)
        + rest
    ),
    st.sampled_from([b"GET", b"POST", b"POST", b"POST", b"HEAD", b"CONNECT", b"PRI", b"get", b"P\xff", b""]),
    TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b""]),
    LINES,
    st.lists(
        st.sampled_from(
            [
                *(b"\r\n", b"\r\n", b"\n", b"\0", b'{"model": "m"}', b"GET / HTTP/1.1\r\n\r\n"),
                *(b"5\r\nabcde\r\n", b"5;x=y\r\n", b"5\r\nabcdefgh", b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"),
                *(b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"),
            ]
        ),
        max_size=6,
    ).map(b"".join),
)


@dataclass(frozen=True)
class Answered:
    """What an upstream answers, and how its answer ends."""

    status: int
    content_type: str
    encoding: str
    pieces: list[bytes]
    end: str

    async def play(self, wire: Wire, *, with_body: bool) -> None:
        """Says so on the wire."""
        headers = {"X-Scripted": "1", "Content-Type": self.content_type, "Content-Encoding": self.encoding}
        if self.end == "nothing":
            wire.abort()
        elif self.end == "no HTTP":
            await wire.send(*self.pieces, b"\r\n\r\n")
            wire.close()
        elif self.end == "length" or not with_body:
            whole = b"".join(self.pieces) if self.status not in (204, 304) else b""
            await wire.head(self.status, {**headers, "Content-Length": str(len(whole))})
            await wire.send(whole if with_body else b"")
        elif self.end == "close":
            await wire.head(self.status, {**headers, "Connection": "close"})
            await wire.send(*self.pieces)
            wire.close()
        else:
            await wire.head(self.status, {**headers, "Transfer-Encoding": "chunked"})
            await wire.chunk(*filter(None, self.pieces))
            if self.end == "chunks":
                await wire.end_chunks()
            else:
                wire.abort()


EVENTS = (JSON | st.just(chunk({"content": "Hi"})) | st.just(chunk({}, usage={"prompt_tokens": 1}))).map(
    lambda event: b"data: " + json.dumps(event).encode() + b"\n\n"
)
ANSWERS = st.builds(
    Answered,
    st.sampled_from([200, 200, 200, 201, 204, 301, 304, 400, 401, 404, 429, 500, 503, 599, 999]),
    st.sampled_from(
        ["application/json", "text/event-stream", "text/html", "application/json; charset=x", "audio/mpeg", "x"]
    ),
    st.sampled_from(["", "", "identity", "gzip", "br", "x"]),
    st.lists(
        EVENTS
        | BODIES
        | st.just(json.dumps(COMPLETION).encode())
        | st.sampled_from([b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"\r", b": ping\n\n", b"data:\n\n"]),
        max_size=4,
    ),
    st.sampled_from(["length", "chunks", "chunks", "close", "cut", "nothing", "no HTTP"]),
)
