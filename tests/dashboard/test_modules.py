"""The modules that only calculate, as the browser runs them."""

import ast
import inspect
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from playwright.sync_api import Browser, Page

# Of 5 January 2026, a Monday, by UTC: ms.
MIDNIGHT = 1_767_571_200_000
FILES = Path(__file__).parents[2] / "gateway" / "web" / "dashboard"


def served(page: Page) -> None:
    """Goes to a page on which the modules can be imported."""

    def answer(route: Any) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if name:
            route.fulfill(body=(FILES / name).read_text("utf-8"), content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>x</title>", content_type="text/html")

    page.route("**/*", answer)
    page.goto("http://modules.test/")


@pytest.fixture(scope="module")
def page(browser: Browser) -> Any:
    page = browser.new_page()
    served(page)
    yield page
    page.close()


def call(page: Page, module: str, code: str, given: Any = None) -> Any:
    """What an expression gives in which the module is `m` and what is given is `x`."""
    return page.evaluate(f"async (x) => {{ const m = await import('/{module}.js'); return {code}; }}", given)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model=gpt-4o", ["model", "=", "gpt-4o"]),
        ("  cost >= 0.01 ", ["cost", ">=", " 0.01 "]),
        ("metadata__a b=c=d", ["metadata__a b", "=", "c=d"]),
        ("note=", ["note", "=", ""]),
        ("note!=", ["note", "!=", ""]),
        ("error_message~a=b", ["error_message", "~", "a=b"]),
        ("input!~x\ny", ["input", "!~", "x\ny"]),
        ("metadata__a.b-c>3", ["metadata__a.b-c", ">", "3"]),
        ("two words", None),
        ("two words=x", None),
        ("=x", None),
        ("", None),
    ],
)
def test_conditions(page: Page, text: str, parts: list[str] | None) -> None:
    assert call(page, "conditions", "(({field, sign, value}) => [field, sign, value])(m.parse(x) ?? {})", text) == (
        parts or [None, None, None]
    )


def test_conditions_as_filters(page: Page) -> None:
    conditions = [
        "span_name=",
        "span_name=x",
        "model=a",
        "model=b",
        "cost>=1",
        "cost<2",
        "model!=c",
        "note=",
        "customer_identifier!=",
        "nothing at all",
    ]
    assert call(page, "conditions", "m.filters(x)", conditions) == {
        "model": [{"operator": "in", "value": ["a", "b"]}, {"operator": "not_in", "value": ["c"]}],
        "cost": [{"operator": "gte", "value": ["1"]}, {"operator": "lt", "value": ["2"]}],
        "note": [{"operator": "empty", "value": [""]}],
        "customer_identifier": [{"operator": "not_empty", "value": [""]}],
        "span_name": [{"operator": "in", "value": ["", "x"]}],
    }


def test_a_range_that_there_is_not_is_none(page: Page) -> None:
    for name in ("toString", "1w", ""):
        assert call(page, "conditions", "m.asked({ where: [], range: x })", name) == {}
    assert list(call(page, "conditions", "m.asked({ where: [], range: x })", "15m")) == ["start_time"]


