"""An OpenTelemetry collector: takes spans over OTLP/HTTP."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp

from gateway.upstream import dial

_WITHIN_S = 30.0
# What is about the spans. All else is about the way there, and may be mended: a key, a path, a proxy.
_OF_THE_SPANS = frozenset({400, 413, 422})
# Of an answer, which says which spans were rejected.
_ANSWER_BYTES = 64 * 1024


class NotDelivered(Exception):
    """The collector has not taken it. `for_good`: nor will it."""

    def __init__(self, message: str, *, for_good: bool) -> None:
        super().__init__(message)
        self.for_good = for_good


class Collector:
    """One endpoint, like http://collector:4318/v1/traces."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        sent = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **headers}
        timeout = aiohttp.ClientTimeout(total=_WITHIN_S)
        self._endpoint = endpoint
        connector = aiohttp.TCPConnector(ssl=dial.tls_context(None))
        self._session = aiohttp.ClientSession(headers=sent, timeout=timeout, trust_env=True, connector=connector)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, body: bytes) -> bytes:
        """Delivers an ExportTraceServiceRequest that is compressed with gzip; what is answered. Raises NotDelivered."""
        try:
            async with self._session.post(self._endpoint, data=body, allow_redirects=False) as answer:
                said = await answer.content.read(_ANSWER_BYTES)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # An answer that is no HTTP stands in it, on lines of its own.
            told = " ".join(str(error).split())
            raise NotDelivered(f"{type(error).__name__}: {told}", for_good=False) from error
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"it answers {answer.status}", for_good=answer.status in _OF_THE_SPANS)
        return said
