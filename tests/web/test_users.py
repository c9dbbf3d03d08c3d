"""Users and threads over HTTP."""

from typing import Any

import pytest

from tests.conftest import OTHER_KEY, Gateway

SPANS: list[dict[str, Any]] = [
    {"timestamp": "2026-01-01T10:00:00Z", "cost": 1, "latency": 2, "prompt_tokens": 10, "completion_tokens": 5},
    {
        "timestamp": "2026-01-01T11:00:00Z",
        "cost": 2,
        "latency": 4,
        "customer_params": {"name": "Ada", "email": "a@b.c"},
    },
    {"timestamp": "2026-01-03T10:00:00Z", "cost": 3, "time_to_first_token": 0.5},
]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for span in SPANS:
        assert (await gateway.post({"model": "m", "customer_identifier": "u/1", **span}))[0] == 201
    late = {"model": "m", "customer_identifier": "u-2", "timestamp": "2026-01-05T00:00:00Z", "cost": 9}
    assert (await gateway.post(late))[0] == 201
    assert (await gateway.post({"model": "m"}))[0] == 201
    return gateway


async def ask(gateway: Gateway, path: str, method: str = "GET", **kwargs: Any) -> tuple[int, Any]:
    async with gateway.session.request(method, f"/api/{path}", **kwargs) as response:
        return response.status, await response.json() if response.status != 204 else None


async def ids(gateway: Gateway, query: str = "", **kwargs: Any) -> list[str]:
    status, page = await ask(gateway, f"users/list/{query}", "POST" if kwargs else "GET", **kwargs)
    assert status == 200, page
    return [user["customer_identifier"] for user in page["results"]]


async def test_a_user_as_spans_show_it(filled: Gateway) -> None:
    _, page = await ask(filled, "users/list/?sort_by=first_seen")
    user, other = page["results"]
    assert (page["count"], page["next"], other["customer_identifier"]) == (2, None, "u-2")
    counted = {"total_tokens": user["total_tokens"], "tokens": user["total_tokens"]}
    assert user == {
        **{"id": "u/1:prod:org-a", "customer_identifier": "u/1", "unique_organization_id": "org-a"},
        **{"environment": "prod", "name": "Ada", "email": "a@b.c", "first_seen": "2026-01-01T09:59:58.000000Z"},
        **{"last_active_timeframe": "2026-01-03T10:00:00.000000Z", "active_days": 2, **counted},
        **{"number_of_requests": 3, "total_requests": 3, "total_cost": 6.0, "cost": 6.0},
        **{"total_prompt_tokens": user["total_prompt_tokens"], "average_latency": 3.0, "average_ttft": 0.5},
        **{"total_completion_tokens": user["total_completion_tokens"], "average_monthly_cost": 6.0},
        **{"period_budget": None, "budget_duration": None, "total_budget": None},
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["u-2", "u/1"]),
        ("?sort_by=-number_of_requests", ["u/1", "u-2"]),
        ("?sort_by=total_cost&page_size=1", ["u/1"]),
        ("?sort_by=total_cost&page_size=1&page=2", ["u-2"]),
        ("?page=3", []),
        ("?environment=test", []),
        ("?name=Ada", ["u/1"]),
        ("?start_time=2026-01-04T00:00:00Z", ["u-2"]),
    ],
)
async def test_lists(filled: Gateway, query: str, expected: list[str]) -> None:
    assert await ids(filled, query) == expected


async def test_filters(filled: Gateway) -> None:
    assert await ids(filled, json={"filters": {"total_cost": {"operator": "gt", "value": [6]}}}) == ["u-2"]
    assert await ids(filled, json={"filters": {"active_days": 2, "average_latency": 3}}) == ["u/1"]
    status, reply = await ask(filled, "users/list/", "POST", json={"filters": {"colour": "red"}})
    assert status == 400 and "colour: not a field to filter by; use customer_identifier" in reply["detail"]


async def test_time_is_no_filter_in_a_body(filled: Gateway) -> None:
    either = {"connector": "OR", "filter_params": {"timestamp": "2099-01-01", "customer_identifier": "u-2"}}
    assert (await ask(filled, "users/list/", "POST", json={"filters": either}))[0] == 400


