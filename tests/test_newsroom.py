"""The shipped newsroom as a user runs it: rehearsed, and against a Messages API over real HTTP that calls tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from .commands import baton, here
from .model_servers import calls, says

TOPIC = "topic=Tidal power"


def test_newsroom_is_rehearsed_without_a_key(tmp_path: Path) -> None:
    ended = baton("run", "newsroom", TOPIC, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    paragraphs = ended.stdout.strip().split("\n\n")
    assert len(paragraphs) == 3
    assert all("Tidal power" in paragraph for paragraph in paragraphs)
    assert "rehearsed" in ended.stderr
    log = here("log", cwd=tmp_path).stdout
    notes = [line for line in log.splitlines() if "note     publish" in line]
    said = [line.split(", ")[-1] for line in notes]
    assert said == ["calls researcher 3 times", "calls writer", "calls editor", "rehearsed"]
    (run,) = re.findall(r"baton show (\S+)", ended.stderr)
    page = here("show", run, "publish", cwd=tmp_path).stdout
    assert "asked its workers" in page
    assert 'researcher(question="What is Tidal power, and why does it matter?")' in page
    assert "as it was sent: its hash is the recorded one" in page


def test_graph_says_who_may_ask_whom(tmp_path: Path) -> None:
    drawn = here("graph", "newsroom", cwd=tmp_path).stdout
    assert [line.split("asks ")[1] for line in drawn.splitlines() if "asks " in line] == [
        "researcher",
        "writer",
        "editor",
    ]
    facts = json.loads(here("graph", "newsroom", "--json", cwd=tmp_path).stdout)
    assert facts["steps"][0]["workers"] == [asked["agent"] for asked in facts["asked"]]
    assert facts["asked"][0]["input"] == {"question": {"type": "str", "required": True}}
    mermaid = here("graph", "newsroom", "--mermaid", cwd=tmp_path).stdout.splitlines()
    assert mermaid[-6:-3] == ['  a1("researcher")', '  a2("writer")', '  a3("editor")']
    assert mermaid[-3:] == [f"  s0 -.->|asks| a{number}" for number in (1, 2, 3)]


class Staff:
    """The models of a newsroom: the chief's is known by its tools, the others' are by what they are asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.asked: list[str] = []
        self.told: list[Any] = []
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        body: Any = request.get_json()
        messages = body["messages"]
        if "tools" not in body:
            self.asked.append(messages[0]["content"])
            return Response(says(f"Fact {len(self.asked)}."), content_type="text/event-stream")
        if len(messages) > 1:
            self.told.append([block for block in messages[-1]["content"] if block["type"] == "tool_result"])
        match len(messages):
            case 1:
                asks = [calls("researcher", f"toolu_{n}", {"question": f"question {n}"}) for n in range(3)]
                said = says("First research.", *asks, calls("photographer", "toolu_x"))
            case 3:
                research = "\n".join(block["content"] for block in self.told[-1] if not block.get("is_error"))
                said = says(calls("writer", "toolu_w", {"topic": "Tidal power", "research": research}))
            case _:
                said = says("Tidal power\n\nIt is done.")
        return Response(said, content_type="text/event-stream")


def test_newsroom_does_what_its_model_decides(httpserver: HTTPServer, tmp_path: Path) -> None:
    staff = Staff(httpserver)
    env = {"ANTHROPIC_BASE_URL": httpserver.url_for(""), "ANTHROPIC_API_KEY": "test-key"}
    ended = baton("run", "newsroom", TOPIC, "--json", cwd=tmp_path, **env)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert (facts["status"], facts["output"]) == ("done", "Tidal power\n\nIt is done.")
    first, second = staff.told
    assert sorted(block["content"] for block in first[:3]) == ["Fact 1.", "Fact 2.", "Fact 3."]
    assert first[3]["is_error"]
    assert "There are: researcher, writer, editor." in first[3]["content"]
    assert [block["content"] for block in second] == ["Fact 4."]
    assert "question 2" in "".join(staff.asked)
    assert all(fact in staff.asked[3] for fact in ("Fact 1.", "Fact 2.", "Fact 3."))
    assert facts["usage"]["input_tokens"] == 10 * (3 + 4)
