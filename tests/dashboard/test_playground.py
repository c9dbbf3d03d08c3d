"""The playground, against the echo model."""

from playwright.sync_api import expect

from tests.dashboard.conftest import Browsing, Gateway


def test_a_streamed_call_and_its_span_beside_it(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    expect(page.get_by_label("Model", exact=True)).to_have_value("echo")
    page.get_by_label("System").fill("Be brief.")
    page.get_by_label("Your message").fill("Say **this** back")
    page.get_by_label("Your message").press("Control+Enter")
    answer = page.locator(".talk .message.assistant")
    expect(answer).to_contain_text("Say this back")
    beside = page.get_by_label("The span of this call")
    expect(beside).to_contain_text("First token")
    expect(beside.locator(".message")).to_have_count(3)
    (span,) = gateway.get("/api/request-logs/list/")["results"]
    assert (span["stream"], span["status"], span["model"]) == (True, "success", "echo")
    assert [message["role"] for message in span["prompt_messages"]] == ["system", "user"]
    assert span["organization_key_name"] == "canary-name"
    # The talk goes on.
    page.get_by_label("Your message").fill("And this")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .message")).to_have_count(4)
    expect(answer.last).to_contain_text("And this")
    expect(beside.locator(".message")).to_have_count(5)
    spans = gateway.get("/api/request-logs/list/")["results"]
    assert [message["role"] for message in spans[0]["prompt_messages"]] == ["system", "user", "assistant", "user"]
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".talk .message")).to_have_count(0)


def test_a_call_that_is_not_streamed(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.get_by_label("Streamed").uncheck()
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Max tokens").fill("20")
    page.get_by_label("Your message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .message.assistant")).to_contain_text("Hello")
    (span,) = gateway.get("/api/request-logs/list/")["results"]
    assert (span["stream"], span["temperature"], span["max_tokens"]) == (False, 0.3, 20)


def test_a_call_that_fails_says_why_and_has_its_span(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.get_by_label("Model", exact=True).fill("no-such-model")
    page.get_by_label("Your message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .notice")).to_contain_text("no-such-model")
    expect(page.get_by_label("The span of this call")).to_contain_text("Failed, 404")
    # What was not answered is in the box again, and goes out once.
    ask = page.get_by_label("Your message")
    expect(ask).to_have_value("Hello")
    expect(page.locator(".talk .message")).to_have_count(0)
    page.reload()
    expect(ask).to_have_value("Hello")
    page.get_by_label("Model", exact=True).fill("echo")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .message.assistant")).to_contain_text("Hello")
    expect(page.get_by_label("The span of this call")).to_contain_text("First token")
    (span, _) = gateway.get("/api/request-logs/list/")["results"]
    assert [message["role"] for message in span["prompt_messages"]] == ["user"]
    browsing.seen.told[:] = [told for told in browsing.seen.told if "404" not in told]


def test_it_can_be_stopped(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.get_by_label("Your message").fill(" ".join(["word"] * 2000))
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .message.assistant")).to_contain_text("word")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".talk .notice")).to_have_text("Stopped.")
    expect(page.get_by_label("The span of this call")).to_contain_text("499")


def test_a_span_can_be_taken_there(browsing: Browsing, gateway: Gateway) -> None:
    unique_id = gateway.chat("Take me", temperature=0.7, seed=4)
    page = browsing.open(f"/?span={unique_id}")
    page.get_by_role("button", name="Open in the playground").click()
    expect(page.get_by_label("Your message")).to_have_value("Take me")
    expect(page.get_by_label("Temperature")).to_have_value("0.7")
    expect(page.locator(".settings")).to_contain_text("Also sent: seed")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk .message.assistant")).to_contain_text("Take me")
    expect(page.get_by_label("The span of this call")).to_contain_text("First token")
    assert gateway.get("/api/request-logs/list/")["results"][0]["full_request"]["seed"] == 4


def test_an_old_call_does_not_come_into_a_new_talk(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    ask, send = page.get_by_label("Your message"), page.get_by_role("button", name="Send")
    answer = page.locator(".talk .message.assistant")
    ask.fill(" ".join(["old"] * 2000))
    send.click()
    expect(answer).to_contain_text("old")
    # Another model is of the next call only.
    page.get_by_label("Model", exact=True).fill("no-such-model")
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".talk .message")).to_have_count(0)
    page.get_by_label("Model", exact=True).fill("echo")
    ask.fill("new")
    send.click()
    expect(answer).to_have_count(1)
    expect(answer).to_contain_text("new")
    expect(page.get_by_label("The span of this call")).to_contain_text("First token")
    expect(page.locator(".talk .message")).to_have_count(2)
    expect(page.locator(".talk .notice")).to_have_count(0)
    assert "old" not in page.locator(".playground").inner_text()
    newest = gateway.get("/api/request-logs/list/")["results"][0]
    assert newest["model"] == "echo" and [one["content"] for one in newest["prompt_messages"]] == ["new"]