async def test_what_is_said_of_a_user_is_kept(filled: Gateway) -> None:
    _, before = await ask(filled, "users/u/1/")
    assert before == {
        **{
            "id": "u/1:prod:org-a",
            "name": "Ada",
            "email": "a@b.c",
            "customer_identifier": "u/1",
            "environment": "prod",
        },
        **{"total_budget": None, "period_budget": None, "organization_name": None, "total_period_usage": 6.0},
        **{"period_start": None, "period_end": None, "budget_duration": None, "updated_at": None},
        "unique_organization_id": "org-a",
    }
    told = {
        **{"name": "Ada L.", "period_budget": 5, "budget_duration": "daily", "total_budget": 50.5},
        **{"period_start": "2026-01-02T00:00:00Z", "metadata": {"a": 1}, "markup_percentage": 10},
    }
    status, after = await ask(filled, "users/u/1", "PATCH", json=told)
    assert status == 200
    assert (200, after) == await ask(filled, "users/u/1")
    assert {**after, "updated_at": None} == {
        **before,
        **{"name": "Ada L.", "period_budget": 5.0, "budget_duration": "daily", "total_budget": 50.5},
        **{"period_start": "2026-01-02T00:00:00.000000Z", "total_period_usage": 3.0},
    }
    assert after["updated_at"] is not None
    assert (await ids(filled, "?name=Ada L."))[0] == "u/1"
    status, reply = await ask(filled, "users/u/1", "PATCH", json={"name": 5, "colour": "red", "budget_duration": "x"})
    assert (status, sorted(reply["errors"])) == (422, ["budget_duration", "colour", "name"])


async def test_the_budget_is_used_by_what_its_period_has(filled: Gateway) -> None:
    for duration in ("daily", "weekly", "monthly", "yearly"):
        await ask(filled, "users/u-2", "PATCH", json={"budget_duration": duration})
        _, user = await ask(filled, "users/u-2")
        # The gateway's day is later than the span's, by how much depends on when this runs.
        assert user["total_period_usage"] in (0.0, 9.0)


async def test_a_deleted_user_comes_back_with_the_next_span(filled: Gateway) -> None:
    await ask(filled, "users/u/1", "PATCH", json={"name": "gone"})
    assert await ask(filled, "users/u/1/", "DELETE") == (204, None)
    assert await ask(filled, "users/u/1/", "DELETE") == (404, {"detail": "User not found."})
    assert await ids(filled) == ["u-2"]
    assert len(await filled.spans()) == 5
    await filled.post({"model": "m", "customer_identifier": "u/1", "cost": 7})
    _, user = await ask(filled, "users/u/1")
    assert (user["name"], user["total_period_usage"]) == (None, 7.0)


async def test_users_of_others_are_not_there(filled: Gateway) -> None:
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    for method in ("GET", "DELETE"):
        assert (await ask(filled, "users/u/1", method, headers=headers))[0] == 404
    assert (await ask(filled, "users/u/1", "PATCH", json={"name": "x"}, headers=headers))[0] == 404
    assert (await ask(filled, "users/u/1?environment=test"))[0] == 404


def asked(*texts: str) -> list[dict[str, str]]:
    """Messages that take turns."""
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]


async def test_threads_as_conversations(gateway: Gateway) -> None:
    for number, (messages, answer) in enumerate(
        [
            (asked("Hi"), "Hello."),
            (asked("Hi", "Hello.", "Hi"), "Again?"),
            # What was said first may be left out by then.
            (asked("Hi", "Again?", "Bye"), "Bye."),
        ]
    ):
        await gateway.post(
            {
                **{"model": "m", "thread_identifier": "t/1", "unique_id": str(number), "cost": 1},
                **{"input": messages, "output": {"role": "assistant", "content": answer}, "customer_identifier": "u"},
                "timestamp": f"2026-01-01T00:00:0{number}Z",
            }
        )
    await gateway.post({"model": "m", "thread_identifier": "t-2", "timestamp": "2027-01-01T00:00:00Z"})
    status, thread = await ask(gateway, "log_threads/t/1/")
    assert status == 200 and thread["log_count"] == 3 and thread["unique_ids"] == ["0", "1", "2"]
    assert [(said["content"], said["unique_id"]) for said in thread["messages"]] == [
        *[("Hi", "0"), ("Hello.", "0"), ("Hi", "1"), ("Again?", "1"), ("Bye", "2"), ("Bye.", "2")]
    ]
    assert await ask(gateway, "log_threads/none") == (404, {"detail": "Thread not found."})
    _, page = await ask(gateway, "log_threads/", "POST", json={"filters": {"customer_identifier": {"value": ["u"]}}})
    assert page["results"] == [
        {
            **{"thread_identifier": "t/1", "environment": "prod", "log_count": 3, "customer_identifier": "u"},
            **{"first_seen": "2026-01-01T00:00:00.000000Z", "last_seen": "2026-01-01T00:00:02.000000Z"},
            **{"error_count": 0, "total_tokens": page["results"][0]["total_tokens"], "total_cost": 3.0},
        }
    ]
    _, page = await ask(gateway, "log_threads?page_size=1")
    assert [thread["thread_identifier"] for thread in page["results"]] == ["t-2"] and page["next"] is not None
