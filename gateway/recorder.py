"""create_span: the one door by which a span enters, whoever made it."""

import asyncio
import logging
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from gateway.clock import Clock
from gateway.core import aliases, complete, content, params, secrets, steps
from gateway.core.complete import Draft
from gateway.core.jsontext import is_unicode
from gateway.core.limits import KeyLimits
from gateway.core.prices import Explained, Price, PriceList
from gateway.core.reading import public
from gateway.core.span import of_call, validate, validate_leniently
from gateway.errors import (
    GatewayError,
    InvalidSpan,
    MalformedBody,
    NotFound,
    RefusedRequest,
    StoreFull,
    StoreUnavailable,
)
from gateway.metrics import Metrics
from gateway.store.rows import view_row
from gateway.store.store import Opened as Opened
from gateway.store.store import Store
from gateway.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# Spans of one bulk between two turns of others.
_TURN_EVERY = 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a request came with."""

    name: str
    organization_id: str
    environment: str
    limits: KeyLimits | None = None


class Measured(NamedTuple):
    """What the proxy measured of one call: span fields under public names, and the stream's generating time (s).

    `told`: fields that client and upstream told, of whatever type. `carried`: the secrets in the request's headers and
    URL, which the answer may repeat.
    """

    fields: Mapping[str, Any]
    told: Mapping[str, Any] = {}
    generating_s: float | None = None
    carried: Collection[str] = ()


class Ended(NamedTuple):
    """A call whose span is to be made. `committed` is to end with its commit. `opened`: what `open_call` gave.
    `reserved`: the key's limits have admitted it."""

    unique_id: str
    measured: Measured
    params_given: Mapping[str, Any]
    caller: Caller
    committed: asyncio.Future[bool]
    opened: Opened | None = None
    reserved: bool = False


