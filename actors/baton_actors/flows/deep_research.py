"""The handler of `deep-research.toml`: an agent that decides in Python what to ask, whom, and when it knows enough."""

from __future__ import annotations

import re

from baton_actors import AskFailed, Context, Fail, actor

PLANNED_MAX, AGAIN_MAX = 5, 3
"""Questions of the first round, and of each later one."""
_MARK = re.compile(r"\s*(?:[-*\u2022]|\d+[.)])\s+")


@actor
async def lead(question: str, notes: str, rounds: int, context: Context) -> str:
    """Plan, research, look for gaps, write. Killed at any point, it goes on from there: nothing is asked twice."""
    plan = await context.ask("planner", question=question, notes=notes)
    questions, findings = listed(plan)[:PLANNED_MAX] or [question], list[tuple[str, str]]()
    for left in reversed(range(max(rounds, 1))):
        asked = [("researcher", {"question": each, "about": question, "notes": notes}) for each in questions]
        for each, answer in zip(questions, await context.gather(*asked, failed="return"), strict=True):
            # One that failed is a gap like any other: the rest is still worth an answer.
            findings.append((each, f"Nothing was found ({answer})." if isinstance(answer, AskFailed) else answer))
        if not left:
            break
        gaps = await context.ask("critic", question=question, findings=numbered(findings))
        questions = [each for each in listed(gaps) if each not in dict(findings)][:AGAIN_MAX]
        if not questions:
            break
    if all(answer.startswith("Nothing was found (") for _, answer in findings):
        raise Fail(f"none of {len(findings)} questions could be researched: {findings[0][1]}")
    text = await context.ask("writer", question=question, findings=numbered(findings))
    sources = "\n".join(f"[{number}] {each}" for number, (each, _) in enumerate(findings, 1))
    return f"{text}\n\nSources: what was asked\n{sources}"


def listed(text: str) -> list[str]:
    """Return the questions in an answer, one for each line, without bullets; none for the word `none`."""
    lines = (_MARK.sub("", line, count=1).strip() for line in text.splitlines())
    found = list(dict.fromkeys(line for line in lines if line))
    return [] if len(found) == 1 and found[0].strip(".").lower() == "none" else found


def numbered(findings: list[tuple[str, str]]) -> str:
    """Return what was found, each with its number and its question."""
    return "\n\n".join(f"[{number}] {asked}\n{answer}" for number, (asked, answer) in enumerate(findings, 1))
