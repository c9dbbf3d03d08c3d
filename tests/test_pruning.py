"""`gateway prune` as a process, and `[store] prune_…` in a gateway."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Gateway, StartGateway
from tests.test_show import run


async def filled(gateway: Gateway) -> None:
    for number, timestamp in enumerate(("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z")):
        assert (await gateway.post({"model": "m", "unique_id": str(number), "timestamp": timestamp}))[0] == 201


def configure(gateway: Gateway, more: str = "") -> None:
    (gateway.path.parent / "config.toml").write_text(f"[store]\npath = '{gateway.path}'\n{more}")


async def test_the_command(gateway: Gateway) -> None:
    await filled(gateway)
    configure(gateway)
    _, told = await run(gateway, "prune", status=1)
    assert told == "Say what is to be deleted: --older-than 30d, --max-size 10GB, or [store] prune_….\n"
    _, told = await run(gateway, "prune", "--older-than", "soon", status=2)
    assert "'soon' is no age like 12h, 30d or 8w" in told
    _, told = await run(gateway, "prune", "--max-size", "1TB")
    assert told.startswith("0 spans deleted; the file had ")
    configure(gateway, 'prune_older_than = "30d"\n')
    _, told = await run(gateway, "prune")
    assert told.startswith("1 spans deleted; the file had ")
    assert [span["id"] for span in await gateway.spans()] == ["1"]
    (gateway.path.parent / "none.toml").write_text("[store]\npath = 'none.db'\n")
    _, told = await run(gateway, "prune", "--older-than", "1d", "--config", "none.toml", status=1)
    assert told.startswith("There is no database") and not Path(gateway.path.parent / "none.db").exists()


async def test_what_would_be_deleted(gateway: Gateway) -> None:
    await filled(gateway)
    configure(gateway)
    _, told = await run(gateway, "prune", "--older-than", "30d", "--dry-run")
    assert told.startswith("1 spans would be deleted, about 0.") and told.endswith("Nothing was deleted.\n")
    _, told = await run(gateway, "prune", "--max-size", "1MB", "--dry-run")
    assert told.startswith("About 0 spans would be deleted, about 0.0 MB of the ")
    assert len(await gateway.spans()) == 2


async def test_a_gateway_prunes_by_itself(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.prune._EVERY_S", 0.01)
    gateway = await start_gateway(store='prune_older_than = "52w"')
    await gateway.post({"model": "m", "unique_id": "old", "timestamp": "2020-01-01T00:00:00Z"})
    await gateway.post({"model": "m", "unique_id": "new", "timestamp": "2099-01-01T00:00:00Z"})
    async with asyncio.timeout(60):
        while [span["id"] for span in await gateway.spans()] != ["new"]:
            await asyncio.sleep(0.01)
