"""Calling tools: each call is recorded before the model is told of it, and one that is not idempotent is made once.

The order of effects, for a call that has no result in the log:
1. A tool that is not idempotent: `ToolBegun`, create-only. Who does not get it in does not call the tool.
2. The call.
3. `ToolCall`, create-only, with what it gave. What is stored is what the model is told.
A worker that dies between 1 and 3 leaves a call in doubt: nobody repeats it, unless a person says that it did not run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from msgspec import Raw, Struct

from baton_actors.agents.asks import AskFailed, AskRefused, Asks, all_needed
from baton_actors.agents.context import Context
from baton_actors.agents.conversation import Call, Came
from baton_actors.agents.tools.log import ToolLog
from baton_actors.agents.tools.targets import Given, Target
from baton_actors.errors import BadToolCall, ServerLost, ToolInDoubt
from baton_schemas.flow.flow import Agent, Field
from baton_schemas.flow.questions import output_of
from baton_schemas.show.conversation import called
from baton_schemas.wire.facts import ToolBegun, ToolCall
from baton_schemas.wire.messages import Question
from baton_schemas.wire.names import sortable_id

_LOOK_S, _LOOK_MAX_S = 0.25, 5.0
"""How often the log is looked at for what a worker gave that may still be calling a tool: at first, and in the end."""
_SHOWN_CHARS_MAX = 2_000
"""Of a call as a person is asked about it."""
_REHEARSED = "[rehearsed: {} was not called, as it is not idempotent; this is made up of what it says it returns]\n"

logger = structlog.get_logger("baton.worker")


class _Verdict(Struct, frozen=True):
    """What a person says of a call in doubt."""

    ran: bool
    result: str | None = None


class Calling:
    """Makes the calls of one attempt of a step."""

    def __init__(
        self,
        agent: Agent,
        targets: Mapping[str, Target],
        log: ToolLog,
        asks: Asks,
        context: Context,
        *,
        rehearses: bool,
    ) -> None:
        """`targets` are the tools by the names that the model knows; `rehearses` leaves out what may not be undone."""
        self._agent, self._targets, self._log = agent, targets, log
        self._asks, self._context, self._rehearses = asks, context, rehearses

    async def settle(self, calls: Sequence[Call], digest: str) -> None:
        """See to the calls of an answer that are in doubt, before any other is made: a step that fails leaves no more.

        `digest` is that of the request that was answered. Raises `ToolInDoubt`.
        """
        with all_needed():
            doubts = [
                asyncio.ensure_future(self._in_turn(call, digest, place))
                for place, call in enumerate(calls)
                if not call.wrong and self._is_once(call) and self._log.begun(digest, place) is not None
            ]
        for outcome in await asyncio.gather(*doubts, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def make(self, call: Call, digest: str, place: int) -> Came:
        """Make a call, unless it is recorded; return what the model is told. Raises `ToolInDoubt`."""
        done = await self._log.called(digest, place) or await self._in_turn(call, digest, place)
        return Came(text=msgspec.json.decode(done.result, type=str), is_error=done.is_error)

    async def _in_turn(self, call: Call, digest: str, place: int) -> ToolCall:
        """Make a call that has no result yet. Raises `ToolInDoubt`."""
        if done := await self._log.called(digest, place):
            return done
        if not self._is_once(call):
            return await self._made(call, digest, place)
        begun = self._log.begun(digest, place)
        if begun is not None and (done := await self._out_of_doubt(call, begun)) is not None:
            return done
        while True:
            ours = self._begun(call, digest, place, begun.number + 1 if begun is not None else 1)
            with self._asks.busy():  # parked in between, it would leave a call in doubt that was not made
                begun, lost = await self._log.begin(ours), False
                if begun.id == ours.id:
                    try:
                        return await self._made(call, digest, place)
                    except ServerLost:  # it may have run, as if our worker had died
                        lost = True
            if (done := await self._out_of_doubt(call, begun, lost=lost)) is not None:
                return done

    def _is_once(self, call: Call) -> bool:
        target = self._targets.get(call.name)
        return target is not None and not target.idempotent and not self._rehearses

    def _begun(self, call: Call, digest: str, place: int, number: int) -> ToolBegun:
        return ToolBegun(
            request_sha256=digest,
            place=place,
            name=call.name,
            number=number,
            id=sortable_id(),
            attempt=self._context.attempt,
            until_s=self._log.now_s() + self._agent.tool_timeout_s,
        )

    # ---- the call ----------------------------------------------------------------------------------

    async def _made(self, call: Call, digest: str, place: int) -> ToolCall:
        began = time.monotonic()
        with self._asks.busy():
            given, rehearsed = await self._given(call)
            text, size = _cut(given.text, self._agent.tool_output_bytes)
            elapsed_s = round(time.monotonic() - began, 4)
            logger.info("tool.called", tool=call.name, elapsed_s=elapsed_s, failed=given.is_error, rehearsed=rehearsed)
            return await self._log.record(
                ToolCall(
                    request_sha256=digest,
                    place=place,
                    name=call.name,
                    attempt=self._context.attempt,
                    result=Raw(msgspec.json.encode(text)),
                    is_error=given.is_error,
                    cut_bytes=size,
                    elapsed_s=elapsed_s,
                    rehearsed=rehearsed,
                )
            )

    async def _given(self, call: Call) -> tuple[Given, bool]:
        """Return what a call gives, and whether it was made up."""
        target = self._targets.get(call.name)
        if target is None:
            gone = f"{call.name} is not there any more: its agent has other tools now than when this began."
            return Given(text=gone, is_error=True), False
        try:
            if self._rehearses and not target.idempotent:
                said = called(call.name, call.arguments, _SHOWN_CHARS_MAX)
                given = target.made_up(call.arguments, self._context, said)
                return Given(text=_REHEARSED.format(call.name) + given.text), True
            start = target.start(call.arguments, self._context, self._agent.tool_timeout_s)
        except BadToolCall as error:
            return Given(text=str(error), is_error=True), False
        return await start(), False

    # ---- doubt -------------------------------------------------------------------------------------

    async def _out_of_doubt(self, call: Call, begun: ToolBegun, *, lost: bool = False) -> ToolCall | None:
        """Return what came of a call that somebody began; None when it did not run. Raises `ToolInDoubt`.

        Unless it is `lost`, another worker may still be at it, and has its time.
        """
        if not lost and (done := await self._came_meanwhile(begun)) is not None:
            return done
        verdict = await self._verdict(call, begun)
        return await self._said_to_have_run(call, begun, verdict) if verdict.ran else None

    async def _came_meanwhile(self, begun: ToolBegun) -> ToolCall | None:
        """Return what another worker records that may still be at it; None once it has had all its time."""
        wait_s = _LOOK_S
        while True:
            done = await self._log.called(begun.request_sha256, begun.place, look=True)
            left_s = begun.until_s - self._log.now_s()
            if done is not None or left_s < 0:
                return done
            await asyncio.sleep(min(wait_s, left_s + _LOOK_S))
            wait_s = min(wait_s * 1.5, _LOOK_MAX_S)

    async def _verdict(self, call: Call, begun: ToolBegun) -> _Verdict:
        """Return what a person says of a call in doubt; who is asked again says the same. Raises `ToolInDoubt`."""
        shown = called(call.name, call.arguments, _SHOWN_CHARS_MAX)
        if self._agent.in_doubt == "fail":
            raise ToolInDoubt(call.name, shown)
        again = f" It was begun {begun.number} times." if begun.number > 1 else ""
        text = (
            f"Did {call.name} run? A worker began it, and died or was stopped before it recorded what came of it."
            f"{again}\n\n{shown}\n\nIf it ran, its agent goes on with `result`. If not, it is called now.\n"
            f"(call {begun.place + 1} of the answer to {begun.request_sha256[:12]})"
        )
        fields = {
            "ran": Field(type="bool", description="Whether it ran."),
            "result": Field(type="str?", description="What it gave, if it ran: the model is told."),
        }
        try:
            answer = await self._asks.person(self._agent.in_doubt, Question(text=text, output=output_of(fields)))
        except (AskFailed, AskRefused) as error:
            raise ToolInDoubt(call.name, shown, f"{self._agent.in_doubt} could not be asked: {error}") from error
        return msgspec.json.decode(answer, type=_Verdict)

    async def _said_to_have_run(self, call: Call, begun: ToolBegun, verdict: _Verdict) -> ToolCall:
        """Record what a person says that a call gave."""
        said = verdict.result or f"{call.name} ran. What it gave is not known."
        text, size = _cut(said, self._agent.tool_output_bytes)
        return await self._log.record(
            ToolCall(
                request_sha256=begun.request_sha256,
                place=begun.place,
                name=call.name,
                attempt=self._context.attempt,
                result=Raw(msgspec.json.encode(text)),
                cut_bytes=size,
                settled_by=self._agent.in_doubt,
            )
        )


def _cut(text: str, limit: int) -> tuple[str, int]:
    """Return a result as a model is told it, and how many bytes it had if it was cut."""
    data = text.encode()
    if len(data) <= limit:
        return text, 0
    kept = data[:limit].decode(errors="ignore")
    return f"{kept}\n\n[cut here: the first {limit:,} of {len(data):,} bytes]", len(data)
