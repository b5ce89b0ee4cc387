"""The shipped flow `deep-research`: an agent that decides in Python whom to ask, and when it knows enough."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from baton_actors import AskFailed, Fail
from baton_actors.flows.deep_research import lead, listed
from baton_schemas.wire.outcomes import Error


class Answers:
    """Stands in for the Context: answers what is scripted, and keeps who was asked what."""

    def __init__(self, **scripted: Any) -> None:
        self._scripted = scripted
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(self, agent: str, **arguments: Any) -> Any:
        self.asked.append((agent, arguments))
        answer = self._scripted[agent]
        return answer(**arguments) if callable(answer) else answer

    async def gather(self, *asked: tuple[str, dict[str, Any]], failed: str) -> list[Any]:
        assert failed == "return"
        return list(await asyncio.gather(*(self.ask(agent, **arguments) for agent, arguments in asked)))

    def of(self, agent: str) -> list[dict[str, Any]]:
        return [arguments for each, arguments in self.asked if each == agent]


def lost(question: str, **_: str) -> Any:
    return AskFailed("researcher", Error(step="researcher--kx", type="Overloaded", message=question))


def found(question: str, **_: str) -> str:
    return f"So it is: {question}"


async def research(context: Answers, rounds: int = 2) -> str:
    return str(await lead(question="Why?", notes="", rounds=rounds, context=context))


async def test_each_question_is_researched_and_named_as_a_source() -> None:
    context = Answers(planner="- A?\n- B?", researcher=found, critic="none", writer="Because [1].")
    text = await research(context)
    assert [each["question"] for each in context.of("researcher")] == ["A?", "B?"]
    assert text == "Because [1].\n\nSources: what was asked\n[1] A?\n[2] B?"


async def test_what_is_missing_is_asked_again_and_nothing_twice() -> None:
    context = Answers(planner="A?", researcher=found, critic="C?\nA?", writer="So.")
    text = await research(context)
    assert [each["question"] for each in context.of("researcher")] == ["A?", "C?"]
    assert "[2] C?" in text


async def test_it_ends_after_as_many_rounds_as_it_may_ask() -> None:
    numbers = iter(range(100))
    context = Answers(planner="A?", researcher=found, critic=lambda **_: f"Q{next(numbers)}?", writer="So.")
    await research(context, rounds=4)
    assert len(context.of("researcher")) == 4
    assert len(context.of("critic")) == 3


async def test_question_that_cannot_be_researched_is_a_gap() -> None:
    def some(question: str, **more: str) -> Any:
        return lost(question, **more) if question == "A?" else found(question, **more)

    context = Answers(planner="A?\nB?", researcher=some, critic="none.", writer=lambda findings, **_: findings)
    text = await research(context)
    assert "Nothing was found" in text
    assert "So it is: B?" in text


async def test_research_in_which_all_fails_fails() -> None:
    context = Answers(planner="A?", researcher=lost, critic="none", writer="never")
    with pytest.raises(Fail, match="none of 1 questions"):
        await research(context)
    assert not context.of("writer")


async def test_plan_without_questions_is_the_question_itself() -> None:
    context = Answers(planner="none", researcher=found, critic="none", writer="So.")
    assert "[1] Why?" in await research(context)


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("1. A?\n2) B?\n\n* C?\n", ["A?", "B?", "C?"]),
        ("A?\nA?", ["A?"]),
        ("None.", []),
        ("", []),
        ("none of it?\nB?", ["none of it?", "B?"]),
        ("2 plus 2?", ["2 plus 2?"]),
    ],
)
def test_questions_are_taken_line_by_line(text: str, questions: list[str]) -> None:
    assert listed(text) == questions