class Recorder:
    """Turns raw spans into stored ones."""

    def __init__(
        self,
        store: Store,
        tokenizer: Tokenizer,
        prices: PriceList,
        clock: Clock,
        metrics: Metrics,
        *,
        max_content_bytes: int,
        upstream_secrets: Collection[str] = (),
    ) -> None:
        self._store = store
        self._tokenizer = tokenizer
        self._prices = prices
        self._clock = clock
        self._metrics = metrics
        self._max_content_bytes = max_content_bytes
        self._upstream_secrets = tuple(upstream_secrets)
        self._late: set[asyncio.Task[None]] = set()
        self._posting = 0

    def find_price(self, models: list[str], at: datetime, prompt_tokens: int) -> Price | None:
        """The price in force for the first of the models that has one."""
        return self._prices.find(models, at, prompt_tokens)

    def explain_price(self, models: list[str], at: datetime, prompt_tokens: int) -> Explained | None:
        """The same, and whose price it is."""
        return self._prices.explain(models, at, prompt_tokens)

    def replace(self, prices: PriceList, upstream_secrets: Collection[str]) -> None:
        """Prices with these from now on, and hides these."""
        self._prices = prices
        self._upstream_secrets = tuple(upstream_secrets)

    async def create_span(
        self, raw: Mapping[str, Any], caller: Caller, header_params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Stores a posted span and gives it back as stored; returns after its commit.

        Of a `unique_id` that the organization has already, the stored span is given back and nothing is written.
        Raises InvalidSpan, MalformedBody and StoreUnavailable.
        """
        self._posting += 1
        try:
            draft, inserted = await self._insert(raw, caller, header_params)
            is_new = await inserted
        except (GatewayError, sqlite3.Error) as error:
            raise self._refused(error, caller) from error
        finally:
            self._posting -= 1
        if is_new:
            self._metrics.posted.inc()
            return public(view_row(draft))
        stored = await self._store.find(caller.organization_id, str(draft.span.unique_id), public)
        if stored is None:
            raise StoreUnavailable("The span is not in the store any more.", code="store_failed")
        return stored

    async def create_spans(
        self,
        raws: Sequence[Any],
        caller: Caller,
        header_params: Mapping[str, Any] | None = None,
        *,
        traced: bool = False,
        lenient: bool = False,
    ) -> list[RefusedRequest | str]:
        """Stores posted spans, each on its own, and returns after their commits: for each its id, or why it was not
        stored. `traced`: they are steps of traces, which need no model, and are known by their ids in the trace.
        `lenient`: what has a wrong type is left out, and the span says so."""
        ends: list[RefusedRequest | tuple[Draft, asyncio.Future[bool]]] = []
        for number, raw in enumerate(raws, 1):
            try:
                if not isinstance(raw, dict):
                    raise MalformedBody("A span must be a JSON object.")
                ends.append(await self._insert(raw, caller, header_params, traced=traced, lenient=lenient))
            except GatewayError as error:
                ends.append(self._refused(error, caller))
            if number % _TURN_EVERY == 0:
                await asyncio.sleep(0)
        return [await self._end(end, caller, traced=traced) for end in ends]

    async def edit_span(self, unique_id: str, raw: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Changes what was said of a stored span (EDITABLE), and gives it back; returns after the commit.

        `metadata` is merged, where null takes a key out. Raises InvalidSpan, NotFound, StillRunning and
        StoreUnavailable.
        """
        columns, metadata = _edits(raw)
        if not is_unicode(unique_id) or not await self._changed(
            self._store.edit(caller.organization_id, unique_id, columns, metadata)
        ):
            raise NotFound("Span not found.")
        stored = await self._store.find(caller.organization_id, unique_id, public)
        if stored is None:
            raise NotFound("Span not found.")
        return stored

    async def delete_span(self, unique_id: str, caller: Caller) -> None:
        """Deletes a stored span; returns after the commit. Raises NotFound, StillRunning and StoreUnavailable."""
        if not is_unicode(unique_id) or not await self._changed(self._store.delete(caller.organization_id, unique_id)):
            raise NotFound("Span not found.")

    async def _changed(self, change: asyncio.Future[bool]) -> bool:
        try:
            return await change
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The span could not be changed: {error}.", code="store_failed") from error

    async def _insert(
        self,
        raw: Mapping[str, Any],
        caller: Caller,
        header_params: Mapping[str, Any] | None,
        *,
        traced: bool = False,
        lenient: bool = False,
    ) -> tuple[Draft, asyncio.Future[bool]]:
        await self._in_step()
        draft, minted = self._posted(raw, caller, header_params, traced=traced, lenient=lenient)
        if wanted := complete.wanted(draft):
            complete.add_estimates(draft, await self._tokenizer.count(draft.span.model, wanted))
        await self._in_step()
        self._finish(draft)
        return draft, self._store.insert(draft, minted=minted)

    async def _in_step(self) -> None:
        """Lets others of those that are posted at the same time take the step before this one, see `record_calls`."""
        if self._posting > 1:
            await asyncio.sleep(0)

    async def _end(
        self, end: RefusedRequest | tuple[Draft, asyncio.Future[bool]], caller: Caller, *, traced: bool
    ) -> RefusedRequest | str:
        if isinstance(end, RefusedRequest):
            return end
        draft, inserted = end
        try:
            if await inserted:
                self._metrics.posted.inc()
            elif traced:
                await self._check_same(draft, caller)
        except (GatewayError, sqlite3.Error) as error:
            return self._refused(error, caller)
        return str(draft.span.unique_id)

    async def _check_same(self, draft: Draft, caller: Caller) -> None:
        """Whether the stored span of this id is the same step of the same trace. Raises InvalidSpan."""
        stored = await self._store.find(caller.organization_id, str(draft.span.unique_id), dict)
        mine = vars(draft.span)
        if stored is None or any(stored[name] != mine[name] for name in ("trace_unique_id", "span_unique_id")):
            raise InvalidSpan({"unique_id": ["Belongs to another span."]})

    def _refused(self, error: GatewayError | sqlite3.Error, caller: Caller) -> RefusedRequest:
        """The error as its poster is told, and it is counted."""
        self.refuse(caller)
        if isinstance(error, RefusedRequest):
            return error
        told = StoreUnavailable(f"The span could not be stored: {error}.", code="store_failed")
        told.__cause__ = error
        return told

    def refuse(self, caller: Caller) -> None:
        """Counts a posted span that was turned down."""
        self._metrics.refused.inc()
        self._store.refuse(caller.organization_id, self._clock.now())

    def open_call(
        self, unique_id: str, fields: Mapping[str, Any], params_given: Mapping[str, Any], caller: Caller
    ) -> Opened | None:
        """Queues the row of a call that is being forwarded, for `record_calls` to settle. Never raises.

        `fields`: span fields that are known by now, `start_time` among them.
        """
        try:
            ids = {name: value for name in _TRACE_IDS if isinstance(value := params_given.get(name), str)}
            row = {
                **_RUNNING,
                "span_unique_id": unique_id,
                **ids,
                **fields,
                **_of(caller),
                "unique_id": unique_id,
            }
            return self._store.open(caller.organization_id, fields["start_time"], row)
        except Exception as error:
            log.error("The call %s has no row while it runs\n%s", unique_id, secrets.trace(error))
            return None

    def record_calls(self, calls: Iterable[Ended]) -> None:
        """Queues the spans of proxied calls. Never raises: a call whose span is lost is counted and logged, and its
        `committed` is False.

        Tokens that nobody reported are counted after the commit and put in then. One step for all calls, then the next:
        so a step finds its code where the processor has it at hand, and a busy gateway answers a tenth more calls.
        """
        made: list[tuple[Ended, Draft]] = []
        for call in calls:
            try:
                made.append((call, _taken(call)))
            except Exception as error:
                self.lose_call(call, error)
        for step in (
            self._cut_depth,
            self._complete_call,
            self._price_call,
            self._hide_of_call,
            self._bound_call,
            self._queue_call,
        ):
            went_well: list[tuple[Ended, Draft]] = []
            for call, draft in made:
                try:
                    step(call, draft)
                    went_well.append((call, draft))
                except Exception as error:
                    self.lose_call(call, error)
            made = went_well

    def _cut_depth(self, call: Ended, draft: Draft) -> None:
        span = draft.span
        draft.inside = content.parts(span)
        for name in content.too_deep(span, draft.texts, draft.inside):
            content.put(span, name, None)
            complete.warn(span, f"{name} dropped: nested deeper than {content.DEPTH_AT_MOST} levels")

    def _complete_call(self, call: Ended, draft: Draft) -> None:
        complete.complete(draft, self._clock.now())

    def _price_call(self, call: Ended, draft: Draft) -> None:
        draft.reserved = call.reserved
        draft.wanted = complete.wanted(draft)
        draft.counting = bool(draft.wanted)
        if not draft.wanted:
            complete.price(draft, self._prices.find)

    def _hide_of_call(self, call: Ended, draft: Draft) -> None:
        self._hide(draft, call.measured.carried)

    def _bound_call(self, call: Ended, draft: Draft) -> None:
        self._bound(draft)

    def _queue_call(self, call: Ended, draft: Draft) -> None:
        if self._settle(call, draft) and draft.wanted:
            task = asyncio.create_task(self._count_late(draft, draft.wanted), name=f"count {call.unique_id}")
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    def _settle(self, call: Ended, draft: Draft) -> bool:
        """Hands a call's span to the store. Where that is full, what was opened is settled without its content; what
        was not is dropped, and counted."""
        settle = partial(
            self._store.settle, draft, call.opened, on_failure=partial(self._lost, call), done=call.committed
        )
        try:
            settle()
        except StoreFull:
            if call.opened is None:
                self._metrics.dropped.inc()
                log.error("The span %s of a call is dropped: the store is full", call.unique_id)
                self._store.drop(draft)
                _end_without(call)
                return False
            content.drop(draft.span)
            complete.warn(draft.span, "content dropped: the store was full")
            if draft.span.status == complete.SUCCESS:
                draft.span.status = complete.WARNING
            settle(force=True)
        return True

    def lose_call(self, call: Ended, error: Exception) -> None:
        """Counts a call whose span cannot be made. The call goes on whatever becomes of its span."""
        self._metrics.dropped.inc()
        log.error("The span %s of a call is lost\n%s", call.unique_id, secrets.trace(error))
        self._abandon(call)
        _end_without(call)

    def _lost(self, call: Ended, error: Exception) -> None:
        self._metrics.dropped.inc()
        why = error if isinstance(error, (GatewayError, sqlite3.Error)) else secrets.trace(error)
        log.error("The span %s of a call is lost: %s", call.unique_id, why)
        self._abandon(call)

    def _abandon(self, call: Ended) -> None:
        start_time = call.measured.fields.get("start_time") or self._clock.now()
        self._store.abandon(call.unique_id, call.caller.organization_id, call.opened, start_time)

    async def close(self) -> None:
        """Waits for the counts that are still under way."""
        await asyncio.gather(*self._late, return_exceptions=True)

    def _posted(
        self,
        raw: Mapping[str, Any],
        caller: Caller,
        header_params: Mapping[str, Any] | None,
        *,
        traced: bool,
        lenient: bool,
    ) -> tuple[Draft, bool]:
        """A posted span, and whether its id was minted here."""
        fields = aliases.merge(raw, header_params)
        if traced:
            fields |= steps.identified(fields)
        elif not fields.get("model"):
            fields.pop("model", None)
        minted = fields.get("unique_id", "") == ""
        if minted:
            fields["unique_id"] = self._clock.new_id()
        fields.setdefault("log_method", "logging_api")
        whole = {**fields, **_of(caller)}
        span, wrong = validate_leniently(whole) if lenient else (validate(whole), {})
        for name, texts in wrong.items():
            complete.warn(span, f"{name} dropped: {' '.join(texts)}")
        draft = Draft(span)
        if deep := content.too_deep(draft.span, draft.texts):
            raise MalformedBody(f"{', '.join(deep)}: nested deeper than {content.DEPTH_AT_MOST} levels.")
        complete.complete(draft, self._clock.now())
        return draft, minted

    def _finish(self, draft: Draft) -> None:
        """The last steps of a posted span before the store."""
        complete.price(draft, self._prices.find)
        self._hide(draft)
        self._bound(draft)

    def _hide(self, draft: Draft, carried: Collection[str] = ()) -> None:
        """Leaves out what is not to be logged, and secrets; `carried`: those of the request's headers and URL."""
        if draft.span.disable_log:
            content.drop(draft.span)
            draft.inside = ()
        self._hide_secrets(draft, carried)

    def _bound(self, draft: Draft) -> None:
        """Keeps a span within bounds."""
        span = draft.span
        if was_cut := content.cut(span, self._max_content_bytes, draft.texts, draft.inside):
            draft.inside = ()
            complete.warn(span, f"{', '.join(was_cut)} cut to fit [store] max_content_mb")
            if span.status == complete.SUCCESS:
                span.status = complete.WARNING

    def _hide_secrets(self, draft: Draft, carried: Collection[str]) -> None:
        span, found = draft.span, set(carried)
        fields = vars(span)
        for name in _TOLD_BY_CALLERS:
            # A call's tools are a part of its request.
            if fields[name] is not None and name not in draft.inside:
                _mask(draft, name, (), found)
        if span.extras:
            span.extras.update(secrets.masked(span.extras))
        if draft.measured:
            # An upstream may repeat the keys that it was called with, in an error above all.
            self._hide_in_answer(draft, secrets.hidden(self._upstream_secrets, frozenset(found)))
        else:
            _mask(draft, "full_response")

    def _hide_in_answer(self, draft: Draft, hidden: secrets.Hidden) -> None:
        span = draft.span
        repeated = () if span.full_response is None else hidden.within(draft.texts.of(span.full_response))
        is_clean = _mask(draft, "full_response", repeated)
        fields = vars(span)
        for name in _OF_THE_ANSWER:
            if fields[name] is not None and (not is_clean or name not in draft.inside):
                _mask(draft, name, hidden.texts)
        for name in _TOLD_BY_UPSTREAMS:
            if fields[name] is not None:
                _mask(draft, name, hidden.texts)

    async def _count_late(self, draft: Draft, wanted: Mapping[str, Any]) -> None:
        try:
            complete.add_estimates(draft, await self._tokenizer.count(draft.span.model, wanted))
            complete.price(draft, self._prices.find)
            # The store takes changes in their order: the span is there before its counts.
            await self._store.update_counts(draft)
        except (StoreUnavailable, sqlite3.Error) as error:
            log.warning("The span %s stays without token counts: %s", draft.span.unique_id, error)


def _taken(call: Ended) -> Draft:
    """What was measured and told of a call as a span; what has no effect is named in its warnings."""
    measured = call.measured
    taken, ignored = params.descriptive(call.params_given)
    fields = {**measured.fields, **_of(call.caller), "unique_id": call.unique_id, "log_method": "inference"}
    span, wrong = of_call(fields, {**taken, **measured.told})
    for name, texts in wrong.items():
        ignored.append(f"{name} dropped: {' '.join(texts)}")
    for text in ignored:
        complete.warn(span, text)
    return Draft(span, measured=True, generating_s=measured.generating_s)


# What can be changed of a stored span.
EDITABLE = ("metadata", "note", "positive_feedback", "custom_identifier")


def _edits(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The new values but for metadata, and what is to be merged into that. Raises InvalidSpan."""
    if unknown := sorted(set(raw) - set(EDITABLE)):
        told = f"Cannot be changed; {', '.join(EDITABLE)} can."
        raise InvalidSpan({name: [told] for name in unknown})
    span = validate({"model": "", **raw})
    columns = {name: getattr(span, name) for name in EDITABLE if name in raw and name != "metadata"}
    return columns, None if span.metadata is None else secrets.masked(span.metadata)


def _end_without(call: Ended) -> None:
    """Nobody waits any longer for a commit that does not come."""
    if not call.committed.done():
        call.committed.set_result(False)


# Where secrets may stand. Input and output are content, which is kept as it was said.
_TOLD_BY_CALLERS = ("full_request", "tools", "metadata", "properties", "customer_params", "variables")
_OF_THE_ANSWER = ("usage", "output", "tool_calls")
_TOLD_BY_UPSTREAMS = ("model", "response_model", "error_code", "error_message")


def _mask(draft: Draft, name: str, texts: Collection[str] = (), found: set[str] | None = None) -> bool:
    """Whether there was nothing in a field that had to be masked."""
    value = getattr(draft.span, name)
    if value is None or (
        not texts and type(value) in (dict, list) and not secrets.may_be_within(draft.texts.of(value))
    ):
        return True
    masked = secrets.masked(value, texts, found)
    if masked is value:
        return True
    setattr(draft.span, name, masked)
    if draft.inside:
        # What is masked in one place may not be in the other.
        draft.inside = content.parts(draft.span)
    return False


# A call under way: what its row must hold and is not known yet.
_RUNNING = {
    "status": "running",
    "status_code": 0,
    "log_method": "inference",
    "is_custom_prompt": False,
    "temperature": 1.0,
    "top_p": 1.0,
}
_TRACE_IDS = ("trace_unique_id", "trace_group_identifier", "span_unique_id", "span_parent_id", "span_name")


def _of(caller: Caller) -> dict[str, str]:
    return {
        "organization_id": caller.organization_id,
        "organization_key_id": caller.name,
        "organization_key_name": caller.name,
        "environment": caller.environment,
    }
