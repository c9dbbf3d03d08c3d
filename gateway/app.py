"""The only place that wires objects together; each resource is closed where it is opened."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from gateway.clock import Clock
from gateway.config import Settings
from gateway.config import Upstream as UpstreamSettings
from gateway.core import prices
from gateway.core import secrets as secret_names
from gateway.errors import StoreError
from gateway.metrics import Metrics
from gateway.proxy import Proxy
from gateway.recorder import Caller, Recorder
from gateway.store.store import Store
from gateway.tokenizer import Tokenizer
from gateway.upstream.client import Address, HttpUpstream
from gateway.upstream.echo import EchoUpstream
from gateway.upstream.pool import Pool
from gateway.upstream.wire import Upstream
from gateway.web.keys import Keys
from gateway.web.middleware import RUNNING, Running, errors_as_json, leave_out_own_headers
from gateway.web.relay import RelayHandlers
from gateway.web.routes import register, table
from gateway.web.server import serving
from gateway.web.spans import SpanHandlers
from gateway.web.status import StatusHandlers

_MB = 1024 * 1024
# Spans that wait for a store which is not keeping up.
_QUEUE_BYTES = 64 * _MB
_SECRET_LENGTH = 8


@dataclass(frozen=True, slots=True)
class LocalKey:
    """The key of a gateway whose configuration names none, and whether it was minted just now."""

    key: str
    file: Path
    is_new: bool


def local_key(settings: Settings) -> LocalKey | None:
    """Reads the key beside the database, or mints it (file mode 0600); None where the configuration has keys.

    Raises StoreError.
    """
    if settings.keys:
        return None
    file = settings.store.path.with_name(settings.store.path.name + ".key")
    try:
        return _read_key(file) if file.exists() else _mint_key(file)
    except OSError as error:
        raise StoreError(f"The key file {file} cannot be used: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"The key file {file} holds no text: delete it to have a key made.") from error


def _read_key(file: Path) -> LocalKey:
    key = file.read_text("utf-8").strip()
    if not key:
        raise StoreError(f"The key file {file} is empty: write a key into it, or delete it to have one made.")
    return LocalKey(key, file, is_new=False)


def _mint_key(file: Path) -> LocalKey:
    key = f"gw-{secrets.token_urlsafe(24)}"
    # Whoever finds the file finds the whole key in it, also when several processes start at once.
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as opened_draft:
        opened_draft.write(f"{key}\n")
    try:
        os.link(draft, file)
    except FileExistsError:
        return _read_key(file)
    finally:
        draft.unlink()
    return LocalKey(key, file, is_new=True)


@asynccontextmanager
async def opened(settings: Settings, clock: Clock | None = None) -> AsyncIterator[web.Application]:
    """The application with everything it needs open; closed in the opposite order, spans committed.

    Raises StoreError.
    """
    clock = clock or Clock()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        store = Store(
            settings.store.path,
            synchronous=settings.store.synchronous,
            queue_bytes=_QUEUE_BYTES,
            on_waiting=metrics.waiting_bytes.set,
        )
        stack.push_async_callback(store.close)
        tokenizer = Tokenizer()
        stack.push_async_callback(tokenizer.close)
        recorder = Recorder(
            store,
            tokenizer,
            _price_list(settings),
            clock,
            metrics,
            max_content_bytes=_bytes(settings.store.max_content_mb),
            upstream_secrets=_upstream_secrets(settings),
        )
        stack.push_async_callback(recorder.close)
        pool = Pool([_upstream(upstream, clock) for upstream in settings.upstreams], clock)
        stack.push_async_callback(pool.close)
        proxy = Proxy(
            pool,
            recorder,
            clock,
            metrics,
            commit_wait_s=settings.store.commit_wait_ms / 1000,
            max_body_bytes=_bytes(settings.server.max_body_mb),
            max_content_bytes=_bytes(settings.store.max_content_mb),
        )
        stack.push_async_callback(proxy.close)
        # The price table takes a quarter second to load: not before the first call can be taken.
        loading = asyncio.create_task(asyncio.to_thread(prices.load_shipped), name="load prices")
        stack.push_async_callback(asyncio.wait, [loading])

        running = Running()
        app = web.Application(
            middlewares=[running.track, errors_as_json], client_max_size=_bytes(settings.server.max_body_mb)
        )
        app[RUNNING] = running
        app.on_response_prepare.append(leave_out_own_headers)
        routes = table(SpanHandlers(recorder, store), RelayHandlers(proxy, pool, clock), StatusHandlers(store, metrics))
        register(app, routes, Keys(_callers(settings)))
        yield app


def served(settings: Settings, app: web.Application, *, shared_port: bool = False) -> AbstractAsyncContextManager[str]:
    """Serves an application as `[server]` says; gives its URL. Raises ListenError."""
    server = settings.server
    return serving(app, server.host, server.port, drain_s=server.drain_s, shared_port=shared_port)


def _callers(settings: Settings) -> list[tuple[str, Caller]]:
    local = local_key(settings)
    if local is not None:
        return [(local.key, Caller("local", "default", "prod"))]
    return [
        (key.key.get_secret_value(), Caller(key.name, key.organization_id, key.environment)) for key in settings.keys
    ]


def _price_list(settings: Settings) -> prices.PriceList:
    return prices.PriceList(
        {
            name: prices.Price(price.prompt, price.completion, price.cached_prompt, price.cache_creation)
            for name, price in settings.prices.items()
        }
    )


def _upstream_secrets(settings: Settings) -> list[str]:
    """What must be in no span. Too short to be a secret: it would be masked in the middle of words."""
    found = [upstream.api_key for upstream in settings.upstreams if upstream.api_key is not None]
    for upstream in settings.upstreams:
        found += [value for name, value in upstream.headers.items() if secret_names.is_secret(name)]
    return [value.get_secret_value() for value in found if len(value.get_secret_value()) >= _SECRET_LENGTH]


def _upstream(settings: UpstreamSettings, clock: Clock) -> Upstream:
    if settings.kind == "echo":
        return EchoUpstream(settings.name, settings.models, clock)
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    if settings.api_key is not None:
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}", **headers}
    address = Address(
        base_url=settings.base_url or "",
        own_headers=headers,
        timeout_s=settings.timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        proxy=settings.proxy,
        ca_file=settings.ca_file,
    )
    return HttpUpstream(settings.name, settings.models, address, inject_usage=settings.inject_usage)


def _bytes(megabytes: float) -> int:
    return int(megabytes * _MB)
