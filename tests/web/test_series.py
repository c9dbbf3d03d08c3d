"""Sums over time, over HTTP."""

import sys
import threading
from typing import Any

import pytest

from gateway.core.jsontext import dump
from tests.conftest import Gateway

NOON = "2026-01-02T{}:00.000000Z"
SPANS = [
    {"model": "a", "timestamp": "2026-01-02T12:10:00Z", "latency": 1, "cost": 0.5, "prompt_tokens": 10},
    {"model": "a", "timestamp": "2026-01-02T12:50:00Z", "latency": 3, "cost": 0.25, "status": "failed"},
    {"model": "b", "timestamp": "2026-01-02T14:00:00Z", "latency": 2, "customer_identifier": "u"},
]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for span in SPANS:
        assert (await gateway.post(span))[0] == 201
    return gateway


async def ask(gateway: Gateway, query: str = "", **kwargs: Any) -> tuple[int, Any]:
    method = "POST" if kwargs else "GET"
    async with gateway.session.request(method, f"/api/request-logs/series/{query}", **kwargs) as response:
        return response.status, await response.json()


def shares(value: float | None) -> dict[str, float | None]:
    return {"p50": value, "p95": value, "p99": value}


async def test_points(filled: Gateway) -> None:
    status, found = await ask(filled, "?interval=1h")
    assert status == 200
    first, second = found.pop("results")
    assert found == {
        **{"interval": "1h", "interval_seconds": 3600, "group_by": None, "requests_left_out": 0},
        **{"start_time": NOON.format("12:00"), "end_time": NOON.format("15:00")},
    }
    assert first == {
        **{"time": NOON.format("12:00"), "number_of_requests": 2, "error_count": 1, "total_cost": 0.75},
        **{"total_tokens": 10, "total_prompt_tokens": 10, "total_completion_tokens": 0},
        **{"latency": {"p50": 1.0, "p95": 3.0, "p99": 3.0}, "time_to_first_token": shares(None)},
        "tokens_per_second": shares(None),
    }
    assert (second["time"], second["number_of_requests"], second["latency"]) == (NOON.format("14:00"), 1, shares(2.0))


async def test_points_are_written_beside_the_event_loop(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def written(value: Any) -> str:
        threads.append(threading.current_thread())
        return dump(value)

    monkeypatch.setattr("gateway.web.series.dump", written, raising=False)
    await ask(filled, "?interval=1h")
    # Two points, and what stands around them.
    assert [thread is threading.main_thread() for thread in threads] == [False, False, True]


async def test_by_a_field(filled: Gateway) -> None:
    _, found = await ask(filled, "?interval=1d&group_by=model")
    assert [(point["model"], point["number_of_requests"]) for point in found["results"]] == [("a", 2), ("b", 1)]
    _, found = await ask(filled, "?interval=1d&group_by=model&limit=1")
    assert ([point["model"] for point in found["results"]], found["requests_left_out"]) == (["a"], 1)
    _, found = await ask(filled, "?interval=1d&group_by=customer_identifier")
    assert [(point["customer_identifier"], point["number_of_requests"]) for point in found["results"]] == [("u", 1)]
    assert found["requests_left_out"] == 2


async def test_filters_and_ranges(filled: Gateway) -> None:
    _, found = await ask(filled, "?start_time=2026-01-02T12:30:00Z&end_time=2026-01-02T13:00:00Z")
    assert (found["interval"], [point["time"] for point in found["results"]]) == ("1m", [NOON.format("12:50")])
    _, found = await ask(filled, "?interval=1w", json={"filters": {"status": "failed"}})
    assert [(point["time"][:10], point["error_count"]) for point in found["results"]] == [("2025-12-29", 1)]
    _, found = await ask(filled, "?environment=test")
    assert found["results"] == []


@pytest.mark.parametrize(
    ("end", "interval"),
    [
        *(("01-01T02:00", "1m"), ("01-01T10:00", "5m"), ("01-02T06:00", "15m"), ("01-06T00:00", "1h")),
        *(("01-31T00:00", "6h"), ("05-01T00:00", "1d"), ("12-31T00:00", "1w")),
    ],
)
async def test_the_interval_fits_the_range(gateway: Gateway, end: str, interval: str) -> None:
    _, found = await ask(gateway, f"?start_time=2026-01-01T00:00:00Z&end_time=2026-{end}:00Z")
    assert (found["interval"], found["results"]) == (interval, [])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?interval=2h", "interval: must be one of auto, 1m, 5m, 15m, 1h, 6h, 1d, 1w."),
        ("?group_by=input", "group_by: must be one of model, upstream, "),
        ("?limit=0", "limit: must be a whole number above 0."),
        ("?colour=red", "colour: not supported; "),
    ],
)
async def test_what_cannot_be_asked(gateway: Gateway, query: str, said: str) -> None:
    status, reply = await ask(gateway, query)
    assert status == 400 and reply["detail"].startswith(said)


async def test_an_interval_that_makes_too_many_points_becomes_a_longer_one(gateway: Gateway) -> None:
    status, found = await ask(gateway, "?interval=1m&start_time=2025-01-01&end_time=2026-01-01")
    assert (status, found["interval"]) == (200, "6h")
    _, found = await ask(gateway, "?interval=1m&start_time=0001-01-01&end_time=9999-01-01")
    assert found["interval"] == "1w"


async def test_a_range_that_ends_before_it_begins_is_empty(filled: Gateway) -> None:
    status, found = await ask(filled, "?start_time=2026-01-03&end_time=2026-01-01&group_by=model")
    assert (status, found["results"]) == (200, [])


async def test_without_spans(gateway: Gateway) -> None:
    status, found = await ask(gateway)
    assert (status, found["results"], found["start_time"] == found["end_time"]) == (200, [], True)


async def test_the_range_is_that_of_the_spans_that_are_there(filled: Gateway) -> None:
    _, gone = await filled.post({"model": "a", "timestamp": "1970-01-01T00:00:00Z"})
    async with filled.session.delete(f"/api/request-logs/{gone['unique_id']}/"):
        pass
    _, found = await ask(filled)
    assert (found["start_time"], found["end_time"]) == (NOON.format("12:00"), NOON.format("15:00"))


async def test_the_last_hour_that_there_is(gateway: Gateway) -> None:
    await gateway.post({"model": "a", "timestamp": "9999-12-31T23:59:59.999999Z"})
    status, found = await ask(gateway)
    assert (status, [point["number_of_requests"] for point in found["results"]]) == (200, [1])
    assert (found["start_time"], found["end_time"]) == ("9999-12-31T23:00:00.000000Z", "9999-12-31T23:59:59.999999Z")


async def test_the_largest_number_stays_one(gateway: Gateway) -> None:
    await gateway.post({"model": "a", "latency": sys.float_info.max})
    _, found = await ask(gateway)
    assert found["results"][0]["latency"] == shares(sys.float_info.max)
