"""The error tree.

GatewayError
├── ConfigError            the configuration is wrong; lists every mistake at once
├── RefusedRequest         a request we answer ourselves, with its own status; the text is safe to show
│   ├── MalformedBody      400
│   ├── Unauthorized       401
│   ├── FromElsewhere      403: a page of another site, with the session of ours
│   ├── NeedsKey           403: a session, where only a key in a header is let in
│   ├── NotFound           404
│   ├── NotByThisMethod    405
│   ├── StillRunning       409: a span that cannot be changed yet
│   ├── RequestTimedOut    408, and the connection ends
│   ├── BodyTooLarge       413
│   ├── TooMuchToRead      413: a question over too many spans
│   ├── InvalidSpan        422, every bad field named
│   ├── LimitReached       429, with Retry-After
│   ├── TooManyAtOnce      503, with Retry-After: as many of this kind run as may
│   └── StoreUnavailable   503, with Retry-After
│       └── StoreFull      too much waits for the store already
├── ListenError            the address cannot be had
├── UndeclaredRoute        a route does not say who may call it
├── StoreError             the database cannot be opened, or is from a newer version
└── UpstreamError          an upstream did not answer properly
    ├── UpstreamUnreachable  502: refused, spoke no HTTP, or was gone before its head came
    ├── UpstreamTimedOut     504
    └── UpstreamCut          502: the answer broke off after its head
"""

from collections.abc import Mapping, Sequence


class GatewayError(Exception):
    """Anything this gateway raises on purpose."""


class ConfigError(GatewayError):
    """Every mistake in a configuration, one line each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class RefusedRequest(GatewayError):
    """A request that we answer with an error of our own. `code` and `kind` are those of OpenAI's error shape;
    `retry_after_s` becomes Retry-After."""

    status = 400
    kind = "invalid_request_error"
    code: str | None = None
    retry_after_s: int | None = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class MalformedBody(RefusedRequest):
    """The body is not what the route expects."""


class Unauthorized(RefusedRequest):
    """No key, or a wrong one."""

    status = 401
    code = "invalid_api_key"


class FromElsewhere(RefusedRequest):
    """A page of another site uses the session of one that is signed in here, or signs him in."""

    status = 403
    code = "from_elsewhere"


class NeedsKey(RefusedRequest):
    """A session does not open this route, a key in a header does."""

    status = 403
    code = "key_needed"


class NotFound(RefusedRequest):
    """No such span, model or route."""

    status = 404


class NotByThisMethod(RefusedRequest):
    """This caller may not use this method here."""

    status = 405
    code = "method_not_allowed"


class StillRunning(RefusedRequest):
    """The span of a call that has not ended; what it will say is not known yet."""

    status = 409
    code = "still_running"


class RequestTimedOut(RefusedRequest):
    """The body took longer than `[server] body_timeout_s`."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(RefusedRequest):
    """The body is larger than `[server] max_body_mb`."""

    status = 413
    code = "body_too_large"


class TooMuchToRead(RefusedRequest):
    """A list or a sum that takes too long to make."""

    status = 413
    code = "too_much_to_read"


class InvalidSpan(RefusedRequest):
    """Fields that cannot be stored. `errors` maps each field to what is wrong with it."""

    status = 422

    def __init__(self, errors: Mapping[str, Sequence[str]], message: str | None = None) -> None:
        self.errors = {field: list(texts) for field, texts in errors.items()}
        super().__init__(message or "; ".join(f"{field}: {' '.join(texts)}" for field, texts in self.errors.items()))


class LimitReached(RefusedRequest):
    """A limit of the caller's key. `retry_helps`: whether it passes by itself within what clients wait."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, *, code: str, retry_after_s: int, retry_helps: bool) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s
        self.retry_helps = retry_helps


class TooManyAtOnce(RefusedRequest):
    """Of what goes on for long, as much as may already does."""

    status = 503
    kind = "server_error"
    code = "too_many_at_once"
    retry_after_s = 5


class StoreUnavailable(RefusedRequest):
    """The database cannot be written or read for now."""

    status = 503
    kind = "server_error"
    code = "store_unavailable"
    retry_after_s = 1


class StoreFull(StoreUnavailable):
    """Too much waits for the database already."""

    code = "store_full"


class ListenError(GatewayError):
    """The address to listen on is taken or is not ours."""


class UndeclaredRoute(GatewayError):
    """A route is served that the table does not hold, so that nobody said who may call it."""


class StoreError(GatewayError):
    """The database or the key beside it cannot be opened or is not ours."""


class UpstreamError(GatewayError):
    """An upstream did not answer as it should. `status` is what our caller gets if nothing was sent yet."""

    status = 502
    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """Refused, spoke no HTTP, or was gone before the head of its answer came."""

    code = "upstream_unreachable"


class UpstreamTimedOut(UpstreamError):
    """Took too long to connect, to answer or to go on."""

    status = 504
    code = "upstream_timeout"


class UpstreamCut(UpstreamError):
    """Broke off in the middle of its answer."""

    code = "upstream_cut"
