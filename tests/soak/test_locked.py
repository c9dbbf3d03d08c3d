"""A database that another process has locked for long breaks no call, and what it costs is told."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.fakes.upstream import ScriptedUpstream
from tests.soak.conftest import Figures, HowLong
from tests.troubled import Gateway, running, through

LONG_S = 60


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """Another connection is in the middle of a transaction."""
    with closing(sqlite3.connect(gateway.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def test_a_locked_database_breaks_no_call(
    tmp_path: Path, upstream: ScriptedUpstream, how_long: HowLong, figures: Figures
) -> None:
    async with running(tmp_path, upstream) as gateway:

        async def until_it_has_been_long() -> None:
            while how_long.minutes is not None and time.monotonic() < began + LONG_S:
                await gateway.make_calls()

        began = time.monotonic()
        dropped = await through(locked, gateway, upstream, until_it_has_been_long)
        figures(
            seconds=round(time.monotonic() - began),
            calls=len(gateway.calls),
            broken=0,
            calls_without_a_span=dropped,
            spans_posted=sum(acknowledged is True for acknowledged in gateway.posts.values()),
            posts_refused=sum(acknowledged is False for acknowledged in gateway.posts.values()),
            tries_to_commit=await gateway.metric("gateway_store_troubles_total"),
        )
        assert dropped
