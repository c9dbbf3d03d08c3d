"""Whether every call that was accepted is accounted for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from gateway.core.outcome import label_of

_LAST_MINUTE = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)

ACCEPTED = "accepted"
DROPPED = "dropped"
POSTED = "posted"
REPEATED = "repeated"
REFUSED = "refused"
DELETED_CALLS = "deleted_calls"
DELETED_POSTS = "deleted_posts"


class CallCount(NamedTuple):
    """How many calls stand alike: under way, interrupted, or settled with this end."""

    is_open: bool
    was_interrupted: bool
    failed: bool
    status_code: int
    number: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What came in, from the ledger, beside what is stored, from the rows.

    Calls: `accepted` got a row or were dropped; `settled` by how they ended, `open` under way, `interrupted` by the
    death of their process, `dropped` for want of room in the queue. Posted spans: `posted` stored, `repeated` the id
    of a stored one, `refused` turned down; `stored` of those posted are there. `deleted_calls` and `deleted_posts`
    were deleted on request.
    """

    accepted: int
    settled: dict[str, int]
    open: int
    interrupted: int
    dropped: int
    posted: int
    repeated: int
    refused: int
    stored: int
    deleted_calls: int = 0
    deleted_posts: int = 0

    @property
    def missing(self) -> int:
        """Calls and posted spans that nothing accounts for; below 0, rows that nobody accepted."""
        calls = self.accepted - sum(self.settled.values()) - self.open - self.interrupted - self.dropped
        return calls - self.deleted_calls + self.posted - self.stored - self.deleted_posts

    def as_json(self) -> dict[str, Any]:
        """The fields, and whether they balance: accepted = settled + open + interrupted + dropped + deleted_calls,
        posted = stored + deleted_posts."""
        return {**asdict(self), "missing": self.missing, "balanced": self.missing == 0}


def audit(ledger: Mapping[str, int], calls: Iterable[CallCount], stored: int) -> Audit:
    """Lays the ledger's numbers beside those of the rows."""
    stands: Counter[str] = Counter()
    settled: Counter[str] = Counter()
    for call in calls:
        if call.is_open or call.was_interrupted:
            stands["open" if call.is_open else "interrupted"] += call.number
        else:
            settled[label_of(call.status_code, failed=call.failed)] += call.number
    return Audit(
        accepted=ledger.get(ACCEPTED, 0),
        settled=dict(sorted(settled.items())),
        open=stands["open"],
        interrupted=stands["interrupted"],
        dropped=ledger.get(DROPPED, 0),
        posted=ledger.get(POSTED, 0),
        repeated=ledger.get(REPEATED, 0),
        refused=ledger.get(REFUSED, 0),
        stored=stored,
        deleted_calls=ledger.get(DELETED_CALLS, 0),
        deleted_posts=ledger.get(DELETED_POSTS, 0),
    )


def whole_minutes(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    """The range in whole minutes around the one that was asked for: the ledger counts by the minute."""
    if start is not None:
        start = start.replace(second=0, microsecond=0)
    if end is not None:
        floor = end.replace(second=0, microsecond=0)
        if floor != end:
            # The last minute that there is has no next one.
            end = floor + timedelta(minutes=1) if floor < _LAST_MINUTE else None
    return start, end
