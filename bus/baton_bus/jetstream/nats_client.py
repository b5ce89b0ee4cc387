"""nats-py's client, with shorter ways for what is hot, and without the ways in which a strange message stops it.

All that relies on the inside of nats-py (2.16) is in this file. Why the inside: a message that goes through the
library's queue, task and `Msg` costs 4 µs and a turn of the loop, and its publish 2 µs more than one whose header is a
constant; both are paid several times for every step. What is overridden has not changed since nats-py 2.0, and
the tests of this room fail when it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError
from nats.js import JetStreamContext

from baton_bus.errors import BadSubject
from baton_bus.jetstream.api import Api
from baton_bus.jetstream.client import BatonClient
from baton_bus.jetstream.parser import FrameParser

if TYPE_CHECKING:
    from baton_bus.jetstream.leases import LeaseKeeper

Heard = Callable[[bytes, bytes, bytes, bytes], None]
"""Is called with subject, reply, data and the raw headers (empty when there are none)."""
_VERSION = b"NATS/1.0"
_NO_STATUS = _VERSION + b"\r\n"
_CANCEL_AGAIN_S = 0.1
"""After this whoever connects, and should not, is told so once more."""
T = TypeVar("T")


class NatsClient(BatonClient):
    """A connection to NATS. Safe for one event loop."""

    leases: LeaseKeeper | None = None
    """Keeps leases alive beside this connection; belongs to whoever opened it."""

    def __init__(self, *, shown_url: str = "", needs_tls: bool = False, api: Api | None = None) -> None:
        """As `BatonClient`; `api` says where JetStream is asked (None: where it mostly is)."""
        super().__init__(shown_url=shown_url, needs_tls=needs_tls)
        self.api = api or Api()
        self._ps = FrameParser(self)
        self.listeners: dict[int, Heard] = {}
        """By the number of the subscription: see `listen`."""
        self._is_to_write = False
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._telling: set[asyncio.Future[None]] = set()

    async def listen(self, subject: str, heard: Heard) -> Subscription:
        """Subscribe, and have `heard` called from where messages are read: it must be quick, and never waits."""
        self.listeners[self._sid + 1] = heard
        return await self.subscribe(subject)

    async def request(self, *args: Any, **kwargs: Any) -> Msg:
        """As the library's, but a cancellation that comes together with the answer is not lost."""
        return await _heeding(super().request(*args, **kwargs))

    async def flush(self, *args: Any, **kwargs: Any) -> None:
        """As the library's, but a cancellation that comes together with the answer is not lost."""
        await _heeding(super().flush(*args, **kwargs))

    async def close(self) -> None:
        """As the library's, and nobody connects any more, though its word to whoever mends the connection was lost."""
        await _heeding(super().close())
        mending = self._reconnection_task
        if mending is None or mending is asyncio.current_task():  # which gives up
            return
        await end(mending)
        if not self.is_closed:  # it had gone on after the first word
            await _heeding(super().close())

    def takes(self, frame: bytes) -> bool:
        """Whether what `frame_of` made can be sent without waiting."""
        return self._status == Client.CONNECTED and len(frame) + self._pending_data_size <= self._max_pending_size

    async def send(self, frame: bytes) -> None:
        """Send what `frame_of` made; waits when more is on its way than the connection may hold.

        While the connection is being mended it is kept and sent after. Raises errors of nats-py.
        """
        if len(frame) + self._pending_data_size > self._max_pending_size:
            if not self.is_connected:
                raise OutboundBufferLimitError
            await self._flush_pending(force_flush=True)
        self.send_soon(frame)

    def send_soon(self, frame: bytes) -> None:
        """Send a word whose number is bounded elsewhere: an ack, a pull request. Raises errors of nats-py."""
        if self._status != Client.CONNECTED:
            if self.is_closed:
                raise ConnectionClosedError
            if self.is_draining_pubs:
                raise ConnectionDrainingError
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if not self._is_to_write and self._status == Client.CONNECTED:
            self._is_to_write = True
            asyncio.get_running_loop().call_soon(self._write)

    async def until_heard(self) -> None:
        """Return once the server has read all that was sent before. May take for ever: the caller cancels."""
        heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(heard)
        await heard

    def tell(self, heard: Heard, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        """Hand on a message that was read to who listens."""
        try:
            heard(subject, reply, data, header)
        except Exception as error:  # reading must go on, whatever is read
            task = asyncio.ensure_future(self._error_cb(error))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    # ---- a shorter way to the socket and back ----------------------------------------------------

    @property
    def has_unread(self) -> bool:
        """Whether something was read that nats-py's task has yet to look at."""
        return self._reader is not None and bool(self._reader._buffer)  # type: ignore[attr-defined]

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        self._reader = self._writer = None
        if isinstance(self._transport, TcpTransport):
            self._go_directly(self._transport)

    def _go_directly(self, transport: TcpTransport) -> None:
        """Parse where the socket is read, and write from the loop: a task for each costs a turn of the loop, or two.

        What nobody listens to, and what is no message, goes the way of nats-py, and so does what comes behind it.
        """
        reader, parser = transport._io_reader, self._ps
        assert reader is not None and isinstance(parser, FrameParser)
        self._reader, self._writer = reader, transport._io_writer
        to_task: Callable[[bytes], None] = reader.feed_data
        parser.busy = self.has_unread

        def feed(data: bytes) -> None:
            left = data if parser.busy else parser.take(data)
            if left:
                to_task(left)

        reader.feed_data = feed  # type: ignore[method-assign, assignment]

    def _write(self) -> None:
        """Write what is to be sent, if the socket takes it; otherwise leave it to nats-py's task, which waits."""
        self._is_to_write = False
        if not self._pending or self._status != Client.CONNECTED:
            return
        transport = None if self._writer is None else self._writer.transport
        if transport is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            transport.write(b"".join(waiting))
        elif self._flush_queue is not None and self._flush_queue.empty():
            nobody_waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flush_queue.put_nowait(nobody_waits)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # nats-py decodes strictly, and one subject that is not UTF-8 ends its reading for good.
        return Msg(subject=text_of(subject), reply=text_of(reply), data=data, headers=headers, _client=self, _sid=sid)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py's ping overtakes what waits for its flusher, and then a subscription is not there when it is flushed.
        if self._pending and self.is_connected and self._transport:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        # nats-py ends its reading when a pong comes for a ping that nobody waits for any more.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self.listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task in which the library connects, more than once: `wait_for`, which it uses, may lose it.

    Left to itself it would try for ever, and the loop never end; or it would leave a connection that nobody knows.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)