def test_addresses_say_all_of_a_state(page: Page) -> None:
    state = {
        "view": "charts",
        "where": ["a=b&c", "d=ü"],
        "search": "x y",
        "range": "1h",
        "start_time": "",
        "span": "a/b?c#d",
    }
    back = call(page, "route", "m.read(m.address(x).slice(1))", state)
    assert {name: back[name] for name in state} == state
    assert call(page, "route", "m.address(m.read(''))") == "/"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("m.usd(0)", "$0"),
        ("m.usd(null)", "–"),
        ("m.usd(0.0000045)", "$4.5e-6"),
        ("m.usd(0.00042)", "$0.00042"),
        ("m.usd(0.0123)", "$0.012"),
        ("m.usd(1.005)", "$1.00"),
        ("m.usd(12345.6)", "$12,346"),
        ("m.usd(4e-8)", "$4e-8"),
        ("m.usd(7.5e-7)", "$7.5e-7"),
        ("m.usd(9.99e-6)", "$1e-5"),
        ("m.usd(-0.0123)", "-$0.012"),
        ("m.usd(999.999)", "$1,000"),
        ("m.usd(999999.7)", "$1M"),
        ("m.usd(1.5e20)", "$1.5e20"),
        ("m.usd(1e999)", "–"),
        ("m.count(-1234567)", "-1,234,567"),
        ("m.count(1e12)", "1T"),
        ("m.count(9007199254740993)", "9e15"),
        ("m.seconds(0)", "0 ms"),
        ("m.seconds(-3.2)", "-3.20 s"),
        ("m.seconds(0.000042)", "42 µs"),
        ("m.seconds(1e-12)", "<0.1 µs"),
        ("m.seconds(100000)", "27.8 h"),
        ("m.seconds(1e6)", "11.6 days"),
        ("m.seconds(1e9)", "31.7 years"),
        ("m.seconds(-1e15)", "-31.7M years"),
        ("m.seconds(1e300)", "3.2e292 years"),
        ("m.seconds(0.00042)", "0.42 ms"),
        ("m.seconds(0.9996)", "1.00 s"),
        ("m.seconds(0.5)", "500 ms"),
        ("m.seconds(65)", "65.0 s"),
        ("m.seconds(119.7)", "2 min 0 s"),
        ("m.seconds(125)", "2 min 5 s"),
        ("m.seconds(7200)", "2 h"),
        ("m.short(999)", "999"),
        ("m.short(12345)", "12.3k"),
        ("m.short(4921278)", "4.92M"),
        ("m.short(999999)", "1M"),
        ("m.short(-12345)", "-12.3k"),
        ("m.short(1e13)", "10T"),
        ("m.short(1e16)", "1e16"),
        ("m.percent(0, 10)", "0 %"),
        ("m.percent(1, 3)", "33.3 %"),
        ("m.percent(1, 100000)", "<0.1 %"),
        ("m.percent(1, 0)", "–"),
        ("m.speed(0.5)", "0.5"),
        ("m.speed(1234.5)", "1,235"),
        ("m.speed(-1234.5)", "-1,234"),
        ("m.speed(1e9)", "1G"),
    ],
)
def test_numbers(page: Page, code: str, expected: str) -> None:
    assert call(page, "format", code) == expected


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1e300))
def test_costs_are_short(page: Page, value: float) -> None:
    shown = call(page, "format", "m.usd(x)", value)
    assert len(shown) <= 9
    told = float(shown[1:].translate({ord("k"): "e3", ord("M"): "e6", ord("G"): "e9", ord("T"): "e12", ord(","): None}))
    assert told == pytest.approx(value, rel=0.06)


def test_python_is_given_by_name_what_the_sdk_takes_by_name(page: Page) -> None:
    client = OpenAI(api_key="k")
    methods: dict[str, Any] = {
        **{"chat": client.chat.completions, "embedding": client.embeddings},
        **{"response": client.responses, "completion": client.completions},
    }
    named = call(page, "copyas", "m.NAMED")
    assert named.keys() == methods.keys()
    for log_type, names in named.items():
        taken = set(inspect.signature(methods[log_type].create).parameters)
        # These are of the client: as parameters of a call they go into the body.
        assert set(names) <= taken - {"extra_headers", "extra_query", "extra_body", "timeout"}
        required = {"chat": "messages", "completion": "prompt"}.get(log_type, "input")
        assert {"model", required} <= set(names) and len(names) == len(set(names))


def test_what_the_sdk_does_not_know_goes_into_the_extra_body(page: Page) -> None:
    body = {
        **{"model": "m", "messages": [], "seed": 1, "top_k": 4, "chat_template_kwargs": {"thinking": False}},
        **{"timeout": 3, "extra_body": {"a": None}, "a-b": "x", "stream": True},
    }
    source = call(page, "copyas", "m.python({ log_type: 'chat' }, x, 'http://x.test')", body)
    (made,) = (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Call) and len(one.keywords) > 2)
    given = {str(one.arg): ast.literal_eval(one.value) for one in made.keywords}
    assert given.pop("extra_body") == {
        name: body.pop(name) for name in ("top_k", "chat_template_kwargs", "timeout", "extra_body", "a-b")
    }
    assert given == body


