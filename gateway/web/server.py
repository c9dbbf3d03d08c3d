"""Serves an application on a port, and ends with the calls that run."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.errors import ListenError
from gateway.web.middleware import RUNNING

_HEADER_BYTES = 64 * 1024
# For connections to close, once the requests have ended.
_CLOSE_WITHIN_S = 1.0


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, *, drain_s: float, shared_port: bool = False
) -> AsyncIterator[str]:
    """Serves an application and gives its URL; at the end, running calls may finish (`drain_s`, seconds).

    Bodies come as they were sent, still compressed; a handler is cancelled when its client hangs up. Raises
    ListenError.
    """
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=_CLOSE_WITHIN_S,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
    )
    await runner.setup()
    try:
        site = await _listen(runner, host, port, shared_port=shared_port)
        bound_host, bound_port = runner.addresses[0][:2]
        try:
            yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
        finally:
            # Not left to aiohttp, which would wait for twice as long and not tell a stop from a client that left.
            await site.stop()
            if runner.server is not None:
                runner.server.pre_shutdown()
            await app[RUNNING].drain(drain_s)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int, *, shared_port: bool) -> web.TCPSite:
    try:
        site = web.TCPSite(runner, host, port, reuse_port=shared_port or None)
        await site.start()
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ListenError(f"Cannot listen on {host}:{port}: {reason}. Try another --host or --port.") from error
    return site
