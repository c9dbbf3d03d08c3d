"""Prints how long the list takes to open with many spans stored, and how it scrolls.

`python -m tests.dashboard.opening`, with another number of spans than a million if one is given.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from gateway.bench.fill import fill
from gateway.bench.harness import chat_body
from gateway.bench.upstream import whole_answer
from tests.dashboard.conftest import ARGUMENTS, CONFIG, WIDE, chromium
from tests.dashboard.screenshots import sign_in
from tests.processes import serving

SPANS = 1_000_000
TIMES = 12
# When rows have been painted, by the page's own clock.
WATCH = """new MutationObserver((_, watch) => {
  if (!document.querySelector('.rows .row')) return;
  watch.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.paintedAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });"""
SCROLL = """async () => {
  const [scroller, took] = [document.querySelector('.scroller'), []];
  const frame = () => new Promise((then) => requestAnimationFrame(then));
  scroller.scrollTo(0, 0);
  await frame();
  for (let last = performance.now(), left = 240; left; left--) {
    scroller.scrollTop += 60;
    await frame();
    took.push(performance.now() - last);
    last = performance.now();
  }
  return took.sort((a, b) => a - b);
}"""


def main(number: int) -> None:
    """Fills a database, opens the list a few times, and scrolls through more than 500 rows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        answer = whole_answer(1000).partition(b"\r\n\r\n")[2].decode()
        fill(folder / "gateway.db", number, chat_body("bench-whole-1000", 1000), answer, told(number))
        # Whose the benchmark's spans are.
        (folder / "config.toml").write_text(CONFIG.format(port=1).replace('"org-a"', '"default"'))
        url = stack.enter_context(serving(folder)).url
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
        sign_in(page, url)
        page.add_init_script(WATCH)
        painted = [opened(page, url) for _ in range(TIMES)]
        print(f"{number:,} spans stored: rows painted after {median(painted):.0f} ms (median of {TIMES})")
        took = scrolled(page)
        rows = page.locator(".rows .row").count()
        print(f"{rows} rows: a frame {took[len(took) // 2]:.0f} ms, 95 % {took[len(took) * 95 // 100]:.0f} ms")
        browser.close()


def told(number: int) -> Callable[[int], None]:
    """Says how far filling has come."""
    return lambda done: print(f"\rfilling: {done:,} of {number:,}", end="\n" if done >= number else "", flush=True)


def opened(page: Page, url: str) -> float:
    page.goto(f"{url}/")
    page.wait_for_function("() => window.paintedAt")
    return float(page.evaluate("window.paintedAt"))


def scrolled(page: Page) -> list[float]:
    rows = page.locator(".rows .row")
    while (before := rows.count()) < 500:
        page.evaluate("document.querySelector('.scroller').scrollTo(0, 1e9)")
        page.wait_for_function("(before) => document.querySelectorAll('.rows .row').length > before", arg=before)
    found: list[float] = page.evaluate(SCROLL)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SPANS)
