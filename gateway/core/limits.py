"""What a key may use, and whether one more call fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.core.prices import PICOS_PER_USD, Price

WINDOW_S = 60
DEFAULT_MAX_TOKENS = 1024
_BYTES_PER_TOKEN = 4
_MTOK = 1_000_000
_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# More than any budget, of tokens as of 1e-12 USD.
_NO_END = Decimal(10) ** 24
# For what ends with a call under way: nobody knows when that is.
_SOON_S = 1


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use; None where nothing limits it. `rate_limit`: calls a minute. `budget_picos`: units of
    1e-12 USD in each `budget_period` (day, week or month, UTC)."""

    rate_limit: int | None = None
    max_concurrent: int | None = None
    budget_picos: int | None = None
    budget_period: str = "month"


@dataclass(frozen=True, slots=True)
class Use:
    """What a key has used. `admitted`: calls by Unix second within the last minute, oldest first. `running`: calls
    that have not ended. `reserved` and `spent`: units of 1e-12 USD, of such calls and of the budget's period."""

    admitted: Sequence[tuple[int, int]]
    running: int
    reserved: int
    spent: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call does not fit, in words and as a code, and after how many seconds it may.

    `retry_helps`: whether that is soon enough to wait for it.
    """

    message: str
    code: str
    retry_after_s: int
    retry_helps: bool = True


def judged(limits: KeyLimits, use: Use, reserve: int, now: datetime) -> Refusal | None:
    """Whether one more call fits that may cost `reserve`; None if it does."""
    if limits.max_concurrent is not None and use.running >= limits.max_concurrent:
        return Refusal(
            f"This key may have no more calls at a time than {limits.max_concurrent} (max_concurrent).",
            "concurrency_limit_exceeded",
            _SOON_S,
        )
    if limits.rate_limit is not None and sum(number for _, number in use.admitted) >= limits.rate_limit:
        return Refusal(
            f"This key may make no more calls a minute than {limits.rate_limit} (rate_limit).",
            "rate_limit_exceeded",
            _seconds_until_below(limits.rate_limit, use.admitted, int(now.timestamp())),
        )
    if limits.budget_picos is not None and use.spent + use.reserved + reserve > limits.budget_picos:
        fits_when_calls_end = use.spent + reserve <= limits.budget_picos
        _, end = period(limits.budget_period, now)
        return Refusal(
            f"This key may spend {_usd(limits.budget_picos)} USD a {limits.budget_period} (budget_usd): "
            f"{_usd(use.spent)} are spent, {_usd(use.reserved)} reserved by calls under way, and this call may cost "
            f"{_usd(reserve)}.",
            "budget_exceeded",
            _SOON_S if fits_when_calls_end else max(1, int((end - now).total_seconds()) + 1),
            retry_helps=fits_when_calls_end,
        )
    return None


def _seconds_until_below(limit: int, admitted: Sequence[tuple[int, int]], now: int) -> int:
    left = sum(number for _, number in admitted)
    for second, number in admitted:
        left -= number
        if left < limit:
            return max(1, second + WINDOW_S - now)
    return WINDOW_S


def reserve(price: Price, request_bytes: int, request: Mapping[str, Any]) -> int:
    """The most that a call is expected to cost, in units of 1e-12 USD.

    The prompt's price × bytes of the request ÷ 4, and the completion's price × max tokens (1,024 where the request
    says none) × n. Upstreams differ in what they take for a number, and in which of several they go by: it is the
    largest that any of them could read.
    """
    prompt = (price.prompt or Decimal(0)) * request_bytes / _BYTES_PER_TOKEN
    answers = _largest(request, ("n", "best_of")) or 1
    completion = (price.completion or Decimal(0)) * (_largest(request, _MAX_TOKENS) or DEFAULT_MAX_TOKENS) * answers
    return int((prompt + completion) / _MTOK * PICOS_PER_USD)


def _largest(request: Mapping[str, Any], names: Sequence[str]) -> int:
    return max(_whole(request.get(name)) for name in names)


def _whole(value: Any) -> int:
    """The number, rounded up, also where it is written as text; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0
    try:
        number = Decimal(value)
    except InvalidOperation:
        return 0
    if number.is_nan() or number <= 0:
        return 0
    return math.ceil(min(number, _NO_END))


def period(name: str, now: datetime) -> tuple[date, datetime]:
    """The first day of the day, week or month that `now` (UTC) is in, and the moment when the next one begins."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "week":
        start -= timedelta(days=start.weekday())
        end = start + timedelta(days=7)
    elif name == "month":
        start = start.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        end = start + timedelta(days=1)
    return start.date(), end


def _usd(picos: int) -> str:
    if picos > _NO_END:
        return "more than a trillion"
    return f"{Decimal(picos) / PICOS_PER_USD:.6f}".rstrip("0").rstrip(".")
