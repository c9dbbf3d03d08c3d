"""The dashboard's page, and how one signs in to it: with a key, or by a link that works once."""

import asyncio
from contextlib import suppress
from html import escape
from typing import NoReturn
from urllib.parse import quote

from aiohttp import web

from gateway import __version__
from gateway.clock import Clock
from gateway.core.sessions import SESSION_S
from gateway.core.sites import PASS_HOST_ON, is_from_elsewhere, may_sign_out, own_path
from gateway.errors import FromElsewhere, NotFound, StoreUnavailable, TooMuchToRead
from gateway.metrics import Metrics
from gateway.recorder import Caller
from gateway.store.store import Store
from gateway.web import files
from gateway.web.bodies import read_form
from gateway.web.keys import SESSION_COOKIE, Keys
from gateway.web.replies import json_reply

_FORM_BYTES = 8 * 1024
# So long a session may go on with other processes once one was told to end it.
_LOOK_EVERY_S = 5.0
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_SHUT_OFF = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OF_PAGES = {**_SHUT_OFF, "Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
# Its address holds what is looked for, and whatever it calls may be passed on.
_OF_DASHBOARD = {**_OF_PAGES, "Referrer-Policy": "no-referrer"}
# By `no-referrer` its form would come without an Origin.
_OF_LOGIN = {**_OF_PAGES, "Referrer-Policy": "same-origin"}
_OF_FILES = {
    **_SHUT_OFF,
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    # The next version may say something else under the same address.
    "Cache-Control": "no-cache",
}

_WRONG_KEY = "The gateway does not know this key."
_NO_KEY = "Enter a key."
_WRONG_LINK = "This link has been used, or is too old. Sign in with a key."
_FOREIGN = f"This was sent by a page of another site. {PASS_HOST_ON}"


class SignInHandlers:
    """What the page's own routes do."""

    def __init__(self, keys: Keys, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._metrics = metrics
        self._keys = keys
        self._store = store
        self._clock = clock

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        """The dashboard, for who is signed in."""
        if self._keys.signed_in(request.headers) is not None:
            return files.reply(request, files.index(), _OF_DASHBOARD)
        query = request.rel_url.raw_query_string
        login = f"/login?next={quote(f'/?{query}', safe='')}" if query else "/login"
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link on another site led here, for which the browser keeps back the cookie of who is signed in. It sends
            # it with what a page of ours asks for.
            return _page(_AGAIN.format(escape(login)), _OF_DASHBOARD)
        return _see_other(login)

    async def login_page(self, request: web.Request) -> web.StreamResponse:
        """The form, for who is not signed in."""
        next_path = own_path(request.query.get("next", ""))
        if self._keys.signed_in(request.headers) is None:
            return _login_page(next_path)
        # A fragment of its own, so that the browser does not go on with that of a link.
        return _see_other(next_path if "#" in next_path else f"{next_path}#")

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Begins a session: the form has a key, or what a link is opened with."""
        if is_from_elsewhere(request.headers):
            _refuse()
        form = await read_form(request, _FORM_BYTES)
        next_path = own_path(form.get("next", ""))
        key, link = form.get("key", "").strip(), form.get("link", "")
        session = await self._session_by_link(link) if link else self._keys.session_with_key(key)
        if session is None:
            self._metrics.sign_ins_refused.inc()
            return _login_page(next_path, _WRONG_LINK if link else _WRONG_KEY if key else _NO_KEY)
        answer = _see_other(next_path)
        answer.set_cookie(
            SESSION_COOKIE,
            session,
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            # Whoever speaks https for us passes on plain http; the browser knows.
            secure=request.secure or request.headers.get("Origin", "").startswith("https://"),
        )
        return answer

    async def _session_by_link(self, text: str) -> str | None:
        link = self._keys.read_link(text)
        session = None if link is None else self._keys.session_by_link(link)
        if link is None or session is None:
            return None
        now = int(self._clock.now().timestamp())
        return session if await self._store.use_link(link.nonce, link.expires_at, now) else None

    async def logout(self, request: web.Request) -> web.StreamResponse:
        """Ends the session, also for who has a copy of its cookie."""
        if not may_sign_out(request.headers):
            _refuse()
        now = int(self._clock.now().timestamp())
        for session in list(self._keys.sessions(request.headers)):
            self._keys.end({session.id: session.expires_at})
            await self._store.end_session(session.id, session.expires_at, now)
        answer = _see_other("/login")
        answer.del_cookie(SESSION_COOKIE, httponly=True, samesite="Strict")
        return answer

    async def session(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Who is signed in."""
        return json_reply(
            {
                "key": caller.name,
                "organization_id": caller.organization_id,
                "environment": caller.environment,
                "version": __version__,
            }
        )

    async def file(self, request: web.Request) -> web.StreamResponse:
        """What pages are made of."""
        name = request.match_info["file"].removesuffix("/")
        file = files.files().get(name)
        if file is None:
            raise NotFound(f"There is no route {request.path}.", code="not_found")
        return files.reply_if_new(request, file, _OF_FILES)


async def learn_of_ended(keys: Keys, store: Store) -> None:
    """Ends the sessions that any process on the database was told to end."""
    # It has been logged, and there is a next time.
    with suppress(StoreUnavailable, TooMuchToRead):
        keys.end(await store.ended_sessions())


async def keep_learning(keys: Keys, store: Store) -> None:
    """Does so every few seconds, until it is cancelled."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        await learn_of_ended(keys, store)


def _refuse() -> NoReturn:
    raise FromElsewhere(_FOREIGN)


def _see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store", **_SHUT_OFF})


def _page(text: str, headers: dict[str, str], status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


_HEAD = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    '<link rel="icon" type="image/svg+xml" href="/dashboard/icon.svg">'
)
_AGAIN = _HEAD + '<meta http-equiv="refresh" content="0; url={}"><title>span-gateway</title></head><body></body></html>'


def _login_page(next_path: str, trouble: str = "") -> web.Response:
    told = f'<p id="trouble" role="alert">{escape(trouble)}</p>' if trouble else ""
    of_trouble = ' aria-describedby="trouble"' if trouble else ""
    if trouble in (_WRONG_KEY, _NO_KEY):
        of_trouble += ' aria-invalid="true"'
    goes_on = f'<input type="hidden" name="next" value="{escape(next_path)}">' if next_path != "/" else ""
    text = (
        f'{_HEAD}<title>Sign in: span-gateway</title><script src="/dashboard/theme.js"></script>'
        '<link rel="stylesheet" href="/dashboard/login.css">'
        '<script type="module" src="/dashboard/login.js"></script></head><body><main>'
        '<h1><img src="/dashboard/icon.svg" alt="" width="28" height="28">span-gateway</h1>'
        f'<form method="post" action="/login">{told}<label for="key">Gateway key</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" spellcheck="false" '
        f'autocapitalize="none" required autofocus{of_trouble}>{goes_on}<button>Sign in</button></form>'
        "<p>A key of the gateway's configuration; where that names none, the one in a file beside the database, "
        "<code>gateway.db.key</code>.</p></main></body></html>"
    )
    headers = {**_OF_LOGIN, "WWW-Authenticate": "Bearer"} if trouble else _OF_LOGIN
    return _page(text, headers, 401 if trouble else 200)
