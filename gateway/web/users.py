"""Routes of users and threads."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.clock import Clock
from gateway.core import limits, walk
from gateway.core.conversation import conversation
from gateway.core.filters import THREAD_FIELDS, USER_FIELDS
from gateway.core.jsontext import dump
from gateway.core.prices import usd
from gateway.core.reading import public
from gateway.core.secrets import masked
from gateway.core.span import Number, Object, Text, Time
from gateway.errors import InvalidSpan, NotFound
from gateway.recorder import Caller
from gateway.store import threads, users
from gateway.store.store import Store
from gateway.web.bodies import read_object
from gateway.web.questions import asked, offset, page_asked, page_reply
from gateway.web.replies import json_reply, json_text_reply

PARAMETERS = frozenset({"page", "page_size", "sort_by", "start_time", "end_time", "environment"})
ENVIRONMENTS = ("prod", "test")
_PERIODS = {"daily": "day", "weekly": "week", "monthly": "month"}
_DAYS_A_MONTH = 365.25 / 12


class Told(BaseModel):
    """What can be said of a user."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    email: Text | None = None
    metadata: Object | None = None
    period_budget: Number | None = None
    budget_duration: Literal["daily", "weekly", "monthly", "yearly"] | None = None
    total_budget: Number | None = None
    period_start: Time | None = None
    period_end: Time | None = None
    markup_percentage: Number | None = None


class UserHandlers:
    """What the routes of users and threads do."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A page of users; with a range, by what they did in it."""
        by = walk.order(request.query.get("sort_by") or "-first_seen", {name: name for name in users.SORTS})
        which = await asked(request, PARAMETERS, USER_FIELDS)
        page, size = page_asked(request)
        found = await self._store.users(caller.organization_id, which, by, limit=size + 1, offset=offset(page, size))
        return page_reply(request, page, size, [_listed(user) for user in found])

    async def retrieve(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """One user, with what is known of the budget."""
        return json_reply(await self._shown(await self._user(request, caller)))

    async def edit(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Keeps what is said of a user."""
        told = _told(await read_object(request))
        user = await self._user(request, caller)
        if told:
            await self._store.say_of_user(user, told, self._clock.now())
        return json_reply(await self._shown(await self._user(request, caller)))

    async def delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Forgets a user; the spans stay, and the next one brings the user back."""
        await self._store.delete_user(await self._user(request, caller))
        return web.Response(status=204)

    async def _user(self, request: web.Request, caller: Caller) -> dict[str, Any]:
        customer = request.match_info["customer_identifier"].removesuffix("/")
        wanted = request.query.get("environment")
        mine = (caller.environment, *(one for one in ENVIRONMENTS if one != caller.environment))
        user = await self._store.user(caller.organization_id, customer, (wanted,) if wanted else mine)
        if user is None:
            raise NotFound("User not found.")
        return user

    async def _shown(self, user: dict[str, Any]) -> dict[str, Any]:
        used = await self._store.user_cost(user, self._period_start(user))
        names = ("name", "email", "customer_identifier", "environment", "total_budget", "period_budget")
        return {
            "id": _id(user),
            **{name: user[name] for name in names},
            "organization_name": None,
            "unique_organization_id": user["organization_id"],
            "total_period_usage": usd(used),
            **{name: user[name] for name in ("period_start", "period_end", "budget_duration", "updated_at")},
        }

    def _period_start(self, user: Mapping[str, Any]) -> datetime | None:
        """When the budget's period began; None where there is none: from the beginning on."""
        if user["period_start"] is not None:
            return datetime.fromisoformat(user["period_start"])
        now = self._clock.now()
        if user["budget_duration"] == "yearly":
            return datetime(now.year, 1, 1, tzinfo=UTC)
        if (period := _PERIODS.get(user["budget_duration"])) is None:
            return None
        day, _ = limits.period(period, now)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    async def threads(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A page of threads."""
        by = walk.order(request.query.get("sort_by"), {name: name for name in threads.SORTS})
        which = await asked(request, PARAMETERS, THREAD_FIELDS)
        page, size = page_asked(request)
        found = await self._store.threads(caller.organization_id, which, by, limit=size + 1, offset=offset(page, size))
        for thread in found:
            thread["total_cost"] = usd(thread.pop("cost_picos"))
        return page_reply(request, page, size, found)

    async def thread(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A thread as a conversation."""
        thread_id = request.match_info["thread_identifier"].removesuffix("/")
        text = await self._store.thread(
            caller.organization_id, thread_id, request.query.get("environment"), _conversation
        )
        if text is None:
            raise NotFound("Thread not found.")
        return json_text_reply(text)


def _conversation(rows: Iterator[Mapping[str, Any]]) -> str | None:
    spans = [public(row) for row in rows]
    if not spans:
        return None
    thread_id = spans[0]["thread_identifier"]
    ids = [span["unique_id"] for span in spans]
    return dump(
        {"thread_identifier": thread_id, "log_count": len(ids), "messages": conversation(spans), "unique_ids": ids}
    )


def _told(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a user. Raises InvalidSpan."""
    try:
        told = Told.model_validate(raw)
    except ValidationError as error:
        errors: dict[str, list[str]] = {}
        for mistake in error.errors(include_url=False, include_input=False):
            errors.setdefault(str(mistake["loc"][0]), []).append(str(mistake["msg"]))
        raise InvalidSpan(errors) from None
    found = {name: getattr(told, name) for name in raw}
    return found | ({"metadata": masked(told.metadata)} if told.metadata is not None else {})


def _id(user: Mapping[str, Any]) -> str:
    return f"{user['customer_identifier']}:{user['environment']}:{user['organization_id']}"


def _listed(user: Mapping[str, Any]) -> dict[str, Any]:
    seen = datetime.fromisoformat(user["last_seen"]) - datetime.fromisoformat(user["first_seen"])
    months = max(1.0, seen.total_seconds() / 86_400 / _DAYS_A_MONTH)
    cost = usd(user["cost_picos"])
    return {
        "id": _id(user),
        "customer_identifier": user["customer_identifier"],
        "unique_organization_id": user["organization_id"],
        **{name: user[name] for name in ("environment", "name", "email", "first_seen")},
        "last_active_timeframe": user["last_seen"],
        "active_days": user["active_days"],
        "number_of_requests": user["number_of_requests"],
        "total_requests": user["number_of_requests"],
        "total_tokens": user["total_tokens"],
        "tokens": user["total_tokens"],
        "total_prompt_tokens": user["total_prompt_tokens"],
        "total_completion_tokens": user["total_completion_tokens"],
        "total_cost": cost,
        "cost": cost,
        "average_latency": user["average_latency"] or 0.0,
        "average_ttft": user["average_ttft"] or 0.0,
        "average_monthly_cost": cost / months,
        **{name: user[name] for name in ("period_budget", "budget_duration", "total_budget")},
    }
