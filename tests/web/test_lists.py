"""Lists, sums, changes and deletions over HTTP."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from gateway.core import reading
from gateway.core.jsontext import dump
from tests.conftest import OTHER_KEY, Gateway, StartGateway
from tests.fakes.upstream import Received, ScriptedUpstream, Wire

START = "2026-01-01T00:00:0{}Z"
SPANS: list[dict[str, Any]] = [
    {"model": "gpt-a", "cost": 0.3, "latency": 1, "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
    {"model": "gpt-b", "cost": 0.1, "customer_identifier": "u/1", "trace_unique_id": "t", "metadata": {"plan": "pro"}},
    {"model": "gpt-a", "cost": 0.2, "latency": 3, "status": "error", "thread_identifier": "th", "input": "Hello World"},
    {"model": "claude", "time_to_first_token": 0.5, "tokens_per_second": 20, "stream": True, "output": "it's WORLDLY"},
]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for number, span in enumerate(SPANS):
        status, _ = await gateway.post({"unique_id": str(number), "timestamp": START.format(number), **span})
        assert status == 201
    return gateway


async def ask(gateway: Gateway, path: str, **kwargs: Any) -> tuple[int, Any]:
    method = "POST" if "json" in kwargs else "GET"
    async with gateway.session.request(method, f"/api/request-logs/{path}", **kwargs) as response:
        return response.status, await response.json()


async def ids(gateway: Gateway, query: str = "", **kwargs: Any) -> list[str]:
    status, page = await ask(gateway, f"list/{query}", **kwargs)
    assert status == 200, page
    return [span["id"] for span in page["results"]]


@pytest.mark.parametrize(
    ("sort_by", "expected"),
    [
        ("-timestamp", "3210"),
        ("id", "0123"),
        ("-cost", "0213"),
        ("cost", "1203"),
        ("-latency", "2031"),
        ("-all_tokens", "0321"),
        ("time_to_first_token", "3012"),
    ],
)
async def test_sorting(filled: Gateway, sort_by: str, expected: str) -> None:
    assert await ids(filled, f"?sort_by={sort_by}") == list(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?model=gpt-a", "20"),
        ("?model=gpt-a&model=claude", "320"),
        ("?model[operator]=startswith&model[value]=gpt", "210"),
        ("?cost[value]=0.2&cost[operator]=gte", "20"),
        ("?metadata__plan=pro", "1"),
        ("?metadata__plan[operator]=not&metadata__plan[value]=free", "1"),
        ("?search=world", "32"),
        ("?search=hello world", "2"),
        ("?search=hello moon", ""),
        ("?stream=true", "3"),
        ("?model=gpt-a&status=failed&model[connector]=OR", "20"),
    ],
)
async def test_filters_in_the_query(filled: Gateway, query: str, expected: str) -> None:
    assert await ids(filled, query) == list(expected)


async def test_filters_in_the_body(filled: Gateway) -> None:
    either = {"connector": "OR", "filter_params": {"status": {"value": ["error"]}, "metadata__plan": "pro"}}
    assert await ids(filled, json={"filters": either}) == ["2", "1"]
    assert await ids(filled, json={"filters": {"model": "gpt-a", "x": either}}) == ["2"]
    assert await ids(filled, json={"filters": {"model": "claude", "cost": 0.1}, "operator": "OR"}) == ["3", "1"]
    found = {"input": {"operator": "full_text_search", "value": ["WORLD hello"]}}
    assert await ids(filled, json={"filters": found}) == ["2"]


async def test_filters_of_a_body_in_the_query(filled: Gateway) -> None:
    def asked(filters: Any, more: str = "") -> str:
        return f"?filters={quote(dump(filters))}{more}"

    between = {"cost": [{"operator": "gte", "value": [0.1]}, {"operator": "lt", "value": [0.2]}]}
    assert await ids(filled, asked(between)) == ["1"]
    assert await ids(filled, asked({"model": "claude", "cost": 0.1}, "&operator=OR")) == ["3", "1"]
    assert await ids(filled, asked({"model": "gpt-a"}, "&status=success")) == ["0"]
    assert await ids(filled, asked({"model": "gpt-a"}), json={"filters": {"cost": 0.2}}) == ["2"]
    assert await ids(filled, "?operator=OR&model=claude") == ["3"]
    status, reply = await ask(filled, "list/?operator=null")
    assert status == 400 and "AND or OR" in reply["detail"]
    for query in ("?filters=model", "?filters=[1]", "?filters=" + "[" * 100_000):
        status, reply = await ask(filled, f"list/{query}")
        assert status in (400, 414) and ("filters: must be" in str(reply) or status == 414), reply


async def test_filters_that_come_twice_in_a_query_are_refused(filled: Gateway) -> None:
    for path in ("list", "summary", "values", "live", "export"):
        for twice in ("filters", "operator"):
            query = f"?filters={quote(dump({'model': 'gpt-a'}))}&operator=AND&{twice}="
            status, reply = await ask(filled, f"{path}/{query}")
            assert (status, reply["detail"]) == (400, f"{twice}: is there more than once.")


async def test_what_is_not_known_is_named_with_what_is(filled: Gateway) -> None:
    for query, body, named in (
        ("?colour=red", None, "colour: not supported; use cursor,"),
        ("?page[size]=5", None, "page[size]: not supported"),
        ("", {"filters": {"colour": "red"}}, "colour: not a field to filter by; use unique_id"),
        ("", {"filters": {"model": {"operator": "~", "value": [""]}}}, "'~' is no operator here; use '', in"),
        ("?sort_by=scores__x", None, "sort_by: 'scores__x' is nothing to sort by; use one of timestamp"),
        ("?cursor=x", None, "cursor: not one that this list gave"),
        ("?start_time=soon", None, "start_time: the value must be an ISO 8601 time"),
    ):
        status, reply = await ask(filled, f"list/{query}", **({} if body is None else {"json": body}))
        assert status == 400 and named in reply["detail"], reply


async def test_fields_that_are_included(filled: Gateway) -> None:
    _, page = await ask(filled, "list/?include_fields=model,prompt_messages,cost,nothing&sort_by=id")
    assert page["results"][2] == {
        "id": "2",
        "model": "gpt-a",
        "prompt_messages": [{"role": "user", "content": "Hello World"}],
        "cost": 0.2,
    }
    whole = await filled.get("2")
    _, page = await ask(filled, f"list/?include_fields={','.join(whole)}&unique_id=2")
    assert page["results"] == [whole]
    await filled.post({"model": "m", "unique_id": "x", "extra": [1]})
    _, page = await ask(filled, "list/?include_fields=extra&unique_id=x")
    assert page["results"] == [{"id": "x", "extra": [1]}]


async def test_previews_come_to_who_asks_for_them(filled: Gateway) -> None:
    _, page = await ask(filled, "list/?include_fields=input_preview,output_preview,is_open&sort_by=id")
    nothing = {"input_preview": None, "output_preview": None, "is_open": False}
    assert page["results"] == [
        {"id": "0", **nothing},
        {"id": "1", **nothing},
        {"id": "2", **nothing, "input_preview": "Hello World"},
        {"id": "3", **nothing, "output_preview": "it's WORLDLY"},
    ]
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    said = {"input": [{"role": "user", "content": "a"}, {"role": "user", "content": "b\n c"}], "tool_calls": [call]}
    await filled.post({"unique_id": "x", "model": "m", "is_open": "own", **said})
    await filled.post({"unique_id": "y", "model": "m", "disable_log": True, **said})
    fields = {"filters": {"id": ["x", "y"]}}
    _, page = await ask(filled, "list/?include_fields=input_preview,output_preview,is_open&sort_by=id", json=fields)
    assert page["results"] == [
        {"id": "x", "input_preview": "b c", "output_preview": 'get_weather({"city": "Oslo"})', "is_open": False},
        {"id": "y", **nothing},
    ]
    # And to nobody else.
    assert (await filled.get("x"))["is_open"] == "own"
    assert not {"input_preview", "is_open"} & (await filled.get("y")).keys()


async def test_previews_leave_room_for_all_of_a_page(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE_CONTENT_AT_MOST", 10)
    _, page = await ask(filled, "list/?include_fields=input_preview,input&sort_by=id")
    assert page["results"][2] == {
        **{"id": "2", "input_preview": "Hello World", "input": None},
        "content_omitted": True,
    }
    _, page = await ask(filled, "list/?include_fields=input_preview&sort_by=id")
    assert page["results"][2] == {"id": "2", "input_preview": "Hello World"}


async def test_values_of_fields(filled: Gateway) -> None:
    looked_at = {f"?field=model&start_time={START.format(2)}": 2, "?field=model&model=gpt-a": 2}
    looked_at["?field=model&search=world"] = 2
    looked_at |= dict.fromkeys(("?field=metadata&customer_identifier=u/1", '?filters={"model":"gpt-b"}'), 1)
    looked_at |= dict.fromkeys(("?environment=test", "?log_type=tool"), 0)

    async def values(query: str) -> list[tuple[Any, int]]:
        status, found = await ask(filled, f"values/{query}")
        assert (status, found["spans_looked_at"]) == (200, looked_at.get(query, 4))
        return [(one["value"], one["number_of_requests"]) for one in found["results"]]

    assert await values("?field=model") == [("gpt-a", 2), ("claude", 1), ("gpt-b", 1)]
    assert await values("") == await values("?field=model")
    assert await values("?field=model&prefix=GPT&limit=1") == [("gpt-a", 2)]
    assert await values(f"?field=model&start_time={START.format(2)}") == [("claude", 1), ("gpt-a", 1)]
    assert await values("?field=model&model=gpt-a") == [("gpt-a", 2)]
    assert await values("?field=model&search=world") == [("claude", 1), ("gpt-a", 1)]
    assert await values("?field=metadata&customer_identifier=u/1") == [("plan", 1)]
    assert await values('?filters={"model":"gpt-b"}') == [("gpt-b", 1)]
    assert await values("?environment=test") == await values("?log_type=tool") == []
    assert await values("?field=stream") == [(False, 3), (True, 1)]
    assert await values("?field=has_tool_calls") == [(False, 4)]
    assert await values("?field=status_code") == [(200, 4)]
    assert await values("?field=metadata") == [("plan", 1)]
    assert await values("?field=metadata__plan") == [("pro", 1)]
    assert await values("?field=properties__plan") == await values("?field=deployment_name") == []
    assert await values("?field=id&prefix=2") == [("2", 1)]
    for query, named in (
        ("?field=colour", "colour: not a field to filter by; use unique_id"),
        ("?field=cost", "field: the values of cost are too many"),
        ("?field=scores__x", "too many"),
        ("?field=model&limit=x", "limit: must be"),
        ("?field=model&colour=x", "colour: not supported; use end_time, environment, field"),
        ("?field=model&start_time=soon", "start_time: the value must be"),
    ):
        status, reply = await ask(filled, f"values/{query}")
        assert status == 400 and named in reply["detail"], reply
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    _, found = await ask(filled, "values/?field=model", headers=headers)
    assert found == {"field": "model", "spans_looked_at": 0, "results": []}


async def test_next_goes_on_behind_the_last_span_while_others_come(filled: Gateway) -> None:
    for method in ("GET", "POST"):
        found: list[str] = []
        url = "/api/request-logs/list/?page_size=1&model[operator]=not&model[value]=late"
        while url:
            async with filled.session.request(method, url) as response:
                page = await response.json()
            found += [span["id"] for span in page["results"]]
            url = page["next"]
            await filled.post({"model": "late"})
            await filled.post({"model": "m", "timestamp": "2026-01-01T00:00:01.5Z", "unique_id": f"{method}{found}"})
        assert [one for one in found if len(one) == 1] == ["3", "2", "1", "0"]
        assert len(set(found)) == len(found)
        # Those of the first walk were there when the second began.
        assert len(found) == (4 if method == "GET" else 8)


async def test_a_call_that_runs_is_the_newest(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway()
    seen: list[Any] = []

    async def look(received: Received, wire: Wire) -> None:
        async with asyncio.timeout(60):
            while len(spans := await gateway.spans()) < 2:
                await asyncio.sleep(0.01)
        seen.extend(spans)
        seen.append(await change(gateway, "PATCH", seen[0]["id"], {"note": "n"}))
        seen.append(await change(gateway, "DELETE", seen[0]["id"]))
        await wire.json({"choices": [], "usage": None})

    upstream.play = look
    await gateway.post({"model": "m", "timestamp": "2099-01-01T00:00:00Z", "unique_id": "later"})
    await gateway.call("/v1/chat/completions", json={"model": "m", "messages": []})
    assert [span["status"] for span in seen[:2]] == ["running", "success"]
    assert [status for status, _ in seen[2:]] == [409, 409]


SUMMARY = {
    "number_of_requests": 4,
    "error_count": 1,
    "total_cost": 0.6,
    "total_tokens": 18,
    "total_prompt_tokens": 12,
    "total_completion_tokens": 6,
    "avg_latency": 2.0,
    "avg_tps": 20.0,
    "avg_ttft": 0.5,
    "scores": {},
}


async def test_summary(filled: Gateway) -> None:
    counted = await filled.spans()
    tokens = {name: sum(span[name] or 0 for span in counted) for name in ("prompt_tokens", "completion_tokens")}
    expected = SUMMARY | {
        "total_prompt_tokens": tokens["prompt_tokens"],
        "total_completion_tokens": tokens["completion_tokens"],
        "total_tokens": sum(tokens.values()),
    }
    _, found = await ask(filled, "summary/?log_type=tool")
    assert found["avg_tps"] > 0
    assert {**found, "avg_tps": 20.0} == expected
    _, found = await ask(filled, "summary/", json={"filters": {"model": "gpt-b"}})
    assert (found["number_of_requests"], found["total_cost"]) == (1, 0.1)
    nothing = dict.fromkeys(SUMMARY, 0) | {"scores": {}}
    assert await ask(filled, "summary/?start_time=2027-01-01T00:00:00Z") == (200, nothing)
    assert await ask(filled, "summary/?environment=test") == (200, nothing)


async def test_groups(filled: Gateway) -> None:
    _, page = await ask(filled, "groups/?group_by=model&sort_by=-total_cost&page_size=2")
    assert (page["count"], page["previous"]) == (2, None)
    first, second = page["results"]
    assert {**first, "total_tokens": 0, "average_tokens": 0, "average_tps": 0} == {
        "model": "gpt-a",
        "date_group": "2026-01-01T00:00:02.000000Z",
        "number_of_requests": 2,
        "span_count": 2,
        "total_cost": 0.5,
        "total_tokens": 0,
        "total_prompt_tokens": first["total_prompt_tokens"],
        "total_completion_tokens": first["total_completion_tokens"],
        "error_count": 1,
        "error_percentage": 50.0,
        "average_cost": 0.25,
        "average_tokens": 0,
        "average_latency": 2.0,
        "average_ttft": 0.0,
        "average_tps": 0,
        "cache_hit_percentage": 0.0,
    }
    assert second["model"] == "gpt-b"
    async with filled.session.get(page["next"]) as response:
        rest = await response.json()
    assert [group["model"] for group in rest["results"]] == ["claude"] and rest["next"] is None
    for group_by, name, key in (
        ("customer_identifier", "customer_identifier", "u/1"),
        ("trace", "trace_unique_id", "t"),
        ("thread", "thread_identifier", "th"),
    ):
        _, page = await ask(filled, f"groups/?group_by={group_by}", json={"filters": {}})
        assert [(group[name], group["span_count"]) for group in page["results"]] == [(key, 1)]
    status, reply = await ask(filled, "groups/?group_by=colour")
    assert status == 400 and "group_by: must be one of model, provider_id" in reply["detail"]


async def change(gateway: Gateway, method: str, unique_id: str, body: Any = None) -> tuple[int, Any]:
    async with gateway.session.request(method, f"/api/request-logs/{unique_id}/", json=body) as response:
        return response.status, await response.json() if response.status != 204 else None


async def test_changes(filled: Gateway) -> None:
    before = await filled.get("1")
    sent = {"metadata": {"plan": None, "a": 1, "api_key": "sk-1"}, "note": "n", "positive_feedback": True}
    status, after = await change(filled, "PATCH", "1", sent)
    assert status == 200
    held = {"a": "1", "api_key": "***"}
    assert after == before | {"metadata": held, "note": "n", "positive_feedback": True}
    assert after == await filled.get("1")
    sent = {"metadata": {"b": {"c": 1}}, "note": None, "custom_identifier": "c"}
    _, after = await change(filled, "PATCH", "1", sent)
    held["b"] = '{"c":1}'
    assert after == before | {"metadata": held, "custom_identifier": "c", "positive_feedback": True}
    status, reply = await change(filled, "PATCH", "1", {"cost": 1, "note": 5})
    assert (status, list(reply["errors"])) == (422, ["cost"])
    assert (await change(filled, "PATCH", "1", {"note": 5}))[0] == 422
    assert (await change(filled, "PATCH", "1", [1]))[0] == 400
    assert (await change(filled, "PATCH", "none", {"note": "n"})) == (404, {"detail": "Span not found."})


async def test_changes_of_several(filled: Gateway) -> None:
    logs: list[Any] = [{"unique_id": "0", "note": "a"}, {"unique_id": "none"}, {"note": "b"}, {"id": "1", "cost": 1}, 5]
    async with filled.session.patch("/api/request-logs/batch-update", json={"logs": logs}) as response:
        reply = await response.json()
        assert (response.status, reply["success_count"], reply["error_count"]) == (200, 1, 4)
    assert [error["index"] for error in reply["errors"]] == [1, 2, 3, 4]
    assert (await filled.get("0"))["note"] == "a"
    async with filled.session.patch("/api/request-logs/batch-update", json={"logs": {}}) as response:
        assert response.status == 422


async def test_deletion(filled: Gateway) -> None:
    assert await change(filled, "DELETE", "1") == (204, None)
    assert await change(filled, "DELETE", "1") == (404, {"detail": "Span not found."})
    assert await ids(filled) == ["3", "2", "0"]
    _, audit = await ask(filled, "audit/")
    assert (audit["posted"], audit["stored"], audit["deleted_posts"], audit["balanced"]) == (4, 3, 1, True)
    call = await filled.call("/v1/chat/completions", json={"model": "m", "messages": []})
    assert await change(filled, "DELETE", call.log_id) == (204, None)
    _, audit = await ask(filled, "audit/")
    assert (audit["accepted"], audit["settled"], audit["deleted_calls"], audit["balanced"]) == (1, {}, 1, True)
    # The id is free again.
    assert (await filled.post({"model": "again", "unique_id": "1"}))[0] == 201
    assert (await filled.get("1"))["model"] == "again"


async def test_others_can_neither_change_nor_delete(filled: Gateway) -> None:
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    for method in ("PATCH", "DELETE"):
        async with filled.session.request(
            method, "/api/request-logs/1", json={"note": "n"}, headers=headers
        ) as response:
            assert response.status == 404
    assert (await filled.get("1"))["note"] is None


async def test_the_older_form_of_bulk(gateway: Gateway) -> None:
    logs = [{"model": "m", "unique_id": "a"}, {"input": "x"}]
    status, reply = await ask(gateway, "batch/create", json={"logs": logs})
    assert (status, reply["results"][0]) == (201, {"id": "a", "status": "success"})
    assert reply["results"][1]["status"] == "error" and "model" in reply["results"][1]["error"]
    assert (await ask(gateway, "batch/create/", json={"logs": logs[1:]}))[0] == 400
    status, reply = await ask(gateway, "batch/create/", json={"logs": [{}] * 5001})
    assert (status, reply["errors"]) == (422, {"logs": ["Must have at most 5000 spans; these are 5001."]})


async def test_half_a_surrogate_pair_breaks_no_question(filled: Gateway) -> None:
    half = "ab\ud83d"
    told = {"input": f"worldly {half}", "metadata": {"plan": half}, "deployment_name": half}
    assert (await filled.post({"unique_id": "half", "model": "m", **told}))[0] == 201
    assert set(await ids(filled, "?search=world")) == {"half", "2", "3"}
    for operator, value in (("regex", "^(pro|ab)"), ("icontains", "ab\ufffd"), ("trigram_word_similar", "ab")):
        assert "half" in await ids(filled, f"?metadata__plan[operator]={operator}&metadata__plan[value]={value}")
        assert await ids(filled, f"?deployment_name[operator]={operator}&deployment_name[value]={value}") == ["half"]
    for path in ("groups/", "series/"):
        _, found = await ask(filled, f"{path}?group_by=deployment_name")
        (row,) = found["results"]
        assert (row["deployment_name"][:3], row["number_of_requests"]) == ("ab\ufffd", 1)
