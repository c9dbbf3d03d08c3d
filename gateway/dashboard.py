"""What is said of the dashboard when a gateway starts: where it is, and links that open it without a key, each once."""

import secrets
from datetime import datetime

from gateway.app import callers, session_secret
from gateway.config import Settings
from gateway.core.sessions import LINK_FOR, LINK_S, Link, key_id, signed_link
from gateway.web.keys import key_digest

# Of organizations: a screen full of links is none to look through.
_LINKS_AT_MOST = 3
# An address to listen on that is none to go to, and where it is reached from this machine.
_REACHED_AT = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}


def told(settings: Settings, url: str, now: datetime, *, with_links: bool) -> list[str]:
    """The lines. `with_links`: those who read them may sign in by them. Raises StoreError."""
    for listening, reached in _REACHED_AT.items():
        url = url.replace(listening, reached)
    first: dict[str, str] = {}
    for key, caller in callers(settings):
        first.setdefault(caller.organization_id, key)
    if not with_links or len(first) > _LINKS_AT_MOST:
        return [f"Dashboard: {url}/"]
    secret, expires_at = session_secret(settings), int(now.timestamp()) + LINK_S
    lines = []
    for organization_id, key in first.items():
        link = Link(key_id(secret, key_digest(key)), expires_at, secrets.token_urlsafe(16))
        whose = f" of {organization_id}" if len(first) > 1 else ""
        lines.append(f"Dashboard{whose} (opens once, within {LINK_FOR}): {url}/login#link={signed_link(secret, link)}")
    return lines