@pytest.mark.parametrize(
    ("span", "is_anthropic", "is_talk"),
    [
        ({"full_request": {"messages": []}, "full_response": {"choices": []}}, False, True),
        ({"full_request": {"messages": []}, "full_response": {"type": "message"}}, True, False),
        ({"full_request": {"messages": [], "system": "x"}, "full_response": {"type": "error"}}, True, False),
        ({"full_request": {"messages": [], "system": "x"}, "full_response": {"choices": []}}, False, True),
        ({"full_request": {"messages": [], "tools": [{"name": "f", "input_schema": {}}]}}, True, False),
        ({"full_request": {"messages": "x"}}, False, False),
        ({"prompt_messages": []}, False, True),
        ({"log_type": "response", "full_request": {"input": "x"}}, False, False),
        ({"log_type": "embedding", "full_request": {"input": "x", "messages": []}}, False, False),
    ],
)
def test_which_api_a_call_was_of(page: Page, span: dict[str, Any], is_anthropic: bool, is_talk: bool) -> None:
    told = call(page, "copyas", "[m.isAnthropic(x), m.isTalk(x, m.request(x))]", {"log_type": "chat", **span})
    assert told == [is_anthropic, is_talk]


def test_days_are_those_of_utc_where_intervals_are_days(browser: Browser) -> None:
    hours = {"America/New_York": "19:00 to 20:00", "Asia/Kolkata": "05:30 to 06:30", "UTC": "00:00 to 01:00"}
    for zone, hour in hours.items():
        context = browser.new_context(timezone_id=zone)
        away = context.new_page()
        served(away)
        told = "[m.interval(x, 86400), m.interval(x, 604800), m.mark(new Date(x), 86400)]"
        day = call(away, "format", told, MIDNIGHT)
        assert day == ["5 Jan, UTC", "5 Jan to 11 Jan, UTC", "5 Jan"]
        assert call(away, "format", "m.interval(x, 3600)", MIDNIGHT).endswith(hour)
        context.close()


def test_marks_on_axes(page: Page) -> None:
    for most in (0.0003, 0.7, 1, 3, 9.99, 10, 99, 1234, 5e9):
        marks = call(page, "chart", "m.ticks(x)", most)
        assert marks[0] == 0 and marks[-2] < most <= marks[-1] and 2 <= len(marks) <= 6
    assert call(page, "chart", "m.ticks(0)") == [0, 1]


def test_a_series_is_filled_in(page: Page) -> None:
    found = {
        **{
            "interval": "1h",
            "interval_seconds": 3600,
            "start_time": "2026-01-01T00:30:00Z",
            "end_time": "2026-01-01T04:00:00Z",
        },
        "results": [{"time": "2026-01-01T02:00:00Z"}],
    }
    assert call(page, "chart", "m.grid(x).times.map((at) => new Date(at).getUTCHours())", found) == [0, 1, 2, 3]
    weekly = {**found, "interval": "1w", "interval_seconds": 604_800, "results": [{"time": "2025-12-29T00:00:00Z"}]}
    assert call(page, "chart", "m.grid(x).times.map((at) => new Date(at).toISOString().slice(0, 10))", weekly) == [
        "2025-12-29"
    ]


