"""Signing in to the dashboard, by a key and by a link; what a session may do; and the files that pages are made of."""

import asyncio
import gzip
import logging
import re
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway import __version__, config, dashboard
from gateway.app import Gateway, local_key, opened, served, session_secret
from gateway.clock import Clock
from gateway.config import Settings
from gateway.core.sessions import LINK_S, SESSION_S
from gateway.errors import StoreError
from gateway.web import files, signin
from tests.conftest import Gateway as Started
from tests.conftest import StartGateway
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire
from tests.web.test_docs import Element, read

KEY, OTHER = "canary-key-of-org-a", "canary-key-of-org-b"
SITE = {"Sec-Fetch-Site": "same-origin"}
CONFIG = """
[server]
port = 0
[store]
path = '{folder}/spans.db'
[[upstreams]]
name = "echo"
kind = "echo"
"""
KEYS = "".join(
    f'[[keys]]\nname = "team-{name}"\nkey = "{key}"\norganization_id = "org-{name}"\n'
    for name, key in (("a", KEY), ("b", OTHER))
)


def settings_of(folder: Path, keys: str = KEYS) -> Settings:
    return config.parse(CONFIG.format(folder=folder) + keys, "test.toml", {})


@dataclass
class Running:
    """A running gateway, and a browser that keeps no cookies by itself."""

    gateway: Gateway
    settings: Settings
    url: str
    browser: aiohttp.ClientSession
    clock: Clock

    async def ask(self, method: str, path: str | URL, **kwargs: Any) -> tuple[aiohttp.ClientResponse, str]:
        async with self.browser.request(method, path, allow_redirects=False, **kwargs) as response:
            return response, await response.text()

    async def sign_in(self, headers: dict[str, str] | None = None, **form: str) -> str | None:
        """The cookie that comes for a form; None where it is not let in."""
        response, _ = await self.ask("POST", "/login", data=form, headers=headers)
        assert response.status == (303 if response.cookies else 401)
        return f"gw_session={response.cookies['gw_session'].value}" if response.cookies else None

    async def whose(self, cookie: str | None) -> str | None:
        """The organization of a session; None where that is none."""
        response, _ = await self.ask("GET", "/api/session/", headers={"Cookie": cookie or ""})
        return (await response.json())["organization_id"] if response.status == 200 else None

    def links(self) -> list[str]:
        """What the links that are told are opened with."""
        lines = dashboard.told(self.settings, self.url, self.clock.now(), with_links=True)
        return [line.partition(f"{self.url}/login#link=")[2] for line in lines]


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None, keys: str = KEYS) -> AsyncIterator[Running]:
    settings = settings_of(folder, keys)
    clock = clock or Clock()
    async with (
        opened(settings, clock) as gateway,
        served(settings, gateway) as url,
        aiohttp.ClientSession(url) as browser,
    ):
        yield Running(gateway, settings, url, browser, clock)


@pytest.fixture
async def here(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Running]:
    async with running(tmp_path, clock) as found:
        yield found


# By a key


async def test_a_right_key_signs_in(here: Running) -> None:
    response, text = await here.ask("POST", "/login", data={"key": f" {KEY}\n"})
    assert (response.status, response.headers["Location"], text) == (303, "/", "")
    cookie = response.cookies["gw_session"]
    assert response.headers["Set-Cookie"].count(";") == 4
    assert (cookie["path"], cookie["httponly"], cookie["samesite"], cookie["secure"]) == ("/", True, "Strict", "")
    assert int(cookie["max-age"]) == SESSION_S
    assert "canary" not in cookie.value
    headers = {"Cookie": f"a=b; gw_session={cookie.value}; c"}
    response, page = await here.ask("GET", "/", headers=headers)
    assert (response.status, page) == (200, files.index().body.decode())
    for path in ("/api/session", "/api/session/"):
        response, _ = await here.ask("GET", path, headers=headers)
        assert await response.json() == {
            "key": "team-a",
            "organization_id": "org-a",
            "environment": "prod",
            "version": __version__,
        }


async def test_over_https_the_cookie_is_for_that_only(here: Running) -> None:
    host = here.url.removeprefix("http://")
    for scheme, expected in (("http", ""), ("https", True)):
        response, _ = await here.ask("POST", "/login", data={"key": KEY}, headers={"Origin": f"{scheme}://{host}"})
        assert response.cookies["gw_session"]["secure"] == expected


