"""Trouble with the database of a running gateway breaks no call, and what it costs is told.

A database that is locked by another process is in tests/soak, for it takes long.
"""

import asyncio
import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.soak.evidence import rows
from tests.troubled import Gateway, begin_stream, running, through


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


# A database that takes no writes


@contextmanager
def no_larger_files(gateway: Gateway) -> Iterator[None]:
    """No file of the process may be larger than its write-ahead log is now."""
    pid = gateway.process.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log_of(gateway.path).stat().st_size, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(gateway: Gateway) -> Iterator[None]:
    """Nobody may write to the database, nor who has it open."""
    files = [gateway.path, log_of(gateway.path)]
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def full_disk(gateway: Gateway) -> Iterator[None]:
    """Not one byte more finds room beside the database."""
    ballast = gateway.path.with_name("ballast")
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError) as full:
        while True:
            file.write(bytes(4096))
    assert full.value.errno == errno.ENOSPC
    yield
    ballast.unlink()


@pytest.fixture
def read_only_folder(tmp_path: Path) -> None:
    """Skips where a file that is open for writing cannot be made read-only."""
    probe = tmp_path / "probe"
    with probe.open("wb", buffering=0) as file:
        if subprocess.run(["chattr", "+i", probe], capture_output=True).returncode:
            pytest.skip("chattr +i takes root, and a file system that knows it")
        try:
            file.write(b"x")
            pytest.skip("this file system lets writes to an immutable file pass that is open")
        except PermissionError:
            pass
        finally:
            subprocess.run(["chattr", "-i", probe], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_files_that_cannot_grow_break_no_call(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with running(tmp_path, upstream) as gateway:
        assert await through(no_larger_files, gateway, upstream)


@pytest.mark.usefixtures("read_only_folder")
async def test_a_database_that_becomes_read_only_breaks_no_call(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with running(tmp_path, upstream) as gateway:
        assert await through(read_only, gateway, upstream)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_disk_breaks_no_call(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with running(tmp_path, upstream, database="disk/gateway.db") as gateway:
        assert await through(full_disk, gateway, upstream)


# A database that is deleted


def delete(gateway: Gateway) -> None:
    """rm gateway.db*"""
    for file in gateway.path.parent.glob(f"{gateway.path.name}*"):
        file.unlink()


async def test_a_deleted_database_is_back_with_all_its_spans_while_calls_go_on(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream) as gateway:
        end_stream = await begin_stream(gateway, upstream)
        assert [await gateway.post() for _ in range(3)] == [201] * 3
        await gateway.make_calls()
        delete(gateway)
        await gateway.make_calls()
        assert await gateway.post() == 201
        delete(gateway)
        await end_stream()
        assert await gateway.accounts_for_everything() == 0
        assert gateway.process.log.count("it has been written back") == 2
        gateway.process.kill()
    async with running(tmp_path, upstream) as again:
        again.calls, again.posts = gateway.calls, gateway.posts
        assert await again.post() == 201
        assert await again.accounts_for_everything() == 0


async def test_among_several_workers_a_deleted_database_takes_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream, "--workers", "2") as gateway:
        end_stream = await begin_stream(gateway, upstream)
        assert await gateway.post() == 201
        delete(gateway)
        for _ in range(5):
            # Either worker, before it knows and after.
            assert await gateway.post() == 503
            assert await gateway.post_bulk() == 503
            assert not await gateway.ready()
            await gateway.make_calls(4)
        await end_stream()
        assert "restart the gateway" in gateway.process.log
        assert not gateway.path.exists()
        gateway.process.kill_all()
    async with running(tmp_path, upstream, "--workers", "2") as again:
        assert await again.post() == 201
        await again.make_calls()
        assert await again.accounts_for_everything() == 0


async def test_two_gateways_on_a_deleted_database_do_not_undo_each_others_work(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream) as first, running(tmp_path, upstream) as second:
        both = (first, second)
        assert await asyncio.gather(*(gateway.post() for gateway in both)) == [201, 201]
        before = {unique_id for gateway in both for unique_id in gateway.posts}
        delete(first)
        for _ in range(5):
            await asyncio.gather(*(gateway.post() for gateway in both))
        acknowledged = {unique_id for gateway in both for unique_id, stored in gateway.posts.items() if stored}
        # Either one of them writes it back, or both want a restart.
        there = {row["unique_id"] for row in rows(first.path)} if first.path.exists() else before
        assert there == acknowledged
        assert not (await first.ready() and await second.ready())
