"""Reading the log: one subject, one run, the branches of a join, or everything as it comes.

There are two families of reads. Those that may lag (`last`, `at`, `run`, `matching`) are answered by any replica: what
they find is true, and absence proves nothing except that the work may be done again. Those with `_sure` have the
leader's word, and are for whatever is concluded from absence. `read` always goes to the end that the leader names.
Nothing here makes or changes anything at the server; only `follow` has a consumer, for as long as somebody follows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing

from nats.js import JetStreamContext

from baton_bus.errors import BusUnavailable
from baton_bus.jetstream.gets import Gets, TooManySubjects
from baton_bus.jetstream.gets import Stored as Stored
from baton_bus.jetstream.publisher import EXPECTED, Publisher
from baton_bus.jetstream.reader import EVERYTHING, Reader
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects, matcher
from baton_schemas.run.state import Entry, read_entry

from .removing import delete, purge


class Log:
    """Reads the log of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._subjects, self._requests = subjects, requests
        self._stream, self._patience_s = settings.namespace, settings.patience_s
        self._gets = Gets(js._nc, requests, settings.namespace, settings.patience_s)
        self._publisher = Publisher(js._nc, requests, settings.namespace)
        self._reader = Reader(js._nc, requests, self._gets, settings.patience_s)

    def reconnected(self) -> None:
        """The connection is mended: whoever follows the log begins anew where it was."""
        self._reader.reconnected()

    async def last(self, subject: str) -> Entry | None:
        """Return the last message on one exact subject, or None; may lag. Raises `BusUnavailable`, `NoStream`."""
        return _entry(await self._gets.last(subject))

    async def last_sure(self, subject: str) -> Entry | None:
        """Return the last message on a subject, which may be a pattern, by the leader's word. Raises as `last`."""
        return _entry(await self._gets.last_sure(subject))

    async def taken(self, subject: str) -> Entry:
        """Return the message on a subject that the server said is taken.

        Raises as `last`, and `BusUnavailable` when the leader has nothing there: it was purged since.
        """
        entry = await self.last(subject) or await self.last_sure(subject)
        if entry is None:
            raise BusUnavailable(f"read {subject}, which was taken and is gone", 0.0)
        return entry

    async def at(self, seq: int) -> Entry | None:
        """Return the message with a stream sequence, or None; may lag. Raises as `last`."""
        return _entry(await self._gets.at(seq))

    async def stored(self, seq: int) -> Stored | None:
        """Return the message with a stream sequence as it is stored, with its headers, or None; may lag.

        Raises as `last`.
        """
        return await self._gets.at(seq)

    async def at_sure(self, seq: int) -> Entry | None:
        """Return the message with a stream sequence; None only by the leader's word. Raises as `last`."""
        return _entry(await self._gets.at_sure(seq))

    async def run(self, run: str, actors: Iterable[str] = (), start_seq: int = 0) -> list[Entry]:
        """Return the messages of a run in their order; of a subject, the last; may lag.

        With the `actors` of its flow the server finds them faster; `start_seq` helps with runs of more
        than 1,024 messages. Raises as `last`.
        """
        return await self._each(self._patterns(run, actors), [self._subjects.run(run)], start_seq, sure=False)

    async def run_sure(self, run: str, actors: Iterable[str] = (), start_seq: int = 0) -> list[Entry]:
        """Return what `run` does, with all that the leader has now. Raises as `last`."""
        return await self._each(self._patterns(run, actors), [self._subjects.run(run)], start_seq, sure=True)

    async def matching(self, patterns: Sequence[str], start_seq: int = 0) -> list[Entry]:
        """Return the last message on each subject that matches, in their order; may lag. Raises as `last`."""
        return await self._each(patterns, patterns, start_seq, sure=False)

    async def matching_sure(self, patterns: Sequence[str], start_seq: int = 0) -> list[Entry]:
        """Return what `matching` does, with all that the leader has now. Raises as `last`."""
        return await self._each(patterns, patterns, start_seq, sure=True)

    async def read(self, patterns: Sequence[str], start_seq: int = 0, end_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield every message that matches, from a sequence on, to the one that is now the last.

        With `end_seq`, to that sequence instead. Several patterns are picked here from all messages: the server gives
        everything four times faster than what it must filter. Raises as `last`.
        """
        async with aclosing(self._stored(patterns, start_seq, end_seq)) as found:
            async for each in found:
                yield _read(each)

    async def raw(self, start_seq: int = 0, end_seq: int = 0) -> AsyncGenerator[Stored, None]:
        """Yield every message from a sequence on, undecoded, to the one that is now the last.

        With `end_seq`, to that sequence instead. Raises as `last`.
        """
        async with aclosing(self._reader.read(EVERYTHING, start_seq, end_seq)) as found:
            async for each in found:
                yield each

    async def raw_batches(self, start_seq: int = 0, end_seq: int = 0) -> AsyncGenerator[list[Stored], None]:
        """Yield what `raw` does, as many at a time as came together."""
        async with aclosing(self._reader.batches(EVERYTHING, start_seq, end_seq)) as found:
            async for batch in found:
                yield batch

    async def raw_some(self, pattern: str, start_seq: int, count: int) -> list[Stored]:
        """Return at most so many messages that match, undecoded, from a sequence on; may lag, and fewer is not the end.

        Raises as `last`.
        """
        return await self._gets.batch(pattern, start_seq, count)

    async def raw_follow(self, start_seq: int) -> AsyncGenerator[Stored, None]:
        """Yield every message from a sequence on, undecoded, and then as they come, until closed. Raises as `last`."""
        async with aclosing(self._reader.follow([EVERYTHING], start_seq)) as found:
            async for each in found:
                yield each

    async def purge(self, pattern: str, *, below_seq: int = 0) -> int:
        """Remove what matches, for good; return how many messages. Only `client/purge.py` may: nothing comes back.

        With `below_seq` only what is before that sequence. Raises `NotAllowed`, and as `last`.
        """
        return (await purge(self._requests, self._stream, pattern, self._patience_s, below_seq=below_seq)).messages

    async def replace(self, subject: str, body: bytes, last_seq: int, *, kept_s: int) -> int:
        """Write after the last message on a subject, for so many seconds; return the sequence.

        `last_seq` is what is known of that one. As `purge`, only for what is put in place of what goes. Raises as
        `last`, and the errors of `Publisher.create`.
        """
        while True:
            headers = {"Nats-TTL": f"{kept_s}s", EXPECTED: str(last_seq)}
            if (ack := await self._publisher.publish(subject, body, headers, self._patience_s)) is not None:
                return ack.seq
            last = await self._gets.last_sure(subject)
            last_seq = last.seq if last is not None else 0

    async def delete(self, seq: int) -> int:
        """Remove one message, as `purge` does."""
        return (await delete(self._requests, self._stream, seq, self._patience_s)).messages

    async def follow(self, patterns: Sequence[str], start_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield every message that matches, from a sequence on, and then as they come, until closed.

        Raises as `last`.
        """
        async with aclosing(self._reader.follow(patterns, start_seq)) as found:
            async for each in found:
                yield _read(each)

    async def hear(self, pattern: str, start_seq: int, heard: Callable[[Entry], None]) -> None:
        """Call `heard` with every message that matches, from a sequence on, and then as they come, until cancelled.

        Raises as `last`.
        """
        await self._reader.hear(pattern, start_seq, lambda found: heard(_read(found)))

    async def bounds(self) -> tuple[int, int]:
        """Return the sequences of the first message of the log and of its last; (1, 0) when it is empty."""
        last = await self._gets.last_sure(EVERYTHING)
        first = await self._gets.next_sure(EVERYTHING, 1) if last is not None else None
        return (first.seq, last.seq) if first is not None and last is not None else (1, 0)

    async def end(self) -> int:
        """Return the sequence of the last message of the log, by the leader's word; 0 when it is empty."""
        last = await self._gets.last_sure(EVERYTHING)
        return last.seq if last is not None else 0

    def _patterns(self, run: str, actors: Iterable[str]) -> list[str]:
        return [self._subjects.run(run, actor) for actor in actors] or [self._subjects.run(run)]

    async def _each(self, patterns: Sequence[str], wider: Sequence[str], start_seq: int, *, sure: bool) -> list[Entry]:
        """Return the last message on each subject; when they are too many for one request, of all on the wider."""
        try:
            if sure:
                found = await self._gets.matching_sure(patterns, start_seq)
            else:
                found, _ = await self._gets.matching(patterns, start_seq)
        except TooManySubjects:
            async with aclosing(self._stored(wider, start_seq)) as read:
                last = {each.subject: each async for each in read}
            found = sorted(last.values())
        return [_read(each) for each in found]

    async def _stored(self, patterns: Sequence[str], start_seq: int, end_seq: int = 0) -> AsyncGenerator[Stored, None]:
        wanted: Callable[[str], object] | None = None
        pattern = patterns[0] if len(patterns) == 1 else EVERYTHING
        if len(patterns) > 1:
            wanted = matcher(patterns)
        async with aclosing(self._reader.read(pattern, start_seq, end_seq)) as found:
            async for each in found:
                if wanted is None or wanted(each.subject):
                    yield each


def _entry(found: Stored | None) -> Entry | None:
    return _read(found) if found is not None else None


def _read(found: Stored) -> Entry:
    return read_entry(found.seq, found.at, found.subject, found.data)
