"""Who may ask the console: whoever has its token, from its own pages, under its own name. Everything else is refused.

Prompts are confidential, what models write is hostile, and any page may be open in the same browser. So the name that
was asked for is looked at first (DNS rebinding), then where the request comes from (fetch metadata, Origin), then who
asks (a cookie for the token of the address that was printed), and what writes needs a token that only our pages have.
Answers say that nothing of theirs may run, be framed, be sent elsewhere or be kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode

from msgspec import Struct
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
"""The name of the token in the address that is printed. It is exchanged for a cookie at once."""
CSRF = "csrf"
"""The field of a form, and the end of a header, with what only our pages have."""
_TOKEN_BYTES = 24
_NONCE_BYTES = 16
_BROWSER_BYTES = 9
_READS = ("GET", "HEAD")
_OPEN = "/static/"
"""What anybody may have who asks under our name: nothing in it is anybody's."""
_NO_TOKEN = """\
This console needs its token: open the address that `baton console` printed, or `baton console` again.
"""
_FROM_ELSEWHERE = """\
This request comes from another page than the console's own. Open the console from its own address.
"""
_OTHER_NAME = """\
The console answers at %s only. If it should have another name, start it with --name.
"""


class Secrets(Struct, frozen=True, kw_only=True):
    """What a console keeps to itself."""

    token: str
    """In the address that is printed: 192 bits."""

    @classmethod
    def new(cls, token: str = "") -> Secrets:
        """Return new ones, or those that follow from a token that was given."""
        return cls(token=token or secrets.token_urlsafe(_TOKEN_BYTES))

    @property
    def cookie(self) -> str:
        """What the browser shows from then on."""
        return self._derived("cookie")

    @property
    def csrf(self) -> str:
        """What our own forms send along."""
        return self._derived("csrf")

    def _derived(self, what: str) -> str:
        return hmac.new(self.token.encode(), what.encode(), hashlib.sha256).hexdigest()


class Guard:
    """Lets through what our own pages ask. Outermost: nothing of the console sees what is refused here."""

    def __init__(self, app: ASGIApp, secrets_: Secrets, hosts: Iterable[str], fronts: Iterable[str] = ()) -> None:
        """`hosts` are the names with ports under which the console is asked.

        `fronts` are further ones, as they stand in addresses: pages that are from there may have come by TLS.
        """
        self._app, self._secrets = app, secrets_
        own = list(hosts)
        self._fronts = frozenset(fronts)
        self._hosts = frozenset(own) | self._fronts
        self._cookie = cookie_name(own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say why not."""
        if scope["type"] != "http":  # nothing of ours is asked in another way, and so nobody is let in by one
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        answer = refused if refused is not None else self._app
        browser = self._browser(headers)
        scope.setdefault("state", {}).update(nonce=nonce, csrf=self._secrets.csrf, browser=browser)
        is_new = refused is None and not browser and "text/html" in headers.get("accept", "")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                harden(answered := MutableHeaders(scope=message), nonce)
                if is_new:
                    named = f"{self._cookie}-browser={secrets.token_urlsafe(_BROWSER_BYTES)}"
                    answered.append("set-cookie", f"{named}; HttpOnly; Path=/; SameSite=lax")
            await send(message)

        await answer(scope, receive, send_guarded)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """Return what is answered in place of the console; None when it is to answer."""
        # 1. Under which name: a page elsewhere whose name leads here has another.
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if host not in self._hosts:
            return PlainTextResponse(_OTHER_NAME % " and ".join(sorted(self._hosts)), 400)
        # 2. From where. Browsers say it; what says nothing is no page.
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return PlainTextResponse(_FROM_ELSEWHERE, 403)
        origins = headers.getlist("origin")
        schemes = (scope["scheme"], "https") if host in self._fronts else (scope["scheme"],)
        if any(origin not in [f"{scheme}://{host}" for scheme in schemes] for origin in origins):
            return PlainTextResponse(_FROM_ELSEWHERE, 403)
        if scope["path"].startswith(_OPEN):
            return None
        # 3. Who.
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] in _READS and (shown := [value for name, value in given if name == TOKEN]):
            return self._exchanged(scope, shown, [each for each in given if each[0] != TOKEN])
        if not self._known(headers):
            return PlainTextResponse(_NO_TOKEN, 401)
        # 4. What writes comes from a form of ours: from our origin, which every browser names.
        if scope["method"] not in _READS and not origins:
            return PlainTextResponse(_FROM_ELSEWHERE, 403)
        return None

    def _exchanged(self, scope: Scope, shown: list[str], given: list[tuple[str, str]]) -> Response:
        """Return the same address without the token, with a cookie in its place."""
        if not all(hmac.compare_digest(each.encode(), self._secrets.token.encode()) for each in shown):
            return PlainTextResponse(_NO_TOKEN, 401)
        path = "/" + quote(scope["path"].lstrip("/\\"), safe="/")  # never to another host
        response = RedirectResponse(path + (f"?{urlencode(given)}" if given else ""), 303)
        response.set_cookie(self._cookie, self._secrets.cookie, httponly=True, samesite="strict", path="/")
        return response

    def _browser(self, headers: Headers) -> str:
        """Return what tells a browser from the others that are let in: each has some streams for itself.

        It is no secret: whoever shows another browser's takes streams from it.
        """
        found = re.search(rf"(?:^|; ?){re.escape(self._cookie)}-browser=([\w-]+)", headers.get("cookie", ""))
        return found[1] if found is not None else ""

    def _known(self, headers: Headers) -> bool:
        # Each for itself: what other programs of this machine have set comes along, whatever it is.
        pairs = [pair.strip().partition("=") for each in headers.getlist("cookie") for pair in each.split(";")]
        shown = [value for name, _, value in pairs if name == self._cookie]
        return any(hmac.compare_digest(value.encode(), self._secrets.cookie.encode()) for value in shown)


def cookie_name(hosts: Iterable[str]) -> str:
    """Return the name of the cookie: browsers send those of a host to all of its ports."""
    port = next(iter(hosts), "").rpartition(":")[2]
    return f"baton-{port}"


def harden(headers: MutableHeaders, nonce: str) -> None:
    """Say what a browser may do with an answer: run our scripts, and ask us; nothing else."""
    headers["content-security-policy"] = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types htmx"
    )
    headers["cross-origin-opener-policy"] = "same-origin"
    headers["cross-origin-resource-policy"] = "same-origin"
    # To nobody else; `no-referrer` would have browsers say `Origin: null` of our own forms.
    headers["referrer-policy"] = "same-origin"
    headers["x-content-type-options"] = "nosniff"
    headers["x-frame-options"] = "DENY"
    headers.setdefault("cache-control", "no-store")
