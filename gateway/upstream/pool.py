"""Which upstream serves a model, and which models there are."""

import asyncio
import fnmatch
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.clock import Clock
from gateway.core.encoding import BodyDecoder
from gateway.core.jsontext import parse_or_none
from gateway.errors import NotFound, UpstreamError
from gateway.upstream.wire import Request, Upstream

_LIST_KEPT_S = 300.0
_LIST_AT_MOST = 16 * 1024 * 1024
_LIST_WITHIN_S = 10.0


class Choice(NamedTuple):
    """An upstream, and the name it knows the model by (None: the request names no model)."""

    upstream: Upstream
    model: str | None


class Pool:
    """The configured upstreams, in their order."""

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock) -> None:
        self._upstreams = list(upstreams)
        self._by_name = {upstream.name: upstream for upstream in upstreams}
        self._retired: list[Upstream] = []
        self._clock = clock
        self._lists: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    def replace(self, upstreams: Sequence[Upstream]) -> list[Upstream]:
        """Chooses among these from now on. Gives those left out: they stay open for their calls until `let_go`."""
        retired = [upstream for upstream in self._upstreams if not any(upstream is stays for stays in upstreams)]
        self._upstreams = list(upstreams)
        self._by_name = {upstream.name: upstream for upstream in upstreams}
        self._retired += retired
        for upstream in retired:
            self._lists.pop(upstream.name, None)
        return retired

    async def let_go(self, retired: Sequence[Upstream]) -> None:
        """Closes upstreams that `replace` left out, once no call runs on them any more."""
        for upstream in retired:
            await upstream.close()
            self._retired.remove(upstream)

    def choose(self, model: str | None) -> Choice:
        """`NAME/rest` goes to that upstream as `rest`; else the first that serves the model. Raises NotFound."""
        if model is None and self._upstreams:
            return Choice(self._upstreams[0], None)
        if model is None:
            raise NotFound("No upstream is configured.", code="model_not_found")
        name, slash, rest = model.partition("/")
        if slash and rest and name in self._by_name:
            return Choice(self._by_name[name], rest)
        for upstream in self._upstreams:
            if _serves(upstream, model):
                return Choice(upstream, model)
        raise NotFound(
            f"No upstream serves the model '{model}'. Served are: {self._served()}; "
            f"or NAME/model, where NAME is one of {', '.join(self._by_name)}.",
            code="model_not_found",
        )

    async def models(self) -> list[dict[str, Any]]:
        """Every model in OpenAI's list shape: names from the configuration, for patterns the upstream's own list."""
        lists = await asyncio.gather(*(self._models_of(upstream) for upstream in self._upstreams))
        found: dict[str, dict[str, Any]] = {}
        for models in lists:
            for model in models:
                found.setdefault(model["id"], model)
        return list(found.values())

    async def close(self) -> None:
        """Closes them all, also those that still have calls."""
        for upstream in [*self._upstreams, *self._retired]:
            await upstream.close()

    def _served(self) -> str:
        named = [", ".join(upstream.models or ("every model",)) for upstream in self._upstreams]
        return "; ".join(f"{upstream.name}: {models}" for upstream, models in zip(self._upstreams, named, strict=True))

    async def _models_of(self, upstream: Upstream) -> list[dict[str, Any]]:
        named = upstream.models or ()
        literal = [
            {"id": model, "object": "model", "created": 0, "owned_by": upstream.name}
            for model in named
            if not _is_pattern(model)
        ]
        if upstream.models is not None and len(literal) == len(named):
            return literal
        listed = [model for model in await self._listed(upstream) if _serves(upstream, model["id"])]
        return literal + listed

    async def _listed(self, upstream: Upstream) -> list[dict[str, Any]]:
        """The upstream's own list, kept for five minutes; one that fails counts as empty and is not kept."""
        now = self._clock.monotonic()
        kept_at, models = self._lists.get(upstream.name, (0.0, []))
        if upstream.name in self._lists and now - kept_at < _LIST_KEPT_S:
            return models
        try:
            async with asyncio.timeout(_LIST_WITHIN_S):
                status, body = await _get(upstream, "/models")
        except (UpstreamError, TimeoutError):
            return []
        listed = parse_or_none(body) if status == 200 else None
        items = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(items, list):
            return []
        models = [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
        # While the list was under way another upstream may have taken the name.
        if self._by_name.get(upstream.name) is upstream:
            self._lists[upstream.name] = (now, models)
        return models


async def _get(upstream: Upstream, path: str) -> tuple[int, bytes]:
    answer = await upstream.send(Request("GET", path, [], b"", streamed=False, on_sent=lambda: None))
    try:
        decoder = BodyDecoder(answer.headers.get("Content-Encoding", ""), _LIST_AT_MOST)
        body = b""
        while (piece := await answer.read()) and len(body) <= _LIST_AT_MOST:
            body += decoder.feed(piece)
        return answer.status, body
    finally:
        answer.close()


def _serves(upstream: Upstream, model: str) -> bool:
    return upstream.models is None or any(fnmatch.fnmatchcase(model, pattern) for pattern in upstream.models)


def _is_pattern(model: str) -> bool:
    return any(sign in model for sign in "*?[")
