"""Completes a span: what was not sent and can be told from what was."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.core import content, prices, tokens, usage
from gateway.core.jsontext import Texts
from gateway.core.span import Span, is_finite

FAILED = "failed"
WARNING = "warning"
SUCCESS = "success"


@dataclass(slots=True)
class Draft:
    """A span on its way into the store.

    `received_at`: when it was completed. `cost_picos` is the cost in units of 1e-12 USD. `cache_is_extra`: the
    prompt's count excludes cached tokens. `generating_s`: for a measured stream, the seconds between its first and
    last generated content. `measured`: the span is of a call that went through the proxy. `reserved`: the call was
    admitted by its key's limits. `counting`: tokens are counted after it is stored, those that are `wanted`.
    `texts`: the JSON of its values. `inside`: the fields that are parts of others, see `content.parts`.
    """

    span: Span
    measured: bool = False
    generating_s: float | None = None
    cache_is_extra: bool = False
    cost_picos: int | float | None = None
    received_at: datetime | None = None
    reserved: bool = False
    counting: bool = False
    wanted: Mapping[str, tokens.Countable] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)
    inside: Collection[str] = ()


def complete(draft: Draft, now: datetime) -> None:
    """Everything that can be told without a tokenizer, but for cost and speed: see `price`."""
    span = draft.span
    draft.received_at = now
    _identify(span)
    _status(span)
    _times(span, now)
    content.fold_legacy(span)
    draft.cache_is_extra = _counts(span)


def _identify(span: Span) -> None:
    if span.span_unique_id is None:
        span.span_unique_id = span.unique_id
    if span.session_identifier is None:
        span.session_identifier = span.trace_group_identifier or span.thread_identifier


def _status(span: Span) -> None:
    if span.status is None:
        span.status = FAILED if span.status_code >= 400 or span.error_message else SUCCESS
    elif span.status == "error":
        span.status = FAILED


def _times(span: Span, now: datetime) -> None:
    sent_end, start = span.timestamp, span.start_time
    if sent_end is not None and start is not None and span.latency is not None:
        return
    latency = timedelta(seconds=span.latency) if span.latency is not None and abs(span.latency) < 1e9 else None
    if sent_end is None:
        span.timestamp = (_shift(start, latency) if start is not None and latency is not None else None) or now
    elif start is not None and span.latency is None and sent_end >= start:
        span.latency = (sent_end - start).total_seconds()
    if start is None and latency is not None and span.timestamp is not None:
        span.start_time = _shift(span.timestamp, -latency)


def _shift(time: datetime, by: timedelta) -> datetime | None:
    try:
        return time + by
    except OverflowError:
        return None


def _counts(span: Span) -> bool:
    """Counts from the usage object, where they were not sent by themselves; whether the prompt's excludes cached ones.

    What a usage object says beside a count holds for its own count only, not for another one that was sent for it.
    """
    if not span.usage:
        return False
    reported = usage.read(span.usage)
    own_prompt = _differ(span.prompt_tokens, reported.prompt_tokens)
    own_completion = _differ(span.completion_tokens, reported.completion_tokens)
    if span.prompt_tokens is None:
        span.prompt_tokens = reported.prompt_tokens
    if span.completion_tokens is None:
        span.completion_tokens = reported.completion_tokens
    if span.prompt_cache_hit_tokens is None:
        span.prompt_cache_hit_tokens = reported.cached_tokens
    if span.prompt_cache_creation_tokens is None:
        span.prompt_cache_creation_tokens = reported.cache_creation_tokens
    if span.reasoning_tokens is None:
        span.reasoning_tokens = reported.reasoning_tokens
    if span.total_request_tokens is None and not own_prompt and not own_completion:
        span.total_request_tokens = reported.total_tokens
    return reported.cache_is_extra and not own_prompt


def _differ(sent: int | None, reported: int | None) -> bool:
    return sent is not None and reported is not None and sent != reported


def wanted(draft: Draft) -> dict[str, tokens.Countable]:
    """The counts that nobody reported and that can be estimated: by field, what to count."""
    span = draft.span
    found: dict[str, tokens.Countable] = {}
    if span.gateway_log_id:
        # The gateway has counted that call.
        return found
    generating = span.log_type in tokens.GENERATING
    if not generating and span.log_type != tokens.EMBEDDING:
        return found
    # What failed before it answered has used nothing that we know of.
    if span.status == FAILED and not span.output:
        return found
    if span.prompt_tokens is None and span.input is not None:
        value = content.unwrapped_input(span.input) if generating else span.input
        found["prompt_tokens"] = tokens.prompt(span.log_type, value, span.tools)
    if span.completion_tokens is None and span.output is not None and generating:
        found["completion_tokens"] = tokens.completion(content.unwrapped_output(span.output))
    return found


def add_estimates(draft: Draft, counted: Mapping[str, tokens.Counted]) -> None:
    """Puts estimated counts in and marks the span as estimated."""
    span = draft.span
    by_tokenizer: dict[str, list[str]] = {}
    for name, result in counted.items():
        setattr(span, name, result.tokens)
        by_tokenizer.setdefault(result.tokenizer, []).append(name)
    for tokenizer, names in by_tokenizer.items():
        how = "estimated from the length" if tokenizer == "length" else f"counted with {tokenizer}"
        warn(span, f"{' and '.join(names)} not reported, {how}")
    if counted and span.status == SUCCESS:
        span.status = WARNING


def price(draft: Draft, find: Callable[[list[str], datetime, int], prices.Price | None]) -> None:
    """Total, cost and speed, once the counts are as good as they get."""
    span = draft.span
    paid = prices.Tokens(
        prompt=span.prompt_tokens,
        completion=span.completion_tokens,
        cached=span.prompt_cache_hit_tokens or 0,
        cache_creation=span.prompt_cache_creation_tokens or 0,
        cache_is_extra=draft.cache_is_extra,
    )
    if span.total_request_tokens is None and _all_counted(span):
        span.total_request_tokens = _within_64_bits(paid.prompt_in_all + (span.completion_tokens or 0))
    draft.cost_picos = _cost(span, paid, find)
    span.cost = None if draft.cost_picos is None else prices.usd(draft.cost_picos)
    if span.tokens_per_second is None:
        span.tokens_per_second = _speed(draft)


def _all_counted(span: Span) -> bool:
    """Whether nothing that costs is unknown: what generates has both counts, anything else one at least."""
    if span.log_type in tokens.GENERATING:
        return span.prompt_tokens is not None and span.completion_tokens is not None
    return span.prompt_tokens is not None or span.completion_tokens is not None


def _cost(
    span: Span, paid: prices.Tokens, find: Callable[[list[str], datetime, int], prices.Price | None]
) -> int | float | None:
    if span.cost is not None:
        exact: int | None = prices.picos(prices.decimal(span.cost))
    else:
        exact = _computed_cost(span, paid, find) if _all_counted(span) else None
    if exact is None or _within_64_bits(exact) is not None:
        return exact
    try:
        # More than nine million USD in one span: the store has no whole number for it.
        return float(exact)
    except OverflowError:
        warn(span, "cost left out: it is too large to be stored")
        return None


def _computed_cost(
    span: Span, paid: prices.Tokens, find: Callable[[list[str], datetime, int], prices.Price | None]
) -> int | None:
    prompt, completion = (
        None if sent is None else prices.decimal(sent) for sent in (span.prompt_unit_price, span.completion_unit_price)
    )
    listed = None
    if prompt is None or completion is None:
        assert span.timestamp is not None
        models = list(dict.fromkeys(name for name in (span.response_model, span.model) if name))
        listed = find(models, span.timestamp, paid.prompt_in_all)
    if prompt is None and listed is not None:
        used = listed if completion is None else dataclasses.replace(listed, completion=completion)
    else:
        used = prices.Price(prompt, completion if completion is not None or listed is None else listed.completion)
    return prices.cost(used, paid)


def _speed(draft: Draft) -> float | None:
    span = draft.span
    if span.completion_tokens is None:
        return None
    if draft.measured and span.stream:
        generated, seconds = span.completion_tokens - 1, draft.generating_s
    else:
        generated, seconds = span.completion_tokens, span.latency
    if not seconds or seconds < 0 or generated < 0:
        return None
    speed = generated / seconds
    return speed if is_finite(speed) else None


def _within_64_bits(number: int) -> int | None:
    return number if -(2**63) <= number < 2**63 else None


def warn(span: Span, text: str) -> None:
    """Adds a warning of ours to what was sent."""
    if span.warnings is None:
        span.warnings = text
    elif isinstance(span.warnings, str):
        span.warnings = f"{span.warnings}; {text}"
    else:
        ours = span.warnings.get("gateway")
        span.warnings = {**span.warnings, "gateway": f"{ours}; {text}" if ours else text}
