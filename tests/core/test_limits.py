"""Whether one more call fits what its key may use."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.limits import KeyLimits, Use, judged, period, reserve
from gateway.core.prices import Price

NOW = datetime(2026, 1, 28, 12, tzinfo=UTC)
SECOND = int(NOW.timestamp())
NOTHING = Use([], 0, 0, 0)
PRICE = Price(Decimal("0.15"), Decimal("0.60"))


def end(limits: KeyLimits, use: Use, reserve: int = 0) -> tuple[str, int] | None:
    refusal = judged(limits, use, reserve, NOW)
    return refusal and (refusal.code, refusal.retry_after_s)


def test_without_limits_everything_fits() -> None:
    assert end(KeyLimits(), Use([(SECOND, 10**9)], 10**9, 10**18, 10**18), 10**18) is None


@pytest.mark.parametrize(("running", "said"), [(0, None), (2, None), (3, ("concurrency_limit_exceeded", 1))])
def test_calls_at_a_time(running: int, said: object) -> None:
    assert end(KeyLimits(max_concurrent=3), Use([], running, 0, 0)) == said


@pytest.mark.parametrize(
    ("admitted", "said"),
    [
        ([], None),
        ([(SECOND - 59, 4)], None),
        ([(SECOND - 59, 4), (SECOND, 1)], ("rate_limit_exceeded", 1)),
        ([(SECOND, 5)], ("rate_limit_exceeded", 60)),
        # A limit that was lowered: two of these seconds have to pass out of the minute.
        ([(SECOND - 50, 3), (SECOND - 20, 3), (SECOND, 4)], ("rate_limit_exceeded", 40)),
        # The clock was set back.
        ([(SECOND + 100, 5)], ("rate_limit_exceeded", 160)),
    ],
)
def test_calls_a_minute(admitted: list[tuple[int, int]], said: object) -> None:
    assert end(KeyLimits(rate_limit=5), Use(admitted, 0, 0, 0)) == said


@pytest.mark.parametrize(
    ("spent", "reserved", "this", "said"),
    [
        (0, 0, 100, None),
        (0, 0, 101, ("budget_exceeded", 43201)),
        (60, 30, 10, None),
        (60, 31, 10, ("budget_exceeded", 1)),
        (91, 0, 10, ("budget_exceeded", 43201)),
        (500, 0, 0, ("budget_exceeded", 43201)),
    ],
)
def test_a_budget_counts_what_is_spent_and_what_is_reserved(spent: int, reserved: int, this: int, said: object) -> None:
    assert end(KeyLimits(budget_picos=100, budget_period="day"), Use([], 1, reserved, spent), this) == said


def test_a_refusal_says_in_words_what_is_in_the_way() -> None:
    refusal = judged(KeyLimits(budget_picos=10**13), Use([], 1, 2 * 10**12, 9 * 10**12), 5 * 10**11, NOW)
    assert refusal is not None
    assert refusal.message == (
        "This key may spend 10 USD a month (budget_usd): 9 are spent, 2 reserved by calls under way, and this call "
        "may cost 0.5."
    )


@pytest.mark.parametrize(
    ("request_bytes", "request_fields", "picos"),
    [
        # 400 bytes are taken for 100 tokens, at 150,000 picos each; 1,024 tokens at 600,000.
        (400, {}, 15_000_000 + 614_400_000),
        (400, {"max_tokens": 10}, 15_000_000 + 6_000_000),
        (400, {"max_completion_tokens": 10, "max_tokens": 99}, 15_000_000 + 59_400_000),
        (400, {"max_output_tokens": 10, "n": 3}, 15_000_000 + 18_000_000),
        (400, {"max_tokens": 10.0, "best_of": "3"}, 15_000_000 + 18_000_000),
        (400, {"max_tokens": "9.5", "n": 2, "best_of": 3.0}, 15_000_000 + 18_000_000),
        (1, {"max_tokens": 1}, 37_500 + 600_000),
        (0, {"max_tokens": 0, "n": -1}, 614_400_000),
        (0, {"max_tokens": "many", "n": True}, 614_400_000),
        (0, {"max_tokens": None, "n": [2]}, 614_400_000),
        (0, {"max_tokens": "nan", "n": float("nan")}, 614_400_000),
        (0, {"max_tokens": 10**5000}, 600_000 * 10**24),
        (0, {"max_tokens": float("inf")}, 600_000 * 10**24),
    ],
)
def test_what_a_call_reserves(request_bytes: int, request_fields: dict[str, Any], picos: int) -> None:
    assert reserve(PRICE, request_bytes, request_fields) == picos


def test_a_refusal_holds_no_endless_number() -> None:
    refusal = judged(KeyLimits(budget_picos=1), NOTHING, reserve(PRICE, 0, {"max_tokens": 10**5000}), NOW)
    assert refusal is not None and refusal.message.endswith("this call may cost more than a trillion.")


def test_whether_it_helps_to_wait() -> None:
    limits = KeyLimits(rate_limit=1, budget_picos=100)
    over = [
        judged(limits, Use([(SECOND, 1)], 0, 0, 0), 0, NOW),
        judged(limits, Use([], 0, 60, 0), 50, NOW),
        judged(limits, Use([], 0, 0, 60), 50, NOW),
    ]
    assert [refusal and refusal.retry_helps for refusal in over] == [True, True, False]


def test_what_has_no_price_for_completions_reserves_its_prompt() -> None:
    assert reserve(Price(Decimal("0.02"), None), 4_000_000, {}) == 20_000_000_000


@pytest.mark.parametrize(
    ("name", "now", "first_day", "next_one"),
    [
        ("day", NOW, date(2026, 1, 28), datetime(2026, 1, 29, tzinfo=UTC)),
        ("week", NOW, date(2026, 1, 26), datetime(2026, 2, 2, tzinfo=UTC)),
        ("week", datetime(2026, 1, 26, tzinfo=UTC), date(2026, 1, 26), datetime(2026, 2, 2, tzinfo=UTC)),
        ("month", NOW, date(2026, 1, 1), datetime(2026, 2, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), date(2026, 12, 1), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_periods_are_those_of_the_calendar(name: str, now: datetime, first_day: date, next_one: datetime) -> None:
    assert period(name, now) == (first_day, next_one)
    assert period(name, next_one)[0] == next_one.date()
    assert period(name, next_one - timedelta(microseconds=1)) == (first_day, next_one)
