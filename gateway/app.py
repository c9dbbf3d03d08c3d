"""The only place that wires objects together; each resource is closed where it is opened."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.clock import Clock
from gateway.config import NEVER, Settings
from gateway.config import Key as KeySettings
from gateway.config import Upstream as UpstreamSettings
from gateway.core import prices, retention
from gateway.core import secrets as secret_names
from gateway.core.limits import KeyLimits
from gateway.errors import StoreError
from gateway.limiter import Limiter
from gateway.metrics import Metrics
from gateway.proxy import Proxy
from gateway.recorder import Caller, Recorder
from gateway.shipper import Shipper
from gateway.store.compress import compress_now_and_then
from gateway.store.hours import sum_now_and_then
from gateway.store.prune import Keep, prune_now_and_then
from gateway.store.store import Store
from gateway.tokenizer import Tokenizer
from gateway.upstream.client import Address, HttpUpstream
from gateway.upstream.collector import Collector
from gateway.upstream.echo import EchoUpstream
from gateway.upstream.pool import Pool
from gateway.upstream.wire import Upstream
from gateway.web.bodies import BODY_TIMEOUT_S
from gateway.web.connection import Limits
from gateway.web.exports import ExportHandlers
from gateway.web.ingest import IngestHandlers
from gateway.web.keys import Keys
from gateway.web.lists import ListHandlers
from gateway.web.live import LiveHandlers
from gateway.web.middleware import RUNNING, Running, keep_out_of_caches, leave_out_server
from gateway.web.prices import PriceHandlers
from gateway.web.relay import RelayHandlers
from gateway.web.routes import register, table
from gateway.web.series import SeriesHandlers
from gateway.web.server import serving
from gateway.web.signin import SignInHandlers, keep_learning, learn_of_ended
from gateway.web.spans import SpanHandlers
from gateway.web.status import StatusHandlers
from gateway.web.traces import TraceHandlers
from gateway.web.users import UserHandlers

log = logging.getLogger(__name__)

_MB = 1024 * 1024
_SECRET_BYTES = 32


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
    file = _beside(settings, ".key")
    kept, is_new = _read_or_mint(file, lambda: f"gw-{secrets.token_urlsafe(24)}\n".encode())
    try:
        key = kept.decode().strip()
    except UnicodeDecodeError as error:
        raise StoreError(f"The key file {file} holds no text: delete it to have a key made.") from error
    if not key:
        raise StoreError(f"The key file {file} is empty: write a key into it, or delete it to have one made.")
    return LocalKey(key, file, is_new)


def session_secret(settings: Settings) -> bytes:
    """What sessions are signed with by all who share the database: read, or made (mode 0600). Raises StoreError."""
    file = _beside(settings, ".session")
    secret, _ = _read_or_mint(file, lambda: secrets.token_bytes(_SECRET_BYTES))
    if len(secret) != _SECRET_BYTES:
        raise StoreError(f"The key file {file} is not as it was made: delete it, and all have to sign in again.")
    return secret


def _beside(settings: Settings, suffix: str) -> Path:
    path = settings.store.path
    return path.with_name(path.name + suffix)


def _read_or_mint(file: Path, mint: Callable[[], bytes]) -> tuple[bytes, bool]:
    """What a key file holds, and whether it was made just now. Raises StoreError."""
    try:
        return (file.read_bytes(), False) if file.exists() else _minted(file, mint())
    except OSError as error:
        raise StoreError(f"The key file {file} cannot be used: {error.strerror}.") from error


def _minted(file: Path, data: bytes) -> tuple[bytes, bool]:
    # Whoever finds the file finds the whole key in it, also when several processes start at once.
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as opened_draft:
        opened_draft.write(data)
    try:
        os.link(draft, file)
    except FileExistsError:
        return file.read_bytes(), False
    finally:
        draft.unlink()
    return data, True


@dataclass(slots=True)
class Gateway:
    """What `opened` opens: an application, and the settings that it works by."""

    app: web.Application
    settings: Settings
    _clock: Clock
    _keys: Keys
    _upstreams: dict[str, Upstream]
    _pool: Pool
    _recorder: Recorder
    _proxy: Proxy
    _store: Store
    # Done when everything is loaded that is not needed for the first call.
    loading: asyncio.Task[None]
    # Taken out or replaced, while requests run that may have chosen them.
    _leaving: list[tuple[UpstreamSettings, ...]] = field(default_factory=list)
    _retiring: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def abandoned(self) -> int:
        """How many changes the store had to give up when this was closed."""
        return self._store.abandoned

    def reload(self, settings: Settings) -> None:
        """Takes over keys, upstreams and prices, for calls that are yet to come; nothing else is looked at.

        An upstream whose settings are the same stays as it is, its open connections too. Raises StoreError and
        OSError; then nothing has changed.
        """
        let_in = callers(settings)
        old = {upstream.name: upstream for upstream in self.settings.upstreams}
        upstreams = {
            new.name: self._upstreams[new.name] if new == old.get(new.name) else _upstream(new, self._clock)
            for new in settings.upstreams
        }
        # From here on nothing can fail.
        left = tuple(upstream for upstream in self.settings.upstreams if upstream not in settings.upstreams)
        self.settings, self._upstreams = settings, upstreams
        self._keys.replace(let_in)
        if retired := self._pool.replace(list(upstreams.values())):
            self._leaving.append(left)
            task = asyncio.create_task(self._retire(retired, left), name="retire upstreams")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._tell_recorder()

    async def _retire(self, retired: list[Upstream], left: tuple[UpstreamSettings, ...]) -> None:
        """Lets go of upstreams once every request that may have chosen one has ended, and has its span."""
        await self.app[RUNNING].ended()
        await self._proxy.settled()
        await self._pool.let_go(retired)
        self._leaving.remove(left)
        self._tell_recorder()

    def _tell_recorder(self) -> None:
        upstreams = (*self.settings.upstreams, *(upstream for left in self._leaving for upstream in left))
        self._recorder.replace(_price_list(self.settings), _upstream_secrets(upstreams))

    async def close(self) -> None:
        """Waits no longer for requests to end: the pool closes what is open."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)


