"""The tokens of steps, branches, rounds and children; and the indices of branches as ranges."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baton_schemas.run.refs import ITSELF, StepRef, indices, is_plain, name_of, parse, ranges, replied, tokens
from baton_schemas.wire.names import TOKEN
from baton_schemas.wire.outcomes import Skipped

from .logs import reply

NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True).filter(is_plain)
REFS = st.builds(
    StepRef,
    name=NAMES,
    index=st.none() | st.integers(0, 10**6),
    round=st.integers(0, 99),
    key=st.from_regex(r"[0-9a-f]{0,16}", fullmatch=True),
)
TOKENS = st.from_regex(r"[a-z0-9kr-]{1,16}", fullmatch=True)
"""Few characters, those that mean something more often than others."""


@given(REFS)
def test_reference_comes_back_from_its_token(ref: StepRef) -> None:
    assert parse(ref.token) == ref
    assert name_of(ref.token) == ref.name


@given(REFS, REFS)
def test_no_two_references_have_one_token(one: StepRef, other: StepRef) -> None:
    assert (one.token == other.token) == (one == other)


@given(st.one_of(TOKENS, st.text(max_size=20)))
@example("digest-03")
@example("digest-\N{ARABIC-INDIC DIGIT THREE}")
@example("digest--3")
@example("a--r0")
@example("a--r01")
@example("a--k")
@example("a--k1--r1")
@example("a--r1--r2")
@example("a--x")
@example("--r1")
@example("-3")
@example("")
def test_token_has_one_meaning_whatever_it_is(token: str) -> None:
    assert parse(token).token == token


@pytest.mark.parametrize(
    ("token", "ref"),
    [
        ("write", StepRef("write")),
        ("digest-0", StepRef("digest", 0)),
        ("read-me-12", StepRef("read-me", 12)),
        ("draft--r2", StepRef("draft", round=2)),
        ("draft-3--r2--kab12", StepRef("draft", 3, 2, "ab12")),
        ("digest-03", StepRef("digest-03")),
    ],
)
def test_token_means(token: str, ref: StepRef) -> None:
    assert parse(token) == ref


@pytest.mark.parametrize("name", ["a-", "-", "draft-2", "draft-02", "a--b", "a--r1", "--", "a-1"])
def test_name_with_a_token_that_means_something_else_is_not_plain(name: str) -> None:
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["a", "-a", "draft2", "draft_2", "r1", "k", "2", "read-me", "a-r1"])
def test_other_names_are_plain(name: str) -> None:
    assert is_plain(name)


def test_longest_name_of_a_step_still_has_branches() -> None:
    ref = StepRef("x" * 57, 10_000)

    assert TOKEN.match(ref.token)


def test_reply_is_about_its_branch_and_about_the_source_when_its_list_was_empty() -> None:
    ended = Skipped(reason="")

    assert replied(reply("digest-2", "merge", ended, of=3)) == "digest-2"
    assert replied(reply("digest-0", "merge", ended, of=1)) == "digest-0"
    assert replied(reply("digest", "merge", ended, of=0)) == "digest"
    assert replied(reply("facts", "merge", ended)) == "facts"


# ---- ranges --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60)))
def test_indices_come_back_from_ranges_in_order(found: list[int]) -> None:
    assert indices(ranges(found)) == sorted(set(found))


@pytest.mark.parametrize(
    ("found", "text"),
    [([], ""), ([0], "0"), ([7, 0, 1, 2, 3, 4], "0-4,7"), ([0, 1], "0-1"), ([1, 1], "1"), ([9, 10, 100], "9-10,100")],
)
def test_ranges_are_the_shortest(found: list[int], text: str) -> None:
    assert ranges(found) == text


def test_ranges_of_ten_thousand_indices_are_bounded() -> None:
    assert ranges(range(10_000)) == "0-9999"
    assert len(ranges(range(1, 10_000, 2))) < 25_000


@given(st.text(st.sampled_from("0123456789-,* x+_\N{ARABIC-INDIC DIGIT THREE}"), max_size=12))
def test_text_that_is_no_ranges_is_refused(text: str) -> None:
    try:
        found = indices(text)
    except ValueError:
        return
    assert found == sorted(set(found))
    assert text == ITSELF or indices(ranges(found)) == found


@pytest.mark.parametrize(
    "text", ["x", "1-", "-1", "--", "1,", ",1", " 1", "1_0", "+1", "5-2", "3,2", "1,1", "0-3,3", "9" * 9999]
)
def test_text_that_ranges_never_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|rise|at most"):
        indices(text)


@pytest.mark.parametrize("text", ["0-9999999", "0-1000001", ",".join(["0-1000000"] * 500)])
def test_text_of_a_stranger_does_not_fill_our_memory(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"at most|rise"):
        indices(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000_000


def test_branches_of_a_source_are_named_by_their_tokens() -> None:
    assert tokens("digest", "0-1,3") == ["digest-0", "digest-1", "digest-3"]
    assert tokens("facts", ITSELF) == ["facts"]
