"""Which headers go on, both ways."""

import pytest

from gateway.core import headers

HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]
OURS = [
    "Host",
    "Authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "Cookie",
    "X-Respan-Anything",
    "X-Data-Respan-Params",
    "X-Data-Keywordsai-Params",
    "OpenAI-Organization",
    "OpenAI-Project",
    "Content-Length",
    "Expect",
]


def sent(*items: tuple[str, str], streamed: bool = False, own: dict[str, str] | None = None) -> list[tuple[str, str]]:
    passed = headers.to_upstream(items, streamed=streamed, own=own or {})
    return [(name, value) for name, value in passed.items() if name != "Accept-Encoding"]


def returned(*items: tuple[str, str], same_length: bool = True) -> list[tuple[str, str]]:
    return list(headers.to_client(items, same_length=same_length).items())


@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
@pytest.mark.parametrize("name", HOP_BY_HOP + OURS)
def test_what_does_not_go_to_the_upstream(name: str, spelled: type[str]) -> None:
    assert sent((spelled(name), "secret"), ("X-Kept", "1")) == [("X-Kept", "1")]


@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
@pytest.mark.parametrize("name", [*HOP_BY_HOP, "Set-Cookie", "Alt-Svc", "Strict-Transport-Security"])
def test_what_does_not_go_to_the_client(name: str, spelled: type[str]) -> None:
    assert returned((spelled(name), "x"), ("X-Kept", "1")) == [("X-Kept", "1")]


def test_all_else_goes_on_in_order_and_repeated_ones_stay_repeated() -> None:
    items = [("User-Agent", "a"), ("X-Many", "1"), ("x-many", "2"), ("Content-Encoding", "gzip"), ("X-Many", "1")]
    assert sent(*items) == [(name.replace("x-many", "X-Many"), value) for name, value in items]
    assert returned(*items) == items


@pytest.mark.parametrize("connection", ["X-Hop", "keep-alive, x-hop", "close ,X-HOP,"])
def test_what_connection_names_stays_behind(connection: str) -> None:
    items = [("X-Hop", "1"), ("Connection", "close"), ("connection", connection), ("x-hop", "2"), ("X-Kept", "1")]
    assert sent(*items) == [("X-Kept", "1")]
    assert returned(*items) == [("X-Kept", "1")]


def test_the_upstreams_own_headers_are_added_and_win() -> None:
    own = {"authorization": "Bearer own", "X-Team": "x"}
    items = [("Authorization", "Bearer caller"), ("x-team", "y"), ("X-TEAM", "z")]
    assert sorted((name.lower(), value) for name, value in sent(*items, own=own)) == [
        ("authorization", "Bearer own"),
        ("x-team", "x"),
    ]


def test_the_length_goes_to_the_client_only_where_it_is_unchanged() -> None:
    assert returned(("Content-Length", "5")) == [("Content-Length", "5")]
    assert returned(("content-length", "5"), same_length=False) == []


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ([], "identity"),
        ([""], "identity"),
        (["gzip"], "gzip"),
        (["gzip, deflate, br, zstd"], "gzip, deflate"),
        (["br"], "identity"),
        (["GZIP ; Q=0.5"], "gzip"),
        (["gzip;q=0, deflate"], "deflate"),
        (["gzip;q=0.000"], "identity"),
        (["*"], "gzip, deflate"),
        (["*;q=0"], "identity"),
        (["gzip;q=0, *"], "deflate"),
        (["gzip, *;q=0"], "gzip"),
        (["deflate", "gzip"], "gzip, deflate"),
        (["gzip;q=nonsense"], "identity"),
        (["gzip;q=nan"], "identity"),
        (["gzip;x=1"], "gzip"),
        (["identity"], "identity"),
    ],
)
def test_accept_encoding_is_what_both_sides_can_decode(accepted: list[str], expected: str) -> None:
    items = [("Accept-Encoding", value) for value in accepted]
    assert headers.to_upstream(items, streamed=False, own={}).getall("Accept-Encoding") == [expected]
    assert headers.to_upstream(items, streamed=True, own={}).getall("Accept-Encoding") == ["identity"]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("", False), ("gzip", True), ("GZIP", True), ("br, *;q=0.1", True), ("gzip;q=0, *", False), ("x-gzip", False)],
)
def test_gzip_is_for_who_says_so(accepted: str, expected: bool) -> None:
    assert headers.takes_gzip(accepted) is expected
