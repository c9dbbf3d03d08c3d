"""A trace as a waterfall."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Browsing, Gateway, scroll_to_the_end

SECOND = "2026-03-01T12:00:{:09.6f}Z"


def span(name: str, parent: str | None, start: float, end: float, **more: Any) -> dict[str, Any]:
    return {
        **{"model": "m", "trace_unique_id": "t", "span_unique_id": name, "span_parent_id": parent, "span_name": name},
        **{
            "start_time": SECOND.format(start),
            "timestamp": SECOND.format(end),
            "latency": end - start,
            "log_type": "task",
        },
        **more,
    }


def called(cost: float, prompt: int, completion: int) -> dict[str, Any]:
    return {"log_type": "chat", "cost": cost, "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


TRACE = [
    span("root", None, 0, 10, log_type="workflow"),
    span("slow", "root", 1, 6),
    span("inner", "slow", 2, 5, **called(0.25, 100, 20)),
    span("beside", "root", 1, 3, status="failed", status_code=500, error_message="no"),
    span("last", "root", 6, 9, **called(0.5, 200, 30)),
]


def rows(page: Page) -> Any:
    return page.locator(".fall-row")


def test_the_tree_with_its_sums_and_its_critical_path(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces")
    page.locator(".traces .rows .row .latency").click()
    expect(page).to_have_url(re.compile("trace=t"))
    expect(rows(page)).to_have_count(5)
    found = [[cell.strip() for cell in row.split("\n")] for row in rows(page).all_inner_texts()]
    # Parents come before their children; what is below is in their sums.
    assert [[cell for cell in row if cell and cell != "▾"] for row in found] == [
        ["root", "1 failed", "350", "$0.75", "10.0 s"],
        ["slow", "120", "$0.25", "5.00 s"],
        ["inner", "120", "$0.25", "3.00 s"],
        ["failed", "beside", "2.00 s"],
        ["last", "230", "$0.50", "3.00 s"],
    ]
    tiles = page.locator(".trace-head .tiles")
    for text in ("5", "10.0 s", "$0.75", "350"):
        expect(tiles).to_contain_text(text)
    # From the end back: the root's last second, `last`, `slow` with `inner` in it, and the root's first second.
    marked = [row.locator(".critical").count() for row in rows(page).all()]
    assert marked == [2, 2, 1, 0, 1]
    page.get_by_role("button", name="Critical path").click()
    expect(page.locator(".critical")).to_have_count(0)


def test_folding_zooming_and_opening(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces&trace=t")
    expect(rows(page)).to_have_count(5)
    rows(page).nth(1).get_by_role("button", name="Fold").click()
    expect(rows(page)).to_have_count(4)
    expect(rows(page).nth(1)).to_contain_text("+1")
    page.get_by_role("button", name="Unfold all").click()
    expect(rows(page)).to_have_count(5)
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".zoomed")).to_have_text("2.50 s to 7.50 s of 10.0 s")
    page.keyboard.press("0")
    expect(page.locator(".zoomed")).to_have_text("")
    ruler = page.locator(".ruler").bounding_box()
    assert ruler is not None
    page.mouse.move(ruler["x"] + ruler["width"] * 0.6, ruler["y"] + 10)
    page.mouse.down()
    page.mouse.move(ruler["x"] + ruler["width"] * 0.9, ruler["y"] + 10, steps=4)
    page.mouse.up()
    expect(page.locator(".zoomed")).to_contain_text(re.compile(r"^[56]\.\d+ s to [89]\.\d+ s of 10.0 s$"))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#panel h1")).to_contain_text("inner")
    page.keyboard.press("]")
    expect(page.locator("#panel h1")).to_contain_text("beside")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(rows(page)).to_have_count(5)


def test_no_time_above_the_bars_is_cut_off(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    for width in (1360, 390):
        page = browsing.open("/?view=traces&trace=t", size=(width, 800))
        expect(page.locator(".ruler span").last).to_be_visible()
        ends = "all => all.map(one => one.getBoundingClientRect().right)"
        (ruler,), times = (page.locator(place).evaluate_all(ends) for place in (".ruler", ".ruler span"))
        assert max(times) <= ruler + 1


def test_ten_thousand_spans_without_a_freeze(browsing: Browsing, gateway: Gateway) -> None:
    """What is drawn is what is in sight, so no step takes longer than with few; nothing is left out."""
    many = [span("root", None, 0, 50, log_type="workflow")]
    for number in range(1, 10_000):
        parent = "root" if number % 10 == 1 else f"s{number - (number - 1) % 10}"
        many.append(span(f"s{number}", parent, number / 250, number / 250 + 1, **called(0.001, 10, 1)))
    gateway.post(*many)
    page = browsing.open("/?view=traces&trace=t")
    expect(page.locator(".fall")).to_have_attribute("aria-rowcount", "10000")
    expect(rows(page).first).to_contain_text("$10.00")
    drawn = rows(page).count()
    assert drawn < 100
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    expect(rows(page).last).to_contain_text("s9999")
    assert rows(page).count() <= drawn + 30
    page.get_by_role("button", name="Fold all", exact=True).click()
    page.locator(".scroller").evaluate("element => element.scrollTo(0, 0)")
    expect(rows(page).nth(2)).to_contain_text("s11")
    page.get_by_role("button", name="Unfold all").click()
    expect(rows(page).nth(2)).to_contain_text("s2")
    rows(page).nth(2).click()
    expect(page.locator("#panel h1")).to_contain_text("s2")


def test_a_very_deep_one(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*(span(f"d{number}", f"d{number - 1}" if number else None, 0, 1) for number in range(3000)))
    page = browsing.open("/?view=traces&trace=t")
    expect(page.locator(".fall")).to_have_attribute("aria-rowcount", "3000")
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    expect(rows(page).last).to_contain_text("d2999")
    expect(rows(page).last.locator(".what")).to_be_visible()


def test_the_list_of_traces(browsing: Browsing, gateway: Gateway) -> None:
    for number in range(120):
        at = f"2026-03-01T12:{number // 60:02}:{number % 60:02}Z"
        gateway.post(
            {
                "model": "m",
                "trace_unique_id": f"t{number}",
                "span_name": f"run {number}",
                "timestamp": at,
                "start_time": at,
            }
        )
    page = browsing.open("/?view=traces")
    expect(page.locator(".list-foot")).to_contain_text(re.compile("50 shown|100 shown|120 traces"))
    scroll_to_the_end(page)
    expect(page.locator(".list-foot")).to_have_text("120 traces, all there are")
    assert page.locator(".rows .open-span").all_text_contents() == [f"run {number}" for number in reversed(range(120))]


def test_several_roots_and_a_parent_that_is_missing(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(span("a", None, 0, 10), span("b", "nobody", 2, 6), span("c", None, 9, 14))
    page = browsing.open("/?view=traces&trace=t")
    expect(rows(page)).to_have_count(3)
    # What ended last, and before it what had begun by then: not what ran beside.
    assert [row.locator(".critical").count() for row in rows(page).all()] == [1, 0, 1]
    expect(rows(page).nth(1)).to_contain_text("parent missing")


def test_escape_leads_out(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces&trace=t")
    rows(page).first.click()
    expect(page.locator("#panel")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{gateway.url}/?view=traces")


def test_a_trace_that_is_not_there(browsing: Browsing) -> None:
    page = browsing.open("/?view=traces&trace=none")
    expect(page.locator("main")).to_contain_text("There is no such trace")
    browsing.seen.told[:] = [told for told in browsing.seen.told if "404" not in told]


def test_traces_can_be_refreshed_and_are_tried_again(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces")
    expect(page.locator(".list-foot")).to_have_text("1 trace, all there are")
    gateway.post({"model": "m", "trace_unique_id": "other"})
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".list-foot")).to_have_text("2 traces, all there are")
    page.route("**/api/traces/**", lambda route: route.fulfill(status=503, json={"detail": "The store is busy."}))
    page.keyboard.press("r")
    expect(page.locator("#told")).to_have_text("The store is busy.")
    # What is there stays.
    expect(page.locator(".list-foot")).to_have_text("2 traces, all there are")
    page.reload()
    expect(page.locator(".list-foot")).to_contain_text("The store is busy.")
    page.unroute("**/api/traces/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".list-foot")).to_have_text("2 traces, all there are")
    page.get_by_role("link", name="other").click()
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_title("other · Trace")
    gateway.post({"model": "m", "trace_unique_id": "other"})
    page.get_by_role("button", name="Refresh").click()
    expect(rows(page)).to_have_count(2)
    browsing.seen.told[:] = [told for told in browsing.seen.told if "503" not in told]


def test_what_is_asked_of_spans_alone_narrows_no_traces_and_says_so(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE, {"model": "m", "trace_unique_id": "other"})
    page = browsing.open("/?where=unique_id%3Dx&where=trace_unique_id%3Dother&search=word")
    page.get_by_role("link", name="Traces", exact=True).click()
    expect(page.locator(".rows .row")).to_have_count(1)
    expect(page.locator(".chip.off")).to_have_text(["unique_id = x", "“word”"])
    expect(page.locator(".chip.off").first).to_have_attribute("title", re.compile("traces are not narrowed"))
    page.locator("#filter").press_sequentially("dur")
    page.get_by_role("option", name="duration", exact=True).click()
    page.locator("#filter").press_sequentially(">=0")
    page.keyboard.press("Enter")
    expect(page.locator(".chip", has_text="duration")).to_be_visible()
    expect(page.locator(".rows .row")).to_have_count(1)
    page.locator("#filter").press_sequentially("upst")
    expect(page.locator("#suggestions li")).to_have_count(1)


def test_a_deep_tree_stays_in_its_column(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*(span(f"d{number}", f"d{number - 1}" if number else None, 0, 50) for number in range(30)))
    page = browsing.open("/?view=traces&trace=t", size=(390, 844))
    expect(rows(page).first).to_be_visible()
    inside = (
        "all => all.every(one => one.querySelector('.what').getBoundingClientRect().left + 20 <"
        " one.getBoundingClientRect().right)"
    )
    assert page.locator(".fall-row .branch").evaluate_all(inside)


def test_a_trace_that_is_zoomed_goes_sideways(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces&trace=t")
    expect(rows(page).first).to_be_visible()
    page.get_by_role("button", name="Zoom in").click()
    zoomed = page.locator(".zoomed")
    expect(zoomed).not_to_be_empty()
    before = zoomed.inner_text()
    rows(page).first.locator(".bars").hover()
    page.mouse.wheel(200, 0)
    expect(zoomed).not_to_have_text(before)
    page.mouse.wheel(100_000, 0)
    end = page.locator(".zoomed").inner_text().partition(" to ")[2].split(" of ")
    assert end[0] == end[1]


def test_what_was_folded_and_zoomed_stays_so(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE)
    page = browsing.open("/?view=traces&trace=t")
    expect(rows(page)).not_to_have_count(0)
    number = rows(page).count()
    rows(page).first.get_by_role("button", name="Fold").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Zoom in").click()
    zoomed = page.locator(".zoomed").inner_text()
    gateway.post(span("later", None, 2, 3))
    page.get_by_role("button", name="Refresh").focus()
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(2)
    expect(page.locator(".zoomed")).to_have_text(zoomed)
    expect(page.get_by_role("button", name="Refresh")).to_be_focused()
    page.route("**/api/traces/**", lambda route: route.fulfill(status=503, json={"detail": "The store is busy."}))
    page.keyboard.press("Enter")
    expect(page.locator("#told")).to_have_text("The store is busy.")
    expect(rows(page)).to_have_count(2)
    assert number > 2
    browsing.seen.told[:] = [told for told in browsing.seen.told if "503" not in told]


def test_a_filter_of_traces_is_kept_and_not_in_force_elsewhere(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*TRACE, {"model": "m", "trace_unique_id": "other"})
    page = browsing.open("/?view=traces&where=span_count%3E%3D2")
    expect(page.locator(".rows .row")).to_have_count(1)
    page.locator("#filter").press_sequentially("model=")
    expect(page.locator("#suggestions li").first).to_be_visible()
    page.locator("#filter").fill("output~x")
    page.keyboard.press("Enter")
    expect(page.locator(".chip.off")).to_contain_text("output")
    for name in ("Spans", "Charts"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator(".chip.off")).to_contain_text("span_count")
        expect(page.locator(".chip:not(.off)")).to_contain_text("output")
    page.get_by_role("link", name="Spans", exact=True).click()
    expect(page.get_by_role("button", name="Live")).to_be_visible()