@asynccontextmanager
async def opened(
    settings: Settings, clock: Clock | None = None, recorder_type: type[Recorder] = Recorder
) -> AsyncIterator[Gateway]:
    """A gateway with everything it needs open; closed in the opposite order, spans committed.

    Raises StoreError.
    """
    clock = clock or Clock()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_unhandled)
        stack.callback(loop.set_exception_handler, None)
        store = Store(
            settings.store.path,
            synchronous=settings.store.synchronous,
            queue_bytes=_bytes(settings.store.queue_mb),
            shared=settings.server.workers > 1,
            on_waiting=metrics.waiting_bytes.set,
            on_trouble=metrics.store_troubles.inc,
        )
        stack.push_async_callback(store.close)
        await store.recover()
        tokenizer = Tokenizer()
        stack.push_async_callback(tokenizer.close)
        recorder = recorder_type(
            store,
            tokenizer,
            _price_list(settings),
            clock,
            metrics,
            max_content_bytes=_bytes(settings.store.max_content_mb),
            upstream_secrets=_upstream_secrets(settings.upstreams),
        )
        stack.push_async_callback(recorder.close)
        upstreams = {upstream.name: _upstream(upstream, clock) for upstream in settings.upstreams}
        pool = Pool(list(upstreams.values()), clock)
        stack.push_async_callback(pool.close)
        proxy = Proxy(
            pool,
            recorder,
            Limiter(store, recorder.find_price, clock),
            clock,
            metrics,
            commit_wait_s=settings.store.commit_wait_ms / 1000,
            max_body_bytes=_bytes(settings.server.max_body_mb),
            max_content_bytes=_bytes(settings.store.max_content_mb),
        )
        stack.push_async_callback(proxy.settled)
        path = settings.store.path
        if settings.otlp.endpoint is not None:
            shipper = _shipper(settings, store)
            await shipper.begin()
            _goes_on(stack, shipper.run(), "export spans")
        _goes_on(stack, sum_now_and_then(path, clock.now), "sum up hours")
        if settings.store.compress_after != NEVER:
            older_than = retention.age(settings.store.compress_after)
            _goes_on(stack, compress_now_and_then(path, older_than, clock.now), "compress")
        if (keep := kept(settings.store.prune_older_than, settings.store.prune_max_size)) != Keep():
            _goes_on(stack, prune_now_and_then(path, keep, clock.now), "prune")
        # The price table takes a quarter second to load: not before the first call can be taken.
        loading = asyncio.create_task(asyncio.to_thread(prices.load_shipped), name="load prices")
        stack.push_async_callback(asyncio.wait, [loading])

        running = Running()
        app = web.Application(middlewares=[running.track], client_max_size=_bytes(settings.server.max_body_mb))
        app[RUNNING] = running
        app[BODY_TIMEOUT_S] = settings.server.body_timeout_s
        app.on_response_prepare.extend((leave_out_server, keep_out_of_caches))
        keys = Keys(callers(settings), session_secret(settings), clock)
        await learn_of_ended(keys, store)
        _goes_on(stack, keep_learning(keys, store), "learn of ended sessions")
        routes = table(
            SpanHandlers(recorder, store),
            ListHandlers(store),
            SeriesHandlers(store, clock),
            PriceHandlers(recorder, clock),
            LiveHandlers(store, keys),
            ExportHandlers(store, clock),
            TraceHandlers(store),
            UserHandlers(store, clock),
            IngestHandlers(recorder),
            RelayHandlers(proxy, pool, clock),
            StatusHandlers(store, metrics),
            SignInHandlers(keys, store, clock, metrics),
        )
        register(app, routes, keys)
        gateway = Gateway(app, settings, clock, keys, upstreams, pool, recorder, proxy, store, loading)
        stack.push_async_callback(gateway.close)
        yield gateway


