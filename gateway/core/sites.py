"""From which site a request comes, as the browser says it in headers that no page can set, and where it may go on to.

Sec-Fetch-Site is sent to https and to this machine only; elsewhere Origin has to tell.
"""

import re
from collections.abc import Mapping

# What a page of ours is told whose Origin does not fit, which is mostly so behind a proxy.
PASS_HOST_ON = "A proxy before the gateway has to pass Host on as it came (nginx: proxy_set_header Host $http_host)."
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_READING = frozenset({"GET", "HEAD"})
# What a query is written with: no backslash, which browsers take for a slash.
_own_path = re.compile(r"/(?:\?[!-\[\]-~]*)?")


def may_use_session(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request may act as the one who is signed in: to change something, a page of ours has to send it."""
    return not is_from_elsewhere(headers) if method in _READING else _is_from_here(headers)


def is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether another site has sent the request; what is no browser does not say."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        # None: an address that was typed, or a bookmark.
        return site not in ("same-origin", "none")
    return "Origin" in headers and not _has_own_origin(headers)


def may_sign_out(headers: Mapping[str, str]) -> bool:
    """Whether a request may end the session that it carries."""
    # The form of a page that sends no referrer does not name its origin either; and with another site's the cookie,
    # which is SameSite=Strict, would not have come.
    hides_origin = headers.get("Origin") == "null" and "Sec-Fetch-Site" not in headers and "Cookie" in headers
    return hides_origin or not is_from_elsewhere(headers)


def _is_from_here(headers: Mapping[str, str]) -> bool:
    site = headers.get("Sec-Fetch-Site")
    return _has_own_origin(headers) if site is None else site == "same-origin"


def _has_own_origin(headers: Mapping[str, str]) -> bool:
    # Whoever speaks https for us passes on plain http: the scheme is not ours to know.
    scheme, _, host = headers.get("Origin", "").partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        return False
    host = host.lower().removesuffix(port)
    return bool(host) and host == headers.get("Host", "").lower().removesuffix(port)


def of_the_page(name: str) -> bool:
    """Whether a header of a request tells of the page that sent it, rather than of what is asked."""
    lower = name.lower()
    return lower in ("origin", "referer") or lower.startswith("sec-")


def own_path(text: str) -> str:
    """The dashboard's address to go on to, with its query; `/` where the text is none."""
    return text if _own_path.fullmatch(text) else "/"
