"""The yardstick: what aiohttp by itself costs. A handler and a ClientSession, nothing read, nothing written down. Spans
that are posted it answers at once, with about as many bytes as the gateway.

python -m gateway.bench.bare UPSTREAM: prints its port and serves until it is ended.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

_POSTED = b"{}".ljust(4000)
_PASSED_ON = ("Content-Type", "Content-Length")


async def serve(upstream: str) -> None:
    """Serves on a free port of this machine, and prints it."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def relay(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": request.headers["Content-Type"]}
            async with session.post(f"{upstream}{request.path}", data=body, headers=headers) as answer:
                passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=passed)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response

        async def forget(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(body=_POSTED, status=201, content_type="application/json")

        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/api/request-logs/", forget)
        app.router.add_post("/{path:.*}", relay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
