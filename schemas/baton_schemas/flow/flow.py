"""A flow: a named graph of steps, each done by an agent. Written in TOML or built in Python."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field

from baton_schemas.wire.money import Budget

OnError = Literal["fail", "continue"]
OnFailedBranch = Literal["fail", "skip", "pass"]
OnLast = Literal["continue", "fail"]
Delivery = Literal["live", "batch"]
AuthKind = Literal["key", "bearer"]
Caching = Literal["5m", "1h", "off"]
OnBudget = Literal["fail", "park"]
Scalar = str | int | float | bool
Conditions = dict[str, Scalar | list[Scalar]]
"""By path into an input or the output of a step (`classify.kind`): the value that it is to have, or several of which it
is to have one. All of them are to hold."""

IN_PROCESS = "in-process:"
"""Before the name of a handler that is a function of the program which built the flow: nobody else can import it."""

FORMAT = 1
"""The version of the format of flows that this release reads."""
ABSENT = Raw()
"""No default: the input field is required."""


class Field(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One field of a flow's input, or of a record in it. Without `default` it is required, unless its type ends in `?`.

    `types.type_of` says what its type means.
    """

    type: str = "str"
    """What it may be: `str`, `int`, `float`, `bool`, `dict`, `list`, `file`, or a list of something."""
    default: Raw = ABSENT
    """Taken when a run does not give it; without one it has to be given."""
    description: str = ""
    """What it is for: shown where it is missing."""
    fields: dict[str, Field] = {}
    """Of a `dict`, or of the dicts in a list: what each has, by name. It may have more."""
    values: list[str | int] = []
    """Of a `str` or an `int`, or of those in a list: it is one of these. A list in place of a type is short for it."""

    @property
    def required(self) -> bool:
        """Whether a run can't start without it."""
        return not bytes(self.default) and not self.type.rstrip().endswith("?")


