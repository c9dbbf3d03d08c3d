"""The head of a request as it is written to an upstream."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.core import headers as header_rules
from gateway.upstream.dial import Origin
from gateway.upstream.wire import Request

# We say how long a body is, and end it by that alone.
_NEVER_SENT = frozenset({"content-length", "transfer-encoding", "expect"})
# Heads that are kept, and how long one may be for that with the fields it was made of.
_KEPT, _KEPT_BYTES = 256, 8192
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})


class RequestHead:
    """Writes the heads of the requests to one base URL, in the form that a proxy needs where there is one."""

    def __init__(self, base_url: str, own_headers: Mapping[str, str], origin: Origin, proxy: Origin | None) -> None:
        parts = urlsplit(base_url.rstrip("/"))
        before_path = parts._replace(scheme="", netloc="").geturl()
        if not before_path.startswith("/") and before_path:
            before_path = f"/{before_path}"
        self._own = {name: value for name, value in own_headers.items() if name.lower() not in _NEVER_SENT}
        names = {name.lower() for name in self._own}
        # Which of the two is meant cannot be told.
        self._is_ambiguous = origin.authorization is not None and "authorization" in names
        if origin.authorization is not None:
            self._own["Authorization"] = origin.authorization
        if proxy is not None and not origin.is_tls:
            before_path = f"http://{origin.authority}{before_path}"
            if proxy.authorization is not None:
                self._own["Proxy-Authorization"] = proxy.authorization
        self._before_path = before_path
        self._first_lines = [] if "host" in names else [f"Host: {origin.authority}"]
        # By what they were made of. A client sends the same fields with each call, but for those that do not go on.
        self._made: dict[tuple[object, ...], bytes] = {}

    def of(self, request: Request) -> bytes:
        """Raises ValueError where a line of it would be more than one, or the upstream has two keys."""
        if self._is_ambiguous:
            raise ValueError("the base URL holds a user, and a header authorizes as well")
        fields = header_rules.deciding(request.headers)
        made_of = (request.method, request.path_qs, request.streamed, fields)
        head = self._made.get(made_of)
        if head is None:
            head = self._make(request)
            if len(head) + sum([len(text) for _, text in fields]) <= _KEPT_BYTES:
                if len(self._made) >= _KEPT:
                    self._made.clear()
                self._made[made_of] = head
        if request.body or request.method not in _WITHOUT_BODY:
            return b"%sContent-Length: %d\r\n\r\n" % (head, len(request.body))
        return head + b"\r\n"

    def _make(self, request: Request) -> bytes:
        """The head without the length of the body, and the blank line."""
        target = f"{self._before_path}{request.path_qs}".partition("#")[0]
        passed = header_rules.to_upstream(request.headers, streamed=request.streamed, own=self._own)
        lines = [f"{request.method} {target} HTTP/1.1", *self._first_lines]
        lines += [f"{name}: {value}" for name, value in passed.items()]
        lines.append("")
        text = "\r\n".join(lines)
        breaks = len(lines) - 1
        if text.count("\r") != breaks or text.count("\n") != breaks or "\0" in text or " " in target:
            raise ValueError("a header or the path holds what would end it")
        return text.encode("utf-8", "surrogateescape")