def _shipper(settings: Settings, store: Store) -> Shipper:
    otlp = settings.otlp
    headers = {name: value.get_secret_value() for name, value in otlp.headers.items()}
    return Shipper(store, settings.store.path, Collector(str(otlp.endpoint), headers))


def kept(older_than: str | None, max_size: str | None) -> Keep:
    """What the settings say of how long spans are kept, and how much of them."""
    return Keep(
        None if older_than is None else retention.age(older_than),
        None if max_size is None else retention.size(max_size),
    )


def _goes_on(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    """Does this behind the calls, until the stack is closed."""
    stack.push_async_callback(_ended, asyncio.create_task(work, name=name))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task or callback has handled; asyncio itself would write out what the error and its objects hold."""
    log.error("%s\n%s", context["message"], secret_names.trace(context.get("exception")))


def served(settings: Settings, gateway: Gateway, *, shared_port: bool = False) -> AbstractAsyncContextManager[str]:
    """Serves a gateway as `[server]` says; gives its URL. Raises ListenError and UndeclaredRoute."""
    server = settings.server
    limits = Limits(server.max_connections, server.head_timeout_s, server.write_timeout_s)
    return serving(
        gateway.app, server.host, server.port, drain_s=server.drain_s, limits=limits, shared_port=shared_port
    )


def callers(settings: Settings) -> list[tuple[str, Caller]]:
    """Each key that is let in, and whose it is. Raises StoreError."""
    local = local_key(settings)
    if local is not None:
        return [(local.key, Caller("local", "default", "prod"))]
    return [
        (key.key.get_secret_value(), Caller(key.name, key.organization_id, key.environment, _limits(key)))
        for key in settings.keys
    ]


def _limits(key: KeySettings) -> KeyLimits | None:
    if key.rate_limit is None and key.max_concurrent is None and key.budget_usd is None:
        return None
    budget = None if key.budget_usd is None else prices.picos(key.budget_usd)
    return KeyLimits(key.rate_limit, key.max_concurrent, budget, key.budget_period)


def _price_list(settings: Settings) -> prices.PriceList:
    return prices.PriceList(
        {
            name: prices.Price(price.prompt, price.completion, price.cached_prompt, price.cache_creation)
            for name, price in settings.prices.items()
        }
    )


def _upstream_secrets(upstreams: Iterable[UpstreamSettings]) -> list[str]:
    """The texts that must be in no span."""
    found: set[str] = set()
    for upstream in upstreams:
        found |= secret_names.in_headers((name, value.get_secret_value()) for name, value in upstream.headers.items())
        found |= secret_names.in_url(upstream.base_url or "") | secret_names.in_url(upstream.proxy or "")
        if upstream.api_key is not None:
            found.add(upstream.api_key.get_secret_value())
    return secret_names.repeated_as(found)


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
