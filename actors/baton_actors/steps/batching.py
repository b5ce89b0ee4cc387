"""The model calls of a step that go in batches: each is asked for as a child, and found in the journal when it is made.

Nothing holds the step meanwhile. What may be spent is held under the child's name: who has the result settles it.
"""

from __future__ import annotations

from baton_actors.agents.asks import AskFailed, AskRefused
from baton_actors.models import ModelError, ModelRequest
from baton_actors.models.body import body_size
from baton_actors.models.types import Bound
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import BatchPolicy
from baton_schemas.run.asking import child_of
from baton_schemas.show.asked import Asked
from baton_schemas.show.batching import BatchCall, state_of
from baton_schemas.wire.names import BATCH, gatherer_of

from .asking import StepAsks
from .claim import Claim
from .paying import Paying
from .sure import sure


class Batching:
    """That of one attempt."""

    def __init__(
        self,
        engine: Engine,
        asks: StepAsks,
        work: Claim,
        attempt: int,
        failed: int,
        policy: BatchPolicy,
        paying: Paying,
    ) -> None:
        """`failed` is the last attempt of which it is recorded that it failed; 0 for none."""
        self._engine, self._asks, self._work, self._paying = engine, asks, work, paying
        self._attempt, self._failed, self._policy = attempt, failed, policy

    async def ask(self, request: ModelRequest, digest: str, bound: Bound) -> None:
        """Have a call made; what it brought is in the journal then.

        Raises `ModelError`, `OverBudget`, `HeldByOthers`, `UnpricedModel`, `NotRecorded`, `AskRefused`.
        """
        step = self._work.handoff.step
        # Who comes after a failure asks anew; who comes after a death has what was asked by then, which may be out.
        asked = [digest, self._failed + 1]
        child = child_of(step, "batch", BATCH, asked, 1)
        held = await sure(lambda: self._held(child, bound))
        call = BatchCall(
            request_sha256=digest,
            model=request.model,
            attempt=self._attempt,
            count=self._policy.count,
            seconds=self._policy.seconds,
            timeout_s=request.timeout_s,
            size_bytes=body_size(request),
            rehearsed=bound.rehearsed,
            held=held,
        )
        sent = Asked(**{name: getattr(request, name) for name in Asked.__struct_fields__})
        try:
            await self._asks.batched(asked, state_of(call, sent))
        except AskRefused:
            if held:
                await sure(lambda: self._paying.give_back(child))
            raise
        except AskFailed as failed:
            error = failed.error
            raise ModelError(
                type=error.type, message=error.message, retryable=error.retryable, request_id=error.request_id
            ) from failed

    async def _held(self, child: str, bound: Bound) -> str:
        """Return the id of what is held for a call; empty where nothing has a budget, or it is asked for already."""
        subjects, work = self._engine.bus.subjects, self._work
        actor = work.plan.actor(work.handoff.step)
        subject = subjects.asked(gatherer_of(actor), work.handoff.run, child, work.handoff.step)

        async def is_asked() -> bool:
            return await self._engine.bus.log.last_sure(subject) is not None

        return await self._paying.hold_for(child, bound, is_asked)
