"""Charts: what they show is what the API says."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Browsing, Gateway


def fill(gateway: Gateway) -> None:
    spans: list[dict[str, Any]] = []
    for number in range(400):
        hour, minute = divmod(number * 7, 60)
        spans.append(
            {
                "model": f"model-{number % 11}",
                "timestamp": f"2026-03-{1 + hour // 24:02}T{hour % 24:02}:{minute:02}:00Z",
                "latency": 0.1 + number % 13,
                "cost": (number % 5) * 0.01,
                "usage": {"prompt_tokens": number, "completion_tokens": number % 17},
                "customer_identifier": f"customer {number % 3}" if number % 4 else None,
                **({"status": "failed", "status_code": 500} if number % 9 == 0 else {}),
                **({"stream": True, "time_to_first_token": 0.05 + number % 7} if number % 2 else {}),
            }
        )
    gateway.post(*spans)


def card(page: Page, title: str) -> Any:
    return page.get_by_role("region", name=title, exact=True)


def test_sums_are_those_of_the_api(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    points = gateway.get("/api/request-logs/series/")["results"]
    page = browsing.open("/?view=charts")
    for title, name, shown in (
        ("Calls", "number_of_requests", "400"),
        ("Errors", "error_count", None),
        ("Tokens", "total_tokens", None),
    ):
        total = sum(point[name] for point in points)
        expect(card(page, title).locator("header b")).to_have_text(shown or f"{total:,}")
    expect(card(page, "Cost").locator("header b")).to_have_text(f"${sum(point['total_cost'] for point in points):.2f}")


def test_each_interval_is_that_of_the_api(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    found = gateway.get("/api/request-logs/series/")
    page = browsing.open("/?view=charts")
    chart = card(page, "Calls").locator("svg")
    chart.focus()
    for point in reversed(found["results"][-5:]):
        page.keyboard.press("ArrowLeft")
        tip = card(page, "Calls").locator(".tip")
        fine, failed = point["number_of_requests"] - point["error_count"], point["error_count"]
        expected = ([f"fine{fine:,}"] if fine else []) + ([f"failed{failed:,}"] if failed else [])
        # Intervals in which there was nothing lie between.
        for _ in range(200):
            lines = [line.replace("\n", "") for line in tip.locator("div").all_inner_texts()]
            if lines != ["nothing"]:
                break
            page.keyboard.press("ArrowLeft")
        assert lines == expected
    latency = card(page, "Latency").locator("svg")
    latency.focus()
    page.keyboard.press("ArrowLeft")
    last = found["results"][-1]["latency"]
    for share, value in last.items():
        text = f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
        text = f"{value * 1000:.0f} ms" if value < 0.9995 else text
        expect(card(page, "Latency").locator(".tip div", has_text=share)).to_have_text(
            re.compile(f"{share}.*{re.escape(text)}")
        )


@pytest.mark.parametrize(
    ("group", "keys"), [("model", 11), ("customer_identifier", 4), ("organization_key_name", 1), ("upstream", 1)]
)
def test_groups_add_up_to_the_whole(browsing: Browsing, gateway: Gateway, group: str, keys: int) -> None:
    fill(gateway)
    page = browsing.open(f"/?view=charts&group_by={group}")
    expect(card(page, "Calls").locator("header b")).to_have_text("400")
    lines = page.locator(".breakdown tbody tr")
    expect(lines).to_have_count(min(keys, 8))
    calls = [int(line.split("\t")[1].replace(",", "")) for line in lines.all_inner_texts()]
    assert sum(calls) == 400
    groups = gateway.get("/api/request-logs/series/", group_by=group, limit=50)["results"]
    sizes: dict[Any, int] = {}
    for point in groups:
        sizes[point[group]] = sizes.get(point[group], 0) + point["number_of_requests"]
    largest = sorted(sizes.values(), reverse=True)
    shown = largest[:7]
    assert calls[: len(shown)] == shown
    # The rest is there as well: further groups, and those without a value.
    assert calls[len(shown) :] == ([400 - sum(shown)] if sum(shown) < 400 else [])


def test_a_click_on_a_bar_shows_its_spans(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    found = gateway.get("/api/request-logs/series/")
    last = found["results"][-1]
    page = browsing.open("/?view=charts")
    box = card(page, "Calls").locator("svg").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 1.5, box["y"] + 60)
    start = datetime.fromisoformat(last["time"]).astimezone(UTC).strftime("%Y-%m-%dT%H%%3A%M")
    expect(page).to_have_url(re.compile(f"start_time={start}"))
    expect(page.locator(".spans .rows .row")).to_have_count(last["number_of_requests"])


def test_the_numbers_of_a_bar_are_in_sight(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    for view, chart in (("/?view=charts", ".card svg"), ("/", ".overview-bars svg")):
        page = browsing.open(view)
        box = page.locator(chart).first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
        expect(page.locator(".tip").first).to_be_visible()
        # Whatever lies over it or cuts it off: at its corners there is the tip itself.
        seen = page.locator(".tip").first.evaluate(
            """(tip) => {
              tip.style.setProperty("pointer-events", "auto");
              const { left, right, top, bottom } = tip.getBoundingClientRect();
              const [xs, ys] = [[left + 4, right - 4], [top + 4, bottom - 4]];
              return xs.flatMap((x) => ys.map((y) => tip.contains(document.elementFromPoint(x, y))));
            }"""
        )
        assert seen == [True] * 4


def test_no_mark_on_an_axis_of_time_is_cut_off(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(
        *({"model": "m", "timestamp": f"2024-03-{day:02}T{hour:02}:00:00Z"} for day in (8, 9) for hour in (0, 12))
    )
    page = browsing.open("/?view=charts&start_time=2024-03-01T00:00:00Z&end_time=2024-03-29T00:00:00Z")
    expect(card(page, "Calls").locator("svg text.date").first).to_be_visible()
    ends = "all => all.map(one => one.getBoundingClientRect().right)"
    # Each a bit narrower than the one before, so that some mark comes near the edge.
    for width in range(1440, 1340, -4):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for chart in page.locator(".card svg").all():
            (edge,) = chart.locator("xpath=.").evaluate_all(ends)
            assert max(chart.locator("text.date").evaluate_all(ends), default=0) <= edge + 0.5


def test_a_click_on_a_part_of_a_bar_is_of_its_group(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(*({"model": name} for name in ("a", "a", "a", "b")))
    page = browsing.open("/?view=charts&group_by=model")
    # The largest is at the bottom.
    box = card(page, "Calls").locator("svg rect:not(.at)").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page).to_have_url(re.compile("where=model%3Da$"))
    expect(page.locator(".spans .rows .row")).to_have_count(3)


def test_a_click_on_a_group_shows_its_spans(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    page = browsing.open("/?view=charts&group_by=model&where=status%3Dsuccess")
    page.locator(".breakdown").get_by_role("link", name="model-1", exact=True).click()
    expect(page.locator(".chip")).to_have_count(2)
    expected = gateway.get("/api/request-logs/list/", model="model-1", status="success", page_size=1000)["count"]
    expect(page.locator(".spans .rows .row")).to_have_count(expected)


def test_filters_and_ranges_hold_for_charts(browsing: Browsing, gateway: Gateway) -> None:
    fill(gateway)
    page = browsing.open("/?view=charts&where=model%3Dmodel-1")
    expected = gateway.get("/api/request-logs/summary/", model="model-1")["number_of_requests"]
    expect(card(page, "Calls").locator("header b")).to_have_text(str(expected))
    page.get_by_label("Time range").select_option("24h")
    expect(page.locator(".charts")).to_have_text("No span fits.")
    for name in ("15m", "1h", "6h", "7d", "30d", "90d", "1y"):
        gateway.post({"model": "model-1", "latency": 1})
        page.get_by_label("Time range").select_option(name)
        expect(card(page, "Calls").locator("svg")).to_be_visible()


def test_no_value_at_an_axis_is_cut_off(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post(
        {"model": "m", "cost": 0.00031, "latency": 361, "time_to_first_token": 1e9},
        {"model": "m", "cost": 0.00002, "latency": 12_345_678, "usage": {"prompt_tokens": 123_456_789_012}},
    )
    page = browsing.open("/?view=charts")
    expect(card(page, "Cost").locator(".lines text").last).to_have_text("$0.00040")
    begins = "all => all.map(one => one.getBoundingClientRect().left)"
    for chart in page.locator(".card svg").all():
        (edge,) = chart.locator("xpath=.").evaluate_all(begins)
        assert min(chart.locator(".lines text").evaluate_all(begins)) >= edge


def test_a_clock_that_is_wrong_draws_no_axis_of_years(browsing: Browsing, gateway: Gateway) -> None:
    soon = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    gateway.post({"model": "a", "timestamp": "1970-01-01T00:00:01Z"}, {"model": "b", "timestamp": soon})
    gateway.post(*({"model": "c"} for _ in range(3)))
    page = browsing.open("/?view=charts")
    expect(page.locator(".charts")).to_contain_text("2 spans dated in the future or before 2020 are not drawn.")
    expect(card(page, "Calls").locator("header b")).to_have_text("3")
    assert "19" not in "".join(card(page, "Calls").locator("text.date").all_text_contents()).replace("19:", "")
    # Of what is not there nothing is said.
    page.goto(f"{gateway.url}/?view=charts&where=model%3Dc")
    expect(card(page, "Calls").locator("header b")).to_have_text("3")
    expect(page.locator(".charts")).not_to_contain_text("not drawn")
    # What is all there is, is drawn.
    page.goto(f"{gateway.url}/?view=charts&where=model%3Da&group_by=model")
    expect(card(page, "Calls").locator("header b")).to_have_text("1")


def test_no_two_marks_on_an_axis_of_time_touch(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m", "timestamp": "2021-12-27T00:00:00Z"}, {"model": "m"})
    page = browsing.open("/?view=charts")
    expect(card(page, "Calls").locator("text.date").first).to_be_visible()
    boxes = "all => all.map(one => one.getBoundingClientRect()).map(({left, right}) => [left, right])"
    for width in range(1440, 1040, -40):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for chart in page.locator(".card svg").all():
            marks = chart.locator("text.date").evaluate_all(boxes)
            assert all(one[1] < other[0] for one, other in pairwise(marks))


def test_charts_can_be_refreshed_and_are_tried_again(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m"})
    page = browsing.open("/?view=charts")
    total = card(page, "Calls").locator("header b")
    expect(total).to_have_text("1")
    gateway.post({"model": "m"})
    page.get_by_role("button", name="Refresh").click()
    expect(total).to_have_text("2")
    page.route("**/series/**", lambda route: route.fulfill(status=503, json={"detail": "The store is busy."}))
    page.keyboard.press("r")
    expect(page.locator("#told")).to_have_text("The store is busy.")
    # What is there stays.
    expect(total).to_have_text("2")
    page.reload()
    expect(page.locator(".charts")).to_contain_text("The store is busy.")
    page.unroute("**/series/**")
    page.get_by_role("button", name="Try again").click()
    expect(total).to_have_text("2")
    browsing.seen.told[:] = [told for told in browsing.seen.told if "503" not in told]


def test_a_long_name_of_a_group_hides_no_number(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "x" * 400, "cost": 0.25})
    page = browsing.open("/?view=charts&group_by=model")
    expect(page.locator(".breakdown")).to_contain_text("$0.25")
    assert page.locator(".charts .wide").evaluate("element => element.scrollWidth <= element.clientWidth")


def test_what_is_not_drawn_is_counted_to_the_last(browsing: Browsing, gateway: Gateway) -> None:
    """Also what lies in an interval of which a part is drawn."""
    soon = datetime.now(UTC) + timedelta(hours=3)
    gateway.post(*({"model": "m", "timestamp": (soon - timedelta(days=day)).isoformat()} for day in range(200)))
    page = browsing.open("/?view=charts")
    expect(card(page, "Calls").locator("header b")).to_have_text("199")
    expect(page.locator(".charts")).to_contain_text("1 span dated in the future is not drawn.")
    gateway.post(
        {"model": "o", "timestamp": "2019-12-31T23:00:00Z"}, {"model": "o", "timestamp": "2020-01-02T05:00:00Z"}
    )
    page.goto(f"{gateway.url}/?view=charts&where=model%3Do")
    expect(card(page, "Calls").locator("header b")).to_have_text("1")
    expect(page.locator(".charts")).to_contain_text("1 span dated in the future or before 2020 is not drawn.")


def test_one_old_clock_makes_no_coarse_axis_of_others(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "old", "timestamp": "1900-01-01T00:00:00Z"}, {"model": "m"})
    page = browsing.open("/?view=charts&where=model%3Dm")
    expect(page.locator(".charts")).to_contain_text(re.compile("An interval is (1|5|15)m"))
    page.goto(f"{gateway.url}/?view=charts&where=model%3Dold")
    expect(card(page, "Calls").locator("header b")).to_have_text("1")
    expect(card(page, "Calls").locator("rect:not(.at)")).to_have_count(1)
    expect(page.locator(".charts")).not_to_contain_text("not drawn")


def test_a_cost_below_zero_is_no_bar(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "m", "cost": -0.5})
    page = browsing.open("/?view=charts")
    expect(card(page, "Cost").locator("header b")).to_have_text("-$0.50")
    expect(card(page, "Cost").locator("svg rect:not(.at)")).to_have_count(0)