@pytest.mark.parametrize("key", ["", " ", "wrong", KEY[:-1], f"{KEY} x", f"Bearer {KEY}", "\0", "<b>\"'&", "ß" * 300])
async def test_a_wrong_key_does_not(here: Running, key: str) -> None:
    response, text = await here.ask("POST", "/login", data={"key": key, "next": "/?model=echo"})
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not response.cookies
    page = read(text)
    (alert,) = (element for element in page.every() if element.attributes.get("role") == "alert")
    assert alert.text == ("The gateway does not know this key." if key.strip() else "Enter a key.")
    assert {field.attributes.get("value") for field in page.all("input")} == {None, "/?model=echo"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 401),
        (b"key=%ff%fe&key", {}, 401),
        (b"key", {}, 401),
        (b"key=" + b"a" * 8000, {}, 401),
        (b"key=" + b"a" * 8189, {}, 413),
        (b"&".join([b"a=b"] * 17), {}, 400),
        (b'{"key": "a"}', {"Content-Type": "application/json"}, 400),
        (b"key=a", {"Content-Type": "multipart/form-data; boundary=b"}, 400),
        (gzip.compress(b"key=a"), {"Content-Encoding": "gzip"}, 401),
        (gzip.compress(b"key=" + b"a" * 9000), {"Content-Encoding": "gzip"}, 413),
        (b"key=a", {"Content-Encoding": "gzip"}, 400),
    ],
)
async def test_whatever_comes_in_place_of_a_form_is_refused(
    here: Running, body: bytes, headers: dict[str, str], status: int
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    for data in (body, _in_pieces(body)):
        response, _ = await here.ask("POST", "/login", data=data, headers=headers)
        assert (response.status, len(response.cookies)) == (status, 0)


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


@pytest.mark.parametrize(
    ("given", "location"),
    [
        ("/?model=echo&start_time=2026-01-02", "/?model=echo&start_time=2026-01-02"),
        ("/docs", "/"),
        ("/v1/evil.html", "/"),
        ("", "/"),
        ("//elsewhere.example", "/"),
        ("/\\elsewhere.example", "/"),
        ("https://elsewhere.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: a=b", "/"),
        ("/\t/elsewhere.example", "/"),
        ("elsewhere.example", "/"),
    ],
)
async def test_signing_in_leads_to_a_path_of_ours(here: Running, given: str, location: str) -> None:
    response, _ = await here.ask("POST", "/login", data={"key": KEY, "next": given})
    assert (response.status, response.headers["Location"]) == (303, location)
    response, text = await here.ask("GET", "/login", params={"next": given})
    fields = {field.attributes["name"]: field.attributes.get("value") for field in read(text).all("input")}
    assert fields.get("next", "/") == location
    cookie = await here.sign_in(key=KEY)
    response, _ = await here.ask("GET", "/login", params={"next": given}, headers={"Cookie": str(cookie)})
    # The fragment of the address that led here is left behind.
    assert (response.status, response.headers["Location"]) == (303, f"{location}#")


async def test_those_who_are_not_let_in_are_counted(here: Running) -> None:
    assert await here.sign_in(key=KEY)
    (link, _) = here.links()
    assert await here.sign_in(link=link)
    await here.ask("POST", "/logout", headers={"Sec-Fetch-Site": "cross-site"})
    for form in ({"key": "wrong"}, {"key": ""}, {"link": link}, {"link": "wrong"}):
        assert await here.sign_in(**form) is None
    _, text = await here.ask("GET", "/metrics")
    assert "gateway_sign_ins_refused_total 4.0" in text.splitlines()


# The page


async def test_who_is_not_signed_in_is_led_to_the_form_and_back(here: Running) -> None:
    for method in ("GET", "HEAD"):
        response, text = await here.ask(method, "/")
        assert (response.status, response.headers["Location"], text) == (303, "/login", "")
    response, _ = await here.ask("GET", URL("/?a=%26b&c=%2F", encoded=True))
    assert response.headers["Location"] == "/login?next=%2F%3Fa%3D%2526b%26c%3D%252F"
    response, text = await here.ask("GET", URL(response.headers["Location"], encoded=True))
    (goes_on,) = (field for field in read(text).all("input") if field.attributes["name"] == "next")
    assert goes_on.attributes["value"] == "/?a=%26b&c=%2F"


async def test_the_form_has_what_browsers_and_people_look_for(here: Running) -> None:
    response, text = await here.ask("GET", "/login")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = read(text)
    (form,) = page.all("form")
    assert (form.attributes["method"], form.attributes["action"]) == ("post", "/login")
    (field,) = form.all("input")
    assert (field.attributes["type"], field.attributes["name"]) == ("password", "key")
    assert field.attributes["autocomplete"] == "current-password"
    assert [label.attributes["for"] for label in form.all("label")] == [field.attributes["id"]]
    assert [button.text for button in form.all("button")] == ["Sign in"]
    assert "type" not in form.all("button")[0].attributes, "Enter submits"
    assert page.all("title")[0].text
    names = ("icon.svg", "login.css", "login.js", "theme.js")
    assert _loaded(page) == {f"/dashboard/{name}" for name in names}
    for address in _loaded(page):
        assert (await here.ask("GET", address))[0].status == 200


def _loaded(page: Element) -> set[str | None]:
    return {
        element.attributes[name]
        for element in page.every()
        for name in ("src", "href")
        if name in element.attributes and element.tag != "a"
    }


async def test_who_comes_by_a_link_of_another_site_is_led_on_by_a_page_of_ours(here: Running) -> None:
    """A browser sends a SameSite=Strict cookie only with what such a page asks for."""
    response, text = await here.ask("GET", "/?model=echo", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status == 200
    (refresh,) = (meta for meta in read(text).all("meta") if "http-equiv" in meta.attributes)
    wait, _, address = str(refresh.attributes["content"]).partition("; url=")
    assert (wait, address) == ("0", "/login?next=%2F%3Fmodel%3Decho")
    cookie = str(await here.sign_in(key=KEY))
    response, _ = await here.ask("GET", URL(address, encoded=True), headers={**SITE, "Cookie": cookie})
    assert (response.status, response.headers["Location"]) == (303, "/?model=echo#")


async def test_what_pages_may_load_and_who_may_frame_them(here: Running) -> None:
    cookie = str(await here.sign_in(key=KEY))
    pages = [
        await here.ask("GET", "/", headers={"Cookie": cookie}),
        await here.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site"}),
        await here.ask("GET", "/login"),
        await here.ask("POST", "/login", data={"key": "wrong"}),
    ]
    for response, text in pages:
        policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' data:",
            "connect-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
        }
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        assert "canary" not in text
        assert not {element.tag for element in read(text).every()} & {"style", "base", "iframe", "object"}
        assert not [name for element in read(text).every() for name in element.attributes if name.startswith("on")]


# What a session may do


async def test_a_session_is_its_keys_and_no_others(here: Running) -> None:
    cookies = [str(await here.sign_in(key=key)) for key in (KEY, OTHER)]
    span = {"model": "m", "unique_id": "a"}
    for cookie in cookies:
        headers = {"Cookie": cookie, **SITE}
        response, _ = await here.ask("POST", "/api/request-logs/", json=span, headers=headers)
        assert response.status == 201
        response, _ = await here.ask("GET", "/api/request-logs/list/", headers=headers)
        assert [found["organization_key_name"] for found in (await response.json())["results"]] == [
            "team-a" if cookie is cookies[0] else "team-b"
        ]
    assert [await here.whose(cookie) for cookie in cookies] == ["org-a", "org-b"]
    response, _ = await here.ask(
        "POST",
        "/v1/chat/completions",
        json={"model": "echo", "messages": [{"role": "user", "content": "Hi"}]},
        headers={"Cookie": cookies[1], **SITE},
    )
    assert response.status == 200


async def test_a_key_wins_over_a_session_also_a_wrong_one(here: Running) -> None:
    cookie = str(await here.sign_in(key=KEY))
    for headers, status in (
        ({"Authorization": f"Bearer {OTHER}"}, 200),
        ({"x-api-key": OTHER}, 200),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"x-api-key": "wrong"}, 401),
    ):
        response, text = await here.ask("GET", "/api/session/", headers={"Cookie": cookie, **headers})
        assert response.status == status
        assert status == 401 or "org-b" in text


