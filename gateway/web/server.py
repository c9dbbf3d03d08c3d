"""Serves an application on a port, and ends with the calls that run."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from aiohttp import web

from gateway.errors import ListenError
from gateway.web.connection import LINGERING_AT_MOST, Connection, Door, Limits
from gateway.web.middleware import RUNNING, errors_as_json
from gateway.web.routes import straight

log = logging.getLogger(__name__)

# For connections to close, once the requests have ended.
_CLOSE_WITHIN_S = 1.0
# Connections that the kernel keeps until we take them; it may keep fewer.
_BACKLOG = 1024
# How many of them we take before the loop goes on; asyncio complains as often in one go where no file is left.
_TAKEN_AT_ONCE = 16
# A call has a connection on either side.
_SOCKETS_A_CALL = 2
# The database and its readers, the tokenizer, the log, and those that are turned away.
_OTHER_FILES = 64 + LINGERING_AT_MOST


def raise_file_limit() -> None:
    """Lets this process open as many files as it is allowed to, where less was asked for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        log.info("The limit of open files cannot be raised.")


def connections_within(wanted: int, files: int) -> int:
    """How many connections fit into a process that may open so many files."""
    if files == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(1, (files - _OTHER_FILES) // _SOCKETS_A_CALL))


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, *, drain_s: float, limits: Limits, shared_port: bool = False
) -> AsyncIterator[str]:
    """Serves an application and gives its URL; at the end, running calls may finish (`drain_s`, seconds).

    Bodies come as they were sent, still compressed; a handler is cancelled when its client hangs up. Raises
    ListenError, and UndeclaredRoute for an application with a route that does not say who may call it.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSE_WITHIN_S)
    await runner.setup()
    try:
        manager = cast("web.Server", runner.server)
        # Outside the application, which answers some mistakes before any middleware of its own.
        manager.request_handler = cast("Any", errors_as_json(straight(app, manager.request_handler)))
        server = await _listen(manager, _door(limits), host, port, shared_port=shared_port)
        bound_host, bound_port = server.sockets[0].getsockname()[:2]
        try:
            yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
        finally:
            # Not left to aiohttp, which would wait for twice as long and not tell a stop from a client that left.
            server.close()
            for connection in manager.connections:
                cast("Connection", connection).finish()
            await app[RUNNING].drain(drain_s)
    finally:
        await runner.cleanup()


def _door(limits: Limits) -> Door:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = connections_within(limits.max_connections, files)
    if fit == limits.max_connections:
        return Door(limits, "[server] max_connections")
    return Door(replace(limits, max_connections=fit), f"as many as {files} open files allow, see ulimit -n")


async def _listen(manager: web.Server, door: Door, host: str, port: int, *, shared_port: bool) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: Connection(manager, door, loop), host, port, backlog=_TAKEN_AT_ONCE, reuse_port=shared_port or None
        )
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ListenError(f"Cannot listen on {host}:{port}: {reason}. Try another --host or --port.") from error
    for listening in server.sockets:
        # asyncio has one number for both; the same socket, by another name, is told the other.
        with listening.dup() as same:
            same.listen(_BACKLOG)
    return server
