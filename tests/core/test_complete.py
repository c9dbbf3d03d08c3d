"""What was not sent and can be told from what was."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.complete import Draft, add_estimates, complete, price, wanted, warn
from gateway.core.prices import Price, PriceList
from gateway.core.span import Span, validate
from gateway.core.tokens import Countable, Counted

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PRICES = PriceList({"m": Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"), Decimal("0.3"))})


def completed(measured: bool = False, generating_s: float | None = None, **fields: Any) -> Draft:
    draft = Draft(validate({"model": "m", "unique_id": "u", **fields}), measured, generating_s)
    complete(draft, NOW)
    return draft


def priced(measured: bool = False, generating_s: float | None = None, **fields: Any) -> Draft:
    draft = completed(measured, generating_s, **fields)
    price(draft, PRICES.find)
    return draft


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "success"),
        ({"status_code": 399}, "success"),
        ({"status_code": 400}, "failed"),
        ({"error_message": "x"}, "failed"),
        ({"error_message": ""}, "success"),
        ({"status": "error"}, "failed"),
        ({"status": "success", "status_code": 500, "error_message": "x"}, "success"),
        ({"status": "pending"}, "pending"),
        ({"status": "my own"}, "my own"),
    ],
)
def test_status(fields: dict[str, Any], status: str) -> None:
    assert completed(**fields).span.status == status


def test_ids() -> None:
    def ids(**fields: Any) -> tuple[str | None, str | None]:
        span = completed(**fields).span
        return span.span_unique_id, span.session_identifier

    assert ids() == ("u", None)
    assert ids(span_unique_id="s", session_identifier="x", thread_identifier="t") == ("s", "x")
    assert ids(thread_identifier="t") == ("u", "t")
    assert ids(thread_identifier="t", trace_group_identifier="g") == ("u", "g")


START, END = NOW - timedelta(seconds=10), NOW - timedelta(seconds=8)


@pytest.mark.parametrize(
    ("sent", "start_time", "timestamp", "latency"),
    [
        ({}, None, NOW, None),
        ({"latency": 2}, NOW - timedelta(seconds=2), NOW, 2),
        ({"start_time": START}, START, NOW, None),
        ({"timestamp": END}, None, END, None),
        ({"start_time": START, "timestamp": END}, START, END, 2),
        ({"start_time": START, "latency": 2}, START, END, 2),
        ({"timestamp": END, "latency": 2}, START, END, 2),
        ({"start_time": START, "timestamp": END, "latency": 5}, START, END, 5),
        ({"start_time": END, "timestamp": START}, END, START, None),
        ({"timestamp": END, "latency": 1e300}, None, END, 1e300),
        ({"timestamp": END, "latency": 0}, END, END, 0),
        ({"timestamp": "0001-01-01T00:00:01Z", "latency": 5}, None, datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC), 5),
        ({"start_time": "9999-12-31T23:59:59Z", "latency": 5}, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), NOW, 5),
    ],
)
def test_times_and_latency(
    sent: dict[str, Any], start_time: datetime | None, timestamp: datetime, latency: float | None
) -> None:
    span = completed(**sent).span
    assert (span.start_time, span.timestamp, span.latency) == (start_time, timestamp, latency)


def counts(span: Span) -> tuple[int | None, ...]:
    return (
        span.prompt_tokens,
        span.completion_tokens,
        span.total_request_tokens,
        span.prompt_cache_hit_tokens,
        span.prompt_cache_creation_tokens,
        span.reasoning_tokens,
    )


OPENAI = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 50},
}
RESPONSES = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 600},
    "output_tokens": 200,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1200,
}
ANTHROPIC = {
    "input_tokens": 300,
    "output_tokens": 200,
    "cache_read_input_tokens": 600,
    "cache_creation_input_tokens": 100,
}


@pytest.mark.parametrize(
    ("fields", "expected", "micro_usd"),
    [
        # 400 × 0.15 + 600 × 0.075 + 200 × 0.6
        pytest.param({"usage": OPENAI}, (1000, 200, 1200, 600, None, 50), "225", id="OpenAI"),
        pytest.param({"usage": RESPONSES}, (1000, 200, 1200, 600, None, 50), "225", id="Responses"),
        # 300 × 0.15 + 600 × 0.075 + 100 × 0.3 + 200 × 0.6
        pytest.param({"usage": ANTHROPIC}, (300, 200, 1200, 600, 100, None), "240", id="Anthropic"),
        pytest.param(
            {"usage": ANTHROPIC, "prompt_tokens": 300}, (300, 200, 1200, 600, 100, None), "240", id="Anthropic's own"
        ),
        # 300 × 0.15 + 600 × 0.075 + 100 × 0.3 + 200 × 0.6: the count that was sent includes the cached ones
        pytest.param(
            {"usage": ANTHROPIC, "prompt_tokens": 1000},
            (1000, 200, 1200, 600, 100, None),
            "240",
            id="Anthropic, added up by the caller",
        ),
        # The counts that a client sends beside Anthropic's cache counts are Anthropic's input_tokens.
        pytest.param(
            {
                "usage": {"cache_read_input_tokens": 600, "cache_creation_input_tokens": 100},
                "prompt_tokens": 300,
                "completion_tokens": 200,
            },
            (300, 200, 1200, 600, 100, None),
            "240",
            id="Anthropic's caches beside direct counts",
        ),
        # 10 × 0.15 + 5 × 0.6
        pytest.param({"prompt_tokens": 10, "completion_tokens": 5}, (10, 5, 15, None, None, None), "4.5", id="direct"),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "usage": {"prompt_tokens": 7, "total_tokens": 9}},
            (10, 5, 15, None, None, None),
            "4.5",
            id="direct counts win, and the total is theirs",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "usage": {"total_tokens": 20}},
            (10, 5, 20, None, None, None),
            "4.5",
            id="a total that is reported by itself stays",
        ),
        pytest.param(
            {"prompt_tokens": 10, "prompt_cache_hit_tokens": 4, "completion_tokens": 0},
            (10, 0, 10, 4, None, None),
            "1.2",
            id="cached tokens sent by themselves",
        ),
        pytest.param({}, (None,) * 6, None, id="nothing"),
    ],
)
def test_counts_totals_and_costs(fields: dict[str, Any], expected: tuple[int | None, ...], micro_usd: str) -> None:
    draft = priced(**fields)
    assert counts(draft.span) == expected
    assert draft.cost_picos == (None if micro_usd is None else Decimal(micro_usd) * 10**6)


@pytest.mark.parametrize(
    ("fields", "picos"),
    [
        ({"cost": 0.1, "prompt_unit_price": 7}, 10**11),
        ({"cost": 0, "prompt_unit_price": 7}, 0),
        ({"cost": -0.3}, -3 * 10**11),
        ({"prompt_unit_price": 7, "completion_unit_price": 11}, 10 * 7 * 10**6 + 5 * 11 * 10**6),
        ({"prompt_unit_price": 0, "completion_unit_price": 0}, 0),
        ({"prompt_unit_price": 7}, 10 * 7 * 10**6 + 3 * 10**6),
        ({"completion_unit_price": 11}, 1_500_000 + 5 * 11 * 10**6),
        ({"prompt_unit_price": 7, "model": "unheard of"}, None),
        ({"model": "unheard of"}, None),
        ({"model": "unheard of", "response_model": "m"}, 4_500_000),
        ({"cost": 1e9}, 1e21),
    ],
)
def test_the_order_of_prices(fields: dict[str, Any], picos: int | float | None) -> None:
    draft = priced(**{"prompt_tokens": 10, "completion_tokens": 5, **fields})
    assert draft.cost_picos == picos
    assert draft.span.cost == (None if picos is None else picos / 10**12)


@pytest.mark.parametrize(
    "fields",
    [{"cost": 1e300}, {"cost": -1e300}, {"prompt_tokens": 2**60, "completion_tokens": 0, "prompt_unit_price": 1e300}],
)
def test_a_cost_beyond_every_number_is_left_out(fields: dict[str, Any]) -> None:
    span = priced(**fields).span
    assert (span.cost, span.warnings) == (None, "cost left out: it is too large to be stored")


@pytest.mark.parametrize(
    ("fields", "speed"),
    [
        ({"completion_tokens": 20, "latency": 4}, 5),
        ({"completion_tokens": 20, "latency": 4, "stream": True}, 5),
        ({"completion_tokens": 20, "latency": 4, "tokens_per_second": 9}, 9),
        ({"completion_tokens": 20, "latency": 0}, None),
        ({"completion_tokens": 20, "latency": -1}, None),
        ({"completion_tokens": 20}, None),
        ({"latency": 4}, None),
        ({"completion_tokens": 2**60, "latency": 5e-324}, None),
        ({"completion_tokens": 21, "latency": 9, "stream": True, "measured": True, "generating_s": 4}, 5),
        ({"completion_tokens": 21, "latency": 9, "stream": True, "measured": True}, None),
        ({"completion_tokens": 0, "latency": 9, "stream": True, "measured": True, "generating_s": 4}, None),
        ({"completion_tokens": 18, "latency": 9, "measured": True, "generating_s": 4}, 2),
    ],
)
def test_tokens_per_second(fields: dict[str, Any], speed: float | None) -> None:
    assert priced(**fields).span.tokens_per_second == speed


def test_a_total_beyond_64_bits_is_unknown() -> None:
    assert priced(prompt_tokens=2**63 - 1, completion_tokens=1).span.total_request_tokens is None


HI = {"prompt_tokens": Countable(("user", "hi"), 6)}
HELLO = {"completion_tokens": Countable(("hello",))}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": "hi", "output": "hello"}, {**HI, **HELLO}),
        ({"input": "hi", "output": "hello", "prompt_tokens": 0}, HELLO),
        ({"input": "hi", "output": "hello", "usage": {"output_tokens": 1}}, HI),
        ({"input": "hi", "status": "error"}, {}),
        ({"input": "hi", "output": "hello", "status_code": 500}, {**HI, **HELLO}),
        ({"log_type": "embedding", "input": "hi", "output": [0.5]}, {"prompt_tokens": Countable(("hi",))}),
        ({"log_type": "tool", "input": "hi", "output": "hello"}, {}),
        ({"log_type": "workflow", "input": "hi"}, {}),
        ({}, {}),
    ],
)
def test_what_is_counted(fields: dict[str, Any], expected: dict[str, Countable]) -> None:
    assert wanted(completed(**fields)) == expected


def test_estimates_are_marked() -> None:
    draft = completed()
    add_estimates(draft, {"prompt_tokens": Counted(5, "o200k_base"), "completion_tokens": Counted(7, "o200k_base")})
    span = draft.span
    assert (span.prompt_tokens, span.completion_tokens, span.status) == (5, 7, "warning")
    assert span.warnings == "prompt_tokens and completion_tokens not reported, counted with o200k_base"
    failed = completed(status="error", warnings="own")
    add_estimates(failed, {"prompt_tokens": Counted(5, "length")})
    assert failed.span.status == "failed"
    assert failed.span.warnings == "own; prompt_tokens not reported, estimated from the length"


def test_our_warnings_stand_beside_those_that_were_sent() -> None:
    sent = {"own": 1}
    span = completed(warnings=sent).span
    warn(span, "a")
    warn(span, "b")
    assert span.warnings == {"own": 1, "gateway": "a; b"}
    assert sent == {"own": 1}


@pytest.mark.parametrize(
    ("fields", "total", "cost"),
    [
        ({"prompt_tokens": 10}, None, None),
        ({"completion_tokens": 10}, None, None),
        ({"prompt_tokens": 10, "completion_tokens": 0}, 10, 1.5e-6),
        ({"prompt_tokens": 10, "log_type": "embedding"}, 10, 1.5e-6),
    ],
)
def test_what_is_half_known_has_no_total_and_no_cost(fields: dict[str, Any], total: int | None, cost: float) -> None:
    span = priced(**{"prompt_unit_price": 0.15, "completion_unit_price": 0.6, **fields}).span
    assert (span.total_request_tokens, span.cost) == (total, cost)