def test_what_is_in_the_box_is_there_again(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.get_by_label("Your message").fill("not yet sent")
    page.get_by_role("link", name="Charts").click()
    page.get_by_role("link", name="Playground").click()
    expect(page.get_by_label("Your message")).to_have_value("not yet sent")


def test_what_was_not_answered_when_one_left_is_in_the_box(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=playground")
    page.route("**/v1/chat/completions", lambda route: None)
    page.get_by_label("Your message").fill("one")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".talk")).to_contain_text("Waiting")
    page.get_by_label("Your message").fill("two")
    page.get_by_role("link", name="Charts").click()
    page.get_by_role("link", name="Playground").click()
    expect(page.get_by_label("Your message")).to_have_value("one\ntwo")
    expect(page.locator(".talk .message")).to_have_count(0)


STREAM = """
const { fetch } = window;
window.fetch = (path, init) => {
  if (!String(path).endsWith("/v1/chat/completions")) return fetch(path, init);
  const body = new ReadableStream({ start: (controller) => { window.controller = controller; } });
  return Promise.resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
};
window.say = (content) => {
  const event = `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\\n\\n`;
  window.controller.enqueue(new TextEncoder().encode(event));
};
"""


def test_all_of_what_comes_is_seen_and_nobody_is_moved_who_reads(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open("/?view=charts")
    page.add_init_script(STREAM)
    page.goto(f"{gateway.url}/?view=playground")
    page.get_by_label("Your message").fill("Say much")
    page.get_by_role("button", name="Send").click()
    talk = page.locator(".talk")
    expect(talk).to_contain_text("Waiting")
    for number in range(30):
        page.evaluate("text => window.say(text)", f"part{number} " + "word **b** `c` " * 40 + "\n\n")
    expect(talk).to_contain_text("part29")
    answer = talk.locator(".message.assistant")
    assert answer.locator(".long").count() == 0
    assert answer.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
    at_end = "element => element.scrollHeight - element.scrollTop - element.clientHeight < 40"
    assert talk.evaluate(at_end)
    talk.evaluate("element => element.scrollTo(0, 10)")
    page.evaluate("() => window.say('part30')")
    expect(talk).to_contain_text("part30")
    assert talk.evaluate("element => element.scrollTop") == 10
    page.evaluate("() => window.controller.close()")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    # Nor is it folded when it ends.
    assert answer.locator(".long").count() == 0
    assert talk.evaluate("element => element.scrollTop") == 10


def test_what_is_also_sent_can_be_left_out(browsing: Browsing, gateway: Gateway) -> None:
    unique_id = gateway.chat("Take me", seed=4, user="me")
    page = browsing.open(f"/?span={unique_id}")
    for leave_out in ("Leave out", "Start over"):
        page.goto(f"{gateway.url}/?span={unique_id}")
        page.get_by_role("button", name="Open in the playground").click()
        expect(page.locator(".settings")).to_contain_text("Also sent: seed, user.")
        page.get_by_role("button", name=leave_out).click()
        expect(page.locator(".settings")).not_to_contain_text("Also sent")
        page.reload()
        expect(page.locator(".settings")).not_to_contain_text("Also sent")
        page.get_by_label("Your message").fill("Hi")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".talk .message.assistant")).to_contain_text("Hi")
        expect(page.get_by_label("The span of this call")).to_contain_text("First token")
        assert "seed" not in gateway.get("/api/request-logs/list/")["results"][0]["full_request"]