SPANS = st.recursive(
    st.builds(lambda start, took: {"start": start, "took": took}, st.integers(0, 1000), st.integers(0, 1000)),
    lambda children: st.builds(
        lambda start, took, below: {"start": start, "took": took, "children": below},
        *(st.integers(0, 1000), st.integers(0, 1000), st.lists(children, max_size=5)),
    ),
    max_leaves=30,
)
AS_ROWS = """(() => {
  const made = (one) => ({
    start_time: new Date(one.start).toISOString(), end_time: new Date(one.start + one.took).toISOString(),
    cost: 1, total_request_tokens: 2, status: one.took % 2 ? "failed" : "success",
    children: (one.children ?? []).map((child) => made(child)),
  });
  const all = m.markCritical(m.rows(x.map((one) => made(one))));
  return all.map((row) => [
    row.start, row.end, row.depth, row.size, row.cost, row.tokens, row.failed, row.critical, row.parent?.number ?? null,
  ]);
})()"""


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SPANS, min_size=1, max_size=3))
def test_every_tree_has_its_sums_and_a_critical_path(page: Page, roots: list[Any]) -> None:
    rows = call(page, "tree", AS_ROWS, roots)

    def number(one: Any) -> int:
        return 1 + sum(map(number, one.get("children", [])))

    assert len(rows) == sum(map(number, roots))
    places = [place for place, row in enumerate(rows) if row[8] is None]
    for root, (start, end, depth, size, cost, tokens, *_) in zip(roots, [rows[place] for place in places], strict=True):
        assert (start, end, depth) == (root["start"], root["start"] + root["took"], 0)
        assert (size, cost, tokens) == (number(root), number(root), 2 * number(root))
    parts = sorted(part for row in rows for part in row[7])
    # They lie one behind the other, each where its span runs, up to what ended last.
    assert all(before[1] <= after[0] for before, after in pairwise(parts))
    assert all(row[0] <= part[0] < part[1] <= row[1] for row in rows for part in row[7])
    lasting = [row[1] for row in rows if row[0] < row[1]]
    if lasting and max(lasting) == max(row[1] for row in rows):
        assert parts[-1][1] == max(lasting)


MARKDOWN = st.text(st.sampled_from("ab *_`~#>-+1.)|[]()<>!\\\n\t\"'&:/=h"), max_size=200) | st.text(max_size=100)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MARKDOWN)
def test_any_text_is_shown_and_stays_text(page: Page, text: str) -> None:
    shown = call(page, "markdown", "(({textContent, innerHTML}) => [textContent, innerHTML])(m.markdown(x))", text)
    assert "<script" not in shown[1].lower() and " on" not in "".join(shown[1].split(">")[0::2]).lower().replace(
        text.lower(), ""
    )
    # No letter and no figure is lost, but for the numbers of lists and the names of code.
    kept = "".join(filter(str.isalpha, text))
    if not any(mark in text for mark in ("```", "~~~", "](")) and text.isascii():
        assert "".join(filter(str.isalpha, shown[0])) == kept


@pytest.mark.parametrize(
    "text",
    [
        *("**a" * 30_000, "[" * 90_000, "`" * 90_000, "> " * 40_000, "- " * 40_000, "_a" * 40_000, "|-" * 40_000),
        *("*a" * 45_000, "\\*" * 45_000, "# a" + " " * 90_000 + "b", "# a" + "#" * 90_000 + "b"),
        *("|x\n" + " " * 90_000 + "x-", "|x\n" + "-" * 90_000 + "x", "```" + "a" * 90_000 + "`", "- " * 45_000 + "x"),
    ],
)
def test_no_text_takes_long(page: Page, text: str) -> None:
    """Each mark is looked at a bounded number of times: what is as long as may be comes back at all."""
    assert call(page, "markdown", "m.markdown(x).nodeName", text) == "DIV"


@pytest.mark.parametrize("value", [None, True, 1.5, "x", [], {}, {"a": [1, {"b": None}]}, ['\u2028 " \\ é']])
def test_json_in_colours_is_the_same_json(page: Page, value: Any) -> None:
    assert json.loads(
        call(
            page,
            "json",
            "m.json(JSON.parse(x)).textContent",
            json.dumps(value if not isinstance(value, str) else [value]),
        )
    ) == (value if not isinstance(value, str) else [value])


