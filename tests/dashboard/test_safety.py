"""Nothing from a span is ever run, or asked for elsewhere."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Browsing, Gateway

CODE = "window.pwned=1"
ATTACKS = [
    f"<script>{CODE}</script>",
    f"<img src=x onerror={CODE}>",
    f'"><svg/onload={CODE}>',
    f"<iframe srcdoc='<script>parent.{CODE}</script>'></iframe>",
    f"<a href='javascript:{CODE}'>x</a>",
    f"[click](javascript:{CODE})",
    f"[click](data:text/html,<script>{CODE}</script>)",
    f"[click](JaVaScRiPt:{CODE})",
    f'![x](https://elsewhere.example/pixel.png) ![y](x" onerror="{CODE})',
    f'<https://elsewhere.example/" onmouseover="{CODE}>',
    f"```html\n<script>{CODE}</script>\n```",
    f"| <img src=x onerror={CODE}> | b |\n|---|---|\n| <script>{CODE}</script> | c |",
    f"${{{CODE}}} {{{{{CODE}}}}} <%= {CODE} %>",
    "<style>*{display:none!important}</style><base href=https://elsewhere.example/>",
    "<form action=https://elsewhere.example><input name=a autofocus onfocus=window.pwned=1></form>",
    "\u202eoverride\u0000\u0001\u001b[31m\ufeff\u2028\u2029</title></textarea></style>",
    "__proto__",
    "constructor",
]
FIELDS = (
    *(
        "model",
        "input",
        "output",
        "customer_identifier",
        "span_name",
        "span_workflow_name",
        "thread_identifier",
        "note",
    ),
    *("error_message", "error_code", "customer_name", "customer_email", "group_identifier", "session_identifier"),
    *("upstream", "log_type", "warnings", "custom_identifier", "prompt_name", "environment"),
)


def span_of(attack: str, number: int) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(FIELDS, attack)
    picture = {"type": "image_url", "image_url": {"url": f"https://elsewhere.example/{number}.png"}}
    svg = {"type": "image_url", "image_url": {"url": f"data:image/svg+xml,<svg onload='{CODE}'/>"}}
    call = {"id": attack, "function": {"name": attack, "arguments": attack}}
    messages: list[Any] = [
        {"role": attack, "content": attack, "name": attack},
        {"role": "user", "content": [{"type": "text", "text": attack}, picture, svg, {"type": attack, attack: attack}]},
        {"role": "assistant", "content": attack, "reasoning_content": attack, "tool_calls": [call], "refusal": attack},
        {"role": "tool", "content": attack, "tool_call_id": attack},
    ]
    told["customer_identifier"] = attack[:254]
    return {
        **told,
        "log_type": "chat" if number % 2 else attack,
        "trace_unique_id": f"trace-{number % 3}-<script>{CODE}</script>",
        "span_unique_id": f"{number}{attack}",
        "metadata": {attack: attack},
        "properties": {attack: [attack]},
        "full_request": {"model": attack, "messages": messages, attack: attack},
        "full_response": {attack: attack},
        "input": messages,
        "output": {"role": "assistant", "content": attack},
        "status": "failed" if number % 3 == 0 else "warning",
        "tools": [{"type": "function", "function": {"name": attack}}],
    }


def is_unharmed(page: Page, gateway: Gateway) -> None:
    assert page.evaluate("window.pwned") is None
    ours = page.evaluate("[...document.scripts].map((one) => new URL(one.src).pathname)")
    assert set(ours) <= {"/dashboard/theme.js", "/dashboard/app.js"}
    assert page.locator("iframe, object, embed, base, main style, #panel style, main script").count() == 0
    hrefs = page.evaluate("[...document.links].map((one) => one.protocol)")
    assert set(hrefs) <= {"http:", "https:", "mailto:"}
    handlers = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes].map((each) => each.name))"
        ".filter((name) => name.startsWith('on') || name === 'srcdoc' || name === 'formaction')"
    )
    assert handlers == []


def test_whatever_spans_hold_nothing_runs(browsing: Browsing, gateway: Gateway) -> None:
    ids = gateway.post(*(span_of(attack, number) for number, attack in enumerate(ATTACKS)))
    page = browsing.open()
    page.on("dialog", lambda dialog: browsing.seen.told.append(dialog.message))
    expect(page.locator(".spans .rows .row")).to_have_count(len(ATTACKS))
    is_unharmed(page, gateway)
    for unique_id in ids:
        page.goto(f"{gateway.url}/?span={unique_id}")
        expect(page.locator("#panel")).to_contain_text("Parameters")
        for summary in page.locator("#panel details > summary").all():
            summary.click()
        is_unharmed(page, gateway)
        for link in page.locator("#panel .message a").all():
            link.hover()
        is_unharmed(page, gateway)
    for view in ("?view=traces", "?view=charts&group_by=model", "?view=charts&group_by=customer_identifier"):
        page.goto(f"{gateway.url}/{view}")
        expect(page.locator(".rows .row, .breakdown tr").nth(1)).to_be_visible()
        is_unharmed(page, gateway)
    page.goto(f"{gateway.url}/?view=traces")
    page.locator(".traces .rows .row").first.click()
    expect(page.locator(".fall-row").first).to_be_visible()
    is_unharmed(page, gateway)
    page.goto(f"{gateway.url}/")
    box = page.get_by_role("combobox", name="Filter")
    for field in ("model=", "customer_identifier=", "metadata__"):
        box.fill(field)
        expect(page.locator("#suggestions li").first).to_be_visible()
        is_unharmed(page, gateway)


def test_attacks_in_the_address(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open()
    for attack in ATTACKS[:8]:
        for name in ("where", "search", "span", "trace", "view", "range", "start_time", "sort_by", "group_by"):
            value = f"model={attack}" if name == "where" else attack
            page.evaluate(
                "([name, value]) => history.replaceState({}, '', '/?' + new URLSearchParams({ [name]: value }))",
                [name, value],
            )
            page.reload()
            expect(page.locator("nav a")).to_have_count(4)
            is_unharmed(page, gateway)
    browsing.seen.told[:] = [told for told in browsing.seen.told if "400" not in told and "404" not in told]


def test_the_content_policy_would_stop_what_gets_through(browsing: Browsing, gateway: Gateway) -> None:
    page = browsing.open()
    expect(page.locator(".list-foot")).to_contain_text("Nothing yet")
    stopped = page.evaluate(
        """() => {
          const found = [];
          const markup = "<img src=x onerror='window.pwned=1'>";
          const tries = [
            () => document.body.insertAdjacentHTML("beforeend", markup), () => { document.body.innerHTML = markup; },
          ];
          for (const one of tries) try { one(); found.push(String(one)); } catch { /* so it should be */ }
          const script = document.createElement("script");
          try { script.text = "window.pwned=1"; document.body.append(script); } catch { /* so it should be */ }
          return found;
        }"""
    )
    assert stopped == []
    assert page.evaluate("window.pwned") is None
    blocked = page.evaluate("fetch('https://elsewhere.example/').then(() => 'sent', () => 'blocked')")
    assert blocked == "blocked"
    browsing.seen.told.clear()
    browsing.seen.elsewhere.clear()
