"""One call through the proxy, as a story: admit, choose an upstream, send, relay, settle.

The client gets the bytes that the upstream sent. Everything that measures works on a copy; whatever goes wrong
there leaves the relay alone. However a call ends, it leaves a span.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote, unquote

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.clock import Clock
from gateway.core import aliases, headers, multipart, params, rewrite, routing, secrets
from gateway.core.encoding import decoded
from gateway.core.gate import BodyGate, Gate, StreamGate
from gateway.core.jsontext import parse_object
from gateway.core.meter import BodyMeter, Meter, Reading, StreamMeter
from gateway.core.outcome import CLIENT_LEFT, OUR_FAULT, WE_STOPPED, Outcome, judged
from gateway.core.outcome import label as outcome_label
from gateway.core.routing import Kind
from gateway.deadlines import Deadlines
from gateway.errors import LimitReached, MalformedBody, NotByThisMethod, RefusedRequest, UpstreamError
from gateway.gathering import Gathering
from gateway.limiter import Limiter
from gateway.metrics import Metrics
from gateway.recorder import Caller, Ended, Measured, Opened, Recorder
from gateway.upstream.pool import Choice, Pool
from gateway.upstream.wire import Answer, Request

log = logging.getLogger(__name__)

LOG_ID_HEADER = "X-Respan-Log-Id"
# A call that has ended by then is written once; any other has a row of its own while it runs.
_OPEN_AFTER_S = 0.005
_UNKNOWN_MODEL = "unknown"
# Params of a chat that have a column of their own in the span.
_REQUEST_FIELDS = (
    "tools",
    "tool_choice",
    "response_format",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "stop",
)


class Client(Protocol):
    """The caller's side of one call."""

    method: str
    headers: CIMultiDictProxy[str]
    start_time: datetime
    started_at: float

    @property
    def gone(self) -> bool:
        """Of a call that was cancelled: whether the client has hung up; else the gateway is being stopped."""
        ...

    def name_span(self, unique_id: str) -> None:
        """Says which span this call leaves, also where the answer is an error of ours."""
        ...

    async def read(self) -> bytes:
        """The whole body, still encoded as it came. Raises BodyTooLarge."""
        ...

    def begin(self, status: int, reason: str, answer_headers: CIMultiDict[str]) -> None:
        """Makes the head, which goes out with what follows."""
        ...

    async def flush(self) -> None:
        """Sends the head now. Raises ConnectionError when the client is gone, as all that follow do."""
        ...

    async def write(self, piece: bytes) -> None:
        """Sends a piece now; waits while the client is slow."""
        ...

    async def end(self, last: bytes = b"") -> None:
        """Sends the last piece and ends the answer as complete."""
        ...

    def cut(self) -> None:
        """Hangs up after what was sent, so that the client sees an answer that is not complete."""
        ...


@dataclass(slots=True)
class Call:
    """What is known of one call so far."""

    unique_id: str
    caller: Caller
    kind: Kind
    client: Client
    path_qs: str
    params: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    streamed: bool = False
    upstream: str | None = None
    sent_at: float | None = None
    status_code: int | None = None
    ended_at: float | None = None
    request_bytes: int = 0
    reserved: bool = False
    opened: Opened | None = None
    settled: bool = False


class _SafeMeter:
    """A meter whose failure costs the span its content, and the client nothing."""

    def __init__(self, meter: Meter) -> None:
        self._meter: Meter | None = meter

    def feed(self, at: float, piece: bytes) -> None:
        try:
            if self._meter is not None:
                self._meter.feed(at, piece)
        except Exception as error:
            self._fail(error)

    def read(self) -> Reading:
        try:
            if self._meter is not None:
                return self._meter.read()
        except Exception as error:
            self._fail(error)
        return Reading(understood=True, warnings=["the gateway failed to read the answer"])

    def _fail(self, error: Exception) -> None:
        self._meter = None
        log.error("An answer could not be measured\n%s", secrets.trace(error))


