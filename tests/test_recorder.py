"""The one door for spans: posted ones and those of proxied calls."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.content import DEPTH_AT_MOST
from gateway.core.prices import PriceList
from gateway.core.reading import public
from gateway.errors import InvalidSpan, MalformedBody, StoreUnavailable
from gateway.metrics import Metrics
from gateway.recorder import Caller, Ended, Measured, Recorder
from gateway.store.store import Store
from gateway.tokenizer import Tokenizer
from tests.fakes.clock import FakeClock

CALLER = Caller("team", "o", "prod")
SCRIPTED = """
import json, sys
for line in sys.stdin:
    texts = json.loads(line)["texts"]
    print(json.dumps({"encoding": "scripted", "counts": {name: len(them) for name, them in texts.items()}}), flush=True)
"""


class Door:
    """A recorder on a real store, with a child process that counts texts."""

    def __init__(self, path: Path, queue_bytes: int = 2**20) -> None:
        self.path = path
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.store = Store(path, synchronous="normal", queue_bytes=queue_bytes)
        self.tokenizer = Tokenizer([sys.executable, "-c", SCRIPTED])
        self.recorder = Recorder(
            self.store, self.tokenizer, PriceList(), self.clock, self.metrics, max_content_bytes=10_000
        )

    async def read(self, unique_id: str, organization_id: str = "o") -> dict[str, Any]:
        row = await self.store.find(organization_id, unique_id, dict)
        assert row is not None
        return public(row)

    async def call(self, fields: dict[str, Any], params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The span of a proxied call, after its commit."""
        assert await self.record("c", fields, params, **more)
        return await self.read("c")

    def record(
        self, unique_id: str, fields: dict[str, Any], params: dict[str, Any] | None = None, **more: Any
    ) -> asyncio.Future[bool]:
        """Records a proxied call; the future ends with its commit."""
        committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        measured = Measured({"model": "m", **fields}, **more)
        self.recorder.record_calls([Ended(unique_id, measured, params or {}, CALLER, committed)])
        return committed

    def counted(self, name: str) -> float:
        text = self.metrics.render().decode()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"gateway_spans_{name}")))

    async def close(self) -> None:
        await self.recorder.close()
        await self.tokenizer.close()
        await self.store.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = Door(tmp_path / "spans.db")
    yield made
    await made.close()


async def test_a_posted_span_is_given_back_as_stored(door: Door) -> None:
    span = await door.recorder.create_span({"model": "m", "log_type": "tool"}, CALLER)
    assert span == await door.read(span["unique_id"])
    assert (span["unique_id"], span["log_method"]) == (f"{1:032x}", "logging_api")
    assert (span["organization_id"], span["environment"], span["organization_key_name"]) == ("o", "prod", "team")
    assert span["timestamp"] == "2026-01-02T03:04:05.000000Z"
    assert (door.counted("posted_total"), door.counted("refused_total")) == (1, 0)


async def test_an_id_that_is_taken_gives_the_stored_span(door: Door) -> None:
    first = await door.recorder.create_span({"model": "m", "unique_id": "u", "note": "first"}, CALLER)
    second = await door.recorder.create_span({"model": "other", "unique_id": "u"}, CALLER)
    assert second == first
    other = await door.recorder.create_span({"model": "other", "unique_id": "u"}, Caller("team", "p", "test"))
    assert (other["model"], other["environment"]) == ("other", "test")
    assert door.counted("posted_total") == 2


@pytest.mark.parametrize("model", [None, "", 5, [], False])
async def test_a_span_needs_a_model(door: Door, model: Any) -> None:
    for raw in ({"model": model}, {}):
        with pytest.raises(InvalidSpan) as raised:
            await door.recorder.create_span(raw, CALLER)
        assert list(raised.value.errors) == ["model"]
    assert door.counted("refused_total") == 2


async def test_an_empty_id_counts_as_not_sent_and_others_are_a_wrong_type(door: Door) -> None:
    assert (await door.recorder.create_span({"model": "m", "unique_id": ""}, CALLER))["id"] == f"{1:032x}"
    for wrong in (0, False, [], {}, 5):
        with pytest.raises(InvalidSpan):
            await door.recorder.create_span({"model": "m", "unique_id": wrong}, CALLER)


async def test_a_posted_span_waits_for_its_counts(door: Door) -> None:
    span = await door.recorder.create_span({"model": "m", "input": "hi", "output": "hello"}, CALLER)
    assert (span["prompt_tokens"], span["completion_tokens"], span["total_request_tokens"]) == (8, 1, 9)
    assert span["status"] == "warning"
    assert span["warnings"] == "prompt_tokens and completion_tokens not reported, counted with scripted"