async def _heeding(call: Coroutine[Any, Any, T]) -> T:
    """Await a call of the library's, and raise the cancellation that it swallowed.

    It uses `asyncio.wait_for`, which drops one that comes together with the answer before Python 3.12
    (https://github.com/python/cpython/issues/86296): Ctrl-C in that moment would go unheard.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    answer = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


def client_of(nc: Client) -> NatsClient:
    """Return the connection as ours, which `connection.opened` has made."""
    assert isinstance(nc, NatsClient), "connections are opened by baton_bus.jetstream.connection"
    return nc


def api_of(js: JetStreamContext) -> Api:
    """Return where this asks JetStream."""
    return Api(js._prefix)


def frame_of(subject: str, reply: bytes, payload: bytes, header: bytes = b"") -> bytes:
    """Return a publish as it goes over the wire; `header` comes from `header_of`. Raises `BadSubject`."""
    # One token without white space: a line break in it would be a command of its own.
    if subject.split() != [subject]:
        raise BadSubject(subject)
    try:
        name = subject.encode()
    except UnicodeEncodeError as error:
        raise BadSubject(subject) from error
    if header:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
            name,
            reply,
            len(header),
            len(header) + len(payload),
            header,
            payload,
        )
    return b"PUB %b %b %d\r\n%b\r\n" % (name, reply, len(payload), payload)


def header_of(headers: Mapping[str, str] | None) -> bytes:
    """Return headers as they go over the wire. Line breaks in values become spaces."""
    if not headers:
        return b""
    lines = (f"{name}: {' '.join(value.splitlines())}" for name, value in headers.items())
    return b"\r\n".join([_VERSION, *(line.encode("utf-8", "backslashreplace") for line in lines), b"", b""])


def headers_of(header: bytes) -> dict[str, str]:
    """Return what a header block says; its first line may have a status, which is `Status` and `Description`."""
    first, *lines = text_of(header).split("\r\n")
    found: dict[str, str] = {}
    if status := first[len(_VERSION) :].strip():
        code, _, description = status.partition(" ")
        found["Status"] = code
        if description:
            found["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def text_of(token: bytes) -> str:
    """Return bytes from the wire as text that can be shown and stored; what is not UTF-8 becomes `\\xe9`."""
    return token.decode("utf-8", "backslashreplace")


class Answer:
    """What came back to a request: nats-py's `Msg` costs more to make than most answers are to read."""

    __slots__ = ("data", "header")

    def __init__(self, data: bytes, header: bytes) -> None:
        """`header` as it came over the wire; empty when there was none."""
        self.data, self.header = data, header

    @property
    def headers(self) -> dict[str, str]:
        """Its headers, read anew at each call."""
        return headers_of(self.header) if self.header else {}

    @property
    def has_status(self) -> bool:
        """Whether it is, or ends with, a word of the server's on the request itself."""
        if self.header.startswith(_NO_STATUS):
            return False
        return bool(self.header[len(_VERSION) : self.header.find(b"\r\n")].strip())
