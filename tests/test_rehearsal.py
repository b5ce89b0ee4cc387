"""The rehearsal model: read as a model's answer is, and the ranking of sentences by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import pytest
from pytest_httpserver import HTTPServer

from baton_actors.models import Models, ModelSettings
from baton_actors.models.rehearsal.extract import answer_from
from baton_actors.models.rehearsal.model import events_of, request_id_of
from baton_actors.models.rehearsal.sentences import sentences_of, split_prompt
from baton_actors.models.rehearsal.shape import Shape, shape_of

from .model_servers import request_for, settings_for, sse

REPORT = """# Harbour report

The harbour of Port Ellis moved 4.2 million tonnes of cargo last year. Grain made up half of that cargo.
Dr. Okafor, who runs the harbour, expects more grain next year.

The crane on the north quay failed twice. Each failure of the crane held ships for three days. A new crane
costs 9 million dollars, and the harbour has no budget for it.

- Ships waited 31 hours on average.
- Fishing boats are not counted in the cargo figures.

| quay | tonnes |
| north | 12 |

The council votes on the harbour budget in May. Without a new crane, grain traders will use Port Mercer.
"""


def document(instruction: str, text: str = REPORT) -> str:
    return f"{instruction}\n\n<document>\n{text}\n</document>"


async def test_call_without_credentials_is_rehearsed() -> None:
    chunks: list[str] = []
    async with Models(ModelSettings()) as models:
        answer = await models.complete(request_for(document("Give 3 bullets.")), chunks.append)
    lines = answer.text.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("- ") and line[2:] in " ".join(REPORT.replace("- ", "").split()) for line in lines)
    assert len(chunks) > 1
    assert "".join(chunks) == answer.text
    assert answer.rehearsed
    assert (answer.cost_usd, answer.stop_reason, answer.truncated) == (0.0, "end_turn", False)
    assert answer.model == "claude-haiku-4-5"
    assert answer.usage.output_tokens == len(answer.text) // 4
    assert answer.usage.input_tokens > answer.usage.output_tokens
    assert answer.request_id.startswith("req_rehearsal_")


@pytest.mark.parametrize("max_tokens", [10, 100])
async def test_sdk_reads_the_same_out_of_the_events_of_a_rehearsal(httpserver: HTTPServer, max_tokens: int) -> None:
    """So a flow that rehearses does nothing that it would not do with a model, though the SDK is not in the way."""
    request = request_for(document("Give 3 bullets."), max_tokens=max_tokens)
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(*events_of(request)), content_type="text/event-stream", headers={"request-id": request_id_of(request)}
    )
    by_sdk: list[str] = []
    async with Models(settings_for(httpserver.url_for(""))) as models:
        read = await models.complete(request, by_sdk.append)
    chunks: list[str] = []
    async with Models(ModelSettings()) as models:
        answer = await models.complete(request, chunks.append)
    assert (chunks, answer) == (by_sdk, msgspec.structs.replace(read, rehearsed=True, cost_usd=0.0))


def test_rehearsal_imports_no_sdk() -> None:
    code = (
        "import asyncio, sys; from baton_actors.models import *; "
        "r = ModelRequest(model='m', system='', prompt='Why?', max_tokens=9, timeout_s=9); "
        "print(asyncio.run(Models(ModelSettings()).complete(r)).rehearsed, 'anthropic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True False\n"


async def test_rehearsal_stops_at_max_tokens() -> None:
    async with Models(ModelSettings()) as models:
        answer = await models.complete(request_for(document("Three paragraphs."), max_tokens=10))
    assert len(answer.text) == 40
    assert answer.truncated


async def test_rehearsal_goes_before_credentials_when_asked_for() -> None:
    settings = ModelSettings.from_environ({"ANTHROPIC_API_KEY": "key", "BATON_REHEARSE": "1"})
    async with Models(settings) as models:
        answer = await models.complete(request_for(document("Summarise.")))
    assert answer.rehearsed


async def test_prompt_without_text_is_answered_by_saying_so() -> None:
    async with Models(ModelSettings()) as models:
        answer = await models.complete(request_for("Write a haiku about the sea."))
    assert "no text to draw on" in answer.text
    assert "haiku about the sea" in answer.text
    assert "ANTHROPIC_API_KEY" in answer.text


def test_answer_is_the_same_in_every_process() -> None:
    code = (
        "import sys; from baton_actors.models.rehearsal.extract import answer_from; print(answer_from('', sys.argv[1]))"
    )
    prompt = document("Five bullets.")
    answers = {
        subprocess.run(
            [sys.executable, "-c", code, prompt],
            env={"PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {answer_from("", prompt)}


@pytest.mark.parametrize(
    ("instruction", "shape"),
    [
        ("Summarise this as bullet points.", Shape("bullets", 5)),
        ("Give me a bulleted list", Shape("bullets", 5)),
        ("List the 7 key takeaways", Shape("bullets", 7)),
        ("Write three short paragraphs, one sentence on each risk", Shape("paragraphs", 12, 3)),
        ("A single paragraph, please", Shape("paragraphs", 4, 1)),
        ("Say it in one sentence.", Shape("paragraphs", 1)),
        ("A one-sentence verdict", Shape("paragraphs", 1)),
        ("3-5 bullets", Shape("bullets", 3)),
        ("Return a JSON array of 4 questions", Shape("json", 4)),
        ("Be brief.", Shape("paragraphs", 4)),
        ("List the complaints, one short line each.", Shape("lines", 5, faults=True)),
        ("Name 3 facts, one per line.", Shape("lines", 3)),
        ("Edit the draft.", Shape("paragraphs", 12, 3)),
        ("900 bullets", Shape("bullets", 50)),
    ],
)
def test_form_of_the_answer_follows_the_instruction(instruction: str, shape: Shape) -> None:
    assert shape_of(instruction) == shape


def test_prompt_decides_the_form_before_the_system_prompt() -> None:
    assert shape_of("Two sentences.", "Always use bullets.") == Shape("paragraphs", 2)
    assert shape_of("Go on.", "Always use bullets.") == Shape("bullets", 5)


def test_paragraphs_are_as_many_as_asked_for() -> None:
    assert len(answer_from("", document("Write three paragraphs.")).split("\n\n")) == 3
    assert len(answer_from("", document("Write a summary.")).split("\n\n")) == 1


def test_list_as_json_can_be_parsed() -> None:
    items = json.loads(answer_from("", document("Give a JSON list of 3 facts.")))
    assert len(items) == 3
    assert all(isinstance(item, str) for item in items)


def test_picked_sentences_keep_their_order_and_leave_headings_and_tables_out() -> None:
    everything = answer_from("", document("Ten sentences."))
    assert everything.index("4.2 million") < everything.index("Ships waited") < everything.index("council votes")
    assert "Harbour report" not in everything
    assert "|" not in everything


def test_sentences_end_where_sentences_end() -> None:
    texts = [sentence.text for sentence in sentences_of([REPORT])]
    assert "Dr. Okafor, who runs the harbour, expects more grain next year." in texts
    assert "Ships waited 31 hours on average." in texts
    assert len(texts) == 10


def test_words_of_the_question_pull_their_sentences_up() -> None:
    assert "Fishing boats" in answer_from("", document("In one sentence: what about fishing boats?"))
    assert "Fishing boats" not in answer_from("", document("In one sentence: what of the crane?"))


def test_merger_draws_on_every_part() -> None:
    parts = [f"Part {name} is about {name} and says so. It goes on about {name} a little." for name in "xyz"]
    tagged = "\n".join(f'<part name="{place}">{part}</part>' for place, part in enumerate(parts))
    answer = answer_from("", f"Merge the parts into 3 bullets.\n{tagged}")
    assert [line[7] for line in answer.splitlines()] == ["x", "y", "z"]


def test_text_is_what_stands_between_tags() -> None:
    prompt = (
        "Use the text in <notes> tags only.\n<example>An example of the style.</example>\n"
        "<notes>All of <b>this</b> is text.</notes>\nAnswer in one sentence."
    )
    blocks, instruction = split_prompt(prompt)
    assert blocks == ["All of <b>this</b> is text."]
    assert "An example" in instruction
    assert "one sentence" in instruction


def test_without_tags_the_long_paragraphs_are_the_text() -> None:
    long = "The tide comes in twice a day and " * 8
    blocks, instruction = split_prompt(f"Give two bullets.\n\n{long}\n\nA short one.\n\n{long}\n\nThanks!")
    assert blocks == [long, "A short one.", long]
    assert instruction == "Give two bullets.\nThanks!"


def test_repeated_sentence_is_picked_once() -> None:
    text = "The same thing is said again. " * 5 + "Another thing is said once."
    answer = answer_from("", document("Five bullets.", text))
    assert answer.splitlines() == ["- The same thing is said again.", "- Another thing is said once."]


@pytest.mark.parametrize(
    "unit",
    [
        REPORT,
        "<a1>",
        "<x ",
        " ",
        "\n ",
        "word ",
        ". ",
        '."',
        "one to ",
        "JSON ",
        "Dr. A",
        "```",
        "中文。",
        '{"a": ',
        "one of: a, ",
        "Mail: a b c\n",
        "JSON with keys a (b ",
        '"a": "',
        "a or ",
        "one line each ",
    ],
)
def test_long_prompts_are_answered_in_linear_time(unit: str) -> None:
    """A pattern that backtracks takes minutes here; 600,000 characters take 0.2 s on a slow machine."""
    long = unit * (600_000 // len(unit))
    started = time.process_time()
    assert answer_from("", f"20 bullets\n\n<document>{long}</document>")
    assert answer_from("", long)
    assert time.process_time() - started < 4


MAIL = "I was charged twice for order 4711. Please refund one of them. Your site is great otherwise."


@pytest.mark.parametrize(
    ("prompt", "offered"),
    [
        (f"Classify this mail:\n\n{MAIL}\n\nAnswer with one of: money, goods, praise.", ["money", "goods", "praise"]),
        (f"Mail: {MAIL}\nClassify it as a bug, billing or a question.", ["a bug", "billing", "a question"]),
        (f"<mail>{MAIL}</mail>\nAnswer with one word: delivery, refund or spam.", ["refund"]),
        (f"<mail>{MAIL}</mail>\nIs it angry? Answer yes or no.", ["yes", "no"]),
        (f"<mail>{MAIL}</mail>\nGive its priority, a number from 1 to 5.", ["1", "2", "3", "4", "5"]),
    ],
)  # fmt: skip
def test_choice_that_is_offered_is_made_the_same_each_time(prompt: str, offered: list[str]) -> None:
    answer = answer_from("", prompt)
    assert answer in offered
    assert answer == answer_from("", prompt)


def test_choice_that_the_text_names_is_taken() -> None:
    prompt = (
        "<mail>There is a bug in it. This bug is bad, and a question too.</mail>\nAnswer with one of: question, bug."
    )
    assert answer_from("", prompt) == "bug"


def test_object_as_json_has_the_keys_that_are_shown_or_named() -> None:
    shown = '{"kind": "billing|bug", "prio": "1-5", "summary": "one sentence", "urgent": true, "tags": ["…"], "n": 1}'
    found = json.loads(answer_from("", f"<mail>{MAIL}</mail>\nReply with JSON: {shown}"))
    assert found["kind"] in ("billing", "bug")
    assert 1 <= found["prio"] <= 5
    assert found["summary"] in MAIL
    assert isinstance(found["urgent"], bool)
    assert (found["tags"][0] in MAIL, found["n"]) == (True, 1)
    named = json.loads(
        answer_from("", f"<mail>{MAIL}</mail>\nReturn a JSON object with the keys kind (a, b) and text.")
    )
    assert (named["kind"] in "ab", named["text"] in MAIL, len(named)) == (True, True, 2)
    several = json.loads(answer_from("", 'Return a JSON list of 3 objects {"question": "…"} on tides.'))
    assert [list(each) for each in several] == [["question"]] * 3


def test_object_in_a_prompt_is_no_form_unless_json_is_asked_for() -> None:
    assert "stands for an answer" in answer_from("", 'What of {"total": 3}?')


def test_lines_of_faults_leave_praise_out() -> None:
    text = "The battery dies after two hours. I love the screen, though. Support never answered."
    answer = answer_from("", f"List the complaints, one short line each.\n<review>{text}</review>")
    assert answer.splitlines() == ["The battery dies after two hours.", "Support never answered."]


def test_json_in_a_prompt_is_read_as_text() -> None:
    counts = '<complaints>\n{"the battery dies.":2,"it broke.":1}\n</complaints>\n\nOne paragraph on what to mend.'
    assert answer_from("", counts) == "The battery dies (2). It broke (1)."
    nested = '<mails>[{"id": 1, "body": "I want my money back now"}]</mails>\nTwo bullets.'
    assert "- I want my money back now" in answer_from("", nested)


def test_scrap_of_text_is_better_than_none() -> None:
    assert answer_from("", "<review>\nBroken.\n</review>\nOne sentence.") == "Broken."
    assert answer_from("", "<kinds>\n[2] billing\n\n[4] praise\n</kinds>\nTwo sentences.") == "billing praise"


def test_prompt_without_text_is_answered_in_its_form() -> None:
    assert answer_from("", "Why is the sky blue?").startswith(
        "This stands for an answer to: Why is the sky blue? It is"
    )
    bullets = answer_from("", 'Say what an article on "Tidal power" needs, as three bullets.').splitlines()
    assert bullets == [f"- Rehearsed point {number} of 3 on: Tidal power." for number in (1, 2, 3)]
    assert len(json.loads(answer_from("", "Give a JSON list of 4 questions."))) == 4
    assert "an empty prompt" in answer_from("", "")