async def test_a_page_of_another_site_cannot_use_a_session_but_a_key(here: Running) -> None:
    cookie = {"Cookie": str(await here.sign_in(key=KEY))}
    host = here.url
    for headers, reads, writes in (
        ({}, 200, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200, 201),
        ({"Sec-Fetch-Site": "none"}, 200, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": host}, 403, 403),
        ({"Origin": host}, 200, 201),
        ({"Origin": "http://elsewhere.example"}, 403, 403),
        ({"Origin": "null"}, 403, 403),
    ):
        for path, detail in (("/api/request-logs/", "detail"), ("/v1/models", "error")):
            response, _ = await here.ask("GET", path, headers=cookie | headers)
            assert response.status == reads, headers
            assert (detail in await response.json()) is (reads == 403)
        response, _ = await here.ask("POST", "/api/request-logs/", json={"model": "m"}, headers=cookie | headers)
        assert response.status == writes, headers
        if writes == 403:
            assert await response.json() == {
                "detail": "Only the gateway's own pages may use its session cookie: send an API key. "
                "A proxy before the gateway has to pass Host on as it came (nginx: proxy_set_header Host $http_host)."
            }
        with_key = cookie | headers | {"Authorization": f"Bearer {KEY}"}
        assert (await here.ask("POST", "/api/request-logs/", json={"model": "m"}, headers=with_key))[0].status == 201


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}])
async def test_no_page_of_another_site_signs_in_or_out(here: Running, headers: dict[str, str]) -> None:
    for path, form in (("/login", {"key": KEY}), ("/logout", {})):
        cookie = str(await here.sign_in(key=KEY))
        response, _ = await here.ask("POST", path, data=form, headers={"Cookie": cookie, **headers})
        assert (response.status, len(response.cookies)) == (403, 0)
        assert (await response.json())["detail"] == (
            "This was sent by a page of another site. "
            "A proxy before the gateway has to pass Host on as it came (nginx: proxy_set_header Host $http_host)."
        )


