"""The gateway with its log off, to tell what its spans cost: everything else is as `gateway serve` has it.

python -m gateway.bench.unlogged CONFIG: prints its URL and serves until it is ended.
"""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvloop

from gateway import config
from gateway.app import opened, served
from gateway.memory import collect_less_once, give_large_blocks_back
from gateway.recorder import Ended, Recorder


class Unlogged(Recorder):
    """Keeps no span of a call."""

    def open_call(self, *args: Any, **kwargs: Any) -> None:
        """Makes no row."""

    def record_calls(self, calls: Iterable[Ended]) -> None:
        """Makes no spans."""
        for call in calls:
            call.committed.set_result(False)


async def serve(path: Path) -> None:
    """Serves as the configuration file says."""
    give_large_blocks_back()
    settings = config.load(path)
    async with opened(settings, recorder_type=Unlogged) as gateway, served(settings, gateway) as url:
        collect_less_once(gateway.loading)
        print(f"listening on {url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
