"""A request's body reaches the upstream as it was sent, minus what is stripped."""

import asyncio
import gzip
import logging
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import brotli
import pytest

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire
from tests.soak.conftest import Figures, HowLong
from tests.soak.evidence import difference, rows
from tests.test_proxy_bytes import CHAT_PATHS, STRIPPED_FROM_CHATS

# The same address a second time, and not asked for usage.
PLAIN_TOO = '[[upstreams]]\nname = "plain"\nbase_url = "{url}/v1"\ninject_usage = false\n'

STRIPPED = ["respan_params", "keywordsai_params"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda body: body,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=1),
}
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
ASKING = '"stream_options":{"include_usage":true}'
FORM = "multipart/form-data; boundary=XX"


@dataclass(frozen=True)
class Body:
    """One request: what is sent, and what is to arrive."""

    seed: int
    path: str
    content_type: str
    encoding: str
    plain: bytes
    plain_expected: bytes

    @cached_property
    def sent(self) -> bytes:
        return COMPRESS[self.encoding](self.plain)

    @property
    def expected(self) -> bytes:
        return self.sent if self.plain == self.plain_expected else self.plain_expected


def any_body(seed: int) -> Body:
    rnd = random.Random(seed)
    return rnd.choice([json_body] * 6 + [form_body, opaque_body])(rnd, seed)


# JSON, put together from texts


def json_body(rnd: random.Random, seed: int) -> Body:
    """Members with one separator between them, so that it does not matter which one goes with what is stripped."""
    path = rnd.choice([*CHAT_PATHS, "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/other"])
    is_chat = path in CHAT_PATHS
    members = [
        (name, any_value(rnd) if name != "model" else f'"{model_text(rnd)}"')
        for name in rnd.choices(
            ["model", *NAMES, *rnd.choices(STRIPPED_FROM_CHATS, k=6), *STRIPPED], k=rnd.randint(0, 12)
        )
    ]
    if rnd.random() < 0.5:
        members.insert(rnd.randint(0, len(members)), ("model", f'"{rnd.choice(["m", "plain/m", "main/org/m"])}"'))
    members += [("store", "true")] * (rnd.random() < 0.3) + [("stream", "true")] * (rnd.random() < 0.3)
    if rnd.random() < 1 / 300:
        members.insert(0, (rnd.choice(["note", "messages"]), '"' + "x" * 5_000_000 + '"'))

    last = dict(members)
    model = last.get("model", '""').strip('"')
    upstream, slash, rest = model.partition("/")
    is_named = bool(slash) and upstream in ("main", "plain")
    gone = {*STRIPPED, *(STRIPPED_FROM_CHATS if is_chat else ())}
    gone |= {"metadata"} if is_chat and last.get("store") != "true" else set()
    is_asked = (
        (is_chat or path == "/v1/completions")
        and last.get("stream") == "true"
        and not (is_named and upstream == "plain")
    )

    separator = space(rnd) + "," + space(rnd)
    opening, closing = space(rnd) + "{" + space(rnd), space(rnd) + "}" + space(rnd)
    texts = [(name, written_name(rnd, name) + space(rnd) + ":" + space(rnd), value) for name, value in members]
    kept = [
        start + (f'"{rest}"' if name == "model" and is_named else value)
        for name, start, value in texts
        if name not in gone
    ]
    text = opening + separator.join(start + value for _, start, value in texts) + closing
    expected = opening + separator.join(kept) + closing
    if is_asked:
        expected = expected.replace("{", "{" + ASKING + ("," if kept else ""), 1)

    charset = rnd.choice(ENCODINGS)
    return Body(
        seed,
        path,
        rnd.choice(["application/json", "application/json; charset=utf-8", "text/plain"]),
        rnd.choice(["", "", "", "gzip", "deflate"]),
        text.encode(charset, "surrogatepass"),
        expected.encode(charset, "surrogatepass"),
    )


NAMES = ["messages", "input", "temperature", "seed", "metadata", "store", "tools", "user", "unknown", "", "é", "a"]
NUMBERS = ["0", "-0", "-0.0", "1.0", "1e400", "-1E+2", "0.10", "123456789012345678901234567890", "7" * 5000, "NaN"]
TEXTS = ['""', '"Hi"', r'"\u0048\u00e9\/"', r'"\ud800"', '"\ud800"', '"é\u2028\x7f"', r'"}],{:\""', r'"\ud83d\ude00😀"']


def any_value(rnd: random.Random, depth: int = 0) -> str:
    """JSON text as others write it: any space, any escapes, numbers that Python would write otherwise."""
    kind = rnd.random() + depth / 6
    if kind < 0.2:
        inner = [any_value(rnd, depth + 1) for _ in range(rnd.randint(0, 3))]
        return "[" + ",".join(space(rnd) + item + space(rnd) for item in inner) + "]"
    if kind < 0.4:
        names = rnd.choices(["a", "a", "note", "model", "respan_params", "é"], k=rnd.randint(0, 3))
        inner = [written_name(rnd, name) + ":" + space(rnd) + any_value(rnd, depth + 1) for name in names]
        return "{" + ",".join(inner) + space(rnd) + "}"
    if kind < 0.43:
        return "[" * 90 + "]" * 90
    return rnd.choice(rnd.choice([NUMBERS, NUMBERS, TEXTS, TEXTS, ["true", "false", "null"]]))


