"""Respan's own client against a running gateway."""

import asyncio
import datetime as dt
import functools
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

# The client reads its default key from the environment when it is imported.
os.environ.pop("RESPAN_API_KEY", None)

import httpx
import pytest
from respan import (
    AsyncRespanClient,
    RespanClient,
    SpanCreateRequest,
    SpanCreateRequestCustomerParams,
    SpanCreateRequestUsage,
    TraceBulkDeleteFilters,
    TraceFilterCondition,
)
from respan.core.api_error import ApiError
from respan.core.pagination import SyncPager
from respan.errors import BadRequestError, NotFoundError, UnprocessableEntityError
from respan.spans.client import AsyncSpansClient
from respan.traces import (
    CreateTraceLegacyRequestData,
    CreateTraceLegacyRequestZeroItem,
    CreateTraceRequestResourceSpansItem,
)
from respan.traces.client import AsyncTracesClient
from respan.users.client import AsyncUsersClient

from tests.conftest import KEY, Gateway
from tests.fakes.upstream import ScriptedUpstream

ONCE: Any = {"max_retries": 0}
USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
START = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)

# Every argument that create_span has, but for those that mean the same as another one.
ARGUMENTS: dict[str, Any] = {
    **{"model": "gpt-4o-mini", "log_type": "chat", "input": [USER], "output": ANSWER},
    **{"prompt_tokens": 50, "completion_tokens": 100, "cost": 0.001, "tokens_per_second": 80.0},
    "usage": SpanCreateRequestUsage(prompt_tokens=50, completion_tokens=100, cache_read_input_tokens=10),
    **{"temperature": 0.7, "top_p": 0.9, "max_tokens": 1024, "frequency_penalty": 0.1, "presence_penalty": 0.2},
    **{"latency": 1.25, "time_to_first_token": 0.35, "stream": True, "status_code": 200, "status": "success"},
    "customer_params": SpanCreateRequestCustomerParams(customer_identifier="u1", email="a@b.c", name="A"),
    **{"metadata": {"plan": "pro", "n": 1, "_hidden": 1}, "properties": {"n": 1}, "variables": {"v": "x"}},
    **{"environment": "test", "tools": [TOOL], "tool_calls": [CALL], "tool_choice": "auto", "stop": ["END"]},
    **{"response_format": {"type": "text"}, "timestamp": START + dt.timedelta(seconds=1.25), "start_time": START},
    **{"trace_unique_id": "t1", "span_name": "root", "span_parent_id": "p1", "span_workflow_name": "wf"},
    **{"custom_identifier": "c1", "customer_identifier": "overruled", "warnings": "mind the gap"},
    **{"error_message": "", "error_code": "none", "prompt_id": "pid", "prompt_name": "pname"},
    **{"is_custom_prompt": True, "full_request": {"a": 1}, "full_response": {"b": 2}, "positive_feedback": True},
    **{"prompt_unit_price": 1.5, "completion_unit_price": 2.5},
    **{"respan_params": {"thread_identifier": "th"}, "keywordsai_params": {"group_identifier": "g"}},
}
SAME = {
    "prompt_messages": [USER],
    "messages": [USER],
    "completion_message": ANSWER,
    "generation_time": 9.0,
    "ttft": 9.0,
    "thread_identifier": "overruled",
    "group_identifier": "overruled",
}
EXPECTED = {
    **{"model": "gpt-4o-mini", "log_type": "chat", "input": [USER], "output": ANSWER, "prompt_messages": [USER]},
    **{"completion_message": ANSWER, "prompt_tokens": 50, "completion_tokens": 100, "total_request_tokens": 150},
    **{"prompt_cache_hit_tokens": 10, "cost": 0.001, "tokens_per_second": 80.0, "temperature": 0.7, "top_p": 0.9},
    **{"max_tokens": 1024, "latency": 1.25, "time_to_first_token": 0.35, "stream": True, "status_code": 200},
    **{"status": "success", "customer_identifier": "u1", "customer_email": "a@b.c", "customer_name": "A"},
    **{"metadata": {"plan": "pro", "n": "1"}, "properties": {"n": 1}, "variables": {"v": "x"}},
    **{"environment": "prod", "tools": [TOOL], "tool_calls": [CALL], "response_format": {"type": "text"}},
    **{"start_time": START, "timestamp": START + dt.timedelta(seconds=1.25), "trace_unique_id": "t1"},
    **{"span_name": "root", "span_parent_id": "p1", "span_workflow_name": "wf", "custom_identifier": "c1"},
    **{"warnings": "mind the gap", "error_message": "", "error_code": "none", "prompt_id": "pid"},
    **{"prompt_name": "pname", "full_request": {"a": 1}, "full_response": {"b": 2}, "thread_identifier": "th"},
    **{"group_identifier": "g", "organization_id": "org-a", "log_method": "logging_api"},
}


