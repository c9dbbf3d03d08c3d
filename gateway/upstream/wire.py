"""What an upstream is to the rest of the gateway, whoever is behind it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from multidict import CIMultiDict


class Request(NamedTuple):
    """One request that goes on. `path_qs` follows the upstream's base URL and begins with a slash.

    `headers` are the client's; `streamed` tells that an event stream is asked for. `on_sent` is called when the
    request is handed to a connection.
    """

    method: str
    path_qs: str
    headers: list[tuple[str, str]]
    body: bytes
    streamed: bool
    on_sent: Callable[[], None]


class Answer(Protocol):
    """One answer, its head here, its body still to come."""

    status: int
    reason: str
    headers: CIMultiDict[str]

    @property
    def ended(self) -> bool:
        """True once the end of the body has come and everything was read: the next `read` would give nothing."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the next `read` has something to give, or the end, without waiting."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body as it arrives, undecoded; empty at its end. Raises UpstreamError."""
        ...

    def close(self) -> None:
        """Lets go. An answer that was not read to its end is cut, and its connection with it."""
        ...


class Upstream(Protocol):
    """A configured address and key that serves models."""

    name: str
    models: tuple[str, ...] | None
    inject_usage: bool

    async def send(self, request: Request) -> Answer:
        """Raises UpstreamError."""
        ...

    async def close(self) -> None: ...
