"""Takes the README's pictures of the dashboard: `python -m tests.dashboard.screenshots`.

With a folder, takes all views in both themes, on a desk and on a phone, into that.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
from playwright.sync_api import Page, sync_playwright

from tests.dashboard.conftest import ARGUMENTS, CONFIG, KEY, PHONE, WIDE, chromium
from tests.dashboard.sample import day, trip
from tests.processes import serving

FOLDER = Path(__file__).with_name("screenshots")
SIZE = (1360, 800)
_DRAWN = """() => !/Loading|…$/.test(document.querySelector('main').innerText)
    && document.querySelector('.tiles, .charts svg, .fall-row, .composer')"""
VIEWS = {
    "list": "/",
    "span": "/?span={span}",
    "trace": "/?view=traces&trace=trip-to-lisbon",
    "charts": "/?view=charts&group_by=model",
    "playground": "/?view=playground",
}
OF_THE_README = ("list", "span", "trace", "charts")


def pictures(arguments: list[str]) -> Iterator[tuple[Path, str, tuple[int, int], Literal["dark", "light"]]]:
    """Into which file, of which view, how large, and in which theme."""
    if not arguments:
        yield from ((FOLDER / f"{name}.png", VIEWS[name], SIZE, "light") for name in OF_THE_README)
        return
    for name, path in VIEWS.items():
        for size, place in ((WIDE, "desk"), (PHONE, "phone")):
            yield Path(arguments[0]) / f"{name}-{place}-light.png", path, size, "light"
            yield Path(arguments[0]) / f"{name}-{place}-dark.png", path, size, "dark"


def main(arguments: list[str]) -> None:
    """Fills a gateway, and takes the pictures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "config.toml").write_text(CONFIG.format(port=1))
        url = stack.enter_context(serving(folder)).url
        api = stack.enter_context(httpx.Client(base_url=url, headers={"Authorization": KEY}))
        now = datetime.now(UTC)
        spans = [*day(now), *trip(now)]
        api.post("/api/request-logs/batch/create/", json={"logs": spans}, timeout=60).raise_for_status()
        found = api.get("/api/request-logs/list/", params={"search": "SQL", "model": "claude-sonnet-4-5"}).json()
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for file, path, (width, height), theme in pictures(arguments):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
            page = context.new_page()
            sign_in(page, url)
            page.goto(url + path.format(span=found["results"][0]["id"]))
            page.wait_for_function(_DRAWN)
            # What has just come is marked for a second and a half.
            page.wait_for_timeout(2000)
            page.screenshot(path=file)
            print(file)
            context.close()
        browser.close()


def sign_in(page: Page, url: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")


if __name__ == "__main__":
    main(sys.argv[1:])
