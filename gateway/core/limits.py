"""What a key may use, and whether one more call fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.core.prices import PICOS_PER_USD, Price

WINDOW_S = 60
DEFAULT_MAX_TOKENS = 1024
_BYTES_PER_TOKEN = 4
_MTOK = 1_000_000
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
    """Why a call does not fit, in words and as a code, and after how many seconds it may."""

    message: str
    code: str
    retry_after_s: int


def judged(limits: KeyLimits, use: Use, reserve: int, now: datetime) -> Refusal | None:
    """Whether one more call fits that may cost `reserve`; None if it does."""
    if limits.max_concurrent is not None and use.running >= limits.max_concurrent:
        return Refusal(
            f"This key may run {limits.max_concurrent} calls at a time (max_concurrent).",
            "concurrency_limit_exceeded",
            _SOON_S,
        )
    if limits.rate_limit is not None and sum(number for _, number in use.admitted) >= limits.rate_limit:
        return Refusal(
            f"This key may make {limits.rate_limit} calls a minute (rate_limit).",
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
    says none) × n.
    """
    prompt = (price.prompt or Decimal(0)) * request_bytes / _BYTES_PER_TOKEN
    completion = (price.completion or Decimal(0)) * _max_tokens(request) * _whole(request.get("n"), 1)
    return int((prompt + completion) / _MTOK * PICOS_PER_USD)


def _max_tokens(request: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if (found := _whole(request.get(name), 0)) > 0:
            return found
    return DEFAULT_MAX_TOKENS


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise


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
    return f"{Decimal(picos) / PICOS_PER_USD:.6f}".rstrip("0").rstrip(".")