async def test_content_that_is_cut_is_named(door: Door) -> None:
    span = await door.recorder.create_span({"model": "m", "log_type": "tool", "output": "x" * 20_000}, CALLER)
    assert span["output"].endswith("... [cut]")
    assert (span["status"], span["warnings"]) == ("warning", "output cut to fit [store] max_content_mb")


async def test_secrets_are_masked_also_in_fields_that_nobody_knows(door: Door) -> None:
    secret = {"headers": {"Authorization": "Bearer s3cret", "x-api-key": "s3cret"}}
    raw = {
        "model": "m",
        "full_request": secret,
        "full_response": secret,
        "customer_credentials": {"openai": "s3cret"},
        "respan_params": {"credential_override": {"gpt": {"api_key": "s3cret"}}},
    }
    span = await door.recorder.create_span(raw, CALLER)
    assert span["full_request"] == {"headers": {"Authorization": "***", "x-api-key": "***"}}
    assert (span["customer_credentials"], span["credential_override"]) == ("***", "***")
    assert b"s3cret" not in b"".join(file.read_bytes() for file in door.path.parent.iterdir())


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value} if depth % 2 else [value]
    return value


DEEP_FIELDS = ["input", "output", "own", "metadata", "full_request", "tools", "usage"]


@pytest.mark.parametrize("name", DEEP_FIELDS)
@pytest.mark.parametrize("log_type", ["chat", "tool"])
async def test_what_is_nested_as_deeply_as_it_may_be_is_stored_whole(door: Door, name: str, log_type: str) -> None:
    value: Any = {"a": [float("inf"), nested(DEPTH_AT_MOST - 3)]}
    value = [value] if name == "tools" else {"b": value}
    span = await door.recorder.create_span({"model": "m", "log_type": log_type, name: value}, CALLER)
    assert (
        "Infinity" in str(span[name]) and str(span[name]).count("[") + str(span[name]).count("{") >= DEPTH_AT_MOST - 1
    )


@pytest.mark.parametrize("name", DEEP_FIELDS)
async def test_what_is_nested_more_deeply_is_turned_down(door: Door, name: str) -> None:
    deep: Any = {"a": nested(DEPTH_AT_MOST)}
    with pytest.raises(MalformedBody, match=f"{name}: nested deeper than 255 levels"):
        await door.recorder.create_span({"model": "m", name: [deep] if name == "tools" else deep}, CALLER)


async def test_a_write_that_the_database_turns_down(door: Door) -> None:
    db = sqlite3.connect(door.path)
    db.execute("CREATE TRIGGER no BEFORE INSERT ON span WHEN NEW.note = 'no' BEGIN SELECT RAISE(ABORT, 'no'); END")
    db.close()
    ends = await asyncio.gather(
        *(door.recorder.create_span({"model": "m", "note": note}, CALLER) for note in ("a", "no", "b")),
        return_exceptions=True,
    )
    assert [type(end) for end in ends] == [dict, StoreUnavailable, dict]
    assert (door.counted("posted_total"), door.counted("refused_total")) == (2, 1)


async def test_many_posts_at_once_land_in_few_transactions(door: Door) -> None:
    watcher = sqlite3.connect(door.path)
    watcher.execute("CREATE TABLE counters (seq)")
    watcher.execute("CREATE TRIGGER t AFTER UPDATE ON journal BEGIN INSERT INTO counters VALUES (NEW.seq); END")
    watcher.commit()
    await asyncio.gather(*(door.recorder.create_span({"model": "m"}, CALLER) for _ in range(500)))
    assert watcher.execute("SELECT count(*) FROM span").fetchone() == (500,)
    assert watcher.execute("SELECT count(*) FROM counters").fetchone()[0] < 50
    watcher.close()


async def test_cents_add_up_exactly_in_the_database(door: Door) -> None:
    for cost in (0.1, 0.2, 0.7, 1e-12, -0.3):
        await door.recorder.create_span({"model": "m", "cost": cost}, CALLER)
    db = sqlite3.connect(door.path)
    assert db.execute("SELECT sum(cost_picos), typeof(sum(cost_picos)) FROM span").fetchone() == (
        700_000_000_001,
        "integer",
    )
    db.close()


