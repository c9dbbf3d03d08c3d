"""By keyboard, on a phone, in the dark, and for those who do not see it."""

import gzip
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gateway.core.filters import FIELDS, TRACE_FIELDS
from tests.dashboard.conftest import PHONE, WIDE, Browsing, Gateway
from tests.dashboard.test_span import TALK
from tests.dashboard.test_trace import TRACE

FILES = Path(__file__).parents[2] / "gateway" / "web" / "dashboard"
VIEWS = (
    "/",
    "/?view=traces",
    "/?view=traces&where=unique_id%3Dx",
    "/?view=traces&trace=t",
    "/?view=charts",
    "/?view=charts&group_by=model",
    "/?view=playground",
)


def settled(page: Page) -> None:
    """Waits until nothing is being loaded."""
    page.wait_for_function(
        "() => document.querySelector('.scroller') && !/Loading|…$/.test(document.querySelector('main').innerText)"
    )


def test_by_keyboard(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": f"m{number}", "timestamp": f"2026-01-01T00:00:0{number}Z"} for number in range(5)))
    page = browsing.open()
    expect(page.locator(".spans .rows .row")).to_have_count(5)
    for key in "jjjk":
        page.keyboard.press(key)
    expect(page.locator(".row.selected .open-span")).to_have_text("m3")
    page.keyboard.press("Enter")
    title = page.locator("#panel h1")
    expect(title).to_contain_text("m3")
    page.keyboard.press("]")
    expect(title).to_contain_text("m2")
    page.keyboard.press("[")
    page.keyboard.press("[")
    expect(title).to_contain_text("m4")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Filter")).to_be_focused()
    page.keyboard.type("model=m1")
    page.keyboard.press("Enter")
    expect(page.locator(".spans .rows .row")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next, previous row")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for keys, view in (("gc", "charts"), ("gt", "traces"), ("gp", "playground")):
        for key in keys:
            page.keyboard.press(key)
        expect(page.get_by_role("link", name=view.title(), exact=True)).to_have_attribute("aria-current", "page")
        page.keyboard.press("Escape")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_every_view_fits_and_is_accessible(
    browsing: Browsing, gateway: Gateway, theme: str, size: tuple[int, int]
) -> None:
    (talk,) = gateway.post(TALK)
    gateway.post(
        *TRACE,
        {
            "model": "m",
            "status": "warning",
            "warnings": "counted",
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        },
    )
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page = browsing.open(size=size, theme=theme)
    for view in (*VIEWS, f"/?span={talk}"):
        page.goto(f"{gateway.url}{view}")
        settled(page)
        if "span" in view:
            expect(page.locator("#panel")).to_contain_text("Prices of")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('.scroller').scrollWidth]")
        assert max(wide) <= size[0], (view, wide)
        page.evaluate(axe)
        found: Any = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"]][:4])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], (view, theme, serious)


def test_dark_and_light(browsing: Browsing) -> None:
    page = browsing.open(theme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(ground) == dark


def test_on_a_phone(browsing: Browsing, gateway: Gateway) -> None:
    (talk,) = gateway.post(TALK)
    page = browsing.open(size=PHONE)
    page.locator(f'[data-id="{talk}"]').click()
    expect(page.locator("#panel")).to_be_visible()
    box = page.locator("#panel").bounding_box()
    assert box is not None and (box["x"], box["width"]) == (0, PHONE[0])
    expect(page.locator("#panel")).to_contain_text("What is this?")
    page.get_by_role("button", name="Close").click()
    expect(page.locator(f'[data-id="{talk}"] .said').first).to_contain_text("What is this?")


def test_the_page_is_small_and_whole() -> None:
    files = sorted(FILES.iterdir())
    whole = sum(file.stat().st_size for file in files)
    assert whole < 250_000
    sent = sum(len(gzip.compress(file.read_bytes())) for file in files)
    print(f"{whole:,} bytes in all, {sent:,} compressed")
    text = "".join(file.read_text("utf-8") for file in files)
    # Addresses of elsewhere are names of formats only.
    assert {part.split('"')[0].split("/")[0] for part in text.split("http://")[1:]} == {"www.w3.org"}
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text


def test_what_the_first_view_needs_is_asked_for_at_once() -> None:
    """Else the browser would find one module only after another."""
    needed: set[str] = set()
    waiting = ["app.js"]
    while waiting:
        imported = re.findall(r'^import .* from "\./(.+)";$', (FILES / waiting.pop()).read_text("utf-8"), re.MULTILINE)
        waiting += set(imported) - needed
        needed |= set(imported)
    page = (FILES / "index.html").read_text("utf-8")
    assert set(re.findall(r'rel="modulepreload" href="/dashboard/(.+)"', page)) == needed


def test_what_can_be_filtered_by_is_what_the_api_takes(browsing: Browsing) -> None:
    page = browsing.open()
    listed = page.evaluate("import('/dashboard/fields.js').then((module) => module.FIELDS)")
    assert sorted(listed) == sorted(set(FIELDS) - {"metadata", "properties", "search"})
    listed = page.evaluate("import('/dashboard/fields.js').then((module) => module.TRACE_FIELDS)")
    assert sorted(listed) == sorted(set(TRACE_FIELDS.names()) - {"metadata__<key>"})


def test_the_list_asks_for_nothing_that_it_does_not_need(browsing: Browsing, gateway: Gateway) -> None:
    """It opens at once also where there is much: each question is asked once, and what was said comes as a preview."""
    gateway.post(*({"model": "m", "input": "x" * 100_000} for _ in range(60)))
    page = browsing.open()
    expect(page.locator(".spans .rows .row")).not_to_have_count(0)
    # Sums come after rows.
    expect(page.locator(".overview-bars svg")).to_be_visible()
    asked: list[str] = []
    page.on("response", lambda response: asked.append(response.url))
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.reload()
    expect(page.locator(".spans .rows .row").first).to_be_visible()
    page.wait_for_load_state("load")
    expect(page.locator(".overview-bars svg")).to_be_visible()
    names = [url.split("?")[0].removeprefix(gateway.url) for url in asked]
    for name in ("/api/request-logs/summary/", "/api/request-logs/series/", "/api/session/", "/dashboard/app.js"):
        assert names.count(name) == 1, name
    # Once at the start, once when the live events stand.
    assert names.count("/api/request-logs/list/") <= 3
    assert sum(sizes) < 250_000
