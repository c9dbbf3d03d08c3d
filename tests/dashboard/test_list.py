"""The list of spans: it fills by itself, and shows what its address says."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.conftest import Browsing, Gateway, PatientUpstream, scroll_to_the_end
from tests.processes import serving


def tokens(prompt: int, completion: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


SPANS: list[dict[str, Any]] = [
    {
        "model": "alpha",
        "cost": 0.5,
        "customer_identifier": "ann",
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    },
    {"model": "alpha", "cost": 0.001, "customer_identifier": "bob", "output": "a needle in the hay", "latency": 2.5},
    {"model": "beta", "status": "failed", "status_code": 500, "error_message": "it broke", "metadata": {"plan": "pro"}},
    {
        "model": "gamma",
        "status": "warning",
        "warnings": "counted by a tokenizer",
        "usage": {"prompt_tokens": 7, "completion_tokens": 7},
    },
]


def time(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"


def rows(page: Page) -> Any:
    return page.locator(".spans .rows .row")


def models(page: Page) -> list[str]:
    return page.locator(".rows .open-span").all_text_contents()


def test_spans_appear_by_themselves_newest_on_top(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open()
    expect(page.locator(".list-foot")).to_contain_text("Nothing yet")
    gateway.chat("first")
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("first")
    gateway.post({"model": "posted", "input": "second"})
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("posted")
    gateway.chat("third", stream=True)
    expect(rows(page)).to_have_count(3)
    expect(rows(page).first.locator(".dot")).to_have_class(re.compile("fine|warning"))
    expect(page.locator(".tiles")).to_contain_text("3")


def test_a_call_that_runs_is_there_before_it_ends(
    browsing: Browsing, gateway: Gateway, patient: PatientUpstream
) -> None:
    page = browsing.open()
    body = {"model": "patient/m", "messages": [{"role": "user", "content": "Hi"}]}
    with ThreadPoolExecutor() as pool:
        call = pool.submit(gateway.api.post, "/v1/chat/completions", json=body, timeout=120)
        expect(rows(page).first.locator(".dot")).to_have_class(re.compile("running"))
        rows(page).first.click()
        expect(page.locator("#panel")).to_contain_text("It still runs")
        patient.may_answer.set()
        assert call.result().status_code == 200
    expect(rows(page).first.locator(".dot")).to_have_class(re.compile("fine"))
    expect(rows(page)).to_have_count(1)
    # What is open is shown anew.
    expect(page.locator("#panel .message.assistant")).to_contain_text("At last")


def test_it_can_be_paused(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open()
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    gateway.post({"model": "meanwhile"})
    page.get_by_role("link", name="Charts", exact=True).click()
    page.get_by_role("link", name="Spans", exact=True).click()
    expect(rows(page)).to_have_count(1)
    gateway.post({"model": "later"})
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    assert models(page) == ["meanwhile"]
    page.keyboard.press("p")
    expect(rows(page)).to_have_count(2)


def test_what_came_in_a_pause_is_all_there_afterwards(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": "before"} for _ in range(5)))
    page = browsing.open()
    expect(rows(page)).to_have_count(5)
    page.keyboard.press("p")
    gateway.post(*({"model": "meanwhile"} for _ in range(200)))
    page.keyboard.press("p")
    expect(page.locator(".list-foot")).to_contain_text("of 205 shown")
    scroll_to_the_end(page)
    assert sorted(models(page)) == ["before"] * 5 + ["meanwhile"] * 200


def test_many_that_come_while_one_is_further_down(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": "old", "input": str(number)} for number in range(60)))
    page = browsing.open()
    expect(rows(page)).to_have_count(50)
    page.locator(".scroller").evaluate("element => element.scrollTo(0, 400)")
    gateway.post(*({"model": "new"} for _ in range(1000)))
    page.get_by_role("button", name="1,000 new").click()
    expect(rows(page)).to_have_count(50)
    expect(page.locator(".list-foot")).to_contain_text("50 of 1,060 shown")
    assert set(models(page)) == {"new"}


def test_live_spans_are_of_the_time_range(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?range=15m")
    expect(page.locator(".list-foot")).to_contain_text("No span fits")
    gateway.post({"model": "old", "timestamp": "2009-01-01T00:00:00Z"}, {"model": "new"})
    expect(rows(page)).to_have_count(1)
    assert models(page) == ["new"]


def test_one_span_with_a_wrong_clock_does_not_draw_an_axis_of_years(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m"}, {"model": "m", "timestamp": "2041-05-05T00:00:00Z"})
    for view in ("/", "/?range=24h"):
        page = browsing.open(view)
        page.locator(".overview-bars svg").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".overview .tip")).not_to_contain_text("2041")
    page.goto(f"{gateway.url}/?view=charts")
    expect(page.locator(".charts")).to_contain_text("1 span dated in the future is not drawn.")


def test_a_gateway_that_is_away_is_told_of_and_comes_back(browsing: Browsing, gateway: Gateway) -> None:
    (known,) = gateway.post({"model": "before"})
    page = browsing.open()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Live")).to_be_visible()
    assert gateway.process.stop() == 0
    expect(page.get_by_role("button", name="Reconnecting")).to_be_visible()
    rows(page).first.click()
    expect(page.locator("#panel")).to_contain_text("The gateway cannot be reached")
    page.keyboard.press("Escape")
    with serving(gateway.process.folder, "--port", gateway.url.rpartition(":")[2]):
        gateway.post({"model": "after"})
        expect(rows(page)).to_have_count(2)
        expect(page.get_by_role("button", name="Live")).to_be_visible()
        page.locator(f'[data-id="{known}"]').click()
        expect(page.locator("#panel h1")).to_contain_text("before")
        page.close()
    # The browser says so of each try that was in vain.
    browsing.seen.told.clear()


def test_what_is_deleted_and_changed_elsewhere_goes_and_changes(browsing: Browsing, gateway: Gateway) -> None:
    first, second = gateway.post({"model": "one"}, {"model": "two"})
    page = browsing.open()
    expect(rows(page)).to_have_count(2)
    gateway.api.patch(f"/api/request-logs/{first}/", json={"note": "looked at"})
    expect(page.locator(f'[data-id="{first}"] .mark')).to_have_attribute("title", "looked at")
    assert gateway.api.delete(f"/api/request-logs/{second}/").status_code == 204
    expect(rows(page)).to_have_count(1)


def test_filters_are_in_the_address_and_back_undoes_them(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open()
    expect(rows(page)).to_have_count(4)
    box = page.get_by_role("combobox", name="Filter")
    for text, left in (("model=alpha", 2), ("cost>=0.01", 1)):
        box.fill(text)
        box.press("Enter")
        expect(rows(page)).to_have_count(left)
    expect(page).to_have_url(re.compile(r"\?where=model%3Dalpha&where=cost%3E%3D0\.01$"))
    expect(page.locator(".tiles div").first).to_contain_text("1")
    # A view that is handed on shows the same.
    other = browsing.open(page.url.removeprefix(gateway.url))
    expect(rows(other)).to_have_count(1)
    expect(other.locator(".chip")).to_have_count(2)
    page.go_back()
    expect(rows(page)).to_have_count(2)
    page.go_back()
    expect(rows(page)).to_have_count(4)
    page.go_forward()
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Remove the filter model=alpha").click()
    expect(rows(page)).to_have_count(4)


def test_every_kind_of_condition(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open()
    for where, found in (
        (["model=alpha", "model=beta"], 3),
        (["model!=alpha"], 2),
        (["cost>0.0005", "cost<0.4"], 1),
        (["error_message~BROKE"], 1),
        (["customer_identifier="], 2),
        (["customer_identifier!="], 2),
        (["metadata__plan=pro"], 1),
        (["output~needle"], 1),
        (["status=failed"], 1),
        (["total_request_tokens>=14"], 2),
    ):
        query = "&".join(f"where={text.replace('=', '%3D').replace('>', '%3E')}" for text in where)
        page.goto(f"{gateway.url}/?{query}")
        expect(rows(page)).to_have_count(found)
    page.goto(f"{gateway.url}/?search=needle+hay")
    expect(rows(page)).to_have_count(1)
    page.goto(f"{gateway.url}/?where=colour%3Dred")
    expect(page.locator(".list-foot")).to_contain_text("colour: not a field to filter by")
    browsing.seen.told[:] = [told for told in browsing.seen.told if "400" not in told]


def test_live_spans_fit_the_filter(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?where=model%3Dalpha")
    expect(page.locator(".list-foot")).to_contain_text("No span fits")
    gateway.post({"model": "beta"}, {"model": "alpha"}, {"model": "beta"})
    expect(rows(page)).to_have_count(1)
    assert models(page) == ["alpha"]


def test_suggestions_are_what_there_is(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open()
    box = page.get_by_role("combobox", name="Filter")
    box.press_sequentially("custom")
    expect(page.get_by_role("option", name="customer_identifier", exact=True)).to_be_visible()
    box.press("ArrowDown")
    box.press("ArrowDown")
    box.press("Enter")
    assert box.input_value() == "customer_identifier"
    page.get_by_role("option", name="customer_identifier = is", exact=True).click()
    # Two customers, and that the text itself can be searched for.
    expect(page.locator("#suggestions li")).to_have_count(3)
    expect(page.locator("#suggestions li").first).to_contain_text("of the newest 4")
    box.press_sequentially("AN")
    expect(page.locator("#suggestions li")).to_have_count(2)
    page.get_by_role("option", name="ann").click()
    expect(page).to_have_url(re.compile("where=customer_identifier%3Dann"))
    expect(rows(page)).to_have_count(1)
    box.fill("plan")
    expect(page.get_by_role("option", name=re.compile("Search for"))).to_be_visible()
    box.fill("metadata__pl")
    expect(page.get_by_role("option", name=re.compile("metadata__plan"))).to_be_visible()


def test_words_that_look_like_a_condition_are_searched_for(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m", "output": "so price<5 it is"}, {"model": "M2"})
    page = browsing.open()
    box = page.get_by_role("combobox", name="Filter")
    box.fill("price<5")
    box.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/?search=price%3C5")
    expect(rows(page)).to_have_count(1)
    page.goto(f"{gateway.url}/?where=garbage")
    expect(page.locator(".chip")).to_have_text("“garbage”")
    expect(page.locator(".list-foot")).to_contain_text("No span fits")
    page.goto(gateway.url)
    box.fill("MODEL = M2")
    box.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/?where=model%3DM2")
    expect(rows(page)).to_have_count(1)


def test_spaces_of_a_value_count(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m", "customer_identifier": " ann "}, {"model": "m", "customer_identifier": "ann"})
    page = browsing.open("/?where=customer_identifier%3D+ann+")
    expect(rows(page)).to_have_count(1)


def test_a_range_of_ones_own_is_typed(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "old", "timestamp": "2025-03-01T12:00:00Z"}, {"model": "new"})
    page = browsing.open()
    page.get_by_label("Time range").select_option("own")
    page.get_by_label("From", exact=True).focus()
    page.keyboard.type("02282025")
    page.keyboard.press("ArrowRight")
    page.keyboard.type("1200AM")
    assert "start_time" not in page.url
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"start_time=2025-02-2\d"))
    expect(rows(page)).to_have_count(2)
    page.get_by_label("To", exact=True).fill("2025-03-02T00:00")
    page.get_by_label("To", exact=True).press("Enter")
    expect(rows(page)).to_have_count(1)


def test_time_ranges(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "old", "timestamp": "2025-03-01T12:00:00Z"}, {"model": "new"})
    page = browsing.open()
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Time range").select_option("1h")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{gateway.url}/?range=1h")
    page.goto(f"{gateway.url}/?start_time=2025-02-28T00%3A00%3A00Z&end_time=2025-03-02T00%3A00%3A00Z")
    expect(rows(page)).to_have_count(1)
    assert models(page) == ["old"]
    # The bars are as wide as the range, so one of them is that of the span.
    page.locator(".overview-bars svg").focus()
    for _ in range(200):
        page.keyboard.press("ArrowLeft")
        if page.locator(".overview .tip b").count():
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("start_time=2025-03-01T12"))
    expect(rows(page)).to_have_count(1)


def test_all_of_many_come_as_one_scrolls(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": f"m{number}", "timestamp": time(number)} for number in range(730)))
    page = browsing.open()
    expect(page.locator(".list-foot")).to_contain_text("50 of 730 shown")
    scroll_to_the_end(page)
    expect(page.locator(".list-foot")).to_have_text("730 spans, all there are")
    assert models(page) == [f"m{number}" for number in reversed(range(730))]
    # Who is further down is told of what comes, and not moved.
    gateway.post({"model": "new"})
    page.get_by_role("button", name="1 new").click()
    expect(rows(page).first).to_contain_text("new")


def test_who_comes_back_finds_the_list_as_he_left_it(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": f"m{number}", "timestamp": time(number)} for number in range(400)))
    page = browsing.open()
    expect(page.locator(".list-foot")).to_contain_text("50 of 400 shown")
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    expect(rows(page)).not_to_have_count(50)
    expect(page.locator(".list-foot")).not_to_contain_text("Loading")
    shown, top = rows(page).count(), page.locator(".scroller").evaluate("element => element.scrollTop")
    page.get_by_role("link", name="Charts", exact=True).click()
    expect(page.locator(".card")).to_have_count(7)
    page.go_back()
    expect(rows(page)).to_have_count(shown)
    # Heights that are guessed until a row is in sight may be off by a pixel.
    page.wait_for_function("(top) => Math.abs(document.querySelector('.scroller').scrollTop - top) <= 1", arg=top)
    # By a link it begins anew.
    page.get_by_role("link", name="Charts", exact=True).click()
    page.get_by_role("link", name="Spans", exact=True).click()
    expect(page.locator(".list-foot")).to_contain_text("50 of 400 shown")


def test_sorting(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open()
    page.get_by_role("link", name="Cost", exact=True).click()
    expect(page).to_have_url(f"{gateway.url}/?sort_by=-cost")
    expect(page.get_by_role("columnheader", name="Cost")).to_have_attribute("aria-sort", "descending")
    expect(rows(page).first).to_contain_text("$0.50")
    page.get_by_role("link", name="Cost").click()
    expect(rows(page).first).to_contain_text("$0.0010")


def test_failed_and_estimated_ones_stand_out(browsing: Browsing, gateway: Gateway) -> None:
    ids = gateway.post(*SPANS)
    page = browsing.open()
    expect(page.locator(f'[data-id="{ids[2]}"]')).to_have_class(re.compile("failed"))
    expect(page.locator(f'[data-id="{ids[2]}"] .out')).to_contain_text("it broke")
    expect(page.locator(f'[data-id="{ids[3]}"] .tokens')).to_have_text("≈14")
    expect(page.locator(".tiles .bad")).to_contain_text("1")


def test_export_of_what_is_filtered(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open("/?where=model%3Dalpha&where=cost%3E0")
    page.get_by_label("Export").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="JSON lines").click()
    lines = download.value.path().read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["cost"] for line in lines) == [0.001, 0.5]
    page.get_by_label("Export").click()
    page.get_by_label("Export").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="CSV").click()
    assert len(download.value.path().read_text("utf-8").strip().splitlines()) == 3


def without(browsing: Browsing, *statuses: int) -> None:
    """Takes out what the browser itself says of answers with these statuses."""
    browsing.seen.told[:] = [told for told in browsing.seen.told if not any(str(status) in told for status in statuses)]


def busy(route: Route) -> None:
    route.fulfill(status=503, json={"detail": "The store is busy."})


LIST = "**/api/request-logs/list/**"


@pytest.mark.parametrize("path", ["/", "/?sort_by=-cost"])
def test_a_list_that_could_not_be_loaded_is_tried_again(browsing: Browsing, gateway: Gateway, path: str) -> None:
    gateway.post(*SPANS)
    page = browsing.open("/?view=playground")
    page.route(LIST, busy)
    page.goto(f"{gateway.url}{path}")
    # The sums come after the list, and do not take away what was said.
    expect(page.locator(".tiles")).to_contain_text("4")
    expect(page.locator(".list-foot")).to_contain_text("The store is busy.")
    page.unroute(LIST)
    page.get_by_role("button", name="Try again").click()
    expect(rows(page)).to_have_count(4)
    expect(page.locator(".list-foot")).to_have_text("4 spans, all there are")
    without(browsing, 503)


def test_a_further_page_that_could_not_be_loaded_is_tried_again(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": f"m{number}", "timestamp": time(number)} for number in range(230)))
    page = browsing.open()
    expect(page.locator(".list-foot")).to_contain_text("50 of 230 shown")
    page.route(LIST, busy)
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    expect(page.locator(".list-foot")).to_contain_text("The store is busy.")
    page.unroute(LIST)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".list-foot")).not_to_contain_text("busy")
    scroll_to_the_end(page)
    assert models(page) == [f"m{number}" for number in reversed(range(230))]
    without(browsing, 503)


def test_who_is_signed_out_elsewhere_is_led_to_sign_in(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open()
    expect(rows(page)).to_have_count(4)
    expect(page.get_by_role("button", name="Live")).to_be_visible()
    other = page.context.new_page()
    other.goto(f"{gateway.url}/?where=model%3Dalpha")
    other.get_by_role("button", name="Sign out").click()
    other.wait_for_url("**/login")
    page.wait_for_url("**/login?next=%2F")
    without(browsing, 401)


def test_of_what_is_refused_nothing_comes_live(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/live/" in request.url else None)
    page.clock.install()
    page.goto(f"{gateway.url}/?where=cost%3E%3Dabc")
    expect(page.get_by_role("button", name="Not live")).to_have_attribute("title", re.compile("cost"))
    number = len(asked)
    page.clock.fast_forward("01:00")
    expect(page.locator(".list-foot .bad")).to_contain_text("cost")
    assert len(asked) == number
    without(browsing, 400)


def test_what_leaves_a_range_that_moves_on_goes(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.clock.install()
    long_ago = datetime.now(UTC) - timedelta(minutes=13)
    gateway.post({"model": "earlier", "timestamp": long_ago.isoformat()}, {"model": "later"})
    page.goto(f"{gateway.url}/?range=15m")
    expect(rows(page)).to_have_count(2)
    page.clock.fast_forward("03:00")
    expect(rows(page)).to_have_count(1)
    assert models(page) == ["later"]
    page.clock.fast_forward("00:05")
    expect(page.locator(".list-foot")).to_have_text("1 span, all there are")


def test_titles_stay_above_the_columns(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": f"m{number}", "trace_unique_id": f"t{number}"} for number in range(60)))
    for path in ("/", "/?view=traces"):
        page = browsing.open(path)
        expect(page.locator(".rows .row")).to_have_count(50)
        page.locator(".scroller").evaluate("element => element.scrollTo(0, 500)")
        head, top = page.locator(".row.head").bounding_box(), page.locator(".scroller").bounding_box()
        assert head and top and head["y"] == top["y"]


@pytest.mark.parametrize("width", [1440, 1250, 1000, 760])
def test_no_time_and_no_number_is_cut_off(browsing: Browsing, gateway: Gateway, width: int) -> None:
    gateway.post(
        {"model": "m", "timestamp": f"{datetime.now(UTC).year}-10-28T22:58:58Z", "latency": 402, "cost": 0.00031},
        {"model": "m", "timestamp": "1969-12-29T12:00:00Z", "latency": 5399, "cost": 12345.678},
        {"model": "m", "latency": 0.0123, "time_to_first_token": 361, "usage": {"prompt_tokens": 12_345_678_901}},
    )
    page = browsing.open(size=(width, 900))
    expect(rows(page)).to_have_count(3)
    expect(page.locator(".latency span", has_text="6.7 min")).to_have_attribute("title", "6 min 42 s")
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.rows .cell:is(.time, .number)')].filter("
        "(one) => one.checkVisibility() && one.scrollWidth > one.clientWidth).map((one) => one.textContent)"
    )
    assert cut == []


def test_the_bars_stay_while_somebody_is_at_them(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open("/?view=playground")
    page.clock.install()
    page.goto(gateway.url)
    tile = page.locator(".tiles div", has_text="Spans").locator("dd")
    expect(tile).to_have_text("4")
    page.locator(".overview-bars svg").focus()
    page.keyboard.press("ArrowLeft")
    tip = page.locator(".overview .tip")
    told = tip.inner_text()
    gateway.post(*SPANS)
    expect(rows(page)).to_have_count(8)
    page.clock.fast_forward("00:05")
    expect(tile).to_have_text("8")
    assert tip.inner_text() == told
    assert page.locator(".overview-bars svg").evaluate("element => element === document.activeElement")
    page.locator("#filter").focus()
    expect(page.locator(".overview-bars svg")).to_have_attribute("aria-label", re.compile("8 in all"))


def test_the_tile_counts_all_that_failed(browsing: Browsing, gateway: Gateway) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    gateway.post(SPANS[0], SPANS[2], SPANS[2] | {"timestamp": tomorrow})
    page = browsing.open()
    expect(page.locator(".tiles .bad")).to_have_text(re.compile("Failed.*2.*66.7 %"))


def test_values_of_one_field_are_suggested_beside_each_other(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open("/?where=model%3Dalpha")
    page.locator("#filter").press_sequentially("model=")
    page.get_by_role("option", name="beta").click()
    expect(rows(page)).to_have_count(3)
    assert sorted(models(page)) == ["alpha", "alpha", "beta"]


def test_a_click_on_a_bar_shows_the_bars_of_its_range(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS, {"model": "old", "timestamp": (datetime.now(UTC) - timedelta(days=3)).isoformat()})
    page = browsing.open()
    page.locator(".overview-bars rect:not(.at)").last.hover()
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile("start_time="))
    expect(rows(page)).to_have_count(4)
    expect(page.locator(".overview-bars svg")).to_have_attribute("aria-label", re.compile("4 in all"))


def test_a_list_to_which_spans_come_is_tried_again(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*SPANS)
    page = browsing.open("/?view=playground")
    page.route(LIST, busy)
    page.goto(gateway.url)
    expect(page.locator(".list-foot")).to_contain_text("The store is busy.")
    gateway.post({"model": "came"})
    expect(rows(page)).to_have_count(1)
    page.unroute(LIST)
    page.get_by_role("button", name="Try again").click()
    expect(rows(page)).to_have_count(5)
    without(browsing, 503)