async def test_the_span_of_a_call_holds_what_was_measured(door: Door) -> None:
    span = await door.call(
        {
            "stream": True,
            "usage": {"prompt_tokens": 10, "completion_tokens": 21},
            "latency": 5.0,
            "upstream": "main",
            "response_model": "gpt-4o-mini",
            "output": "hi",
        },
        {"note": "n", "cost": 7, "latency": 9, "unique_id": "mine", "cache_enabled": True, "odd": 1},
        generating_s=4.0,
    )
    assert (span["unique_id"], span["log_method"], span["note"]) == ("c", "inference", "n")
    assert (span["latency"], span["tokens_per_second"], span["cost"]) == (5.0, 5.0, 10 * 0.15e-6 + 21 * 0.6e-6)
    assert (span["model"], span["response_model"], span["upstream"], span["status"]) == (
        *("m", "gpt-4o-mini", "main"),
        "success",
    )
    assert span["warnings"] == (
        "cache_enabled ignored: not supported by this gateway yet; cost ignored: measured or set by the gateway; "
        "latency ignored: measured or set by the gateway; odd ignored: not a known field; "
        "unique_id ignored: measured or set by the gateway"
    )


async def test_params_of_the_wrong_type_are_dropped_and_named(door: Door) -> None:
    span = await door.call({}, {"note": 5, "customer_identifier": "x" * 255, "span_name": "s"})
    assert (span["note"], span["customer_identifier"], span["span_name"]) == (None, None, "s")
    assert span["warnings"] == (
        "customer_identifier dropped: Must have at most 254 characters.; note dropped: Must be a valid string."
    )


async def test_a_call_nested_too_deeply_keeps_its_span(door: Door) -> None:
    span = await door.call({"full_request": {"a": nested(DEPTH_AT_MOST)}, "input": "hi", "prompt_tokens": 1})
    assert (span["full_request"], span["input"]) == (None, "hi")
    assert span["warnings"] == "full_request dropped: nested deeper than 255 levels"


async def test_a_call_does_not_wait_for_its_counts(door: Door) -> None:
    # The child gets the question only after it has been asked for: the commit comes first.
    await door.tokenizer._turn.acquire()
    span = await door.call({"input": "hi", "output": "hello", "latency": 2.0, "model": "gpt-4o-mini"})
    assert (span["status"], span["prompt_tokens"], span["cost"]) == ("success", None, None)
    door.tokenizer._turn.release()
    await door.recorder.close()
    later = await door.read("c")
    assert later == {
        **span,
        "status": "warning",
        "warnings": "prompt_tokens and completion_tokens not reported, counted with scripted",
        "prompt_tokens": 8,
        "completion_tokens": 1,
        "total_request_tokens": 9,
        "cost": 1.8e-06,
        "tokens_per_second": 0.5,
    }


async def test_disable_log_keeps_numbers_and_drops_content(door: Door) -> None:
    fields = {"input": "secret words", "output": "secret words", "full_request": {"a": "secret words"}}
    await door.call(fields, {"disable_log": True})
    await door.recorder.close()
    span = await door.read("c")
    assert (span["input"], span["output"], span["full_request"], span["disable_log"]) == (None, None, None, True)
    assert (span["prompt_tokens"], span["completion_tokens"]) == (8, 1)
    assert b"secret words" not in b"".join(file.read_bytes() for file in door.path.parent.iterdir())


async def test_a_span_that_the_store_has_no_room_for_is_counted_as_dropped(tmp_path: Path) -> None:
    door = Door(tmp_path / "spans.db", queue_bytes=1)
    first, second = door.record("a", {}), door.record("b", {})
    assert second.done() and not second.result()
    assert await first
    assert door.counted("dropped_total") == 1
    await door.close()


async def test_times_that_were_not_sent_follow_the_clock(door: Door) -> None:
    door.clock.advance(60)
    span = await door.recorder.create_span({"model": "m", "latency": 1.5}, CALLER)
    assert span["timestamp"] == "2026-01-02T03:05:05.000000Z"
    assert span["start_time"] == "2026-01-02T03:05:03.500000Z"


@pytest.mark.parametrize("step", ["_cut_depth", "_complete_call", "_price_call", "_hide", "_bound", "_queue_call"])
async def test_a_call_that_fails_at_any_step_takes_no_other_with_it(
    door: Door, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    done = getattr(Recorder, step)

    def fails_for_one(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        # With no letter of an address among its own.
        if "lost" in repr(args):
            raise RuntimeError("a mistake")
        return done(self, *args, **kwargs)

    monkeypatch.setattr(Recorder, step, fails_for_one)
    loop = asyncio.get_running_loop()
    times = {"start_time": door.clock.now(), "timestamp": door.clock.now()}
    calls = [
        Ended(name, Measured({"model": name, **times}), {}, CALLER, loop.create_future()) for name in ("a", "lost", "c")
    ]
    door.recorder.record_calls(calls)
    assert [await call.committed for call in calls] == [True, False, True]
    assert [(await door.read(name))["model"] for name in ("a", "c")] == ["a", "c"]
    assert door.counted("dropped_total") == 1
    audit = await door.store.audit(CALLER.organization_id, None, None)
    assert (audit.accepted, audit.dropped, audit.missing) == (3, 1, 0)
