"""I5: the chain of a join names what came, each once; the join closes when it has enough, with all of that."""

from __future__ import annotations

from collections.abc import Iterator

from .demands import Demands
from .flow_file import indices
from .raw import Record
from .run_log import DEADLINE, Chain
from .twins import Failed


def chain_of(run: Demands, join: str) -> Chain:
    """Return what the links of a join come to, in their order."""
    if join not in run.chains:
        run.chains[join] = _fold(run, join)
    return run.chains[join]


def join_violations(run: Demands, join: str) -> Iterator[str]:
    chain = chain_of(run, join)
    yield from chain.wrong
    yield from _closing(run, join, chain)


def _fold(run: Demands, join: str) -> Chain:
    chain = Chain({source: {} for source in run.flow.sources[run.flow.base(join)]}, suffix=_round_of(run, join))
    what = f"I5 the join at {join} of run {run.run}"
    for number, link in enumerate(run.log.links[join], 1):
        body = link.body or {}
        if body.get("number") != number or link.rest != (join, str(number)):
            chain.wrong.append(f"{what}: link {number} of its chain is {body.get('number')}, on {link.subject}")
        if chain.enough_at is not None:
            chain.wrong.append(f"{what}: link {number} was added when it had all it needs")
        chain.counts.update(body.get("counts", {}))
        chain.deadline = chain.deadline or body.get("deadline", False)
        if body.get("deadline") and not _is_before(run.log.replies.get((join, DEADLINE)), link):
            chain.wrong.append(f"{what}: link {number} speaks of a deadline that had not come")
        chain.left_out.update(body.get("left_out", {}))
        for source, text in body.get("came", {}).items():
            for index in indices(text):
                empty = chain.counts.get(source) == 0
                token = source if index is None or empty else f"{source}-{index}"
                reply = run.log.replies.get((join, token))
                if reply is None or not _is_before(reply, link):
                    chain.wrong.append(f"{what}: link {number} names {token}, which had not come")
                elif source not in chain.came or index in chain.came[source]:
                    chain.wrong.append(f"{what}: link {number} names {token}, which is in it or none of its")
                else:
                    chain.came[source][index] = reply
        if _is_enough(run, join, chain):
            chain.enough_at = chain.enough_at or link
    return chain


def _closing(run: Demands, join: str, chain: Chain) -> Iterator[str]:
    what = f"I5 the join at {join} of run {run.run}"
    closing = run.log.closing(join)
    if closing is None:
        if chain.enough_at is not None and run.is_done:
            yield f"{what} had all it needs, and did not close"
        return
    named = run.inputs.named(join)
    if chain.enough_at is None or closing.seq < chain.enough_at.seq:
        yield f"{what} closed with {named}, before it had what the flow asks for"
        return
    if set(named) != chain.arrived:
        yield f"{what} closed with {named}, its chain has {sorted(chain.arrived)}"
    cause = (closing.body or {})["cause"]
    if cause.get("deadline", False) != chain.deadline:
        yield f"{what} closed {'without' if chain.deadline else 'with'} a deadline, against its chain"
    everyone = [token for source in run.course.sources(join) for token in run.inputs.tokens(source)]
    if run.flow.policy(run.flow.base(join)).wait is None and not chain.deadline and named != everyone:
        yield f"{what} closed with {named}, the flow has {everyone}"
    if not set(named) <= set(everyone):
        yield f"{what} closed with {named}, of which the flow has only {everyone}"
    for source in run.course.sources(join):
        why, name = run.inputs.left_out(source) if run.inputs.is_left_out(source) else (), run.flow.base(source)
        said = cause.get("left_out", {}).get(name)
        if (said not in why if why else said is not None) or chain.left_out.get(name) != said:
            yield f"{what} says that {name} is left out as {said}, the flow leaves it out as {why}"
    short = run.ended(join) == Failed(join, "JoinShort")
    if (cause.get("error") is not None) != short:
        yield f"{what} closed {'without' if short else 'with'} the error that too few of its branches ended well"


def _is_enough(run: Demands, join: str, chain: Chain) -> bool:
    well, step = 0, run.flow.base(join)
    for source, found in chain.came.items():
        statuses = [(each.body or {})["outcome"]["status"] for each in found.values()]
        well += statuses.count("done")
        if "failed" in statuses and run.flow.fails_run(source, step):
            return False
    wait, counts = run.flow.policy(step).wait, chain.counts
    if chain.deadline or (wait is not None and well >= wait):
        return True
    return all(source in counts and len(found) >= counts[source] for source, found in chain.came.items())


def _round_of(run: Demands, join: str) -> str:
    return join.removeprefix(run.flow.base(join))


def _is_before(one: Record | None, other: Record) -> bool:
    return one is not None and one.seq < other.seq
