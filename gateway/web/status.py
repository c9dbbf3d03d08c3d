"""Routes for those who look after the process. They need no key and say nothing secret."""

from aiohttp import web

from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.store.store import Store
from gateway.web.replies import json_reply

_READY_WITHIN_S = 0.25


class StatusHandlers:
    """What the status routes do."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def health(self, request: web.Request) -> web.StreamResponse:
        """The process is up."""
        return json_reply({"status": "ok"})

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """The store takes spans, and takes them in time."""
        if await self._store.is_ready(_READY_WITHIN_S):
            return json_reply({"status": "ready"})
        return json_reply({"status": "not ready", "detail": "The store does not take spans in time."}, 503)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus."""
        self._store.tell_waiting()
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
