"""Documents and pictures on their way to a model, over real HTTP: in their places, byte for byte, and paid once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors import Fail, File
from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.errors import FileRefused
from baton_actors.flows.pages import parts_of_pdf
from baton_actors.flows.report import split
from baton_actors.models.files import check_contents
from baton_bus import Client, Settings
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.errors import FileGone
from baton_schemas.show.asked import Asked, Part
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Done, Failed

from .commands import baton, here
from .document_server import Documents, playing
from .pdfs import pages_in, pdf, png, written
from .servers import WAIT_S, NatsServer

FLOW = """
name = "look"
input = { paper = "file", more = { type = "list[file]", default = [] } }
agents.reader = { model = "worker", prompt = "Read\\n{paper}\\nand {more}\\nnow.", max_attempts = 2 }
steps.read = { agent = "reader" }
"""


@pytest.fixture
def documents(httpserver: HTTPServer) -> Documents:
    return Documents(httpserver)


@pytest.fixture
def look(tmp_path: Path) -> FoundFlow:
    (tmp_path / "look.toml").write_text(FLOW)
    return find_flow(str(tmp_path / "look.toml"))


@pytest.fixture
def settings(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace, lease_s=1.0)


async def ended(client: Client, found: FoundFlow, **given: Any) -> Result:
    return await (await client.start(found.plan, given)).ended(WAIT_S)


def said_by(result: Result) -> str:
    assert isinstance(result.outcome, Failed), result
    return result.outcome.error.message


async def test_model_gets_the_very_bytes_of_files_in_their_places(
    settings: Settings, look: FoundFlow, documents: Documents, tmp_path: Path
) -> None:
    paper, picture = pdf(3), png(40, 30)
    more = [File.of(picture, name="crane.png"), File.of("Grüße.", name="note.txt")]
    async with playing(settings, look, documents) as client:
        result = await ended(client, look, paper=written(tmp_path / "paper.pdf", paper), more=more)
    assert result.status == "done"
    (content,) = documents.contents
    assert [block["type"] for block in content] == ["text", "document", "text", "image", "text"]
    assert content[0]["text"] == "Read\n"
    assert (content[1]["title"], content[1]["source"]["media_type"]) == ("paper.pdf", "application/pdf")
    assert content[2]["text"] == "\nand [1] "
    assert content[4]["text"] == "\n\n[2] Grüße.\nnow."
    assert documents.data_of("document") == [paper]
    assert documents.data_of("image") == [picture]


async def test_prompt_whose_files_are_text_is_sent_as_text(
    settings: Settings, look: FoundFlow, documents: Documents
) -> None:
    async with playing(settings, look, documents) as client:
        await ended(client, look, paper=File.of("\ufeffA. B.", name="a.txt"))
    assert documents.contents == ["Read\nA. B.\nand []\nnow."]


async def test_log_has_no_bytes_of_a_file_and_what_was_asked_is_proved(
    settings: Settings, look: FoundFlow, documents: Documents
) -> None:
    paper = File.of(pdf(2), name="paper.pdf")
    async with playing(settings, look, documents) as client:
        run = await client.start(look.plan, {"paper": paper})
        await run.ended(WAIT_S)
        entries = [entry async for entry in client.bus.log.read([client.bus.subjects.run(run.id)])]
        seen = await see_step(client.bus, await find_run(client.bus, run.id), "read")
        value = seen.values["paper"]
        assert isinstance(value, Raw)
        assert await client.download(msgspec.json.decode(value)) == paper.data
    assert all(len(entry.data) < 5_000 and b"JVBERi" not in entry.data for entry in entries)
    (call,) = [e.message.fact for e in entries if isinstance(e.message, Note) and isinstance(e.message.fact, ModelCall)]
    assert seen.proof == call.request_sha256
    assert seen.asked is not None
    assert "[paper.pdf, PDF, 2 pages, " in seen.asked.prompt


async def test_another_file_of_the_same_name_is_another_question(
    settings: Settings, look: FoundFlow, documents: Documents
) -> None:
    async with playing(settings, look, documents) as client:
        for pages in (1, 2):
            assert (await ended(client, look, paper=File.of(pdf(pages), name="p.pdf"))).status == "done"
    assert [len(pages_in(data)) for data in documents.data_of("document")] == [1, 2]


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (pdf(1, password="secret"), "locked.pdf", "qpdf --decrypt"),
        (pdf(601), "long.pdf", "601 pages of PDF in one request; claude-haiku-4-5 takes at most 100"),
        (png(9_000, 2), "wide.png", "at most 8,000 pixels a side"),
        (b"PK\x03\x04" + bytes(100), "a.docx", "models take PDF, PNG, JPEG, GIF, WebP and text"),
        ("Grüße".encode("latin-1"), "a.txt", "not UTF-8 (byte 0xfc at 2)"),
        (b"\xff\xfea\0", "b.txt", "it is in UTF-16"),
    ],
    ids=["encrypted", "pages", "pixels", "docx", "latin-1", "utf-16"],
)
async def test_what_no_model_takes_fails_at_once_says_why_and_asks_nobody(
    data: bytes, name: str, said: str, settings: Settings, look: FoundFlow, documents: Documents
) -> None:
    async with playing(settings, look, documents) as client:
        run = await client.start(look.plan, {"paper": File.of(data, name=name)})
        result = await run.ended(WAIT_S)
        (step,) = [each for each in (await run.state()).steps.values() if each.name == "read"]
    assert said_by(result).startswith(f"[{name}, ")
    assert said in said_by(result)
    assert step.attempts == 1
    assert documents.contents == []


@pytest.mark.parametrize("data", [b"", b" \n"])
def test_prompt_of_an_empty_text_alone_is_refused(data: bytes) -> None:
    given = File.of(data, name="a.txt")
    label = given.ref.label
    parts = (Part(text=" "), Part(text=label, file=given.ref))
    asked = Asked(model="claude-haiku-4-5", system="", prompt=f" {label}", max_tokens=9, parts=parts)
    with pytest.raises(FileRefused, match="it is empty, and the prompt has nothing else"):
        check_contents(asked, {given.sha256: data})
    check_contents(replace(asked, parts=(Part(text="Read: "), *parts)), {given.sha256: data})


async def test_file_that_is_not_stored_is_said_before_the_run_starts(
    settings: Settings, look: FoundFlow, documents: Documents
) -> None:
    gone = {"file": {"name": "a.pdf", "sha256": "a" * 64, "size_bytes": 7}}
    async with playing(settings, look, documents) as client:
        with pytest.raises(Exception, match=r"'more\[0\]': a.pdf: no 7 bytes with the SHA-256 a+ are stored"):
            await client.start(look.plan, {"paper": "text", "more": [gone]})
        with pytest.raises(FileGone):
            await client.download({"file": {**gone["file"], "media_type": "application/pdf"}})


async def test_report_reads_a_pdf_of_200_pages_five_at_a_time(
    settings: Settings, documents: Documents, tmp_path: Path
) -> None:
    report, paper = find_flow("report"), written(tmp_path / "paper.pdf", pdf(200))
    async with playing(settings, report, documents) as client:
        result = await ended(client, report, document=paper)
    assert isinstance(result.outcome, Done)
    sent = documents.blocks("document")
    parts = sorted(zip((block["title"] for block in sent), documents.data_of("document"), strict=True), key=_first_page)
    assert len(parts) == 40
    assert parts[0][0] == "paper, pages 1-5.pdf"
    assert [text for _, data in parts for text in pages_in(data)] == [f"Ship {page} waited." for page in range(1, 201)]
    assert len(documents.contents) == 42  # and merge, and edit


def _first_page(part: tuple[str, bytes]) -> int:
    return int(part[0].split("pages ")[1].split("-")[0])


def test_report_of_a_pdf_is_rehearsed_from_what_it_says(tmp_path: Path) -> None:
    written(tmp_path / "paper.pdf", pdf(7, "Crane {page} broke down."))
    ran = baton("run", "report", "document=@paper.pdf", cwd=tmp_path)
    assert (ran.returncode, "2/2" in ran.stderr) == (0, True), ran.stderr
    assert ran.stdout.startswith("Crane 1 broke down.")
    seen = here("show", ran.stderr.split("baton show ")[1].split()[0], "digest-1", cwd=tmp_path).stdout
    assert "  [paper, pages 6-7.pdf, PDF, 2 pages, " in seen
    assert "  the file: at most about 9,200 tokens of input" in seen


def test_same_pdf_is_split_into_the_same_bytes_each_time() -> None:
    data = pdf(7)
    first, again = (parts_of_pdf("paper.pdf", data, pages=3) for _ in range(2))
    assert [part.sha256 for part in first] == [part.sha256 for part in again]
    assert [(part.name, part.pages) for part in first] == [
        ("paper, pages 1-3.pdf", 3),
        ("paper, pages 4-6.pdf", 3),
        ("paper, page 7.pdf", 1),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pdf(3)[:400], "a.pdf is a PDF that cannot be read"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 9, "a.pdf is a PDF that cannot be read"),
        (pdf(1, password="secret"), "a.pdf is encrypted; take its password away first: qpdf --decrypt a.pdf"),
        (pdf(0), "a.pdf is a PDF without pages"),
        (pdf(1_001), "a.pdf has 1,001 pages; a report is made of at most 1,000"),
    ],
    ids=["cut off", "noise", "encrypted", "no pages", "1,001 pages"],
)
def test_pdf_that_cannot_be_split_says_why(data: bytes, said: str) -> None:
    with pytest.raises(Fail) as failed:
        split(document=File.of(data, name="a.pdf"))
    assert str(failed.value).startswith(said)


def test_report_without_pypdf_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(Fail, match=r"pip install 'baton-bus\[pdf\]'"):
        split(document=File.of(b"%PDF-1.7\n", name="a.pdf"))


def test_report_of_a_picture_says_what_it_is_made_of() -> None:
    with pytest.raises(Fail, match="made of a PDF or a text, and this is image/png"):
        split(document=File.of(png(2, 2), name="a.png"))
