"""Where a request comes from, and where it may go on to."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sites import is_from_elsewhere, may_sign_out, may_use_session, own_path

HOST = {"Host": "gateway.example:8080"}
# The headers; whether a page may read, change, sign in, sign out with them.
REQUESTS: list[tuple[dict[str, str], str]] = [
    ({"Sec-Fetch-Site": "same-origin"}, "read change in out"),
    ({"Sec-Fetch-Site": "none"}, "read in out"),
    ({"Sec-Fetch-Site": "same-site"}, ""),
    ({"Sec-Fetch-Site": "cross-site"}, ""),
    ({"Sec-Fetch-Site": ""}, ""),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://gateway.example:8080"}, ""),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "null", "Cookie": "a=b"}, "read change in out"),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "null", "Cookie": "a=b"}, ""),
    ({}, "read in out"),
    ({"Origin": "http://gateway.example:8080"}, "read change in out"),
    ({"Origin": "https://gateway.example:8080"}, "read change in out"),
    ({"Origin": "http://GATEWAY.example:8080"}, "read change in out"),
    ({"Origin": "http://gateway.example"}, ""),
    ({"Origin": "http://gateway.example:8081"}, ""),
    ({"Origin": "http://elsewhere.example"}, ""),
    ({"Origin": "ftp://gateway.example:8080"}, ""),
    ({"Origin": "gateway.example:8080"}, ""),
    ({"Origin": ""}, ""),
    ({"Origin": "null"}, ""),
    ({"Origin": "null", "Cookie": "a=b"}, "out"),
]


@pytest.mark.parametrize(("headers", "allowed"), REQUESTS)
def test_what_a_request_may_do_by_where_it_comes_from(headers: dict[str, str], allowed: str) -> None:
    headers = HOST | headers
    for method in ("GET", "HEAD"):
        assert may_use_session(method, headers) is ("read" in allowed.split())
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", ""):
        assert may_use_session(method, headers) is ("change" in allowed.split())
    assert is_from_elsewhere(headers) is ("in" not in allowed.split())
    assert may_sign_out(headers) is ("out" in allowed.split())


@pytest.mark.parametrize(
    ("origin", "host", "is_ours"),
    [
        ("http://h", "h", True),
        ("http://h:80", "h", True),
        ("http://h", "h:80", True),
        ("https://h", "h:443", True),
        ("https://h:443", "h", True),
        ("https://[::1]", "[::1]:443", True),
        ("https://h", "h:80", False),
        ("https://h:80", "h", False),
        ("http://h", "h:443", False),
        ("http://h:443", "h", False),
        ("http://h:8080", "h", False),
        ("http://h", "h:8080", False),
        ("http://h:80", "h:8080", False),
        ("http://[::80]", "[::]", False),
        ("http://:80", "", False),
        ("http://:80", ":80", False),
    ],
)
def test_a_port_that_goes_without_saying_may_be_said(origin: str, host: str, is_ours: bool) -> None:
    assert may_use_session("POST", {"Origin": origin, "Host": host}) is is_ours


def test_without_a_host_there_is_no_origin_of_ours() -> None:
    for origin in ("http://", "https://", "://", ""):
        assert not may_use_session("POST", {"Origin": origin})


@pytest.mark.parametrize("path", ["/", "/?", "/?a=b&c=%2F%2F", "/?//a", "/?model=echo#x", "/?next=http://h/", "/?~-._"])
def test_the_dashboard_is_gone_on_to(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "a",
            "/docs",
            "/v1/evil.html",
            "/v1/a?b",
            "/a//b",
            "/#a",
            "/.?a",
            "?a=b",
            "//elsewhere.example",
            "///elsewhere.example",
            "/\\elsewhere.example",
            "\\/elsewhere.example",
        ),
        *(
            "http://elsewhere.example",
            "https:elsewhere.example",
            "javascript:alert(1)",
            " /",
            "/ ",
            "/a b",
            "/\t/h",
            "\t//h",
        ),
        *(
            "/a\r\nSet-Cookie: a=b",
            "/\n/h",
            "/\x00",
            "/\x7f",
            "/é",
            "/\ud800",
            "/a\\b",
            "/?a\\b",
            "/?a b",
            "/?\n",
            "/\u2028",
        ),
    ],
)
def test_no_other_is(path: str) -> None:
    assert own_path(path) == "/"


@given(st.text() | st.text("/\\.:@?#a\t\n ", max_size=12).map("/".__add__))
def test_wherever_it_leads_is_here(path: str) -> None:
    here = "http://gateway.example:8080"
    found = own_path(path)
    assert found.isascii() and found.isprintable()
    assert urlsplit(urljoin(here, found))[:2] == urlsplit(here)[:2]
