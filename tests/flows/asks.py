"""The handlers of `asks.toml`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from baton_actors import Context, Fail, actor


@actor
async def lead(topic: str, questions: int, deep: int, fails: int, pause_s: float, context: Context) -> dict[str, Any]:
    """Ask for all answers at once, then have them checked; checks that fail are counted."""
    began = await context.record("began", time.time)
    answers = await context.gather(
        *[context.ask("researcher", question=f"question {number}", topic=topic) for number in range(1, questions + 1)]
    )
    checks = [
        context.ask("checker", deep=deep, topic=topic, pause_s=pause_s, fails=number < fails)
        for number in range(fails + 1)
    ]
    checked = await context.gather(*checks, failed="return")
    await context.sleep(pause_s)
    done = sum(isinstance(each, str) for each in checked)
    return {"answers": answers[:3], "checked": done, "began": began > 0}


@actor
async def checker(deep: int, topic: str, pause_s: float, fails: bool, context: Context) -> str:
    """Have a checker of one less look first."""
    await asyncio.sleep(pause_s)
    if fails:
        raise Fail(f"no check of {topic}")
    if deep > 1:
        return str(await context.ask("checker", deep=deep - 1, topic=topic, pause_s=pause_s, fails=False)) + "+"
    return str(await context.ask("researcher", question="is it so", topic=topic))