# A call whose answer is complete, and what is to end with its span's commit.
_EndedCall = tuple[Call, Meter, asyncio.Future[bool]]


class Proxy:
    """Relays calls and hands their measurements to the recorder."""

    def __init__(
        self,
        pool: Pool,
        recorder: Recorder,
        limiter: Limiter,
        clock: Clock,
        metrics: Metrics,
        *,
        commit_wait_s: float,
        max_body_bytes: int,
        max_content_bytes: int,
    ) -> None:
        self._pool = pool
        self._recorder = recorder
        self._limiter = limiter
        self._clock = clock
        self._metrics = metrics
        self._commit_waits = Deadlines(commit_wait_s, self._wait_no_longer)
        self._openings = Deadlines(_OPEN_AFTER_S, self._open)
        self._max_body_bytes = max_body_bytes
        self._kept_bytes = max(max_body_bytes, max_content_bytes)
        self._loop = asyncio.get_running_loop()
        self._under_way = 0
        # The more spans are made and committed at once, the less each costs: with 64 clients a call as a whole some
        # percent less.
        self._ended: Gathering[_EndedCall] = Gathering(self._record_ended, lambda: self._under_way)
        self._settling: set[asyncio.Task[None]] = set()

    async def call(self, client: Client, caller: Caller, path_qs: str) -> None:
        """One POST. `path_qs` follows `/v1` and begins with a slash.

        Raises RefusedRequest and UpstreamError while the client has got nothing yet; their span is stored by then.
        """
        self._under_way += 1
        try:
            await self._call(client, caller, path_qs)
        finally:
            self._under_way -= 1

    async def _call(self, client: Client, caller: Caller, path_qs: str) -> None:
        path = path_qs.partition("?")[0]
        call = Call(self._clock.new_id(), caller, routing.kind_of(path), client, path_qs)
        call.params = _params({}, client)
        client.name_span(call.unique_id)
        try:
            body = await client.read()
            forwarded, choice = self._admit(call, body)
            call.request_bytes = len(body)
            await self._limit(call, choice)
            request = Request(
                "POST",
                path_qs,
                _forwarded_headers(client, changed=forwarded is not body),
                forwarded,
                streamed=call.streamed,
                on_sent=lambda: self._mark_sent(call),
            )
            self._openings.add(call)
            if self._under_way > 1:
                # First all that have come are read, then all are sent: each step finds its code where the processor
                # has it at hand, which makes a busy gateway a tenth faster.
                await asyncio.sleep(0)
            answer = await choice.upstream.send(request)
        except (RefusedRequest, UpstreamError) as error:
            await self._refuse(call, error)
            raise
        except (ConnectionError, asyncio.CancelledError):
            self._settle(call, Reading(), _departure(client))
            raise
        except Exception:
            await self._settle_and_wait(call, Reading(), OUR_FAULT)
            raise
        try:
            await self._relay(call, choice, answer)
        finally:
            answer.close()

    async def pass_on(self, client: Client, caller: Caller, method: str, path_qs: str) -> None:
        """A request that is no call (anything but POST): relayed, no span. Raises RefusedRequest and UpstreamError."""
        body = await client.read()
        if body and caller.limits is not None:
            raise NotByThisMethod(f"A key with limits sends bodies by POST, not by {method}.")
        if body:
            unrecorded = Call("", caller, routing.kind_of(path_qs.partition("?")[0]), client, path_qs)
            forwarded, choice = self._admit(unrecorded, body)
        else:
            model = _model_in_path(path_qs)
            forwarded, choice = body, self._pool.choose(model)
            if model is not None and choice.model is not None and choice.model != model:
                path_qs = _with_model_in_path(path_qs, choice.model)
        passed = _forwarded_headers(client, changed=forwarded is not body)
        request = Request(method, path_qs, passed, forwarded, streamed=False, on_sent=lambda: None)
        answer = await choice.upstream.send(request)
        returned = headers.to_client(answer.headers.items(), same_length=True)
        try:
            client.begin(answer.status, answer.reason, returned)
            if not answer.ready:
                await client.flush()
            while piece := await answer.read():
                await client.write(piece)
            await client.end()
        except (UpstreamError, ConnectionError):
            client.cut()
        finally:
            answer.close()

    # Admit

    def _admit(self, call: Call, body: bytes) -> tuple[bytes, Choice]:
        """Reads what the request says, and gives what goes on and where. Raises MalformedBody and NotFound."""
        limit = None if call.kind.is_chat else multipart.boundary(call.client.headers.get("Content-Type", ""))
        try:
            plain = decoded(body, call.client.headers.get("Content-Encoding", ""), self._max_body_bytes)
            if limit is not None:
                return self._admit_form(call, body, plain, limit)
            fields = parse_object(plain)
        except MalformedBody:
            if call.kind.is_chat:
                raise
            return self._admit_opaque(call, body)
        own = params.own_fields(fields, is_chat=call.kind.is_chat)
        call.params = _params(own, call.client)
        removed = params.stripped(fields, is_chat=call.kind.is_chat)
        call.request = params.other_fields(fields, removed)
        call.streamed = fields.get("stream") is True
        call.model = fields["model"] if isinstance(fields.get("model"), str) else None
        choice = self._choose(call)
        changes = _changes(call, fields, removed, choice)
        if not changes:
            return body, choice

        def change(text: str) -> str:
            for one in changes:
                text = one(text)
            return text

        return rewrite.in_bytes(plain, change), choice

    def _admit_form(self, call: Call, body: bytes, plain: bytes, limit: bytes) -> tuple[bytes, Choice]:
        fields = multipart.fields(plain, limit, {"model", "stream", "metadata", *params.STRIPPED})
        own = params.own_fields(fields, is_chat=False)
        call.params = _params(own, call.client)
        call.model = fields["model"] if isinstance(fields.get("model"), str) else None
        call.streamed = fields.get("stream") == "true"
        call.request = {"model": call.model, "bytes": len(plain)}
        choice = self._choose(call)
        changed = multipart.without(plain, limit, params.STRIPPED)
        if choice.model is not None and choice.model != call.model:
            changed = multipart.with_value(changed, limit, "model", choice.model)
        return (body if changed == plain else changed), choice

    def _admit_opaque(self, call: Call, body: bytes) -> tuple[bytes, Choice]:
        """A body that is no JSON object: it goes on as it is, to the first upstream."""
        call.request = {"bytes": len(body)}
        return body, self._choose(call)

    def _choose(self, call: Call) -> Choice:
        choice = self._pool.choose(call.model)
        call.upstream = choice.upstream.name
        return choice

    async def _limit(self, call: Call, choice: Choice) -> None:
        """Sees to it that the call fits the limits of its key. Raises LimitReached."""
        if call.caller.limits is None:
            return
        models = [name for name in dict.fromkeys((call.model, choice.model)) if name is not None]
        # Before it is known: a client may leave while the question is under way.
        call.reserved = True
        call.reserved = await self._limiter.admit(
            call.unique_id, call.caller, call.caller.limits, models, call.request, call.request_bytes
        )

    def _open(self, call: Call) -> None:
        """From here on a call that still runs has a row, whatever becomes of this process."""
        if call.settled:
            return
        start_time = call.client.start_time
        fields = {
            "model": call.model or _UNKNOWN_MODEL,
            "upstream": call.upstream,
            "log_type": call.kind.log_type,
            "stream": call.streamed,
            "start_time": start_time,
            "timestamp": start_time,
        }
        call.opened = self._recorder.open_call(call.unique_id, fields, call.params, call.caller)

    def _mark_sent(self, call: Call) -> None:
        call.sent_at = self._clock.monotonic()

    # Relay

    async def _relay(self, call: Call, choice: Choice, answer: Answer) -> None:
        is_stream = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream"
        encoding = answer.headers.get("Content-Encoding", "").strip().lower()
        is_plain = encoding in ("", "identity")
        holds_usage = is_stream and is_plain and _asks_for_usage(call, choice)
        gate = _gate(answer, is_stream=is_stream and is_plain, holds_usage=holds_usage)
        meter = _SafeMeter(self._meter(call, answer, is_stream=is_stream, encoding=encoding))
        call.status_code = answer.status
        call.streamed = call.streamed or is_stream
        client = call.client
        try:
            returned = headers.to_client(answer.headers.items(), same_length=not holds_usage)
            returned[LOG_ID_HEADER] = call.unique_id
            if _has_no_body(answer):
                # Its head is the last piece.
                await self._settle_complete(call, meter, self._clock.monotonic())
            client.begin(answer.status, answer.reason, returned)
            if not answer.ready:
                await client.flush()
            while piece := await answer.read():
                at = self._clock.monotonic()
                meter.feed(at, piece)
                passed = gate.feed(piece)
                if answer.ended:
                    last = passed + gate.end()
                    break
                if gate.complete and not call.settled:
                    await self._settle_complete(call, meter, at)
                if passed:
                    await client.write(passed)
            else:
                at, last = self._clock.monotonic(), gate.end()
            if not call.settled:
                await self._settle_complete(call, meter, at)
            await client.end(last)
        except UpstreamError as error:
            reading = meter.read()
            cut = Outcome(error.status, error.code, str(error))
            await self._settle_and_wait(call, reading, _outcome(call, reading, broken_off=cut))
            await _try_write(client, gate.end())
            client.cut()
        except (ConnectionError, asyncio.CancelledError) as error:
            # The upstream is let go first: settling a long answer takes longer than it may go on generating for nobody.
            answer.close()
            self._settle_soon(call, meter, _departure(client))
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception:
            self._settle(call, meter.read(), OUR_FAULT)
            await _try_write(client, b"")
            client.cut()
            raise

    def _meter(self, call: Call, answer: Answer, *, is_stream: bool, encoding: str) -> Meter:
        if is_stream:
            return StreamMeter(call.kind.dialect, self._kept_bytes, encoding)
        content_type = answer.headers.get("Content-Type", "").lower()
        is_text = call.kind.is_json or answer.status >= 400 or "json" in content_type or "text/" in content_type
        return BodyMeter(self._kept_bytes, encoding, json=is_text)

    def _settle_soon(self, call: Call, meter: Meter, outcome: Outcome) -> None:
        """Settles a call that was broken off, in a task of its own, so that no further cancellation can stop it."""
        call.ended_at = self._clock.monotonic() if call.ended_at is None else call.ended_at

        async def settle() -> None:
            reading = meter.read()
            self._settle(call, reading, _outcome(call, reading, broken_off=outcome))

        task = asyncio.create_task(settle(), name=f"settle {call.unique_id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def settled(self) -> None:
        """Waits for the calls that are being settled."""
        self._ended.flush()
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def _settle_complete(self, call: Call, meter: Meter, at: float) -> None:
        """The upstream's answer is complete: whatever the client does from here on, this is how the call ended.

        Waits for its span's commit, but never longer than `commit_wait_s` from when the store has it.
        """
        call.ended_at = at
        call.settled = True
        committed: asyncio.Future[bool] = self._loop.create_future()
        self._ended.add((call, meter, committed))
        await _end_of(committed)

    def _wait_no_longer(self, committed: asyncio.Future[bool]) -> None:
        if not committed.done():
            self._metrics.commit_waits_over.inc()
            committed.set_result(False)

    def _record_ended(self, ended: list[_EndedCall]) -> None:
        """Makes the spans of calls that have ended, see `Recorder.record_calls`."""
        try:
            readings = [meter.read() for _, meter, _ in ended]
            self._record(
                [
                    (call, reading, self._ending(call, reading), committed)
                    for (call, _, committed), reading in zip(ended, readings, strict=True)
                ]
            )
        finally:
            # From now on: however long it takes to make the span of a large call, the store has no part in it.
            for _, _, committed in ended:
                self._commit_waits.add(committed)

    def _ending(self, call: Call, reading: Reading) -> Outcome:
        try:
            return _outcome(call, reading)
        except Exception as error:
            log.error("How the call %s ended cannot be told\n%s", call.unique_id, secrets.trace(error))
            return OUR_FAULT

    # Settle

    async def _refuse(self, call: Call, error: RefusedRequest | UpstreamError) -> None:
        if isinstance(error, LimitReached):
            # One who tries again and again does not fill the disk with what he says.
            call.request = {}
        outcome = Outcome(error.status, error.code or "invalid_request", str(error))
        await self._settle_and_wait(call, Reading(), outcome)

    async def _settle_and_wait(self, call: Call, reading: Reading, outcome: Outcome) -> None:
        """Hands the span to the recorder and waits for its commit, but never longer than `commit_wait_s`."""
        committed = self._settle(call, reading, outcome)
        if committed is not None and not committed.done():
            self._commit_waits.add(committed)
            await _end_of(committed)

    def _settle(self, call: Call, reading: Reading, outcome: Outcome) -> asyncio.Future[bool] | None:
        """Makes the span, once. There is nothing to wait for in here, so that no cancellation can stop it."""
        if call.settled:
            return None
        call.settled = True
        committed: asyncio.Future[bool] = self._loop.create_future()
        self._record([(call, reading, outcome, committed)])
        return committed

    def _record(self, ended: list[tuple[Call, Reading, Outcome, asyncio.Future[bool]]]) -> None:
        """Hands spans to the recorder; the futures end with their commits, or at once where a span is lost."""
        measured: list[Ended] = []
        for call, reading, outcome, committed in ended:
            try:
                measured.append(self._measured(call, reading, outcome, committed))
            except Exception as error:
                # The others have nothing to do with it.
                known = Measured({"start_time": call.client.start_time})
                lost = Ended(call.unique_id, known, {}, call.caller, committed, call.opened, call.reserved)
                self._recorder.lose_call(lost, error)
        self._recorder.record_calls(measured)

    def _measured(self, call: Call, reading: Reading, outcome: Outcome, committed: asyncio.Future[bool]) -> Ended:
        ended_at = call.ended_at if call.ended_at is not None else self._clock.monotonic()
        fields = _fields(call, reading, outcome, ended_at - call.client.started_at)
        self._count(call, outcome, fields)
        carried = secrets.in_headers(call.client.headers.items()) | secrets.in_url(call.path_qs)
        measured = Measured(fields, _told(call, reading), reading.generating_s, carried)
        return Ended(call.unique_id, measured, call.params, call.caller, committed, call.opened, call.reserved)

    def _count(self, call: Call, outcome: Outcome, fields: dict[str, Any]) -> None:
        self._metrics.count_call(
            call.upstream or "none", outcome_label(outcome), fields["latency"], fields["time_to_first_token"]
        )


async def _end_of(committed: asyncio.Future[bool]) -> None:
    """Waits for a commit, whatever comes of it."""
    with suppress(Exception):
        # What could not be stored is told elsewhere.
        await committed


def _params(own: Mapping[str, Any], client: Client) -> dict[str, Any]:
    """What a call says of its span, by its body and its headers. One that names no trace is in that of its traceparent,
    which goes on to the upstream as well."""
    found = aliases.merge(own, aliases.header_params(client.headers))
    if "trace_unique_id" in found or (header := client.headers.get("traceparent")) is None:
        return found
    return {**aliases.traced(header), **found}


def _forwarded_headers(client: Client, *, changed: bool) -> list[tuple[str, str]]:
    """A body that we changed goes on without its Content-Encoding; unchanged bytes keep it."""
    if not changed:
        return list(client.headers.items())
    return [(name, value) for name, value in client.headers.items() if name.lower() != "content-encoding"]


def _changes(call: Call, fields: dict[str, Any], removed: set[str], choice: Choice) -> list[Callable[[str], str]]:
    """What has to be done to the body's text before it goes on."""
    changes: list[Callable[[str], str]] = []
    if removed:
        changes.append(lambda text: rewrite.without(text, removed))
    if choice.model is not None and choice.model != call.model:
        name = rewrite.json_text(choice.model)
        changes.append(lambda text: rewrite.with_value(text, "model", lambda _: name))
    if _asks_for_usage(call, choice):
        changes.append(rewrite.asking_for_usage)
    return changes


def _asks_for_usage(call: Call, choice: Choice) -> bool:
    """Whether we ask for the usage chunk where the client does not."""
    options = call.request.get("stream_options")
    if not call.streamed or not call.kind.has_usage_chunk or not choice.upstream.inject_usage:
        return False
    return options is None or (isinstance(options, dict) and options.get("include_usage") is not True)


def _gate(answer: Answer, *, is_stream: bool, holds_usage: bool) -> Gate:
    if is_stream:
        return StreamGate(hold_usage=holds_usage)
    length = answer.headers.get("Content-Length", "")
    return BodyGate(int(length) if length.isdecimal() else None)


def _has_no_body(answer: Answer) -> bool:
    return answer.status in (204, 304) or answer.headers.get("Content-Length") == "0"


def _outcome(call: Call, reading: Reading, broken_off: Outcome | None = None) -> Outcome:
    """How a call counts. One that broke off behind the end of its answer counts by its answer."""
    if broken_off is not None and not reading.done:
        return broken_off
    return judged(call.kind, call.status_code or 0, reading)


def _departure(client: Client) -> Outcome:
    """How a call counts that was broken off on our side of the upstream."""
    return CLIENT_LEFT if client.gone else WE_STOPPED


def _fields(call: Call, reading: Reading, outcome: Outcome, latency: float) -> dict[str, Any]:
    """The span's fields, as far as they were measured."""
    client, request, response = call.client, call.request, reading.response
    first = reading.first_generated_at
    return {
        "model": call.model or reading.model or _UNKNOWN_MODEL,
        "response_model": reading.model,
        "upstream": call.upstream,
        "log_type": call.kind.log_type,
        "stream": call.streamed,
        "status": "failed" if outcome.error_code else "success",
        "status_code": outcome.status_code,
        "error_code": outcome.error_code,
        "error_message": outcome.error_message,
        "warnings": "; ".join(reading.warnings) or None,
        "start_time": client.start_time,
        "timestamp": client.start_time + timedelta(seconds=latency),
        "latency": latency,
        "time_to_first_token": None if first is None or not call.streamed else first - client.started_at,
        "routing_time": None if call.sent_at is None else call.sent_at - client.started_at,
        "input": routing.input_of(call.kind, request),
        "output": routing.output_of(call.kind, response),
        "full_request": request or None,
        "full_response": response if isinstance(response, dict) or response is None else {"body": response},
    }


def _told(call: Call, reading: Reading) -> dict[str, Any]:
    """The span's fields that the client and the upstream told, of whatever type."""
    request = call.request
    told = (
        {name: value for name in _REQUEST_FIELDS if (value := request.get(name)) is not None}
        if call.kind.is_chat
        else {}
    )
    if reading.usage is not None:
        told["usage"] = reading.usage
    return told


async def _try_write(client: Client, piece: bytes) -> None:
    try:
        if piece:
            await client.write(piece)
        await client.flush()
    except ConnectionError:
        log.debug("the client was gone before the upstream's cut")


def _model_in_path(path_qs: str) -> str | None:
    path = path_qs.partition("?")[0].strip("/")
    return unquote(path.removeprefix("models/")) if path.startswith("models/") else None


def _with_model_in_path(path_qs: str, model: str) -> str:
    _, question, query = path_qs.partition("?")
    return f"/models/{quote(model)}{question}{query}"
