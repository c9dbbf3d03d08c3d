"""A real gateway, and a real browser that is signed in to it."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.processes import Process, serving

CONFIG = """
[store]
path = "gateway.db"
[[keys]]
name = "canary-name"
key = "canary-key-of-org-a"
organization_id = "org-a"
[[keys]]
name = "other"
key = "canary-key-of-org-b"
organization_id = "org-b"
[[upstreams]]
name = "echo"
kind = "echo"
models = ["echo"]
[[upstreams]]
name = "patient"
base_url = "http://127.0.0.1:{port}/v1"
models = ["patient"]
[prices.echo]
prompt = 0.15
completion = 0.60
"""
KEY, OTHER_KEY = "canary-key-of-org-a", "canary-key-of-org-b"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# As long as it takes on a machine that has much else to do.
expect.set_options(timeout=60_000)
WIDE, PHONE = (1440, 900), (390, 844)


def chromium() -> str | None:
    """Where the system's browser is."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


# Not for the whole session: its event loop would be in the way of the tests that come after these.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    found = chromium()
    if found is None:
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail("There is no Chromium: the tests of the dashboard need one.")
        pytest.skip("needs Chromium, such as Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Gateway:
    """A gateway that serves org-a and org-b, and its API with the key of org-a."""

    process: Process
    api: httpx.Client

    @property
    def url(self) -> str:
        return self.process.url

    def post(self, *spans: dict[str, Any]) -> list[str]:
        """Stores spans; gives their ids."""
        numbered = [{"unique_id": f"id-{os.urandom(8).hex()}", "model": "m", **span} for span in spans]
        for start in range(0, len(numbered), 5000):
            reply = self.api.post(
                "/api/request-logs/batch/create/", json={"logs": numbered[start : start + 5000]}, timeout=120
            )
            assert reply.status_code == 201, reply.text
        return [span["unique_id"] for span in numbered]

    def chat(self, text: str, **more: Any) -> str:
        """A call of the echo model; gives the id of its span."""
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], **more}
        reply = self.api.post("/v1/chat/completions", json=body)
        return str(reply.headers["X-Respan-Log-Id"])

    def get(self, path: str, **params: Any) -> Any:
        reply = self.api.get(path, params=params)
        assert reply.status_code == 200, reply.text
        return reply.json()


class PatientUpstream:
    """An upstream that answers a call when it is told to."""

    def __init__(self) -> None:
        self.may_answer = may_answer = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                may_answer.wait(60)
                said = {"role": "assistant", "content": "At last"}
                usage = {"prompt_tokens": 3, "completion_tokens": 2}
                body = json.dumps({"choices": [{"index": 0, "message": said}], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_port

    def close(self) -> None:
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def patient() -> Iterator[PatientUpstream]:
    upstream = PatientUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def gateway(tmp_path: Path, patient: PatientUpstream) -> Iterator[Gateway]:
    (tmp_path / "config.toml").write_text(CONFIG.format(port=patient.port))
    with serving(tmp_path) as process, httpx.Client(base_url=process.url, headers={"Authorization": KEY}) as api:
        yield Gateway(process, api)


@dataclass
class Seen:
    """What went on in pages: what was told to the console, and which other hosts were asked."""

    told: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self, page: Page, url: str) -> None:
        def told(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.told.append(f"{message.text} ({message.location.get('url')})")

        def asked(request: Request) -> None:
            if not request.url.startswith((f"{url}/", "data:", "blob:")):
                self.elsewhere.append(request.url)

        page.on("console", told)
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("request", asked)


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Of all pages: nothing but what a test takes out may be in it at the end."""
    seen = Seen()
    yield seen
    assert (seen.told, seen.elsewhere) == ([], [])


@dataclass
class Browsing:
    """Opens pages of a gateway in a browser that is signed in."""

    browser: Browser
    gateway: Gateway
    seen: Seen
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(
        self, path: str = "/", *, size: tuple[int, int] = WIDE, theme: Any = "light", key: str | None = KEY
    ) -> Page:
        """A page in a window of its own; `key` None: not signed in."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme, accept_downloads=True
        )
        context.set_default_timeout(60_000)
        self.contexts.append(context)
        page = context.new_page()
        self.seen.watch(page, self.gateway.url)
        if key is not None:
            page.goto(f"{self.gateway.url}/login")
            page.get_by_label("Key").fill(key)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{self.gateway.url}/")
            if path == "/":
                return page
        page.goto(f"{self.gateway.url}{path}")
        return page


@pytest.fixture
def browsing(browser: Browser, gateway: Gateway, seen: Seen) -> Iterator[Browsing]:
    browsing = Browsing(browser, gateway, seen)
    yield browsing
    for context in browsing.contexts:
        context.close()


def scroll_to_the_end(page: Page) -> None:
    """Goes down a list until all of it is there."""
    foot = page.locator(".list-foot")
    while "all there are" not in (before := foot.inner_text()):
        page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
        expect(foot).not_to_have_text(before)
        expect(foot).not_to_contain_text("Loading")