async def test_signing_out_takes_the_cookie_back(here: Running) -> None:
    cookie = str(await here.sign_in(key=KEY))
    for headers in ({"Cookie": cookie, **SITE}, {"Cookie": cookie, "Origin": "null"}, {}):
        response, _ = await here.ask("POST", "/logout", headers=headers)
        assert (response.status, response.headers["Location"]) == (303, "/login")
        taken = response.cookies["gw_session"]
        assert (taken.value, taken["max-age"], taken["path"]) == ("", "0", "/")


async def test_a_session_that_was_signed_out_of_is_over_for_its_copies_too(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        ended, other = [str(await first.sign_in(key=KEY)) for _ in range(2)]
        assert ended != other
        headers = {"Cookie": f"{ended}; gw_session=a", **SITE}
        assert (await first.ask("POST", "/logout", headers=headers))[0].status == 303
        assert [await first.whose(cookie) for cookie in (ended, other)] == [None, "org-a"]
        assert (await first.ask("GET", "/", headers={"Cookie": ended}))[0].status == 303
    async with running(tmp_path) as second:
        assert [await second.whose(cookie) for cookie in (ended, other)] == [None, "org-a"]


async def test_other_processes_learn_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "_LOOK_EVERY_S", 0.01)
    async with running(tmp_path) as first, running(tmp_path) as second:
        ended, other = [str(await first.sign_in(key=KEY)) for _ in range(2)]
        assert await second.whose(ended) == "org-a"
        await first.ask("POST", "/logout", headers={"Cookie": ended, **SITE})
        while await second.whose(ended) is not None:
            pass
        assert await second.whose(other) == "org-a"


async def test_an_ended_session_is_forgotten_a_day_after_its_time(here: Running, clock: FakeClock) -> None:
    def kept() -> int:
        with closing(sqlite3.connect(here.settings.store.path)) as db:
            return int(db.execute("SELECT count(*) FROM ended_session").fetchone()[0])

    for passed_s, left in ((SESSION_S + 24 * 3600 - 1, 1), (1, 2), (0, 2)):
        cookie = str(await here.sign_in(key=KEY))
        await here.ask("POST", "/logout", headers={"Cookie": cookie, **SITE})
        assert kept() == left
        clock.advance(passed_s)


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text[::-1], lambda text: "", str.upper])
async def test_a_session_that_was_not_signed_here_is_none(here: Running, change: Any) -> None:
    cookie = str(await here.sign_in(key=KEY))
    name, _, text = cookie.partition("=")
    assert await here.whose(f"{name}={change(text)}") is None
    assert await here.whose(f"{name}={change(text)}; {cookie}") == "org-a"
    assert await here.whose(f"{name}2={text}") is None
    assert await here.whose(f"{name}={KEY}") is None


