"""Who may ask the console: attacked over raw sockets, since clients of our own would be too polite."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from baton_actors.console.acting import BODY_MAX_BYTES, FIELDS_MAX, FILES_MAX_BYTES, ours
from baton_actors.console.app import make_app
from baton_actors.console.guard import Guard, Secrets, cookie_name
from baton_actors.console.serving import serving
from baton_bus import Settings
from baton_schemas.wire.names import sortable_id

from .consoles import Served, served
from .servers import NatsServer

FORM = "application/x-www-form-urlencoded"
MUST = {
    "content-security-policy": "default-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Answered(NamedTuple):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: str
    rest: bytes
    """All that came."""


@pytest.fixture
async def console(server: NatsServer, namespace: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as found:
        yield found


def host_of(console: Served) -> str:
    return console.address.url.removeprefix("http://").rstrip("/")


def cookie_of(console: Served) -> str:
    name = cookie_name([host_of(console)])
    return f"{name}={Secrets(token=console.address.token).cookie}"


async def raw(console: Served, data: bytes) -> Answered:
    """Send bytes, and return what is answered."""
    host, _, port = host_of(console).partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(10):
            came = await reader.read()
    except (ConnectionResetError, BrokenPipeError):
        came = b""
    finally:
        writer.close()
    head, _, body = came.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/1.1 ") else 0
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answered(status, headers, body.decode("latin-1"), came)


async def ask(console: Served, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answered:
    """Send one request as its own page would; `headers` are others than it has, and empty ones are left out."""
    sent = {
        "host": host_of(console),
        "cookie": cookie_of(console),
        "sec-fetch-site": "same-origin",
        "connection": "close",
    }
    if method == "POST":
        sent |= {"origin": f"http://{host_of(console)}", "content-type": FORM, "content-length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value)]
    return await raw(console, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def csrf_of(console: Served) -> str:
    return Secrets(token=console.address.token).csrf


def act_of(console: Served, **fields: str) -> bytes:
    return "&".join(f"{name}={quote(value)}" for name, value in {"csrf": csrf_of(console), **fields}.items()).encode()


async def test_what_is_not_ours_is_refused_and_each_answer_is_hardened(console: Served) -> None:
    act, form = "/runs/nosuchrun/cancel", act_of(console)
    here = f"http://{host_of(console)}"
    port, token = host_of(console).rpartition(":")[2], console.address.token
    cases = [
        ("its own page", await ask(console, "/"), 200),
        ("a form of its own", await ask(console, act, "POST", form), 404),
        # Names: DNS that leads here, other ports, none, two.
        ("a foreign name", await ask(console, "/", host="evil.example"), 400),
        ("a foreign name with our port", await ask(console, "/", host=f"evil.example:{port}"), 400),
        ("our name with another port", await ask(console, "/", host="127.0.0.1:1"), 400),
        ("our name in a longer one", await ask(console, "/", host=f"127.0.0.1:{port}.evil.example"), 400),
        ("our name behind another's", await ask(console, "/", host=f"evil@127.0.0.1:{port}"), 400),
        ("static files under a foreign name", await ask(console, "/static/keys.js", host="evil.example"), 400),
        ("a forwarded name", await ask(console, "/", host="evil.example", x_forwarded_host=host_of(console)), 400),
        # From where.
        ("another site", await ask(console, "/", sec_fetch_site="cross-site"), 403),
        ("another port of this machine", await ask(console, "/", sec_fetch_site="same-site"), 403),
        ("a word that browsers do not say", await ask(console, "/", sec_fetch_site="anything"), 403),
        ("another origin", await ask(console, "/", origin="http://evil.example"), 403),
        ("no origin at all", await ask(console, "/", origin="null"), 403),
        ("our origin with another scheme", await ask(console, "/", origin=here.replace("http:", "https:")), 403),
        ("a scheme that is said to be another's",
         await ask(console, act, "POST", form, origin=here.replace("http:", "https:"), x_forwarded_proto="https"), 403),
        ("a form from another site", await ask(console, act, "POST", form, sec_fetch_site="cross-site"), 403),
        ("a form from another origin", await ask(console, act, "POST", form, origin="http://evil.example"), 403),
        ("a form from a sandbox", await ask(console, act, "POST", form, origin="null"), 403),
        ("a form that no browser sent", await ask(console, act, "POST", form, origin=""), 403),
        ("an event stream for another site", await ask(console, "/live?of=/", sec_fetch_site="cross-site"), 403),
        # Who.
        ("nobody", await ask(console, "/", cookie=""), 401),
        ("a form of nobody", await ask(console, act, "POST", form, cookie=""), 401),
        ("a wrong cookie", await ask(console, "/", cookie=f"{cookie_of(console)}0"), 401),
        ("the token in place of its cookie",
         await ask(console, "/", cookie=f"{cookie_name([host_of(console)])}={console.address.token}"), 401),
        ("the token in a path", await ask(console, f"/{console.address.token}", cookie=""), 401),
        ("a wrong token", await ask(console, "/?token=x"), 401),
        ("the token beside a wrong one", await ask(console, f"/?token={token}&token=x", cookie=""), 401),
        ("the token for an act", await ask(console, f"{act}?token={token}", "POST", form, cookie=""), 401),
        # What only our forms have.
        ("a form without csrf", await ask(console, act, "POST", b"note=x"), 403),
        ("a form with a wrong csrf", await ask(console, act, "POST", act_of(console, csrf="0" * 64)), 403),
        ("csrf in the address", await ask(console, f"{act}?csrf={csrf_of(console)}", "POST", b"note=x"), 403),
        ("csrf that is no ASCII", await ask(console, act, "POST", b"csrf=%ff%ed%a0%80"), 403),
        ("JSON for an act", await ask(console, act, "POST", b'{"csrf": 1}', content_type="application/json"), 415),
        ("text that looks like a form", await ask(console, act, "POST", form, content_type="text/plain"), 415),
        # Methods.
        ("an act that is only read", await ask(console, "/attention/seen"), 405),
        ("OPTIONS", await ask(console, act, "OPTIONS"), 403),
        ("OPTIONS of another site", await ask(console, act, "OPTIONS", sec_fetch_site="cross-site"), 403),
        ("OPTIONS of our own", await ask(console, act, "OPTIONS", origin=here), 405),
        ("TRACE", await ask(console, "/", "TRACE", origin=here), 405),
        ("PUT", await ask(console, act, "PUT", origin=here), 405),
        ("DELETE", await ask(console, "/runs/nosuchrun", "DELETE", origin=here), 405),
        ("a method of somebody's own", await ask(console, "/", "EVIL", origin=here), 405),
        ("HEAD", await ask(console, "/static/keys.js", "HEAD"), 200),
        ("an address that is none", await ask(console, "/nonsense"), 404),
        ("no form at all", await ask(console, act, "POST", b""), 403),
    ]  # fmt: skip
    assert [(name, got.status) for name, got, wanted in cases if got.status != wanted] == []
    lacking = [
        (name, header)
        for name, got, _ in cases
        for header, value in MUST.items()
        if not got.headers.get(header, "").startswith(value)
    ]
    assert lacking == []
    assert [name for name, got, _ in cases if "access-control-allow-origin" in got.headers] == []
    secret = (console.address.token, Secrets(token=console.address.token).cookie)
    assert [name for name, got, _ in cases if any(each in got.body for each in secret)] == []


async def test_token_is_exchanged_for_a_cookie_and_leads_nowhere_else(console: Served) -> None:
    token = console.address.token
    for path in (
        *("/", "/runs/x?at=4&at=5", "//evil.example/", "/%5cevil.example", "/\\evil.example", "/%2f/evil.example"),
        *("/%0d%0aset-cookie:%20a=b", "/%09/evil.example", "/a%3fb%23c"),
    ):
        got = await ask(console, f"{path}{'&' if '?' in path else '?'}token={token}", cookie="", sec_fetch_site="none")
        where = got.headers.get("location", "")
        assert got.status == 303, path
        assert re.match(r"/(?![/\\])[\x21-\x7e]*\Z", where), (path, where)
        assert token not in where
        assert got.headers["set-cookie"].split("; ") == [cookie_of(console), "HttpOnly", "Path=/", "SameSite=strict"]
    kept = await ask(console, f"/runs/x?at=4&at=5&token={token}", cookie="", sec_fetch_site="none")
    assert kept.headers["location"] == "/runs/x?at=4&at=5"


async def test_cookies_of_others_on_this_machine_shut_nobody_out_and_let_nobody_in(console: Served) -> None:
    ours_, name = cookie_of(console), cookie_name([host_of(console)])
    for others in (
        'session={"a": [1, 2]}',
        "a=b; =; ;;; c",
        'open="never closed',
        "\xff\xfe=\xff",
        f"{name}=of another console that had this port",
    ):
        assert (await ask(console, "/attention", cookie=f"{others}; {ours_}")).status == 200, others
        assert (await ask(console, "/attention", cookie=others)).status == 401, others
    other = Secrets.new()
    assert (await ask(console, "/", cookie=f"baton-1={other.cookie}; {name}={other.cookie}")).status == 401


async def test_console_that_was_started_again_takes_no_form_of_before(console: Served) -> None:
    form = act_of(console)
    async with serving(make_app(console.console)) as later:
        again = Served(console=console.console, address=later, http=console.http)
        old = cookie_of(console).partition("=")[2]
        name = cookie_name([host_of(again)])
        act = "/runs/nosuchrun/cancel"
        assert (await ask(again, act, "POST", form, cookie=f"{name}={old}")).status == 401
        stale = await ask(again, act, "POST", form)
        assert (stale.status, "load the page again" in stale.body) == (403, True)
        assert (await ask(again, act, "POST", act_of(again))).status == 404


async def test_large_bodies_are_refused_before_they_are_read(console: Served) -> None:
    act, send = "/runs/nosuchrun/cancel", "/flows/ask/send"
    big = act_of(console) + b"&note=" + b"x" * BODY_MAX_BYTES
    assert (await ask(console, act, "POST", big)).status == 413
    # Announced, and never sent: it is not waited for.
    announced = await ask(console, send, "POST", b"", content_length=str(FILES_MAX_BYTES + 1))
    assert announced.status == 413
    # Not announced, in pieces.
    piece = b"%x\r\n" % 65_536 + b"x" * 65_536 + b"\r\n"
    head = [
        f"POST {act} HTTP/1.1",
        f"host: {host_of(console)}",
        f"cookie: {cookie_of(console)}",
        f"content-type: {FORM}",
    ]
    head += [f"origin: http://{host_of(console)}", "transfer-encoding: chunked", "connection: close"]
    got = await raw(console, "\r\n".join(head).encode() + b"\r\n\r\n" + piece * 2 + b"0\r\n\r\n")
    assert got.status == 413
    many = act_of(console) + b"&a=" * (FIELDS_MAX + 1)
    assert (await ask(console, act, "POST", many)).status == 400
    broken = await ask(console, send, "POST", b"--x\r\nnonsense", content_type="multipart/form-data; boundary=x")
    assert broken.status in (400, 403)
    assert (await ask(console, send, "POST", b"x", content_type="multipart/form-data")).status == 400
    # A head that has no end is not collected; who sends more than is taken may not hear why.
    assert (await ask(console, "/" + "a" * 1_000_000)).status in (0, 400)
    assert (await ask(console, "/", cookie=cookie_of(console) + "; a=" + "b" * 1_000_000)).status in (0, 400)


async def test_two_requests_in_one_are_not_taken_apart_in_two_ways(console: Served) -> None:
    host, cookie = host_of(console), cookie_of(console)
    begin = f"POST /runs/nosuchrun/cancel HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\norigin: http://{host}\r\n"
    begin += f"content-type: {FORM}\r\n"
    inner = f"GET /static/keys.js HTTP/1.1\r\nhost: {host}\r\n\r\n"
    bodies = {
        "two lengths": f"content-length: 0\r\ncontent-length: {len(inner)}\r\n\r\n{inner}",
        "a length that is none": f"content-length: +5\r\n\r\n{inner}",
        "another coding": f"transfer-encoding: xchunked\r\n\r\n{inner}",
        "a header with a gap": f"content-length : 0\r\n\r\n{inner}",
        "a header that goes on": f"x: a\r\n evil: b\r\nhost: {host}\r\n\r\n",
        "a bare line end": "x: a\nhost: evil.example\r\n\r\n",
    }  # fmt: skip
    for name, body in bodies.items():
        got = await raw(console, (begin + body).encode())
        assert got.status in (400, 403, 501), (name, got.status)
        assert got.rest.count(b"HTTP/1.1 ") == 1, name
    both = f"content-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n{inner}"
    assert (await raw(console, (begin + both).encode())).rest.count(b"HTTP/1.1 ") == 1
    two_names = f"GET / HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\ncookie: {cookie}\r\n\r\n"
    assert (await raw(console, two_names.encode())).status == 400
    none = await raw(console, f"GET / HTTP/1.0\r\ncookie: {cookie}\r\n\r\n".encode())
    assert none.status == 400
    whole = await ask(console, "http://evil.example/")
    assert whole.status in (400, 404)


async def test_paths_lead_to_no_file_and_headers_are_not_made_by_values(console: Served) -> None:
    for path in (
        *("/static/../guard.py", "/static/%2e%2e/guard.py", "/static/..%2fguard.py", "/static/%2e%2e%5cguard.py"),
        *("/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/keys.js/..%2f..%2fguard.py", "/static/%00"),
        *("/runs/..%2f..%2fetc", "/runs/%0d%0aX-Evil:%201", "/flows/..%2f..%2fsetup", "/flows/%2fetc%2fpasswd/send"),
        *("/live?of=/static/keys.js", "/live?of=http://evil.example/", "/live?of=//evil.example"),
    ):
        got = await ask(console, path)
        assert got.status in (400, 404), (path, got.status)
        assert "x-evil" not in got.headers, path
        assert "class Guard" not in got.body, path
        assert "root:" not in got.body, path


async def test_act_leads_to_pages_of_ours_only(console: Served) -> None:
    for path in ("//evil.example", "/\\evil.example", "http://evil.example", "evil", "", "/a\r\nb", "/\tb"):
        with pytest.raises(ValueError, match="is no path of the console"):
            ours(path)
    assert ours("/runs/x?later=yes") == "/runs/x?later=yes"
    # What a form names as the way back is a word of ours, and no address.
    form = act_of(console, cause="x", last="2026-01-01T00:00:00+00:00", back="//evil.example")
    got = await ask(console, "/attention/seen", "POST", form)
    assert (got.status, got.headers["location"]) == (303, "/attention")
    wrong = await ask(console, "/attention/seen", "POST", act_of(console, cause="x", last="<b>"))
    assert (wrong.status, "<b>" in wrong.body) == (400, False)


async def test_form_that_is_sent_again_with_the_same_id_is_one_run(console: Served) -> None:
    run = sortable_id()
    fields = {"run": run, "input.question": "Why?"}
    answers = await asyncio.gather(*(console.post("/flows/ask/send", fields) for _ in range(4)))
    assert {(each.status_code, each.headers["location"]) for each in answers} == {(303, f"/runs/{run}")}
    assert [each.run for each in await console.console.client.runs()] == [run]


async def test_nothing_but_http_is_let_in() -> None:
    asked: list[str] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        asked.append(scope["type"])

    sent: list[dict[str, object]] = []

    async def send(message) -> None:  # type: ignore[no-untyped-def]
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    await Guard(app, Secrets.new(), ["127.0.0.1:1"])({"type": "websocket"}, receive, send)
    assert (asked, sent) == ([], [{"type": "websocket.close", "code": 1008}])