def space(rnd: random.Random) -> str:
    return rnd.choice(["", "", "", " ", "\n  ", "\t\r\n"])


def written_name(rnd: random.Random, name: str) -> str:
    """A name, some of its characters escaped."""
    is_escaped = rnd.random() < 0.2
    return '"' + "".join(f"\\u{ord(c):04x}" if is_escaped and rnd.random() < 0.3 else c for c in name) + '"'


def model_text(rnd: random.Random) -> str:
    return rnd.choice(["m", "gpt-4o", "plain/gpt-4o", "other/m"])


# What is no JSON object


def form_body(rnd: random.Random, seed: int) -> Body:
    """A form, some of its fields Respan's."""
    fields = rnd.choices(["model", "language", "temperature", "file", "respan_params", "respan_params[a]", "note"], k=6)
    parts = [(name, rnd.choice([b"", b"1.0", b"\x00\xff\r\n--X\r\n", rnd.randbytes(300)])) for name in fields]
    written = [
        (name, b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value))
        for name, value in parts
    ]
    plain = b"".join(part for _, part in written) + b"--XX--\r\n"
    expected = b"".join(part for name, part in written if not name.startswith("respan_params")) + b"--XX--\r\n"
    return Body(seed, "/v1/audio/transcriptions", FORM, rnd.choice(["", "", "gzip"]), plain, expected)


def opaque_body(rnd: random.Random, seed: int) -> Body:
    """Anything else, also compressed in a way that the gateway cannot read."""
    some = [b"", b"[1.0]", b'{"respan_params":{}', b'"text"', b"\xff\xfe", rnd.randbytes(1000), b'{"note":1}{"x":2}']
    plain = rnd.choice([*some, b"[" * 100_000])
    return Body(seed, "/v1/other", "application/json", rnd.choice(["", "br"]), plain, plain)


class Calls:
    """Makes calls over connections that are kept, and remembers their spans' ids."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._arrived: dict[str, Received] = {}
        self.log_ids: list[str] = []
        self.bytes = 0
        upstream.play = self._play

    async def _play(self, received: Received, wire: Wire) -> None:
        self._upstream.requests.clear()
        self._arrived[received.headers["X-Call"]] = received
        await wire.json(COMPLETION)

    async def all(self, bodies: list[Body], at_once: int) -> None:
        """Makes the calls, several at once; fails with the seed of the first whose body arrives otherwise."""
        left = iter(bodies)

        async def one_by_one() -> None:
            async with raw_client(self._gateway.url, KEY) as client:
                for body in left:
                    await self._one(client, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_by_one())

    async def _one(self, client: RawClient, body: Body) -> None:
        lines = [f"X-Call: {body.seed}", f"Content-Type: {body.content_type}"]
        lines += [f"Content-Encoding: {body.encoding}"] if body.encoding else []
        if body.seed % 3:
            await client.post(body.path, body.sent, *lines)
        else:
            await client.send_head("POST", body.path, "Transfer-Encoding: chunked", *lines)
            await client.send(chunked(body.sent, random.Random(body.seed)))
        answer = await client.read_answer()
        assert client.status == 200, f"seed {body.seed}: {answer!r} to {body.plain[:3000]!r}"
        self.log_ids.append(client.headers["X-Respan-Log-Id"])
        self.bytes += len(body.sent)
        arrived = self._arrived.pop(str(body.seed))
        if arrived.body != body.expected:
            wrong = difference(arrived.body, body.expected)
            pytest.fail(f"seed {body.seed}, {body.path}: {wrong}\nof\n{body.plain[:3000]!r}")
        is_same = body.plain == body.plain_expected
        assert arrived.headers.get("Content-Encoding", "") == (body.encoding if is_same else ""), body.seed
        assert arrived.headers["Content-Type"] == body.content_type, body.seed


def chunked(body: bytes, rnd: random.Random) -> bytes:
    pieces, at = [], 0
    while at < len(body):
        size = rnd.randint(1, max(20, len(body) // 20))
        pieces.append(b"%x\r\n%s\r\n" % (len(body[at : at + size]), body[at : at + size]))
        at += size
    return b"".join(pieces) + b"0\r\n\r\n"


# The gateway sees to that itself; pytest sets its filters over the gateway's.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_a_body_arrives_as_it_was_sent_but_for_what_is_stripped(
    start_gateway: StartGateway,
    upstream: ScriptedUpstream,
    how_long: HowLong,
    figures: Figures,
    caplog: pytest.LogCaptureFixture,
) -> None:
    more = PLAIN_TOO.format(url=upstream.url)
    gateway = await start_gateway(more, store="commit_wait_ms = 60000\nmax_content_mb = 1")
    calls = Calls(gateway, upstream)
    for number in how_long.rounds(stride=12, long=100):
        await calls.all([any_body(100 * number + one) for one in range(100)], at_once=16)
    assert sorted(row["unique_id"] for row in rows(gateway.path, "unique_id")) == sorted(calls.log_ids)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    figures(requests=len(calls.log_ids), bytes=calls.bytes, changed=0, without_span=0)
