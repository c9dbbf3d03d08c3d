"""How a call ended."""

from typing import Any, NamedTuple

from gateway.core.meter import Reading
from gateway.core.routing import Kind

_CLIENT_GONE = 499


class Outcome(NamedTuple):
    """`error_code` None is a success. `status_code`: the upstream's, or of a call that broke off, why it did."""

    status_code: int
    error_code: str | None = None
    error_message: str | None = None


CLIENT_LEFT = Outcome(_CLIENT_GONE, "client_gone", "The client hung up before the answer was complete.")
WE_STOPPED = Outcome(503, "gateway_stopped", "The gateway was stopped before the answer was complete.")
OUR_FAULT = Outcome(500, "internal_error", "The gateway failed; see its log.")


def judged(kind: Kind, status: int, reading: Reading) -> Outcome:
    """How a complete answer of this status counts."""
    if status >= 300:
        body = reading.response
        code, message = _error_of(body.get("error", body) if isinstance(body, dict) else body)
        return Outcome(status, code or "upstream_error", message or f"The upstream answered {status}.")
    if reading.error:
        code, message = _error_of(reading.error)
        return Outcome(status, code or "upstream_error", message or "The upstream reported an error.")
    if kind.is_json and not reading.understood:
        return Outcome(status, "invalid_response", f"The upstream's answer is no {kind.log_type} answer.")
    return Outcome(status)


def _error_of(error: Any) -> tuple[str | None, str | None]:
    """Code and message of an error in any of the shapes that upstreams use."""
    if isinstance(error, dict):
        code = error.get("code") or error.get("type")
        message = error.get("message") or error.get("detail")
        return _text_or_none(code), (message if isinstance(message, str) else None)
    if isinstance(error, str) and error.strip():
        return None, error.strip()[:1000]
    return None, None


def _text_or_none(code: Any) -> str | None:
    return str(code) if code and isinstance(code, (str, int)) else None


def label(outcome: Outcome) -> str:
    """How a call ended, in few enough words for a metric."""
    return label_of(outcome.status_code, failed=outcome.error_code is not None)


def label_of(status_code: int, *, failed: bool) -> str:
    """The same, of what its span says."""
    if not failed:
        return "success"
    if status_code == _CLIENT_GONE:
        return "client_gone"
    return "invalid" if status_code < 300 else f"{status_code // 100}xx"
