"""Sums over time, as charts are drawn of them."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.clock import Clock
from gateway.core.jsontext import dump
from gateway.core.prices import usd
from gateway.core.reading import stored_time
from gateway.errors import MalformedBody
from gateway.recorder import Caller
from gateway.store.series import Point
from gateway.store.store import Store
from gateway.web.questions import asked, number_in, time_in
from gateway.web.replies import json_text_reply

SERIES_PARAMETERS = frozenset({"start_time", "end_time", "environment", "interval", "group_by", "limit"})
# By name, in seconds.
INTERVALS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 6 * 3600, "1d": 86_400, "1w": 7 * 86_400}
AUTO = "auto"
# The shortest interval is taken of which a range has no more than so many; of one that was asked for, as the other.
_POINTS = 120
_POINTS_AT_MOST = 2000
SERIES_GROUPS = (
    *("model", "upstream", "provider_id", "organization_key_name", "organization_key_id", "environment", "log_type"),
    *("status", "customer_identifier", "thread_identifier", "prompt_id", "deployment_name", "custom_identifier"),
)
GROUPS_SHOWN = 10
GROUPS_SHOWN_AT_MOST = 50


class SeriesHandlers:
    """What the route of sums over time does."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def series(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Points of an interval each, of all spans or for each of the most frequent values of a field."""
        query = request.query
        group = query.get("group_by") or None
        if group is not None and group not in SERIES_GROUPS:
            raise MalformedBody(f"group_by: must be one of {', '.join(SERIES_GROUPS)}.")
        limit = min(number_in(request, "limit", GROUPS_SHOWN), GROUPS_SHOWN_AT_MOST)
        which = await asked(request, SERIES_PARAMETERS)
        start, end = await self._range(request, caller)
        interval = _interval(query.get("interval") or AUTO, (end - start).total_seconds())
        points, left_out = await self._store.series(
            caller.organization_id,
            which,
            INTERVALS[interval],
            group,
            groups_at_most=limit,
            shape=lambda points: ",".join([dump(_shown(point, group)) for point in points]),
        )
        rest = {
            "interval": interval,
            "interval_seconds": INTERVALS[interval],
            "start_time": stored_time(start),
            "end_time": stored_time(end),
            "group_by": group,
            "requests_left_out": left_out,
        }
        return json_text_reply(f'{dump(rest)[:-1]},"results":[{points}]}}')

    async def _range(self, request: web.Request, caller: Caller) -> tuple[datetime, datetime]:
        """As it was asked for, else from the hour of the first span to that of the last."""
        start, end = time_in(request, "start_time"), time_in(request, "end_time")
        if start is None or end is None:
            now = self._clock.now()
            first, last = await self._store.extent(caller.organization_id) or (end or now, start or now)
            start = start if start is not None else min(first, end or first)
            end = end if end is not None else max(last, start)
        return start, end


def _interval(name: str, range_s: float) -> str:
    """The one that is asked for, or the next longer one that makes no more points than can be shown."""
    if name != AUTO and name not in INTERVALS:
        raise MalformedBody(f"interval: must be one of {', '.join((AUTO, *INTERVALS))}.")
    least_s, at_most = (0, _POINTS) if name == AUTO else (INTERVALS[name], _POINTS_AT_MOST)
    fitting = (one for one, step_s in INTERVALS.items() if step_s >= least_s and range_s <= step_s * at_most)
    return next(fitting, [*INTERVALS][-1])


def _shown(point: Point, group: str | None) -> dict[str, Any]:
    sums = point.sums
    return {
        "time": stored_time(datetime.fromtimestamp(point.time, UTC)),
        **({group: point.key} if group is not None else {}),
        "number_of_requests": sums.spans,
        "error_count": sums.failed,
        "total_cost": usd(sums.cost_picos),
        "total_tokens": sums.total_tokens,
        "total_prompt_tokens": sums.prompt_tokens,
        "total_completion_tokens": sums.completion_tokens,
        **{measure: found._asdict() for measure, found in point.percentiles.items()},
    }
