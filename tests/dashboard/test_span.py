"""One span."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.conftest import KEY, PHONE, WIDE, Browsing, Gateway

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ANSWER = """# Title

A **bold** word, `code` and [a link](https://example.com/x).

```py
print(1)
```

| a | b |
|---|---|
| 1 | 2 |

1. one
2. two"""
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"city":"Graz","days":[1,2]}'},
}
TALK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "input": [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        },
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://elsewhere.example/a.png"}}]},
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky":"clear"}'},
    ],
    "output": {
        "role": "assistant",
        "content": ANSWER,
    },
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}},
    "stream": True,
    "latency": 4,
    "time_to_first_token": 1,
    "trace_unique_id": "a-trace",
    "thread_identifier": "a-thread",
    "customer_identifier": "a customer",
    "temperature": 0.2,
    "metadata": {"plan": "pro"},
}


def panel(page: Page) -> Any:
    return page.locator("#panel")


def test_a_click_anywhere_in_a_row_opens_its_span(browsing: Browsing, gateway: Gateway) -> None:
    first, second = gateway.post({"model": "one"}, {"model": "two"})
    page = browsing.open()
    for unique_id, cell in ((first, ".time"), (second, ".latency"), (first, ".open-span")):
        page.locator(f'[data-id="{unique_id}"] {cell}').click(force=True)
        expect(page).to_have_url(f"{gateway.url}/?span={unique_id}")
        expect(panel(page).locator("h1")).to_contain_text("one" if unique_id == first else "two")
        page.keyboard.press("Escape")
        expect(panel(page)).to_be_hidden()


def test_the_conversation(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post(TALK)
    page = browsing.open(f"/?span={unique_id}")
    messages = panel(page).locator(".message")
    expect(messages).to_have_count(6)
    assert panel(page).locator(".message .role").all_inner_texts() == [
        "system",
        "user",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert panel(page).locator("img").get_attribute("src") == PIXEL
    expect(messages.nth(2)).to_contain_text("a picture elsewhere, not loaded: https://elsewhere.example/a.png")
    expect(messages.nth(3)).to_contain_text('"city": "Graz"')
    expect(messages.nth(4)).to_contain_text('"sky": "clear"')
    answer = messages.nth(5)
    for selector, text in (
        ("h4", "Title"),
        ("strong", "bold"),
        ("pre code", "print(1)"),
        ("td", "1"),
        ("ol li", "one"),
    ):
        expect(answer.locator(selector).first).to_have_text(text)
    expect(answer.get_by_role("link")).to_have_attribute("href", "https://example.com/x")
    expect(answer.get_by_role("link")).to_have_attribute("rel", "noopener noreferrer nofollow")
    panel(page).get_by_role("button", name="Plain text").click()
    expect(messages.nth(5)).to_contain_text("A **bold** word")


def test_usage_and_how_the_cost_was_made_up(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post(TALK)
    cost = gateway.get(f"/api/request-logs/{unique_id}/")["cost"]
    assert cost == (600 * 0.15 + 400 * 0.075 + 500 * 0.6) / 1e6
    page = browsing.open(f"/?span={unique_id}")
    bill = panel(page).locator(".bill")
    expect(bill.locator("tbody tr").first).to_contain_text("0.15")
    assert [row.split("\t") for row in bill.locator("tbody tr").all_inner_texts()] == [
        ["Prompt", "600", "0.15", "$0.000090"],
        ["Prompt, read from the cache", "400", "0.075", "$0.000030"],
        ["Completion", "500", "0.6", "$0.00030"],
    ]
    expect(bill.locator("tfoot")).to_contain_text("$0.00042")
    expect(panel(page)).to_contain_text("Prices of gpt-4o-mini, from the shipped table.")
    (sent,) = gateway.post({**TALK, "cost": 1.5})
    page.goto(f"{gateway.url}/?span={sent}")
    expect(panel(page)).to_contain_text("The stored cost is another one")


def test_timeline_parameters_and_where_it_belongs(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post(TALK)
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).locator(".timeline")).to_have_attribute(
        "aria-label", "waiting for the first token: 1.00 s, generating: 3.00 s"
    )
    expect(panel(page)).to_contain_text("0.2")
    for name, address in (
        ("a-trace", "/?view=traces&span={id}&trace=a-trace"),
        ("a-thread", "/?where=thread_identifier%3Da-thread"),
        ("a customer", "/?where=customer_identifier%3Da+customer"),
        ("pro", "/?where=metadata__plan%3Dpro"),
    ):
        expect(panel(page).get_by_role("link", name=name, exact=True).first).to_have_attribute(
            "href", address.format(id=unique_id)
        )


def test_a_failed_one_says_why(browsing: Browsing, gateway: Gateway) -> None:
    unique_id = gateway.chat("Hi", model="nobody-serves-this")
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).locator(".notice.bad")).to_contain_text("Failed, 404")
    expect(panel(page).locator(".notice.bad")).to_contain_text("nobody-serves-this")
    page.goto(f"{gateway.url}/?span=none")
    expect(panel(page)).to_contain_text("There is no such span")
    browsing.seen.told[:] = [told for told in browsing.seen.told if "404" not in told]


def test_feedback_and_a_note(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open(f"/?span={unique_id}")
    for name, expected in (("Good", True), ("Bad", False), ("Bad", None)):
        with page.expect_response(lambda response: response.request.method == "PATCH"):
            panel(page).get_by_role("button", name=name).click()
        assert gateway.get(path)["positive_feedback"] is expected
    panel(page).get_by_label("Note").fill("to be looked at")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        panel(page).get_by_label("Note").blur()
    assert gateway.get(path)["note"] == "to be looked at"
    expect(page.locator(f'[data-id="{unique_id}"] .mark')).to_have_attribute("title", "to be looked at")


def test_a_note_is_kept_while_it_is_typed(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open()
    page.locator(f'[data-id="{unique_id}"]').click()
    sent: list[str] = []
    page.on("request", lambda request: sent.extend([request.post_data or ""] if request.method == "PATCH" else []))
    page.evaluate(
        """() => {
          window.told = [];
          const watch = () => window.told.push(document.querySelector("#told").textContent);
          new MutationObserver(watch).observe(document.querySelector("#told"), { childList: true });
        }"""
    )
    note = panel(page).get_by_label("Note")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        note.press_sequentially("one")
    assert gateway.get(path)["note"] == "one"
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        note.press_sequentially(" two")
    note.blur()
    assert gateway.get(path)["note"] == "one two"
    assert [json.loads(text)["note"] for text in sent] == ["one", "one two"]
    assert page.evaluate("window.told.filter((text) => text === 'Note kept')") == ["Note kept"]
    note.press_sequentially(" three")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.go_back()
    expect(panel(page)).to_be_hidden()
    assert gateway.get(path)["note"] == "one two three"
    page.goto(f"{gateway.url}/?span={unique_id}")
    note.press_sequentially(" four")
    page.goto(f"{gateway.url}/?view=charts")
    for _ in range(50):
        if gateway.get(path)["note"] == "one two three four":
            break
        page.wait_for_timeout(100)
    assert gateway.get(path)["note"] == "one two three four"


def test_a_call_can_be_made_again_with_curl_and_with_python(browsing: Browsing, gateway: Gateway) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    told = 'it\'s "quoted" \\ $HOME `x` – ü 🚲\nline two'
    unknown = {"top_k": 4, "chat_template_kwargs": {"thinking": False}, "a-b": [None, 1.5], "large": 2**53 + 1}
    unique_id = gateway.chat(told, temperature=0.5, tools=[tool], tool_choice="none", stop=None, **unknown)
    page = browsing.open(f"/?span={unique_id}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    command = {"Copy as curl": ["bash", "-c"], "Copy as Python": [sys.executable, "-c"]}
    for name, start in command.items():
        panel(page).get_by_role("button", name=name).click()
        expect(page.locator("#told")).to_contain_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        assert KEY not in text
        before = gateway.get("/api/request-logs/list/")["count"]
        environment = {**os.environ, "GATEWAY_KEY": KEY}
        done = subprocess.run([*start, text], capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        spans = gateway.get("/api/request-logs/list/")["results"]
        assert len(spans) == before + 1
        original = gateway.get(f"/api/request-logs/{unique_id}/")
        assert spans[0]["full_request"] == original["full_request"]


def test_a_call_of_anthropics_api_is_copied_as_such(browsing: Browsing, gateway: Gateway) -> None:
    asked = {
        "model": "claude-x",
        "system": "Be kind.",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    answered = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    (unique_id,) = gateway.post({"log_type": "chat", "full_request": asked, "full_response": answered})
    page = browsing.open(f"/?span={unique_id}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page).get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#told")).to_contain_text("Copied")
    text = page.evaluate("navigator.clipboard.readText()")
    assert f"{gateway.url}/v1/messages " in text and "-H 'anthropic-version: 2023-06-01'" in text
    assert panel(page).get_by_role("button", name="Copy as Python").count() == 0
    assert panel(page).get_by_role("button", name="Open in the playground").count() == 0


@pytest.mark.parametrize(("log_type", "count"), [("chat", 1), ("response", 0), ("embedding", 0)])
def test_only_chats_go_to_the_playground(browsing: Browsing, gateway: Gateway, log_type: str, count: int) -> None:
    asked = {"model": "m", "messages" if count else "input": [{"role": "user", "content": "Hi"}]}
    (unique_id,) = gateway.post({"log_type": log_type, "full_request": asked})
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).get_by_role("button", name="Copy as Python")).to_be_visible()
    assert panel(page).get_by_role("button", name="Open in the playground").count() == count


def test_raw_request_and_response(browsing: Browsing, gateway: Gateway) -> None:
    unique_id = gateway.chat("Hi")
    page = browsing.open(f"/?span={unique_id}")
    panel(page).get_by_text("Request", exact=False).first.wait_for()
    panel(page).locator("summary", has_text="Request").click()
    expect(panel(page).locator("details[open] .json").first).to_contain_text('"role": "user"')
    panel(page).locator("summary", has_text="Response").click()
    expect(panel(page).locator("details[open] .json").nth(1)).to_contain_text('"chat.completion"')


def test_a_long_text_is_folded_and_all_there(browsing: Browsing, gateway: Gateway) -> None:
    text = "\n\n".join(f"Paragraph {number} of *many*." for number in range(2000))
    (unique_id,) = gateway.post({"model": "m", "input": "short", "output": text})
    page = browsing.open(f"/?span={unique_id}")
    page.get_by_role("button", name=f"Show all {len(text):,} characters").click()
    expect(panel(page).locator(".markdown p")).to_have_count(2001)


@pytest.mark.parametrize(
    ("times", "drawn"),
    [
        ({"latency": 4, "time_to_first_token": 9}, "waiting for the answer: 4.00 s"),
        ({"latency": 4, "time_to_first_token": -1}, "waiting for the answer: 4.00 s"),
        ({"latency": 1e9, "time_to_first_token": 1}, "waiting for the first token: 1.00 s, generating: 31.7 years"),
        ({"latency": -3.2}, None),
        ({"latency": 0}, None),
    ],
)
def test_odd_times_and_numbers(
    browsing: Browsing, gateway: Gateway, times: dict[str, float], drawn: str | None
) -> None:
    tokens = {"prompt_tokens": -5, "completion_tokens": -7} if drawn is None else {"prompt_tokens": 10**14}
    (unique_id,) = gateway.post({"model": "gpt-4o-mini", "stream": True, **tokens, **times, "cost": -4e-8})
    page = browsing.open(f"/?span={unique_id}", size=PHONE)
    expect(panel(page)).to_contain_text("Prices of gpt-4o-mini")
    expect(panel(page).locator(".figures")).to_contain_text("-$4e-8")
    assert panel(page).locator(".timeline").count() == (drawn is not None)
    if drawn:
        expect(panel(page).locator(".timeline")).to_have_attribute("aria-label", drawn)
        for bar in panel(page).locator(".timeline i").all():
            left, width = (float(bar.evaluate(f"(one) => parseFloat(one.style.{side})")) for side in ("left", "width"))
            assert left >= 0 and width >= 0 and left + width <= 100.001
    assert panel(page).evaluate("(one) => one.scrollWidth <= one.clientWidth")


def test_json_of_tool_calls_is_as_it_was_sent(browsing: Browsing, gateway: Gateway) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": '{"n":12345678901234567890,"x":1.0,"x":2}'}}
    (unique_id,) = gateway.post({"log_type": "chat", "output": {"role": "assistant", "tool_calls": [call]}})
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).locator(".tool-call .json")).to_have_text(
        '{ "n": 12345678901234567890, "x": 1.0, "x": 2 }', use_inner_text=True
    )


def test_long_json_is_clamped_and_numbers_wrap(browsing: Browsing, gateway: Gateway) -> None:
    numbers = [round(number / 7919 - 0.1, 9) for number in range(1536)]
    items = [{"name": f"item {number}"} for number in range(500)]
    (unique_id,) = gateway.post({"output": {"embedding": numbers}, "input": {"items": items}})
    page = browsing.open(f"/?span={unique_id}", size=PHONE)
    more = panel(page).get_by_role("button", name="Show all")
    expect(more).to_have_count(2)
    for message in panel(page).locator(".message").all():
        assert message.bounding_box()["height"] < 600
    more.last.click()
    expect(panel(page).locator(".message").last).to_contain_text(f"{numbers[0]}, {numbers[1]}")
    more.first.click()
    expect(panel(page).locator(".message").first).to_contain_text("item 499")
    expect(more).to_have_count(0)
    assert panel(page).evaluate("(one) => one.scrollWidth <= one.clientWidth")


def test_of_very_large_json_a_part_is_drawn_and_all_is_copied(browsing: Browsing, gateway: Gateway) -> None:
    words = [f"word {number}" for number in range(100_000)]
    (unique_id,) = gateway.post({"full_response": {"words": words}})
    page = browsing.open(f"/?span={unique_id}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page).locator("summary", has_text="Response").click()
    opened = panel(page).locator("details[open] .opened")
    expect(opened).to_contain_text("more characters are not shown")
    assert len(opened.locator(".json").text_content() or "") == 200_000
    opened.get_by_role("button", name="Copy").click()
    expect(page.locator("#told")).to_contain_text("Copied")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == {"words": words}


def test_of_a_long_conversation_start_and_end_are_drawn_first(browsing: Browsing, gateway: Gateway) -> None:
    talk = [{"role": ("user", "assistant")[number % 2], "content": f"number {number}."} for number in range(1000)]
    (unique_id,) = gateway.post({"log_type": "chat", "input": talk, "output": {"role": "assistant", "content": "End"}})
    page = browsing.open(f"/?span={unique_id}")
    messages = panel(page).locator(".message")
    expect(messages).to_have_count(101)
    expect(messages.nth(19)).to_contain_text("number 19.")
    expect(messages.nth(20)).to_contain_text("number 920.")
    panel(page).get_by_role("button", name="Show the other 900", exact=True).click()
    expect(messages).to_have_count(1001)
    texts = panel(page).locator(".message .said").all_inner_texts()
    assert texts == [*(f"number {number}." for number in range(1000)), "End"]
    expect(panel(page).get_by_role("button", name="Show the other")).to_have_count(0)


def test_reasoning_is_folded(browsing: Browsing, gateway: Gateway) -> None:
    summary = [{"type": "summary_text", "text": "It is **so**."}]
    told = {"type": "reasoning", "id": "rs_1", "summary": summary}
    hidden = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAA"}
    (unique_id,) = gateway.post(
        {"log_type": "response", "output": [told, hidden], "input": [{"role": "user", "content": [told]}]}
    )
    page = browsing.open(f"/?span={unique_id}")
    folded = panel(page).locator(".message details", has_text="Reasoning")
    expect(folded.first).to_be_visible()
    for one in folded.all():
        assert one.get_attribute("open") is None
        one.locator("summary").click()
    expect(panel(page).locator(".message strong").first).to_have_text("so")
    expect(panel(page).locator(".message")).not_to_contain_text(["summary_text"])


HEBREW = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd (1)."


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_any_text_fits(browsing: Browsing, gateway: Gateway, size: tuple[int, int]) -> None:
    word = "w" * 3000
    talk = [
        {"role": word, "content": word, "name": word},
        {"role": "user", "content": f"{HEBREW}\n\n- {HEBREW}\n\n> {HEBREW}\n\nLatin {HEBREW}"},
        {"role": "tool", "tool_call_id": word, "content": "long " * 50_000},
        {"role": "user", "content": f"| {word} | b |\n|---|---|\n| `{word}` | {HEBREW} |\n\n```\n{word}\n```"},
        {"role": "user", "content": "many\n\n" * 30_000},
        {"role": "assistant", "tool_calls": [{"id": word, "function": {"name": word, "arguments": {word: [word]}}}]},
    ]
    (unique_id,) = gateway.post({"log_type": "chat", "input": talk, "output": {"role": "assistant", "content": word}})
    page = browsing.open(f"/?span={unique_id}", size=size)
    expect(panel(page).locator(".message")).to_have_count(7)
    assert panel(page).evaluate("(one) => one.scrollWidth <= one.clientWidth")
    for button in panel(page).get_by_role("button", name="Show all").all()[::-1]:
        button.click()
    assert panel(page).evaluate("(one) => one.scrollWidth <= one.clientWidth")
    body = panel(page).locator(".message").nth(1)
    directions = "(all) => all.map((one) => getComputedStyle(one).direction)"
    assert body.locator("p, ul, blockquote").evaluate_all(directions) == ["rtl", "rtl", "rtl", "rtl", "ltr"]
    panel(page).get_by_role("button", name="Plain text").click()
    expect(body.locator("pre")).to_have_css("direction", "rtl")
    assert panel(page).evaluate("(one) => one.scrollWidth <= one.clientWidth")


def test_whatever_is_odd_in_a_part_the_others_are_there(browsing: Browsing, gateway: Gateway) -> None:
    (odd, bad) = gateway.post(
        {"model": "m", "completion_message": {"role": "assistant", "content": None, "audio": {"transcript": 5}}},
        {"model": "bad", "input": "x"},
    )
    page = browsing.open(f"/?span={odd}")
    expect(panel(page).locator(".message.assistant")).to_contain_text("transcript")
    expect(panel(page)).to_contain_text("Feedback")
    whole = gateway.get(f"/api/request-logs/{bad}/")
    page.route(f"**/api/request-logs/{bad}/", lambda route: route.fulfill(json={**whole, "prompt_messages": 5}))
    page.goto(f"{gateway.url}/?span={bad}")
    expect(panel(page)).to_contain_text("A part of this span cannot be shown")
    expect(panel(page)).to_contain_text("Feedback")


def test_a_note_that_cannot_be_kept_is_tried_again(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open("/?view=charts")
    page.clock.install()
    page.goto(f"{gateway.url}/?span={unique_id}")

    def busy(route: Route) -> None:
        if route.request.method == "PATCH":
            route.fulfill(status=503, json={"detail": "The store is busy."})
        else:
            route.continue_()

    page.route(f"**{path}", busy)
    panel(page).get_by_label("Note").fill("to be looked at")
    panel(page).get_by_label("Note").blur()
    expect(panel(page)).to_contain_text("Not kept yet: The store is busy.")
    page.unroute(f"**{path}")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.clock.fast_forward("00:10")
    expect(panel(page)).not_to_contain_text("Not kept")
    assert gateway.get(path)["note"] == "to be looked at"
    browsing.seen.told[:] = [told for told in browsing.seen.told if "503" not in told]


def test_what_others_do_to_a_span_is_seen(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).get_by_label("Note")).to_have_value("")
    expect(page).to_have_title("m · Span")
    gateway.api.patch(path, json={"note": "by another", "positive_feedback": True})
    expect(panel(page).get_by_label("Note")).to_have_value("by another")
    expect(panel(page).get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")
    # What one does oneself draws nothing anew.
    panel(page).get_by_role("button", name="Bad").focus()
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.keyboard.press("Enter")
    expect(page.locator(f'[data-id="{unique_id}"] .mark').first).to_have_attribute("title", "disliked")
    expect(panel(page).get_by_role("button", name="Bad")).to_be_focused()
    gateway.api.delete(path)
    expect(panel(page)).to_contain_text("There is no such span (any more).")
    page.keyboard.press("Escape")
    expect(page).to_have_title("Spans")


def test_what_is_not_known_is_no_zero(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m", "cost": 0.5})
    page = browsing.open(f"/?span={unique_id}")
    lines = panel(page).locator(".bill tbody tr")
    expect(lines).to_have_text(["Prompt–––", "Completion–––"])


def test_metadata_stands_by_itself_and_links_to_what_can_be_asked(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m", "metadata": {"Trace": "x", "plan=pro>x": "v&1", "a b&c": "d#e"}})
    page = browsing.open(f"/?span={unique_id}")
    own = panel(page).locator("section", has=page.get_by_role("heading", name="Metadata"))
    expect(own.locator("dt")).to_have_text(["Trace", "plan=pro>x", "a b&c"])
    expect(own.get_by_role("link")).to_have_count(2)
    own.get_by_role("link", name="d#e").click()
    expect(page.locator(".spans .rows .row")).to_have_count(1)


def test_large_integers_are_shown_as_they_were_sent(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post(
        {"model": "m", "full_response": {"a": [2**53 + 1, -(10**30), 7, 1e300]}, "latency": 1e16}
    )
    page = browsing.open(f"/?span={unique_id}")
    panel(page).get_by_text("Response", exact=False).last.click()
    expect(panel(page).locator(".opened .json").first).to_contain_text(f"{2**53 + 1}, {-(10**30)}, 7, 1e+300")
    expect(panel(page).locator(".figures")).to_contain_text("years")


def test_pictures_that_are_none(browsing: Browsing, gateway: Gateway) -> None:
    urls: list[Any] = ["data:image/png;base64,AAAA", None, {}, "https://example.com/a.png"]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    (unique_id,) = gateway.post({"model": "m", "prompt_messages": [{"role": "user", "content": parts}]})
    page = browsing.open(f"/?span={unique_id}")
    told = ["a picture that cannot be shown", *["a picture that is not here"] * 2]
    expect(panel(page).locator(".attached")).to_have_text(
        [*told, "a picture elsewhere, not loaded: https://example.com/a.png"]
    )


def test_a_tool_waits_for_no_answer(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m", "log_type": "tool", "latency": 2})
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).locator(".timeline")).to_have_attribute("aria-label", "at work: 2.00 s")


def test_all_of_a_span_is_on_paper(browsing: Browsing, gateway: Gateway) -> None:
    long = "\n\n".join(f"line {number}" for number in range(300))
    (unique_id,) = gateway.post({"model": "m", "output": long})
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page)).to_contain_text("line 299")
    page.emulate_media(media="print")
    assert page.evaluate("() => document.documentElement.scrollHeight > 3000")
    assert panel(page).evaluate("element => element.scrollHeight <= element.clientHeight + 1")


def test_what_one_says_oneself_draws_nothing_anew(browsing: Browsing, gateway: Gateway) -> None:
    """Also where the answer is later than the news of it, and what is open stays open when others say something."""
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).get_by_label("Note")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method) if path in request.url else None)

    def late(route: Route) -> None:
        if route.request.method == "GET":
            return route.continue_()
        answer = route.fetch()
        expect(page.locator(f'[data-id="{unique_id}"] .mark').first).to_be_visible()
        return route.fulfill(response=answer)

    panel(page).get_by_text("Whole span").click()
    page.route(f"**{path}", late)
    panel(page).get_by_role("button", name="Good").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#told")).to_have_text("Thank you")
    expect(panel(page).get_by_role("button", name="Good")).to_be_focused()
    gateway.api.patch(path, json={"note": "by another"})
    expect(panel(page).get_by_label("Note")).to_have_value("by another")
    expect(panel(page).locator(".opened .json")).to_be_visible()
    assert asked == ["PATCH"]


def test_a_note_that_is_not_kept_yet_stays_in_its_box(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    path = f"/api/request-logs/{unique_id}/"
    page = browsing.open(f"/?span={unique_id}")
    note = panel(page).get_by_label("Note")
    expect(note).to_be_visible()
    page.route(f"**{path}", lambda route: route.fulfill(status=503, json={"detail": "The store is busy."}))
    note.fill("mine")
    note.blur()
    expect(panel(page)).to_contain_text("Not kept yet")
    gateway.api.patch(path, json={"note": "by another"})
    expect(page.locator(f'[data-id="{unique_id}"] .mark')).to_have_attribute("title", "by another")
    expect(note).to_have_value("mine")
    expect(panel(page)).to_contain_text("Not kept yet")
    browsing.seen.told[:] = [told for told in browsing.seen.told if "503" not in told]


def test_a_span_that_was_closed_before_it_came_names_nothing(browsing: Browsing, gateway: Gateway) -> None:
    (unique_id,) = gateway.post({"model": "m"})
    page = browsing.open()
    waiting: list[Route] = []
    page.route(f"**/api/request-logs/{unique_id}/", lambda route: waiting.append(route))
    with page.expect_request(f"**/api/request-logs/{unique_id}/"):
        page.locator(f'[data-id="{unique_id}"]').click()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    with page.expect_response(f"**/api/request-logs/{unique_id}/"):
        waiting[0].continue_()
    page.evaluate("() => new Promise(done => setTimeout(done))")
    expect(page).to_have_title("Spans")


def test_a_large_integer_where_text_is_expected(browsing: Browsing, gateway: Gateway) -> None:
    large = 12_345_678_901_234_567_890
    part = {"type": "tool_result", "tool_use_id": large, "content": "done"}
    call = {"id": large, "function": {"name": large, "arguments": "{}"}}
    asked = [
        {"role": "user", "content": [part]},
        {"role": "assistant", "content": None, "refusal": large, "tool_calls": [call]},
    ]
    (unique_id,) = gateway.post({"model": "m", "prompt_messages": asked})
    page = browsing.open(f"/?span={unique_id}")
    expect(panel(page).locator(".tool-call")).to_have_text([f"result {large}done", f"{large}{large}{{}}"])