async def test_a_session_ends_after_its_time(here: Running, clock: FakeClock) -> None:
    cookie = await here.sign_in(key=KEY)
    clock.advance(SESSION_S - 1)
    assert await here.whose(cookie) == "org-a"
    clock.advance(1)
    assert await here.whose(cookie) is None


async def test_a_session_ends_when_its_key_is_taken_out(here: Running, tmp_path: Path) -> None:
    cookies = [await here.sign_in(key=key) for key in (KEY, OTHER)]
    (link_a, _) = here.links()
    only_b = KEYS[KEYS.rindex("[[keys]]") :]
    here.gateway.reload(settings_of(tmp_path, only_b))
    assert [await here.whose(cookie) for cookie in cookies] == [None, "org-b"]
    assert (await here.ask("GET", "/", headers={"Cookie": str(cookies[0])}))[0].status == 303
    assert await here.sign_in(link=link_a) is None
    here.gateway.reload(settings_of(tmp_path, KEYS.replace("team-a", "renamed")))
    assert [await here.whose(cookie) for cookie in cookies] == ["org-a", "org-b"]
    assert await here.sign_in(link=link_a) is not None, "it has not been used up"


async def test_a_session_outlasts_a_restart_but_not_the_secret(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        cookie = await first.sign_in(key=KEY)
    async with running(tmp_path) as second:
        assert await second.whose(cookie) == "org-a"
    (tmp_path / "spans.db.session").unlink()
    async with running(tmp_path) as third:
        assert await third.whose(cookie) is None


def test_the_secret_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, keys="")
    secrets = {session_secret(settings) for _ in range(3)}
    assert [len(secret) for secret in secrets] == [32]
    assert stat.S_IMODE((tmp_path / "spans.db.session").stat().st_mode) == 0o600
    assert local_key(settings) is not None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["spans.db.key", "spans.db.session"]
    for wrong in (b"", b"short", b"x" * 33):
        (tmp_path / "spans.db.session").write_bytes(wrong)
        with pytest.raises(StoreError, match=r"spans\.db\.session is not as it was made: delete it"):
            session_secret(settings)