@contextmanager
def client(gateway: Gateway, key: str = KEY) -> Iterator[RespanClient]:
    """The client that blocks."""
    with httpx.Client(timeout=30) as http:
        yield RespanClient(base_url=gateway.url, authorization=key, respan_api_key=key, httpx_client=http)


class Blocking:
    """The client that blocks, used like the one that does not: each call in a thread."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found):
            return Blocking(found)

        @functools.wraps(found)
        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = await asyncio.to_thread(found, *args, **kwargs)
            return pages(answer) if isinstance(answer, SyncPager) else answer

        return call


async def pages(pager: SyncPager[Any, Any]) -> AsyncIterator[Any]:
    for one in await asyncio.to_thread(list, pager):
        yield one


@pytest.fixture(params=["async", "blocking"])
async def respan(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[AsyncRespanClient]:
    if request.param == "blocking":
        with client(gateway) as blocking:
            yield cast("AsyncRespanClient", Blocking(blocking))
        return
    async with httpx.AsyncClient(timeout=30) as http:
        yield AsyncRespanClient(
            base_url=gateway.url, authorization=f"Bearer {KEY}", respan_api_key=KEY, httpx_client=http
        )


def test_every_method_is_used_here() -> None:
    resources = {"spans": AsyncSpansClient, "traces": AsyncTracesClient, "users": AsyncUsersClient}
    methods = {
        f"respan.{name}.{method}("
        for name, of in resources.items()
        for method, _ in inspect.getmembers(of, inspect.iscoroutinefunction)
        if not method.startswith("_")
    }
    used = Path(__file__).read_text()
    assert len(methods) > 15 and {method for method in methods if method not in used} == set()


def shown(span: Any) -> dict[str, Any]:
    """The fields of a span that the client has read, those of EXPECTED."""
    found = {name: getattr(span, name) for name in EXPECTED}
    # The type of what create_span gives back declares no start_time: there it stays text.
    if isinstance(found["start_time"], str):
        found["start_time"] = dt.datetime.fromisoformat(found["start_time"])
    return found


async def test_create_span_with_every_argument_and_retrieve_it(respan: AsyncRespanClient) -> None:
    signature = inspect.signature(respan.spans.create_span).parameters
    assert {*ARGUMENTS, *SAME, "request_options"} == {*signature}
    created = await respan.spans.create_span(**ARGUMENTS, **SAME, request_options=ONCE)
    assert created.id == created.unique_id
    assert shown(created) == EXPECTED
    full = await respan.spans.retrieve_span(created.id)
    assert shown(full) == EXPECTED


async def test_the_legacy_arguments_alone(respan: AsyncRespanClient) -> None:
    created = await respan.spans.create_span(
        model="gpt-4o-mini", usage=SpanCreateRequestUsage(prompt_tokens=5, completion_tokens=7), status="error", **SAME
    )
    assert (created.latency, created.time_to_first_token, created.status) == (9.0, 9.0, "failed")
    full = await respan.spans.retrieve_span(created.id)
    assert (full.input, full.output, full.thread_identifier) == ([USER], ANSWER, "overruled")
    assert full.cost == 5 * 0.15e-6 + 7 * 0.6e-6


async def test_each_argument_may_be_none(respan: AsyncRespanClient) -> None:
    nothing = dict.fromkeys({*ARGUMENTS, *SAME} - {"model"})
    created = await respan.spans.create_span(model="m", **nothing, request_options=ONCE)
    assert (created.status, created.latency, created.cost, created.customer_identifier) == ("success", None, None, None)


async def test_bulk_create_and_list_to_the_end(respan: AsyncRespanClient) -> None:
    rows = [
        SpanCreateRequest(model="m", custom_identifier=str(number), timestamp=START + dt.timedelta(seconds=number))
        for number in range(25)
    ]
    done = await respan.spans.bulk_create_spans(logs=rows, request_options=ONCE)
    assert (done.success_count, done.error_count, done.errors) == (25, 0, [])
    for page_size in (7, 25, 50):
        pager = await respan.spans.list_spans(page=1, page_size=page_size, sort_by="-timestamp")
        names = [span["custom_identifier"] async for span in pager]
        assert names == [str(number) for number in reversed(range(25))]
    recent = await respan.spans.list_spans(
        start_time=START + dt.timedelta(seconds=20), end_time=START + dt.timedelta(seconds=22), environment="prod"
    )
    assert [span["custom_identifier"] async for span in recent] == ["22", "21", "20"]


async def test_reading_back(respan: AsyncRespanClient) -> None:
    for number, model in enumerate(("a", "a", "b")):
        await respan.spans.create_span(
            model=model,
            cost=0.5 + number,
            latency=2.0,
            metadata={"plan": "pro" if number else "free"},
            timestamp=START + dt.timedelta(seconds=number),
            customer_identifier=f"u/{number}",
        )
    filters: Any = {"metadata__plan": {"operator": "", "value": ["pro"]}, "model": {"operator": "not", "value": ["b"]}}
    pager = await respan.spans.list_spans(
        sort_by="-cost", start_time=START, include_fields="model,cost", environment="prod", filters=filters
    )
    spans = [span async for span in pager]
    assert [(span["model"], span["cost"]) for span in spans] == [("a", 1.5)] and set(spans[0]) == {
        "id",
        "model",
        "cost",
    }
    two_conditions: Any = {"cost": [{"operator": "gt", "value": [0.5]}, {"operator": "lt", "value": [2.5]}]}
    summary = await respan.spans.get_spans_summary(start_time=START, filters=two_conditions)
    assert (summary.number_of_requests, summary.total_cost, summary.avg_latency) == (1, 1.5, 2.0)
    summary = await respan.spans.get_spans_summary(end_time=START - dt.timedelta(days=1))
    assert (summary.number_of_requests, summary.total_cost, summary.scores) == (0, 0.0, {})
    groups = await respan.spans.request_logs_groups_list(group_by="model", sort_by="-number_of_requests", page_size=1)
    assert (groups.count, groups.results[0].model, groups.results[0].total_cost) == (1, "a", 2.0)
    filtered = await respan.spans.request_logs_groups_filter(group_by="customer_identifier", filters=filters)
    assert [(group.customer_identifier, group.span_count) for group in filtered.results] == [("u/1", 1)]
    with pytest.raises(BadRequestError, match="not a field to filter by"):
        await respan.spans.list_spans(filters={"colour": {"operator": "", "value": ["red"]}}, request_options=ONCE)  # type: ignore[arg-type]


async def test_traces(gateway: Gateway, respan: AsyncRespanClient) -> None:
    for span in (
        {"span_name": "root", "log_type": "workflow", "input": {"q": 1}, "start_time": START},
        {"span_name": "call", "span_parent_id": "0", "cost": 0.5, "start_time": START, "customer_identifier": "u"},
    ):
        await respan.spans.create_span(model="m", trace_unique_id="t", timestamp=START, latency=1.0, **span)  # type: ignore[arg-type]
    filters: Any = {"span_name": {"operator": "", "value": ["call"]}}
    listed = await respan.traces.list_traces(sort_by="-total_cost", filters=filters)
    assert [(trace.trace_unique_id, trace.span_count, trace.total_cost) for trace in listed.results] == [("t", 2, 0.5)]
    trace = await respan.traces.retrieve_trace("t")
    assert trace.name == "root" and trace.input == '{"q":1}' and trace.start_time == START
    assert trace.span_tree is not None and {node.span_name for node in trace.span_tree} == {"root", "call"}
    shared = await respan.traces.share_trace("t", is_public=True)
    assert (shared.trace_unique_id, shared.is_public) == ("t", True)
    public = await respan.traces.retrieve_public_trace("org-a", "t")
    assert public.span_count == 2
    with pytest.raises(NotFoundError):
        await respan.traces.retrieve_trace("none", request_options=ONCE)
    deleted = await respan.traces.bulk_delete_traces(
        filters=TraceBulkDeleteFilters(customer_identifier=TraceFilterCondition(operator="", value=["u"]))
    )
    assert deleted.deleted_count == 1
    assert "0 spans" in (await respan.traces.delete_trace("t")).message


@pytest.mark.parametrize("is_wrapped", [False, True])
async def test_spans_of_a_trace_in_respan_s_own_form(respan: AsyncRespanClient, is_wrapped: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"span_unique_id": "r", "span_name": "root", "log_type": "workflow", "input": "q", "output": "a"},
        {"span_unique_id": "c", "span_name": "call", "span_parent_id": "r", "model": "gpt-4o-mini", "cost": 0.5},
    ]
    times = {"start_time": START.isoformat(), "timestamp": (START + dt.timedelta(seconds=1)).isoformat()}
    told = [{"trace_unique_id": "t", "latency": 1.0, **times, **row} for row in rows]
    request: Any = (
        CreateTraceLegacyRequestData.model_validate({"data": told})
        if is_wrapped
        else [CreateTraceLegacyRequestZeroItem.model_validate(row) for row in told]
    )
    done = await respan.traces.create_trace_legacy(request=request, request_options=ONCE)
    assert done.message
    trace = await respan.traces.retrieve_trace("t")
    assert (trace.name, trace.span_count, trace.total_cost, trace.start_time) == ("root", 2, 0.5, START)
    assert trace.span_tree is not None
    (root,) = trace.span_tree
    assert (root.input, root.output, [child["span_name"] for child in root.children or []]) == ("q", "a", ["call"])


async def test_spans_of_a_trace_as_otlp(respan: AsyncRespanClient) -> None:
    seconds = int(START.timestamp())
    kinds = {"1" * 16: ("flow", "workflow", None), "2" * 16: ("step", "task", "1" * 16)}
    spans = [
        {
            **{"trace_id": "a" * 32, "span_id": span_id, "name": name, "status": {"code": 1}},
            **({"parent_span_id": parent} if parent else {}),
            **{"start_time_unix_nano": f"{seconds}000000000", "end_time_unix_nano": f"{seconds + 2}000000000"},
            "attributes": [{"key": "traceloop.span.kind", "value": {"stringValue": kind}}],
        }
        for span_id, (name, kind, parent) in kinds.items()
    ]
    of_scope = {"scope": {"name": "by hand", "version": "1"}, "spans": spans}
    item = CreateTraceRequestResourceSpansItem.model_validate({"resource": {}, "scope_spans": [of_scope]})
    done = await respan.traces.create_trace(resource_spans=[item], request_options=ONCE)
    assert done.partial_success is not None
    assert (done.partial_success.rejected_spans, done.partial_success.error_message) == (0, "")
    trace = await respan.traces.retrieve_trace("a" * 32)
    assert (trace.name, trace.span_count, trace.duration, trace.start_time) == ("flow", 2, 2.0, START)
    assert trace.span_tree is not None
    (root,) = trace.span_tree
    assert (root.span_unique_id, root.log_type) == ("1" * 16, "workflow")
    assert [(child["span_name"], child["log_type"]) for child in root.children or []] == [("step", "task")]


async def test_users(respan: AsyncRespanClient) -> None:
    for number in range(3):
        await respan.spans.create_span(model="m", customer_identifier=f"org/u{number}", cost=number, timestamp=START)
    users = [user async for user in await respan.users.list_customers(sort_by="-total_cost", page_size=2)]
    assert [(user.customer_identifier, user.total_cost) for user in users] == [
        *[("org/u2", 2.0), ("org/u1", 1.0), ("org/u0", 0.0)]
    ]
    changed = await respan.users.update_user("org/u1", name="Ada", period_budget=5.0, budget_duration="monthly")
    assert (changed.name, changed.period_budget, changed.budget_duration) == ("Ada", 5.0, "monthly")
    assert (await respan.users.retrieve_user("org/u1")).name == "Ada"
    await respan.users.delete_user("org/u1")
    with pytest.raises(NotFoundError):
        await respan.users.retrieve_user("org/u1", request_options=ONCE)


async def test_bulk_rows_that_fail(respan: AsyncRespanClient) -> None:
    good, bad = SpanCreateRequest(model="m"), SpanCreateRequest(model="m", customer_identifier="x" * 255)
    done = await respan.spans.bulk_create_spans(logs=[bad, good], request_options=ONCE)
    assert (done.success_count, done.error_count, done.errors[0].index) == (1, 1, 0)
    assert "customer_identifier" in done.errors[0].error
    with pytest.raises(BadRequestError) as none:
        await respan.spans.bulk_create_spans(logs=[bad], request_options=ONCE)
    assert none.value.body["success_count"] == 0
    with pytest.raises(UnprocessableEntityError):
        await respan.spans.bulk_create_spans(logs=[good] * 501, request_options=ONCE)


async def test_errors(gateway: Gateway, respan: AsyncRespanClient) -> None:
    def with_a_wrong_key() -> None:
        with client(gateway, "wrong") as respan_of_another:
            respan_of_another.spans.create_span(model="m", request_options=ONCE)

    with pytest.raises(ApiError) as refused:
        await asyncio.to_thread(with_a_wrong_key)
    assert (refused.value.status_code, list(refused.value.body)) == (401, ["detail"])
    with pytest.raises(UnprocessableEntityError) as missing:
        await respan.spans.create_span(model=None, request_options=ONCE)  # type: ignore[arg-type]
    assert missing.value.body == {
        "detail": "model: This field is required.",
        "errors": {"model": ["This field is required."]},
    }
    with pytest.raises(NotFoundError) as unknown:
        await respan.spans.retrieve_span("unheard-of", request_options=ONCE)
    assert unknown.value.body == {"detail": "Span not found."}


async def test_a_chat_completion_through_its_gateway_client(
    gateway: Gateway, respan: AsyncRespanClient, upstream: ScriptedUpstream
) -> None:
    answer = await respan.gateway.create_chat_completion(
        model="gpt-4o-mini", messages=[USER], max_tokens=16, customer_identifier="u1", request_options=ONCE
    )
    assert answer.choices[0].message.content == "Hello there"
    assert upstream.requests[0].json() == {"model": "gpt-4o-mini", "messages": [USER], "max_tokens": 16}
    span = await respan.spans.retrieve_span((await gateway.only_span())["id"])
    assert (span.customer_identifier, span.log_method, span.prompt_tokens) == ("u1", "inference", 9)
    assert (span.status, span.output) == ("success", {**ANSWER, "content": "Hello there", "refusal": None})
