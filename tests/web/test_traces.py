"""Traces over HTTP."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.conftest import OTHER_KEY, Gateway
from tests.fakes.upstream import ScriptedUpstream

NOON = "2026-01-02T12:00:0{}Z"
ROOT = {
    **{"model": "m", "trace_unique_id": "t/1", "span_unique_id": "r", "span_name": "root", "log_type": "workflow"},
    **{"input": "question", "output": {"a": 1}, "metadata": {"plan": "pro", "_x": 1}, "session_identifier": "s"},
    **{"start_time": NOON.format(0), "timestamp": NOON.format(5), "customer_identifier": "u"},
}
CHILD = {
    **{"model": "gpt", "trace_unique_id": "t/1", "span_unique_id": "c", "span_parent_id": "r", "cost": 0.5},
    **{"start_time": NOON.format(1), "timestamp": NOON.format(3), "prompt_tokens": 10, "completion_tokens": 5},
    **{"input": [{"role": "user", "content": "q"}], "output": "answer", "unique_id": "child"},
}
FAILED = {
    **{"model": "gpt", "trace_unique_id": "t/2", "span_name": "alone", "status": "error", "cost": 0.25},
    **{"start_time": NOON.format(6), "timestamp": NOON.format(7), "input": 5, "log_type": "tool"},
}


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for span in (CHILD, ROOT, FAILED, {"model": "no trace"}):
        assert (await gateway.post(span))[0] == 201
    return gateway


async def ask(gateway: Gateway, path: str, method: str = "GET", **kwargs: Any) -> tuple[int, Any]:
    async with gateway.session.request(method, f"/api/traces/{path}", **kwargs) as response:
        return response.status, await response.json()


async def ids(gateway: Gateway, query: str = "", **kwargs: Any) -> list[str]:
    status, page = await ask(gateway, f"list/{query}", "POST" if kwargs else "GET", **kwargs)
    assert status == 200, page
    return [trace["id"] for trace in page["results"]]


async def test_the_order_of_durations_is_exact(gateway: Gateway) -> None:
    ends = {"short": "00.2", "shorter": "00.1", "shortest": "00.000001"}
    for trace, end in ends.items():
        start, end = "2026-01-02T11:59:59.9999Z", f"2026-01-02T12:00:{end}Z"
        await gateway.post({"model": "m", "trace_unique_id": trace, "start_time": start, "timestamp": end})
    assert await ids(gateway, "?sort_by=duration") == ["shortest", "shorter", "short"]
    within = {"filters": {"duration": {"operator": "gte", "value": [0.1]}}}
    assert await ids(gateway, json=within) == ["short", "shorter"]


async def test_a_trace_and_its_tree(filled: Gateway) -> None:
    status, trace = await ask(filled, "t/1")
    assert status == 200
    (root,) = trace.pop("span_tree")
    assert trace == {
        **{"id": "t/1", "trace_unique_id": "t/1", "root_span_unique_id": "r", "organization_name": None},
        **{"unique_organization_id": "org-a", "organization_id": "org-a", "organization_key_id": "team-a"},
        **{"environment": "prod", "customer_identifier": "u", "duration": 5.0, "name": "root", "model": "m"},
        **{"start_time": "2026-01-02T12:00:00.000000Z", "end_time": "2026-01-02T12:00:05.000000Z"},
        **{"span_count": 2, "llm_call_count": 1, "error_count": 0, "total_cost": 0.5, "total_tokens": 15},
        **{"total_prompt_tokens": 10, "total_completion_tokens": 5, "input": "question", "output": '{"a":1}'},
        **{"metadata": {"plan": "pro"}, "trace_group_identifier": None, "session_identifier": "s"},
        "storage_object_key": None,
    }
    (child,) = root.pop("children")
    assert (root["span_name"], root["end_time"], root["status"]) == ("root", "2026-01-02T12:00:05.000000Z", "success")
    assert child == {
        **{"id": "child", "unique_id": "child", "span_unique_id": "c", "span_parent_id": "r", "span_name": None},
        **{"trace_unique_id": "t/1", "customer_identifier": None, "thread_identifier": None},
        **{"session_identifier": None, "organization_key_id": "team-a", "organization_id": "org-a"},
        **{"environment": "prod", "log_type": "chat", "timestamp": "2026-01-02T12:00:03.000000Z"},
        **{"start_time": "2026-01-02T12:00:01.000000Z", "end_time": "2026-01-02T12:00:03.000000Z"},
        **{"prompt_tokens": 10, "completion_tokens": 5, "total_request_tokens": 15, "cost": 0.5, "model": "gpt"},
        **{"latency": 2.0, "status_code": 200, "status": "success", "output": "answer", "metadata": None},
        **{"input": '[{"role":"user","content":"q"}]', "span_links": None, "storage_object_key": None},
        **{"span_workflow_name": None, "children": []},
    }
    assert await ask(filled, "t/3") == (404, {"error": "Trace not found"})


async def test_a_trace_without_what_was_said(filled: Gateway) -> None:
    links = [{"trace_id": "t"}]
    await filled.post({**CHILD, "unique_id": "linked", "span_unique_id": "l", "span_links": links})
    nothing = dict.fromkeys(("input", "output", "metadata"))

    def without(one: Any) -> Any:
        return {**one, **nothing, "children": [without(child) for child in one["children"]]}

    _, whole = await ask(filled, "t/1")
    assert await ask(filled, "t/1?include_content=true") == (200, whole)
    status, bare = await ask(filled, "t/1/?include_content=false")
    assert (status, bare) == (200, {**whole, **nothing, "span_tree": [without(one) for one in whole["span_tree"]]})
    assert bare["span_tree"][0]["children"][1]["span_links"]
    for text in ("", "no", "False", "0"):
        status, reply = await ask(filled, f"t/1?include_content={text}")
        assert (status, reply["detail"]) == (400, "include_content: must be true or false.")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["t/2", "t/1"]),
        ("?sort_by=timestamp", ["t/1", "t/2"]),
        ("?sort_by=-total_cost", ["t/1", "t/2"]),
        ("?sort_by=duration", ["t/2", "t/1"]),
        ("?sort_by=-total_tokens", ["t/1", "t/2"]),
        ("?sort_by=-error_count", ["t/2", "t/1"]),
        ("?page_size=1", ["t/2"]),
        ("?page_size=1&page=2", ["t/1"]),
        ("?page=9", []),
        ("?environment=test", []),
        (f"?start_time={NOON.format(4)}&end_time={NOON.format(6)}", ["t/1"]),
        (f"?start_time={NOON.format(4)}&end_time={NOON.format(4)}", []),
        ("?model=gpt", ["t/2", "t/1"]),
        ("?log_type=tool", ["t/2"]),
    ],
)
async def test_lists(filled: Gateway, query: str, expected: list[str]) -> None:
    assert await ids(filled, query) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"total_cost": {"operator": "gte", "value": [0.5]}}, ["t/1"]),
        ({"total_cost": 0.25}, ["t/2"]),
        ({"span_count": {"operator": "gt", "value": [1]}}, ["t/1"]),
        ({"error_count": 1}, ["t/2"]),
        ({"duration": {"operator": "lt", "value": [1.5]}}, ["t/2"]),
        ({"name": "alone"}, ["t/2"]),
        ({"metadata__plan": "pro"}, ["t/1"]),
        ({"span_name": "root", "model": "gpt"}, ["t/1"]),
        ({"span_parent_id": {"operator": "not_empty", "value": [""]}}, ["t/1"]),
        ({"connector": "OR", "filter_params": {"name": "root", "status": "failed"}}, ["t/2", "t/1"]),
        ({"session_identifier": "s", "total_request_tokens": 15}, ["t/1"]),
    ],
)
async def test_filters(filled: Gateway, filters: Any, expected: list[str]) -> None:
    assert await ids(filled, json={"filters": filters}) == expected


async def test_any_span_tells_whose_a_trace_is(filled: Gateway) -> None:
    await filled.post({**CHILD, "unique_id": "other", "span_unique_id": "o", "customer_identifier": "z"})
    assert await ids(filled, "?customer_identifier=u") == await ids(filled, "?customer_identifier=z") == ["t/1"]
    _, trace = await ask(filled, "t/1")
    assert trace["customer_identifier"] == "u"


async def test_no_trace_without_a_name_and_no_mistake_deletes_one(filled: Gateway) -> None:
    await filled.post({"model": "m", "trace_unique_id": ""})
    assert await ids(filled) == ["t/2", "t/1"]
    status, reply = await ask(filled, "t/1?start_tme=2026-01-01", "DELETE")
    assert status == 400 and "start_tme: not supported" in reply["detail"]


async def test_total_tokens_is_no_filter_of_a_list(filled: Gateway) -> None:
    for filters in ({"total_tokens": 15}, {"colour": "red"}):
        status, reply = await ask(filled, "list/", "POST", json={"filters": filters})
        assert status == 400 and "not a field to filter by; use trace_unique_id, name" in reply["detail"]


async def test_pages_of_traces(filled: Gateway) -> None:
    _, page = await ask(filled, "list/?page_size=1")
    assert page["count"] == 1
    async with filled.session.get(page["next"]) as response:
        second = await response.json()
    assert [trace["id"] for trace in second["results"]] == ["t/1"]
    assert second["next"] is None and second["previous"].endswith("page=1")


async def test_a_parent_that_comes_late_takes_its_children(gateway: Gateway) -> None:
    await gateway.post({**CHILD, "span_parent_id": "late"})
    _, trace = await ask(gateway, "t/1")
    assert [root["span_unique_id"] for root in trace["span_tree"]] == ["c"]
    await gateway.post({**ROOT, "span_unique_id": "late"})
    _, trace = await ask(gateway, "t/1")
    assert [root["span_unique_id"] for root in trace["span_tree"]] == ["late"]
    assert trace["root_span_unique_id"] == "late"


async def test_a_shared_trace_can_be_read_by_everyone(filled: Gateway) -> None:
    async def public(trace_id: str = "t/1") -> int:
        async with (
            aiohttp.ClientSession(filled.url) as nobody,
            nobody.get(f"/api/org-a/traces/{trace_id}/") as response,
        ):
            return response.status

    assert await public() == 404
    assert await ask(filled, "t/1", "PATCH", json={"is_public": True}) == (
        200,
        {"trace_unique_id": "t/1", "is_public": True},
    )
    assert [await public(), await public("t/2")] == [200, 404]
    assert (await ask(filled, "t/1/", "PATCH", json={"is_public": False}))[0] == 200
    assert await public() == 404
    assert (await ask(filled, "none", "PATCH", json={"is_public": True}))[0] == 200
    for wrong in ({}, {"is_public": "yes"}):
        assert (await ask(filled, "t/1", "PATCH", json=wrong))[0] == 400


async def test_deletion(filled: Gateway) -> None:
    assert await ask(filled, f"t/1?end_time={NOON.format(4)}", "DELETE") == (200, {"message": "Deleted 1 spans."})
    _, trace = await ask(filled, "t/1")
    assert trace["span_count"] == 1
    assert await ask(filled, "t/1/", "DELETE") == (200, {"message": "Deleted 1 spans."})
    assert await ask(filled, "t/1", "DELETE") == (200, {"message": "Deleted 0 spans."})
    assert await ids(filled) == ["t/2"]
    async with filled.session.get("/api/request-logs/audit/") as response:
        audit = await response.json()
    assert (audit["deleted_posts"], audit["balanced"]) == (2, True)


async def test_deletion_of_several(filled: Gateway) -> None:
    for filters in (None, {}, {"model": "gpt"}):
        assert (await ask(filled, "bulk/", "POST", json={"filters": filters}))[0] == 400
    status, reply = await ask(filled, "bulk-delete", "POST", json={"filters": {"total_tokens": {"value": [15]}}})
    assert (status, reply["deleted_count"], reply["success_count"], reply["errors"]) == (200, 1, 1, [])
    assert await ids(filled) == ["t/2"]


async def test_others_see_and_delete_nothing(filled: Gateway) -> None:
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    async with filled.session.get("/api/traces/t/1", headers=headers) as response:
        assert response.status == 404
    async with filled.session.delete("/api/traces/t/1", headers=headers) as response:
        assert await response.json() == {"message": "Deleted 0 spans."}
    async with filled.session.get("/api/traces/list", headers=headers) as response:
        assert (await response.json())["results"] == []
    assert await ids(filled) == ["t/2", "t/1"]


async def test_ten_thousand_spans_in_one_trace(gateway: Gateway) -> None:
    spans = [
        {
            "model": "m",
            "trace_unique_id": "big",
            "span_unique_id": str(n),
            "span_parent_id": str(n // 10) if n else None,
        }
        for n in range(10_000)
    ]
    for at in range(0, len(spans), 500):
        async with gateway.session.post("/api/request-logs/bulk/", json={"logs": spans[at : at + 500]}) as response:
            assert response.status == 201
    _, trace = await asyncio.wait_for(ask(gateway, "big"), 60)
    assert trace["span_count"] == 10_000 and len(trace["span_tree"]) == 1


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "params", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", {}, (TRACE, PARENT)),
        (f"cc-{TRACE}-{PARENT}-01-more", {}, (TRACE, PARENT)),
        (f"00-{TRACE}-{PARENT}-01", {"trace_unique_id": "own"}, ("own", None)),
        (f"00-{TRACE}-{PARENT}-01", {"span_parent_id": "own"}, (TRACE, "own")),
        (f"00-{TRACE}-{PARENT}-01-more", {}, (None, None)),
        (f"ff-{TRACE}-{PARENT}-01", {}, (None, None)),
        (f"00-{'0' * 32}-{PARENT}-01", {}, (None, None)),
        (f"00-{TRACE}-{'0' * 16}-01", {}, (None, None)),
        ("nonsense", {}, (None, None)),
        (None, {}, (None, None)),
    ],
)
async def test_a_call_joins_the_trace_of_its_traceparent(
    gateway: Gateway, upstream: ScriptedUpstream, traceparent: str | None, params: Any, expected: tuple[str, str]
) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    body = {"model": "m", "messages": [], "respan_params": params}
    span = await gateway.span_of("/v1/chat/completions", json=body, headers=headers)
    assert (span["trace_unique_id"], span["span_parent_id"]) == expected
    assert upstream.requests[0].headers.get("traceparent") == traceparent
