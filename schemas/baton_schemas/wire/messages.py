"""The messages of the log, as they are on the wire: frozen, tagged by hand, with one head.

Field names and tags never change meaning. A field may be added with a default; anything else is a new `VERSION` with
an upcast in `upcasts.py`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct, field

from .facts import Fact
from .money import Budget
from .outcomes import NULL, Blob, Error, Outcome, ResultStatus, State

VERSION = 2
"""The latest version of the schema that this release reads."""
FIRST, ASKING = 1, 2
"""What is written: `ASKING` where a message, or the flow of its run, uses what the first release did not know, so that
workers of that one give it back; all else as that one wrote it, so that both go on with it."""


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every message begins with: the version of its schema. Its place and meaning are the same in all of them."""

    v: int = field(default_factory=lambda: FIRST)


class OfRun(Head, frozen=True, kw_only=True, omit_defaults=True):
    """What the messages of a run begin with: which run of which version of which flow."""

    run: str
    flow: str
    digest: str = ""
    start_seq: int = 0
    """Stream sequence of the run's first handoff, which carries the flow; 0 in that handoff itself."""


class Task(Head, tag="task", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """A client's request for a run. The flow is named by the subject."""

    input: dict[str, Raw] = {}
    run: str = ""
    budget: Budget | None = None
    """What the run may spend, where that is less than its flow says: who hands in a task may not allow more."""


# ---- why a step is handed off --------------------------------------------------------------------


class Origin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The run that this one goes on from, whose finished steps are copied."""

    run: str
    until_seq: int = 0
    """Only records up to this stream sequence are copied; 0 for all."""
    failed: bool = False
    """Steps and branches that failed without ending that run are done again too, and all that comes after them."""


class Above(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run which another one is a part of, with what both together may spend."""

    run: str
    flow: str
    budget: Budget
    parks: bool = False
    """What waits for more of it is parked, and does not fail."""


class Parent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which step asked for a run, as its answer needs it."""

    run: str
    flow: str
    digest: str
    start_seq: int
    actor: str
    step: str
    child: str
    above: list[Above] = []
    """That run and those above it, as far as they have budgets: this one spends theirs too."""


class Begins(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the first handoff of a run says of the whole run."""

    flow_body: Raw
    deadline_s: float = 0.0
    """Seconds from when the handoff was stored to when the run expires; 0 for never."""
    origin: Origin | None = None
    parent: Parent | None = None
    """The step of another run that asked for this one, and waits for its result."""
    budget: Budget | None = None
    """What whoever started the run allowed it to spend, over what the flow's file says: the flow has it too."""
    source: str = ""
    """Where the flow's file was when the run was asked for: an absolute path, or the name of a shipped flow. A hint for
    people who go on with the run; it identifies nothing, and may name a file of another machine."""


class Joined(Struct, tag="join", tag_field="by", frozen=True, kw_only=True, omit_defaults=True):
    """Its join closed, with exactly these branches."""

    branches: dict[str, str] = {}
    """By source step, in the order of the flow: indices as ranges (`0-4,7`), or `*` for one that replied itself: a step
    that is no fan-out, or whose list was empty."""
    counts: dict[str, int] = {}
    """By source step: how many branches it had, as far as was known; 0 when its list was empty."""
    deadline: bool = False
    """Its time was up."""
    error: Error | None = None
    """It closed without what it needs: the step fails, and its handler is not called."""
    left_out: dict[str, str] = {}
    """Source steps that were left out, and why. When all of them were, so is the step."""


class Started(Struct, tag="start", tag_field="by", frozen=True, kw_only=True, omit_defaults=True):
    """A first step of a run. `begins` is in the run's first handoff alone: a run starts once."""

    begins: Begins | None = None
    joined: Joined | None = None
    """The step joins, and all that it waits for are empty lists of the input."""


class After(Struct, tag="after", tag_field="by", frozen=True, kw_only=True, omit_defaults=True):
    """The step (or branch) before it ended. With `outcome` this handoff is the decisive record of how."""

    step: str
    outcome: Outcome | None = None


class Woken(Struct, tag="wake", tag_field="by", frozen=True, kw_only=True, omit_defaults=True):
    """It was parked, and its time has come: the handoff at `seq` is to be done (again)."""

    seq: int
    number: int
    """Counts the wakings of this step, from 1."""
    why: str = ""
    due_s: float = 0.0
    """When it is to be done, in seconds of Unix time by the broker's clock: it may come a moment before."""
    parked: int = 0
    """Where the first `Parked` of its parking is in the log, when an answer wakes it; 0 when its time has come."""
    strays: int = 0
    """As in `Parked`."""


AskedKind = Literal["agent", "flow", "person", "sleep", "event", "batch"]
"""Who answers: an agent's worker, whoever ends a child run, a person, the clock, a word from outside, or whoever has
the model asked in a batch."""


NO_DEFAULT = Raw()
"""There is no answer for when nobody gives one."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person is asked."""

    text: str
    answers: list[str] = []
    """What may be answered, when it is a choice."""
    output: dict[str, Raw] = {}
    """Else the fields of the answer by name, as the flow has them (`Field`)."""
    type: str = ""
    """Else the type of the answer, as in `[input]`; empty for any JSON but null."""


class Asked(Struct, tag="ask", tag_field="by", frozen=True, kw_only=True, omit_defaults=True):
    """A step that is under way asks for it: a child step, whose arguments are the `input` of its state."""

    step: str
    """Who asks."""
    actor: str = ""
    """Of a person's question, an event and what goes into a batch: the actor of who asks, as the subject of the answer
    needs it."""
    kind: AskedKind = "agent"
    number: int = 1
    """Counts what this step asked alike: the same of the same."""
    depth: int = 1
    """How many ask above it, this one included."""
    due_s: float = 0.0
    """When it is answered by itself, in seconds of Unix time by the broker's clock; 0 for never."""
    default: Raw = NO_DEFAULT
    """That answer; without one it is an error that says that the time is up (null for a sleep)."""
    question: Question | None = None


Cause = Started | After | Joined | Woken | Asked


class Branch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which branch of a fan-out: its place, how many there are, and its item (`blob` when it was large)."""

    index: int
    count: int
    item: Raw = NULL
    blob: Blob | None = None


class Handoff(OfRun, tag="handoff", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """Gives a step to an actor, with the state that it needs, and says why."""

    step: str
    cause: Cause
    state: State = State()
    branch: Branch | None = None
    copied: bool = False
    """The step may be done already, in the run that this one goes on from: look before calling its handler."""


# ---- how steps end -------------------------------------------------------------------------------


class Reply(OfRun, tag="reply", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a branch ended, told to the step that joins it; or that the join's time is up (`source` is `deadline`)."""

    step: str
    source: str
    """The step that ended, without the index of a branch."""
    index: int = 0
    count: int = 1
    """Which of how many branches of the source; 0 when its list was empty."""
    each: bool = False
    """Whether the source is a fan-out, so that `index` counts."""
    state: State = State()
    outcome: Outcome
    copied: bool = False
    round: int = 0
    """Of the source, when it is done again and again: from 2."""


class OutcomeRecord(OfRun, tag="outcome", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a step ended, where that is not one handoff or one reply; carries what its successors need."""

    step: str
    state: State = State()
    outcome: Outcome
    branch: Branch | None = None
    copied: bool = False


class Join(OfRun, tag="join", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """One link of the chain that says who has arrived at a join: only what came since the last link."""

    step: str
    number: int
    """Place in the chain, from 1."""
    came: dict[str, str] = {}
    """By source step: indices as ranges (`0-4,7`), or `*` for one that replied itself, as in `Joined`."""
    failed: dict[str, str] = {}
    """Those among them that did not end well."""
    counts: dict[str, int] = {}
    """How many branches a source has, when this link is the first to know."""
    deadline: bool = False
    copied: bool = False
    """Some of these replies were copied from the run that this one goes on from."""
    left_out: dict[str, str] = {}
    """Those that were left out, with the reason: they came, and are not counted."""


class Wakes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which step sleeps until an answer comes."""

    parked: int
    """Where the first `Parked` of its parking is in the log: whichever of its answers comes first wakes it."""
    seq: int
    number: int = 0
    strays: int = 0
    """As in `Parked`."""


class Answer(OfRun, tag="answer", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a child step ended, told to the step that asked: the child's decisive record."""

    v: int = field(default_factory=lambda: ASKING)
    step: str
    """Who asked."""
    child: str
    outcome: Outcome
    wakes: Wakes | None = None
    """It came when the step that asked had been parked: then its handoff follows."""
    who: str = ""
    """Of a person: who answered, as they say themselves."""
    note: str = ""
    say: int = 0
    """Where the word from outside is in the log that this answer is made of."""
    copied: bool = False


class Parked(OfRun, tag="parked", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """The step that asked is held by nobody. It stands in the place of an answer that brings it back.

    A step that is parked upon several answers has one for each, and the first of them to come brings it back.
    """

    v: int = field(default_factory=lambda: ASKING)
    step: str
    child: str
    seq: int
    """Where the handoff of the step is in the log."""
    number: int = 0
    """How often its time had come before, as `Woken` counts."""
    strays: int = 0
    """How often in a row it asked for something new, and not again for what it had asked before."""
    first: int = 0
    """Where the first of those is in the log that it was parked with; 0 in that one itself."""


class Batch(Head, tag="batch", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """Model calls that were gathered, and are to be sent as one batch. It belongs to no run: its own id is in the place
    of one.
    """

    v: int = field(default_factory=lambda: ASKING)
    run: str
    """The id of the batch."""
    actor: str
    """Whose calls they are."""
    count: int
    members: Raw = NULL
    """Where the handoffs are in the log that ask for the calls: a list of sequences."""
    blob: Blob | None = None
    """That list, when it was too large to be inline."""
    root: str = ""
    """The batch that this one is a part of: that was refused as a whole, and its members are claimed for it."""


class Say(Head, tag="say", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """A word from outside, of a person or a program, to a step that waits for one. `kind` and `v` may be left out."""

    answer: Raw = NULL
    who: str = ""
    note: str = ""
    run: str = ""
    """The subject says it."""


class Result(OfRun, tag="result", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a run ended. For `done` it is the decisive record of the last step and `outcome` has the output."""

    status: ResultStatus
    step: str = ""
    outcome: Outcome | None = None
    reason: str = ""
    children: bool = False
    """Runs that it asked for may be open still: they are to be cancelled."""
    purged: bool = False
    """The run was removed from the log: this stands in its place for a while, so that nothing goes on with it."""


class Note(Head, tag="note", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """A fact about how a step was done."""

    run: str
    step: str
    fact: Fact
    worker: str = ""


Message = Task | Handoff | Reply | OutcomeRecord | Join | Note | Answer | Parked | Say | Result | Batch
Decisive = Handoff | Reply | OutcomeRecord | Answer | Result
