"""Several processes on one database: two gateways, or one with two workers."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.processes import Process, serving
from tests.soak.evidence import rows
from tests.soak.load import KEY, Load, audit_of, configuration

OTHER_KEY = "key-of-another-organization"
OTHER = f'[[keys]]\nname = "other"\nkey = "{OTHER_KEY}"\norganization_id = "other"\n'

# So many things a load sees before it ends, and before whoever follows the journal looks again.
MOMENTS, LOOK_EVERY = 3000, 25
IDS = [f"id-{number}" for number in range(25)]

StartTwo = Callable[[], list[Process]]


@pytest.fixture(params=["two gateways", "two workers"])
def start_two(request: pytest.FixtureRequest, tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[StartTwo]:
    """Starts what serves one database in two processes; gives the gateways, one or two."""
    with ExitStack() as stack:

        def start() -> list[Process]:
            (tmp_path / "config.toml").write_text(configuration(upstream, OTHER, store="commit_wait_ms = 60000"))
            calls = [["--workers", "2"]] if request.param == "two workers" else [[], []]
            return [stack.enter_context(serving(tmp_path, *arguments)) for arguments in calls]

        yield start


def session(url: str, key: str = KEY) -> aiohttp.ClientSession:
    """Without keeping connections: any worker may get the next."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}, connector=connector)


class Follower:
    """Reads what is new in the journal, again and again."""

    def __init__(self, path: Path) -> None:
        self.found: dict[str, tuple[int, str]] = {}
        self._db = sqlite3.connect(path)
        self._seen = 0

    def look(self) -> None:
        for seq, unique_id, status in self._db.execute(
            "SELECT seq, unique_id, status FROM spans WHERE seq > ? ORDER BY seq", (self._seen,)
        ):
            self.found[unique_id] = (seq, status)
            self._seen = seq

    def close(self) -> None:
        self._db.close()


async def test_two_processes_write_one_journal(start_two: StartTwo, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gateways = start_two()
    load = Load(upstream, Random(0))
    with closing(Follower(tmp_path / "gateway.db")) as follower:
        async with load.running(*((gateway.url, gateway.workers) for gateway in gateways)):
            for moment in range(0, MOMENTS, LOOK_EVERY):
                await load.reaches(moment)
                follower.look()
        follower.look()
        followed = follower.found

    assert {sent.worker for sent in load.sent.values()} == {pid for gateway in gateways for pid in gateway.workers()}
    assert load.broken == []
    assert all(sent.ended_at is not None for sent in load.sent.values())
    found = rows(tmp_path / "gateway.db")
    load.check(found)
    places = {row["span_name"]: row["seq"] for row in found}
    assert len(set(places.values())) == len(places)
    # What was acknowledged before another was sent stands before it in the journal.
    begun = [(sent.began_at, False, places[sent.name]) for sent in load.sent.values()]
    ended = [(sent.ended_at, True, places[sent.name]) for sent in load.sent.values()]
    highest = 0
    for _, has_ended, place in sorted(begun + ended):
        assert has_ended or place > highest
        highest = max(highest, place if has_ended else 0)
    # Who followed the journal all the while has seen everything as it stands in the end.
    assert followed == {row["unique_id"]: (row["seq"], row["status"]) for row in found}
    for gateway in gateways:
        async with session(gateway.url) as client:
            async with client.get("/api/request-logs/audit") as response:
                told = await response.json()
            assert told == {"start_time": None, "end_time": None, **audit_of(found, load.sent)}
            async with client.get("/metrics") as response:
                assert "gateway_store_troubles_total 0.0" in await response.text()
        assert "locked" not in gateway.log


async def test_an_id_is_one_span_of_its_organization_wherever_and_however_often_it_is_posted(
    start_two: StartTwo, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    gateways = start_two()
    first, last = gateways[0], gateways[-1]
    async with AsyncExitStack() as stack:
        clients = {
            organization_id: [await stack.enter_async_context(session(one.url, key)) for one in (first, last)]
            for organization_id, key in (("default", KEY), ("other", OTHER_KEY))
        }

        def span(organization_id: str, unique_id: str, how: str) -> dict[str, Any]:
            return {"model": "m", "log_type": "tool", "unique_id": unique_id, "note": f"{organization_id} {how}"}

        async def post(organization_id: str, unique_id: str, place: int) -> tuple[str, str, str]:
            sent = span(organization_id, unique_id, f"alone {place}")
            async with clients[organization_id][place].post("/api/request-logs", json=sent) as response:
                answer = await response.json()
                assert (response.status, answer["unique_id"]) == (201, unique_id), answer
                return organization_id, unique_id, answer["note"]

        async def post_bulk(organization_id: str, place: int) -> None:
            logs = [span(organization_id, unique_id, f"row {row} {place}") for unique_id in IDS for row in range(3)]
            async with clients[organization_id][place].post("/api/request-logs/bulk", json={"logs": logs}) as response:
                answer = await response.json()
                assert answer == {"success_count": len(logs), "error_count": 0, "errors": []}

        everywhere = [(organization_id, place) for organization_id in clients for place in (0, 1)]
        answers, _ = await asyncio.gather(
            asyncio.gather(*(post(*whose, unique_id, place) for unique_id in IDS for *whose, place in everywhere)),
            asyncio.gather(*(post_bulk(*where) for where in everywhere)),
        )
        found = rows(tmp_path / "gateway.db")
        stored = {(row["organization_id"], row["unique_id"]): row["note"] for row in found}
        assert len(found) == len(stored) == 2 * len(IDS)
        assert set(answers) == {(*whose, note) for whose, note in stored.items()}
        assert all(note.startswith(organization_id) for (organization_id, _), note in stored.items())
        for organization_id, place in everywhere:
            client = clients[organization_id][place]
            for unique_id in IDS:
                async with client.get(f"/api/request-logs/{unique_id}") as response:
                    assert (await response.json())["note"] == stored[organization_id, unique_id]
            async with client.get("/api/request-logs/audit") as response:
                told = await response.json()
            assert (told["posted"], told["repeated"], told["refused"]) == (len(IDS), 7 * len(IDS), 0)
    assert "locked" not in first.log
