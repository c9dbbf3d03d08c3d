"""Programs that use real SDKs. Each is a process of its own: what these packages set up is there until it ends."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.conftest import KEY, Gateway
from tests.processes import environment

_FOLDER = Path(__file__).parent / "scripts"


async def run_program(gateway: Gateway, name: str, *arguments: str) -> str:
    """Runs a script to its end, which must be a good one; what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(_FOLDER / name), *arguments],
        env=environment(GATEWAY_URL=gateway.url, GATEWAY_KEY=KEY),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(span: dict[str, object]) -> dict[str, object]:
    """The fields that have a value, but for the ids that the gateway gave."""
    return {name: value for name, value in span.items() if value is not None and name not in ("id", "unique_id")}