SCALARS = (
    st.text(max_size=20).map(json.dumps)
    | st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False))
    | st.integers(-(10**30), 10**30).map(str)
    | st.sampled_from(["1.0", "-0", "0.10", "1e400", "1E+2", "12345678901234567890", "true", "false", "null"])
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
SPACES = st.sampled_from(["", " ", "\n", "\r\n\t"])
JSON_TEXTS = st.recursive(
    SCALARS,
    lambda inside: st.one_of(
        st.tuples(SPACES, st.lists(inside, max_size=6)).map(lambda made: f"[{made[0]}{f',{made[0]}'.join(made[1])}]"),
        # A name may be there more than once.
        st.tuples(
            SPACES, st.lists(st.tuples(st.sampled_from(['"a"', '"b"', r'"\"\\"', '"[1,2]"']), inside), max_size=4)
        ).map(lambda made: f"{{{made[0]}{','.join(f'{key}{made[0]}:{value}' for key, value in made[1])}}}"),
    ),
    max_leaves=15,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON_TEXTS)
def test_json_keeps_its_numbers_texts_and_keys_as_they_were_written(page: Page, text: str) -> None:
    def read(given: str) -> Any:
        return json.loads(
            given,
            object_pairs_hook=lambda pairs: ("object", pairs),
            parse_int=lambda number: ("number", number),
            parse_float=lambda number: ("number", number),
        )

    shown = call(page, "json", "[m.json(x)].flat()[0].textContent", text)
    assert read(shown) == read(text)
    if text[0] in "[{":
        assert call(page, "json", "[m.maybeJson(x)].flat()[0].textContent", text) == shown


def test_json_is_indented(page: Page) -> None:
    text = '{"a":[1, 2.50,-3e4],"b":[{},[ ],[1,"x"]],"n":12345678901234567890}'
    assert call(page, "json", "m.json(x).textContent", text) == (
        '{\n  "a": [1, 2.50, -3e4],\n  "b": [\n    {},\n    [],\n    [\n      1,\n      "x"\n    ]\n  ],\n'
        '  "n": 12345678901234567890\n}'
    )
    kinds = call(
        page, "json", "[...m.json(x).children].map((one) => [one.className, one.textContent])", '{"a":[1],"b":null}'
    )
    assert kinds == [["key", '"a"'], ["number", "1"], ["key", '"b"'], ["word", "null"]]


@pytest.mark.parametrize(
    "text", ["[" * 50_000 + "]" * 50_000, "[1," * 50_000 + "1" + "]" * 50_000, '["' + "\\n" * 500_000 + '"]']
)
def test_no_json_takes_long(page: Page, text: str) -> None:
    assert call(page, "json", "[m.json(x)].flat(1)[0].className", text) == "long"


def test_what_markdown_leaves_to_the_eye(page: Page) -> None:
    def shown(text: str) -> str:
        made: str = call(page, "markdown", "m.markdown(x).innerHTML", text)
        return made

    assert shown(r"\*not so\* \_a\_ *so* \\\\") == r'<p dir="auto">*not so* _a_ <em>so</em> \\</p>'
    assert shown("## C#") == '<h5 dir="auto">C#</h5>'
    assert shown("# a b ##") == shown("# a b") == '<h4 dir="auto">a b</h4>'
    assert shown("- [ ] one\n- [x] two") == '<ul dir="auto"><li>☐ one</li><li>☑ two</li></ul>'
    code = '<pre class="code" dir="ltr" data-language="c++"><code>x `y`</code></pre>'
    assert shown("```c++ {1}\nx `y`\n```") == shown("~~~ c++\nx `y`\n~~~") == code
    assert shown("```not` code").startswith("<p ")


def test_of_very_much_json_only_a_part_is_drawn_at_once(page: Page) -> None:
    text = json.dumps([{"a": number} for number in range(100_000)])
    told = call(page, "json", "m.json(x).map((one) => one.textContent.length)", text)
    assert told[0] == 20_000
    assert call(page, "json", "m.json(x)[1].textContent", text).startswith("Show 200,000 of ")
    drawn = "(() => { const [place, more] = m.json(x); more.click(); return place.textContent.length; })()"
    assert call(page, "json", drawn, text) == 200_000
