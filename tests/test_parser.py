"""What the server says reaches who listens in its order, however it is cut into pieces, and whoever has to take it."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from baton_bus.jetstream.parser import FrameParser

from .servers import until

LISTENS, PLAIN = 1, 2


class Client:
    """What a parser calls: one subscription with a listener, all else nats-py's own way, which takes its time."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.unread = bytearray()
        self.listeners = {LISTENS: self.heard}

    @property
    def has_unread(self) -> bool:
        return bool(self.unread)

    def heard(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        self.said.append(b"|".join((subject, reply, data, header)))

    def tell(self, heard: object, *message: bytes) -> None:
        assert heard == self.heard
        self.heard(*message)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        assert sid == PLAIN
        await asyncio.sleep(0)
        self.heard(subject, reply, data, header)

    async def _process_ping(self) -> None:
        await asyncio.sleep(0)
        self.said.append(b"PING")


def frame(number: int, sid: int, body: bytes, reply: bytes, header: bytes) -> tuple[bytes, bytes]:
    """Return a message as it goes over the wire, and what is to be heard of it."""
    subject = b"s.%d" % number
    words = b" ".join([subject, b"%d" % sid, *([reply] if reply else [])])
    if header:
        head = b"HMSG %b %d %d\r\n" % (words, len(header), len(header) + len(body))
    else:
        head = b"MSG %b %d\r\n" % (words, len(body))
    return head + header + body + b"\r\n", b"|".join((subject, reply, body, header))


messages = st.tuples(
    st.sampled_from([LISTENS, LISTENS, PLAIN]),
    st.sampled_from([b"", b"x", b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"PING\r\n", b"y" * 300]),
    st.sampled_from([b"", b"inbox.1"]),
    st.sampled_from([b"", b"NATS/1.0\r\n\r\n"]),
)


@given(st.lists(st.one_of(messages, st.none()), max_size=12), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_all_is_heard_in_order_however_it_is_cut(
    parts: list[tuple[int, bytes, bytes, bytes] | None], cuts: list[int]
) -> None:
    made = [(b"PING\r\n", b"PING") if part is None else frame(number, *part) for number, part in enumerate(parts)]
    wire = b"".join(frame for frame, _ in made)

    async def read_all() -> Client:
        client = Client()
        parser = FrameParser(client)

        async def task_that_reads() -> None:
            while True:
                if client.unread:
                    data = bytes(client.unread)
                    client.unread.clear()
                    await parser.parse(data)
                await asyncio.sleep(0)

        reading = asyncio.create_task(task_that_reads())
        at = 0
        for cut in itertools.cycle(cuts):
            if at >= len(wire):
                break
            data = wire[at : at + cut]
            at += cut
            client.unread += data if parser.busy else parser.take(data)
            if cut % 3:  # sometimes more comes before anybody has looked
                await asyncio.sleep(0)
        await until(lambda: not parser.busy and not client.unread)
        reading.cancel()
        return client

    assert asyncio.run(read_all()).said == [said for _, said in made]


@pytest.mark.parametrize("line", [b"MSG a x 3\r\nabc\r\n", b"MSG\r\n", b"HMSG a 1 z 3\r\nabc\r\n", b"HELLO\r\n"])
async def test_what_is_no_message_is_left_to_the_task_that_may_give_up(line: bytes) -> None:
    client = Client()
    parser = FrameParser(client)
    left = parser.take(b"MSG s 1 1\r\nx\r\n" + line)
    assert (left, parser.busy, client.said) == (line, True, [b"s||x|"])
    with pytest.raises(ProtocolError):
        await parser.parse(left)