async def test_those_who_start_at_once_make_one_secret(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    secrets = await asyncio.gather(*(asyncio.to_thread(session_secret, settings) for _ in range(20)))
    assert len(set(secrets)) == 1


# By a link


async def test_a_link_signs_in_once(here: Running) -> None:
    of_a, of_b = here.links()
    assert await here.whose(await here.sign_in(link=of_b, next="/?a=b")) == "org-b"
    response, text = await here.ask("POST", "/login", data={"link": of_b})
    assert response.status == 401
    assert "This link has been used, or is too old. Sign in with a key." in text
    assert of_b not in text
    assert await here.whose(await here.sign_in(link=of_a)) == "org-a"


async def test_of_many_who_open_a_link_at_once_one_is_let_in(tmp_path: Path) -> None:
    async with running(tmp_path) as first, running(tmp_path) as second:
        (link, _) = first.links()
        found = await asyncio.gather(*(gateway.sign_in(link=link) for gateway in (first, second) * 10))
    assert len([cookie for cookie in found if cookie]) == 1


async def test_a_link_that_was_used_stays_so_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        used, unused = first.links()
        assert await first.sign_in(link=used)
    async with running(tmp_path) as second:
        assert await second.sign_in(link=used) is None
        assert await second.whose(await second.sign_in(link=unused)) == "org-b"


async def test_a_link_is_good_for_an_hour_and_then_forgotten(here: Running, clock: FakeClock) -> None:
    (first, second), (third, _) = here.links(), here.links()
    clock.advance(LINK_S - 1)
    assert await here.sign_in(link=first)
    clock.advance(1)
    assert await here.sign_in(link=second) is None
    assert await here.sign_in(link=third) is None
    clock.advance(24 * 3600)
    (fourth, _) = here.links()
    assert await here.sign_in(link=fourth)
    assert await here.sign_in(link=first) is None
    _, _, _, nonce, _ = fourth.split(".")
    assert _rows(here) == [nonce]


async def test_a_link_that_was_used_stays_so_when_the_clock_is_set_back(here: Running, clock: FakeClock) -> None:
    used, _ = here.links()
    assert await here.sign_in(link=used)
    clock.advance(LINK_S + 3600)
    assert await here.sign_in(link=here.links()[0])
    clock.advance(-LINK_S - 3600)
    assert await here.sign_in(link=used) is None


def _rows(here: Running) -> list[str]:
    with closing(sqlite3.connect(here.settings.store.path)) as db:
        return [nonce for (nonce,) in db.execute("SELECT nonce FROM used_link")]


async def test_no_other_link_signs_in(here: Running) -> None:
    (link, _) = here.links()
    cookie = str(await here.sign_in(key=KEY)).partition("=")[2]
    kind, key_id, expires_at, nonce, signature = link.split(".")
    later = str(int(expires_at) + 1)
    for text in (
        *(link[:-1], link + "=", f" {link}", link.upper(), cookie, KEY, "x", "\0", "." * 300),
        ".".join((kind, key_id, later, nonce, signature)),
        ".".join((kind, key_id, expires_at, f"{nonce}x", signature)),
    ):
        assert await here.sign_in(link=text) is None, text
        assert await here.sign_in(link=text, key=KEY) is None, "the link is what was asked for"
    assert _rows(here) == []
    assert await here.sign_in(link=link)
    assert await here.whose(f"gw_session={link}") is None


@pytest.mark.parametrize(
    ("organizations", "with_links", "expected"),
    [
        (1, True, [r"Dashboard \(opens once, within an hour\): URL/login#link=TOKEN"]),
        (
            3,
            True,
            [rf"Dashboard of org-{number} \(opens once, within an hour\): URL/login#link=TOKEN" for number in range(3)],
        ),
        (4, True, ["Dashboard: URL/"]),
        (1, False, ["Dashboard: URL/"]),
        (3, False, ["Dashboard: URL/"]),
    ],
)
def test_what_a_start_says(tmp_path: Path, organizations: int, with_links: bool, expected: list[str]) -> None:
    keys = "".join(
        f'[[keys]]\nname = "{number}-{more}"\nkey = "canary-{number}-{more}"\norganization_id = "org-{number}"\n'
        for number in range(organizations)
        for more in range(2)
    )
    settings = settings_of(tmp_path, keys)
    for url, shown in (
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("http://10.0.0.1:1", "http://10.0.0.1:1"),
    ):
        lines = dashboard.told(settings, url, FakeClock().now(), with_links=with_links)
        assert len(lines) == len(expected)
        for line, pattern in zip(lines, expected, strict=True):
            assert re.fullmatch(pattern.replace("URL", re.escape(shown)).replace("TOKEN", r"[\w.-]+"), line)
        assert "canary" not in "".join(lines)


# What stands nowhere


async def test_neither_a_session_nor_a_link_is_found_again(
    start_gateway: StartGateway,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen: list[Received] = []

    async def repeat(received: Received, wire: Wire) -> None:
        seen.append(received)
        said = {"role": "assistant", "content": str(received.headers.get("Cookie"))}
        await wire.json({**COMPLETION, "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})

    upstream.play = repeat
    caplog.set_level(logging.DEBUG)
    started: Started = await start_gateway()
    text = f"[store]\npath = '{started.path}'\n[[keys]]\nname = 'team-a'\nkey = 'test-key-of-org-a'\n"
    settings = config.parse(text, "test.toml", {})
    (line,) = dashboard.told(settings, started.url, Clock().now(), with_links=True)
    link = line.rpartition("=")[2]
    async with aiohttp.ClientSession(started.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.post("/login", data={"link": link}) as response:
            assert (response.status, response.url.path) == (200, "/")
            answers = await response.text()
        (cookie,) = browser.cookie_jar
        for method, path, more in (
            ("POST", "/v1/chat/completions", {"json": {"model": "gpt-4o-mini", "messages": []}}),
            ("POST", "/api/request-logs/", {"json": {"model": "m", "input": "Hi"}}),
            ("GET", "/api/request-logs/list/", {}),
            ("GET", "/api/nowhere", {}),
            ("GET", "/metrics", {}),
            ("POST", "/login", {"data": {"link": link}}),
            ("GET", "/login", {}),
        ):
            async with browser.request(method, path, headers=SITE, **more) as response:
                answers += await response.text()
    (call,) = seen
    assert "Cookie" not in call.headers
    kept = answers.encode() + "".join([caplog.text, *capfd.readouterr()]).encode()
    for file in started.path.parent.iterdir():
        kept += file.read_bytes()
    for secret in (cookie.value, link, link.rpartition(".")[2], cookie.value.rpartition(".")[2]):
        assert secret.encode() not in kept
    assert b"team-a" in kept


OF_A_PAGE = {
    "Origin": "http://here.test",
    "Referer": "http://here.test/",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "sec-ch-ua": "x",
}


async def test_what_a_page_asks_an_upstream_is_asked_by_the_gateway(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    seen: list[Received] = []

    async def answer(received: Received, wire: Wire) -> None:
        seen.append(received)
        await wire.json(COMPLETION)

    upstream.play = answer
    started: Started = await start_gateway()
    body = {"model": "gpt-4o-mini", "messages": []}
    async with aiohttp.ClientSession(started.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.post("/login", data={"key": "test-key-of-org-a"}) as response:
            assert response.status == 200
        for more in ({}, {"Authorization": "test-key-of-org-a"}):
            headers = {**OF_A_PAGE, **more, "X-Own": "kept"}
            async with browser.post("/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
    by_cookie, by_key = seen
    assert not any(name in by_cookie.headers for name in OF_A_PAGE) and by_cookie.headers["X-Own"] == "kept"
    # Who sends a key sends what he likes.
    assert all(name in by_key.headers for name in OF_A_PAGE)


EVIL = {"Content-Type": "text/html", "Content-Security-Policy": "default-src *", "X-Content-Type-Options": "none"}


async def test_what_an_upstream_answers_is_no_page_of_ours(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    async def answer(received: Received, wire: Wire) -> None:
        page = b"<script>fetch('/api/request-logs/', {method: 'POST'})</script>"
        await wire.head(200, {**EVIL, "Content-Length": str(len(page))})
        await wire.send(page)

    upstream.play = answer
    started: Started = await start_gateway()
    by_key = {"Authorization": "Bearer test-key-of-org-a"}
    async with aiohttp.ClientSession(started.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.post("/login", data={"key": "test-key-of-org-a"}) as response:
            assert response.status == 200
        for method, path in (
            ("GET", "/v1/evil.html"),
            ("GET", "/v1/models/evil"),
            ("GET", "/v1/chat/completions"),
            ("HEAD", "/v1/evil.html"),
            ("POST", "/v1/embeddings"),
            ("POST", "/v1/chat/completions/evil"),
            ("DELETE", "/v1/files/a"),
        ):
            before = len(upstream.requests)
            async with browser.request(method, path, headers=SITE) as response:
                assert (response.status, response.content_type) == (403, "application/json")
                if method != "HEAD":
                    assert (await response.json())["error"] == {
                        "message": "The dashboard's session does not open this route: send an API key in a header.",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "key_needed",
                    }
            assert len(upstream.requests) == before
            async with browser.request(method, path, headers=SITE | by_key) as response:
                assert response.status == 200
                assert EVIL.items() <= response.headers.items()
        for path in ("/v1/chat/completions", "/api/chat/completions", "/api/openai/v1/chat/completions"):
            body = {"model": "gpt-4o-mini", "messages": []}
            async with browser.post(path, json=body, headers=SITE) as response:
                assert response.status == 200
                assert response.headers.getall("Content-Security-Policy") == ["sandbox; default-src 'none'"]
                assert response.headers.getall("X-Content-Type-Options") == ["nosniff"]
            async with browser.post(path, json=body, headers=SITE | by_key) as response:
                assert EVIL.items() <= response.headers.items()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/session/", 200),
        ("GET", "/api/request-logs/list", 200),
        ("POST", "/api/request-logs/summary/", 200),
        ("GET", "/api/request-logs/nowhere/", 404),
        ("GET", "/api/request-logs/list/?page_size=x", 400),
        ("GET", "/api/nowhere", 404),
        ("GET", "/api/request-logs/export/", 200),
        ("GET", "/api/models", 200),
        ("GET", "/v1/models", 200),
    ],
)
async def test_what_a_session_opens_is_kept_in_no_cache(here: Running, method: str, path: str, status: int) -> None:
    by_key = {"Authorization": f"Bearer {KEY}"}
    by_cookie = {"Cookie": str(await here.sign_in(key=KEY)), **SITE}
    response, _ = await here.ask(method, path, headers=by_cookie)
    assert response.status == status
    assert response.headers.getall("Cache-Control") == ["no-store"]
    assert response.headers.getall("X-Content-Type-Options") == ["nosniff"]
    response, _ = await here.ask(method, path, headers=by_cookie | by_key)
    assert response.status == status
    assert "export" in path or not {"Cache-Control", "X-Content-Type-Options"} & response.headers.keys()


# Files


async def test_files_are_what_they_are(here: Running) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    names = {path.name for path in Path(files.__file__).with_name("dashboard").iterdir()}
    assert set(files.files()) == {name for name in names if not name.endswith(".html")}
    assert {name.rpartition(".")[2] for name in names} == {*kinds, "html"}
    for name, file in files.files().items():
        for path in (f"/dashboard/{name}", f"/dashboard/{name}/"):
            response, text = await here.ask("GET", path, headers={"Accept-Encoding": "identity"})
            assert (response.status, text.encode()) == (200, file.body)
            assert response.headers["Content-Type"] == f"{kinds[name.rpartition('.')[2]]}; charset=utf-8"
            assert response.headers["Cache-Control"] == "no-cache"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Content-Encoding" not in response.headers
            head, body = await here.ask("HEAD", path, headers={"Accept-Encoding": "identity"})
            assert (head.status, body, head.headers["Content-Length"]) == (200, "", str(len(file.body)))


async def test_a_file_that_did_not_change_is_not_sent_again(here: Running) -> None:
    tags = set()
    for encoding in ("identity", "gzip"):
        headers = {"Accept-Encoding": encoding}
        response, _ = await here.ask("GET", "/dashboard/login.css", headers=headers)
        tag = response.headers["ETag"]
        assert re.fullmatch(r'"[\w-]+"', tag)
        tags.add(tag)
        for known, status in (
            (tag, 304),
            (f'"other", {tag}', 304),
            (f"W/{tag}", 304),
            ("*", 304),
            ('"other"', 200),
            (tag.replace('"', ""), 200),
            ("", 200),
        ):
            again, text = await here.ask("GET", "/dashboard/login.css", headers={**headers, "If-None-Match": known})
            assert (again.status, bool(text)) == (status, status == 200), known
            assert again.headers["ETag"] == tag
            assert again.headers["Vary"] == "Accept-Encoding"
            assert again.headers["Cache-Control"] == "no-cache"
    assert len(tags) == 2, "what is compressed is something else"


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("deflate, gzip;q=0.5, br", True), ("*", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
async def test_files_are_sent_compressed_to_who_takes_that(here: Running, accepted: str, compressed: bool) -> None:
    cookie = str(await here.sign_in(key=KEY))
    async with aiohttp.ClientSession(here.url, auto_decompress=False) as session:
        for path, file in (("/dashboard/login.css", files.files()["login.css"]), ("/", files.index())):
            async with session.get(path, headers={"Accept-Encoding": accepted, "Cookie": cookie}) as response:
                body = await response.read()
                assert response.headers["Vary"] == "Accept-Encoding"
                assert (response.headers.get("Content-Encoding") == "gzip") is compressed
            assert (gzip.decompress(body) if compressed else body) == file.body


@pytest.mark.parametrize(
    "path",
    [
        *("/dashboard/", "/dashboard", "/dashboard/none.js", "/dashboard/index.html", "/dashboard/LOGIN.css"),
        *(
            "/dashboard/../routes.py",
            "/dashboard/..%2froutes.py",
            "/dashboard/%2e%2e/routes.py",
            "/dashboard/%2e%2e%2froutes.py",
        ),
        *(
            "/dashboard/..%5croutes.py",
            "/dashboard/login.css%00",
            "/dashboard/login.css%2f..",
            "/dashboard//etc/passwd",
        ),
        *("/dashboard/login.css//", "/dashboard/%2fetc%2fpasswd", "/dashboard/.", "/dashboard/..", "/dashboard/%c3%a9"),
    ],
)
async def test_nothing_else_is_a_file(here: Running, path: str) -> None:
    response, _ = await here.ask("GET", URL(f"{here.url}{path}", encoded=True))
    assert response.status == 404
    assert set(await response.json()) == {"detail"}


async def test_the_times_of_a_session_and_of_a_link_are_what_they_are_said_to_be() -> None:
    assert timedelta(seconds=SESSION_S) == timedelta(days=14)
    assert timedelta(seconds=LINK_S) == timedelta(hours=1)