class Tier(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A name for a kind of model, so that a flow says `worker` and one line decides which that is."""

    model: str
    """The id of a model."""
    max_tokens: int = 0
    """The cap of each call, in tokens, for agents without one of their own."""


class Provider(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A server with the Messages API: its models are called `NAME/model-id` wherever a model is named."""

    base_url: str
    """Where it is: `https://gateway.example.com`, or with a path before `/v1/messages`."""
    key_env: str = ""
    """The variable in the environment of workers that has its key; a server that needs none has none."""
    auth: AuthKind = "key"
    """How the key is sent: as `x-api-key`, or as `Authorization: Bearer`."""


class Limit(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a model may be asked by all workers together; what is not set has no limit of ours."""

    requests_per_minute: int | None = None
    """Calls that begin in a minute, evenly."""
    tokens_per_minute: int | None = None
    """Tokens in a minute, of prompts and answers: a call counts with what it may take, and then with what it took."""
    concurrency: int | None = None
    """Calls under way at once."""


class UsedTool(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool that the model of an agent may call, by its name or as a table."""

    use: str
    """A function (`./tools.py:search`, `package.module:name`), the tools of an MCP server (`mcp:files`) or one of them
    (`mcp:files/read`), or one of the provider's: `web_search`, `web_fetch`, `code_execution`."""
    max_uses: int = 0
    """Of one of the provider's: how often a request may use it; 0 for as often as the provider allows."""
    allowed_domains: list[str] = []
    """Of `web_search` and `web_fetch`: only these are looked at."""
    blocked_domains: list[str] = []
    """Of `web_search` and `web_fetch`: these are not looked at."""


class Mcp(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An MCP server whose tools agents may use: a command that is started, or a URL that is called."""

    command: list[str] = []
    """The program and its arguments, started by each worker that uses it, in the folder of the flow file."""
    env: list[str] = []
    """Names of variables of the worker's environment that the command is given besides the usual few."""
    url: str = ""
    """Of a server over streamable HTTP. `${NAME}` stands for a variable of the worker's environment."""
    headers: dict[str, str] = {}
    """Sent with each request to `url`; each value has a `${NAME}` in it, as what is written here is in the log."""
    idempotent: list[str] = []
    """Its tools that may be called twice without harm; what the server itself says of that is not relied on."""


class BatchPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When the model calls that were gathered are sent as one batch: whichever comes first."""

    count: int = 100
    """So many calls are there."""
    seconds: float = 60.0
    """The first of them has waited so long, in seconds."""


class Agent(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the user describes: a prompt and a model, a Python handler, a person, or a whole flow.

    With `handler` it is a Python function, `module:name` or `./file.py:name`; with `person` whoever has that role, who
    is asked the `prompt`; with `flow` each of its steps is a run of that flow; otherwise an LLM agent, which needs
    `model` (a tier or a model id), `prompt` and `max_tokens` (its own or its tier's).
    """

    model: str = ""
    """A tier (`worker`, `synthesis`, or one of [tiers]), or the id of a model."""
    system: str = ""
    """The system prompt; it may have placeholders as `prompt` has."""
    prompt: str = ""
    """What the model is asked. `{name}` and `{name.key}` stand for inputs and earlier steps, `{item}` and `{index}` for
    those of a step with `each`, `{errors}` for the errors so far; `{{` and `}}` are braces."""
    max_tokens: int = 0
    """The cap of each call, in tokens; its tier's unless set."""
    handler: str = ""
    """A Python function in place of a model: `./file.py:name`, relative to this file, or `package.module:name`."""
    flow: str = ""
    """A whole flow in place of a model: the name of a shipped one, or a file (`./other.toml`, relative to this one). A
    step of it is a run of its own, whose output is that of the step."""
    given: dict[str, str] = {}
    """What a run of `flow` is given in a step, by name: a path such as `item`, `item.title` or `plan.topics`. What is
    not named here is the input, or the earlier step, of the same name; else it has its default."""
    reads: list[str] | None = None
    """What a handler is given. By default what its parameters name, where its source tells (a flow that is read from a
    file); else the run's input and what the steps before it put out."""
    actor: str = ""
    """The subject token that its workers listen on; `{flow}--{agent}` unless flows are to share workers."""
    concurrency: int | None = None
    """Steps that one worker process holds at once. By default what suits its kind, as the worker that has it knows: 100
    for one that waits (asks a model, or is an async handler), 8 for one that computes (a plain handler)."""
    max_in_flight: int = 1000
    """Steps that all its worker processes together hold at once."""
    max_attempts: int = 3
    """Attempts at one step, the first included."""
    timeout_s: float = 300.0
    """Of one attempt, in seconds; a step may have its own."""
    retry_base_s: float = 1.0
    """The wait before the first retry, in seconds: exponential from here to `retry_max_s`, with jitter."""
    retry_max_s: float = 60.0
    """The longest wait before a retry, in seconds."""
    fallback: list[str] = []
    """Tiers or model ids that are asked in its model's place, in this order, while the provider of that is
    overloaded."""
    cache: Caching = "5m"
    """How long its provider keeps what calls have in common, where that is long enough to be kept: from its last use on
    five minutes, or an hour, which costs more to write; or not at all."""
    overload_max_s: float = 3600.0
    """How long a step waits, all in all, when the model's provider asks to wait; such waits are no attempts."""
    description: str = ""
    """What it is good for, in a sentence: for people, and for the model of an agent that may ask it."""
    input: dict[str, Field] = {}
    """What it is given when another agent asks it, by name. In a step of the flow it reads what its prompt names."""
    workers: list[str] = []
    """The agents that it may ask while it does a step."""
    max_asks: int = 10_000
    """How much one step of it may ask for, all in all."""
    tools: list[UsedTool] = []
    """Of an LLM agent: what its model may call besides its `workers`, each by its name or as a table."""
    max_rounds: int = 12
    """Of an LLM agent with `workers` or `tools`: how often a step of it asks its model, which is to have answered by
    then."""
    max_calls: int = 100
    """Of an LLM agent with `tools`: how often a step of it calls functions and tools of MCP servers, all in all."""
    tool_timeout_s: float = 60.0
    """How long one call of a tool may take, in seconds."""
    tool_output_bytes: int = 50_000
    """What the model is told of what a tool gave; what is beyond is cut, and the model is told so."""
    in_doubt: str = "fail"
    """When a tool that is not idempotent may have run before its worker died: `fail` the step, or a role (`editors`),
    who is asked whether it ran."""
    delivery: Delivery = "live"
    """Of an LLM agent: `live`, or `batch`: its model calls are gathered and sent as batches, which cost half and take
    up to a day. A step that waits for its batch is held by nobody."""
    batch: BatchPolicy | None = None
    """When what was gathered is sent: `{ count = 100, seconds = 60 }` unless set."""
    max_depth: int = 8
    """How deep what it asks may lie: an agent that a step of the flow asks is at 1, one that this one asks at 2."""
    park_after_s: float = 60.0
    """How long a step of it that waits for an answer is held by its worker, in seconds: then nothing holds it, and the
    answer brings it back."""

    person: str = ""
    """A role, in place of a model: whoever has it is asked the `prompt`, and what they answer is the output."""
    answers: list[str] = []
    """What a person may answer, when it is a choice."""
    output: dict[str, Field] | str = {}
    """Of an LLM agent or a person: the fields of what it answers, by name and type as in [input]. Of an LLM agent also
    a file with a JSON Schema (`./triage.schema.json`, relative to this one). Without it a model answers with text, and
    a person with any JSON, or one of `answers`."""
    output_schema: dict[str, Any] = {}
    """What is in that file, in the form that `json_schema.normal` gives it: not written in a flow file, but read."""
    deadline_s: float | None = None
    """How long a person has, in seconds; without one the run waits for as long as it takes."""
    default: Raw = ABSENT
    """The answer once that time is up; without one the step fails then."""

    @property
    def output_fields(self) -> dict[str, Field]:
        """The fields of `output`; none where it is a file."""
        return self.output if isinstance(self.output, dict) else {}

    @property
    def asks_models(self) -> bool:
        """Whether doing its steps asks a model, and so is paid for; handlers, people and flows do not, themselves."""
        return not self.handler and not self.person and not self.flow


class JoinPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a step that waits for several branches begins, and what a failed branch means."""

    wait: Literal["all"] | int = "all"
    """All branches, or the first so many that end well."""
    min_done: int = 0
    """The step fails when fewer branches than this ended well."""
    failed: OnFailedBranch | None = None
    """`fail` the run, `skip` the branch, or `pass` its error to the merger in its place.

    A plain list leaves out a branch that is skipped; in the place of one that is passed it has `{"error": {"step": …,
    "type": …, "message": …}}`. A prompt numbers branches by their places, and a handler that asks for `list[Branch[T]]`
    gets all of them either way.

    By default `fail` where the branch's step has `on_error = "fail"`, else `skip`.
    """
    deadline_s: float | None = None
    """From when the first of its branches is handed on: then the join closes with the branches that are there."""


class Again(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A loop: the steps from an earlier one to this one are done once more, for as long as a condition holds."""

    start: str = field(name="from")
    """The step that begins the next round: this one, or one that comes before it."""
    when: Conditions
    """What is to hold for there to be another round, as of a step; it may look into this step's own output."""
    max_rounds: int
    """Rounds at the most, the first included."""
    on_last: OnLast = "continue"
    """When it still holds after the last round: `continue` with what there is, or `fail` the run."""


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node of a flow."""

    agent: str
    """Who does it: the agent of the step's own name unless set."""
    after: list[str] = []
    """The steps that it waits for."""
    each: str = ""
    """A list, in the input or put out by an earlier step: the step runs once per item."""
    concurrency: int | None = None
    """With `each`: how many items of one run are under way at once. All of them unless set. They begin in the order of
    the list: with 5, the sixth when the first has ended, the seventh when the second has."""
    warm: bool = False
    """With `each`, of an LLM agent: the branches wait with their calls until the first of them has put what they have
    in common into the provider's cache, and then read it there. Worth it for a large shared document."""
    join: JoinPolicy | None = None
    """When it begins, where it waits for several branches: `"all"`, a number, or a table. On a last step with `each`
    that waits for none: how what its branches put out becomes the list that the run puts out."""
    when: Conditions | None = None
    """What is to hold for it to be done, else it is skipped: `{ "classify.kind" = ["refund", "complaint"] }`, a value
    or a list of them by path into an input or an earlier step's output; all of them are to hold."""
    again: Again | None = None
    """From where, and for as long as what holds, all up to here is done once more:
    `{ from = "write", when = { "review.verdict" = "revise" }, max_rounds = 3 }`."""
    on_error: OnError | None = None
    """When it fails: `fail` the run, or `continue` with the error in `errors`. The flow's unless set."""
    timeout_s: float | None = None
    """Of one attempt. The agent's unless set."""
    delivery: Delivery | None = None
    """How its model calls are made, `live` or in a `batch`. The agent's unless set."""
    batch: BatchPolicy | None = None
    """When what was gathered is sent. The agent's unless set."""


class Flow(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A named graph of steps. `check.check_flow` says whether it can run."""

    name: str
    """What it is called in the log: letters, digits, `_` and `-`."""
    v: int = FORMAT
    """The version of the format of flows."""
    description: str = ""
    """What it does, for people."""
    input: dict[str, Field] = {}
    """What a run is given, by name."""
    tiers: dict[str, Tier] = {}
    """Names for kinds of models, so that one line decides which each is."""
    providers: dict[str, Provider] = {}
    """Servers besides the one that the environment names, by the name that stands before the slash in their models."""
    limits: dict[str, Limit] = {}
    """By model, or tier: what all workers together may ask of it."""
    agents: dict[str, Agent]
    """Who does the work, by name."""
    steps: dict[str, Step]
    """What is done, by name."""
    on_error: OnError = "fail"
    """When a step fails: `fail` the run, or `continue` with the error in `errors`; a step may have its own."""
    deadline_s: float | None = None
    """From the start of a run: then it ends as `expired`, unless it has ended."""
    budget: Budget | None = None
    """What may be spent on models: `{ usd = 2.0, tokens = 500_000 }` by a run with all that it asks for, `usd_per_day`
    and `tokens_per_day` by all runs of the flow in a day of UTC. No call is made that could cost more than is left."""
    on_budget: OnBudget = "fail"
    """When a call could cost more than is left: `fail` the run, or `park` it, held by nobody, until it may spend more
    (`baton retry RUN --budget 5`) or the next day begins."""
    mcp: dict[str, Mcp] = {}
    """MCP servers, by name: agents use them as `mcp:NAME` in their `tools`."""
    flows: dict[str, Flow] = {}
    """The flows that its agents are, by what `flow` says of each: not written in a file, but read from theirs."""


DEFAULT_TIERS = {
    "worker": Tier(model="claude-haiku-4-5", max_tokens=1024),
    "synthesis": Tier(model="claude-sonnet-4-6", max_tokens=4096),
}
"""Cheap models for workers, strong ones for synthesis; a flow file overrides either."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Flow)


def encode_flow(flow: Flow) -> bytes:
    """Return the flow as JSON. Steps keep their order: it has a meaning, so flows that differ in it differ."""
    return _encoder.encode(flow)


def decode_flow(data: bytes | Raw) -> Flow:
    """Return the flow in `data`. Raises `msgspec.DecodeError`."""
    return _decoder.decode(data)


def flow_digest(body: bytes) -> str:
    """Return the name of this very version of a flow: half a SHA-256 of its bytes, in hex."""
    return hashlib.sha256(body).hexdigest()[:32]
