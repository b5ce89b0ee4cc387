"""Files as values: what they are by their bytes, what is seen of them, where they stand in prompts, what they cost."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.fitting import misfits
from baton_actors.agents.handlers import Handler
from baton_actors.cli.inputs import read_input
from baton_actors.errors import FileRefused
from baton_actors.models.body import body_of, bound_of, bound_of_asked
from baton_actors.models.files import check_contents, check_files, content_of, text_with_files, tokens_of
from baton_schemas.errors import BadFile, FlowError, InputError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.versions import version_needed
from baton_schemas.show.asked import Asked, Part, asked_by
from baton_schemas.wire.files import File, FileRef, clean_name, described
from baton_schemas.wire.media import media_type_of
from baton_schemas.wire.messages import ASKING, FIRST

from .pdfs import pdf, png, written

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x1e\x00\x28\x03" + bytes(20)
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8X" + bytes(8) + b"\x27\x00\x00\x1d\x00\x00" + bytes(4)


def ref(name: str = "paper.pdf", media_type: str = "application/pdf", **more: Any) -> FileRef:
    known: dict[str, Any] = {"name": name, "media_type": media_type, "sha256": "a" * 64, "size_bytes": 1_000} | more
    return FileRef(**known)


def asked(*parts: str | FileRef, model: str = "claude-opus-4-7") -> Asked:
    made = tuple(Part(text=part) if isinstance(part, str) else Part(text=part.label, file=part) for part in parts)
    prompt = "".join(part.text for part in made)
    return Asked(model=model, system="", prompt=prompt, max_tokens=100, parts=made)


def flow_of(kind: str = "file", **agent: Any) -> Flow:
    keys: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 9, "prompt": "Read {doc} now."} | agent
    return Flow(
        name="f",
        input={"doc": Field(type=kind)},
        agents={"a": Agent(**keys)},
        steps={"a": Step(agent="a")},
    )


def asked_with(value: Any, kind: str = "file", **agent: str) -> Asked:
    plan = check_flow(flow_of(kind, **agent))
    return asked_by(plan, "a", {"doc": Raw(msgspec.json.encode(value))}, {})


@pytest.mark.parametrize(
    ("data", "name", "media_type", "label"),
    [
        (pdf(1), "a.pdf", "application/pdf", r"\[a.pdf, PDF, \d+ bytes\]"),
        (b"scanned by X\n" + pdf(1), "a", "application/pdf", r"\[a, PDF, .*\]"),
        (png(40, 30), "a.png", "image/png", r"\[a.png, PNG, 40 x 30, \d+ bytes\]"),
        (png(40, 30), "a.jpg", "image/png", r"\[a.jpg, PNG, 40 x 30, \d+ bytes\]"),
        (JPEG, "a.jpg", "image/jpeg", r"\[a.jpg, JPEG, 40 x 30, \d+ bytes\]"),
        (WEBP, "a.webp", "image/webp", r"\[a.webp, WebP, 40 x 30, \d+ bytes\]"),
        (b"GIF89a\x28\x00\x1e\x00" + bytes(9), "a.gif", "image/gif", r"\[a.gif, GIF, 40 x 30, \d+ bytes\]"),
        (b"a,b\n1,2\n", "a.csv", "text/csv", r"\[a.csv, text, 8 bytes\]"),
        ("Grüße".encode("latin-1"), "a.txt", "text/plain", r"\[a.txt, text, 5 bytes\]"),
        (b"BM is how this text begins", "a.txt", "text/plain", r"\[a.txt, text, .*\]"),
        (
            b"PK\x03\x04" + bytes(9),
            "a.docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "",
        ),
        (bytes(range(256)), "a.txt", "application/octet-stream", r"\[a.txt, application/octet-stream, 256 bytes\]"),
        (b"", "a.txt", "text/plain", r"\[a.txt, text, 0 bytes\]"),
    ],
)
def test_file_is_what_its_bytes_say(data: bytes, name: str, media_type: str, label: str) -> None:
    found = described(name, data)
    assert found.media_type == media_type == media_type_of(data[:4096], name)
    assert re.fullmatch(label or r".*", found.label)


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"hello", "a.pdf", "a.pdf is named as a PDF, and is none: by its content it is text"),
        (pdf(1), "a.png", "a.png is named as a picture, and is none: by its content it is a PDF"),
        (b"", "a.pdf", "a.pdf is empty"),
    ],
)
def test_file_that_is_not_what_its_name_says_is_refused(data: bytes, name: str, said: str) -> None:
    with pytest.raises(BadFile) as refused:
        File.of(data, name=name)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("/home/ann/paper.pdf", "paper.pdf"),
        ("C:\\papers\\a.pdf", "a.pdf"),
        ("a\x1b[31m\n.pdf", "a\ufffd[31m\ufffd.pdf"),
        ("a\u202efdp.exe", "a\ufffdfdp.exe"),
        ("x" * 300 + ".pdf", "x" * 195 + "…" + ".pdf"),
        ("", "file"),
    ],
)
def test_name_is_its_last_part_and_can_be_shown(name: str, clean: str) -> None:
    assert clean_name(name) == clean
    assert len(clean) <= 200


# ---- in prompts ------------------------------------------------------------------------------------


def test_file_in_a_prompt_is_a_part_of_its_own_and_shown_by_its_label() -> None:
    found = asked_with({"file": msgspec.to_builtins(ref(pages=12, size_bytes=1_200_000))})
    assert found.prompt == "Read [paper.pdf, PDF, 12 pages, 1.2 MB] now."
    assert [part.file is not None for part in found.parts] == [False, True, False]


def test_flow_without_files_asks_and_hashes_what_it_always_did() -> None:
    for kind, value in (("str", "tea"), ("dict", {"file": {"name": "no file"}}), ("list[str]", ["a", "b"])):
        found = asked_with(value, kind)
        assert found.parts == ()
        assert isinstance(body_of(found)["messages"][0]["content"], str)
        whole = replace(found, parts=(Part(text=found.prompt[:3]), Part(text=found.prompt[3:])))
        assert whole.digest(rehearses=False) == found.digest(rehearses=False)
    assert version_needed(flow_of("str")) == FIRST
    assert version_needed(flow_of("list[file]")) == ASKING


@pytest.mark.parametrize(
    "other",
    [
        asked("Read ", ref(sha256="b" * 64), " now."),
        asked("Read ", " now.", ref()),
        asked("Read ", ref("other.pdf"), " now."),
        asked("Read ", ref(), " then."),
        asked("Read ", ref().label, " now."),
    ],
    ids=["other bytes", "elsewhere", "other title", "other text", "its label alone"],
)
def test_another_file_or_place_is_another_question(other: Asked) -> None:
    assert asked("Read ", ref(), " now.").digest(rehearses=False) != other.digest(rehearses=False)


def test_what_was_found_out_about_a_file_does_not_make_it_another_question() -> None:
    counted = asked("Read ", ref(pages=12), " now.")
    assert asked("Read ", ref(), " now.").digest(rehearses=False) == counted.digest(rehearses=False)


@pytest.mark.parametrize(
    ("agent", "place", "said"),
    [
        ({"system": "You read {doc}."}, "agents.a.system", "a system prompt holds no files"),
        ({"prompt": "{doc.name}"}, "agents.a.prompt", "{doc} for its content, or {doc.file.name}: doc is a file"),
        ({"prompt": "{doc.file.nme}"}, "agents.a.prompt", "Did you mean {doc.file.name}?"),
    ],
)
def test_placeholder_that_no_file_has_is_an_error_of_the_flow(agent: dict[str, str], place: str, said: str) -> None:
    with pytest.raises(FlowError) as refused:
        check_flow(flow_of(**agent))
    assert refused.value.place == place
    assert said in str(refused.value)


def test_check_finds_a_handler_that_takes_a_file_for_a_text() -> None:
    def read(doc: str) -> str:
        return doc

    flow = Flow(
        name="f",
        input={"doc": Field(type="file")},
        agents={"a": Agent(handler="./h.py:read")},
        steps={"a": Step(agent="a")},
    )
    ((place, said),) = misfits(check_flow(flow), {"./h.py:read": Handler(read)})
    assert (place, said) == ("steps.a", "parameter 'doc' of ./h.py:read takes a text; input 'doc' is a file")


# ---- what models take ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (asked(ref(pages=601)), "601 pages of PDF in one request; claude-opus-4-7 takes at most 600"),
        (asked(ref(pages=60), ref(pages=60), model="claude-haiku-4-5"), "120 pages of PDF in one request"),
        (asked(ref(pages=60), ref(pages=60), model="claude-sonnet-4-5-20250929"), "takes at most 100"),
        (asked(*[ref("a.png", "image/png")] * 601), "601 pictures in one request"),
        (asked(ref("a.png", "image/png", width=8_001, height=1)), "at most 8,000 pixels a side"),
        (
            asked(*[ref("a.png", "image/png", width=2_001, height=1)] * 21),
            "at most 2,000 pixels a side where",
        ),
        (asked(ref("a.png", "image/png", size_bytes=4_000_000)), "pictures of at most 3,932,160 bytes"),
        (asked(ref(size_bytes=26_000_000)), "as they are sent, in base64; a request has at most 33,554,432"),
        (
            asked(ref("a.zip", "application/zip")),
            "WebP and text, and not application/zip",
        ),
    ],
)
def test_what_the_api_would_refuse_is_refused_by_name_before_it_is_loaded(request_: Asked, said: str) -> None:
    with pytest.raises(FileRefused, match=re.escape(said)) as refused:
        check_files(request_)
    assert str(refused.value).startswith(f"[{request_.refs[0].name}, ")


def test_what_the_api_takes_is_taken() -> None:
    check_files(asked(ref(pages=600)))
    check_files(asked(ref(pages=100, size_bytes=20_000_000), model="claude-haiku-4-5"))
    check_files(asked("Look: ", *[ref("a.png", "image/png", width=2_000, height=2_000)] * 21))


def test_pages_that_nobody_counted_are_counted_before_the_model_is_asked() -> None:
    data = pdf(101)
    file = File.of(data, name="a.pdf").ref
    with pytest.raises(FileRefused, match="101 pages of PDF"):
        check_contents(asked(file, model="claude-haiku-4-5"), {file.sha256: data})


def test_tokens_of_files_count_in_what_a_call_may_take_and_their_base64_does_not() -> None:
    data, picture = pdf(10), png(750, 100)
    refs = [replace(File.of(data, name="a.pdf").ref, pages=10), File.of(picture, name="a.png").ref]
    assert [tokens_of(each) for each in refs] == [46_000, 100]
    request = asked("Read ", *refs)
    assert 46_100 < bound_of_asked(request).input_tokens < 47_500
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png"}}
    block["source"]["data"] = base64.b64encode(os.urandom(3_000_000)).decode()  # type: ignore[index]
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    assert bound_of(body).input_tokens < 6_000


def test_texts_of_files_join_the_text_around_them_and_nothing_empty_is_sent() -> None:
    text, empty = (File.of(said, name="a.txt") for said in ("A.", ""))
    files = {text.sha256: b"A.", empty.sha256: b"", "a" * 64: b"%PDF"}
    parts = asked("Read ", text.ref, " and ", ref(), empty.ref, "\n").parts
    content = content_of(parts, files)
    assert isinstance(content, list)
    assert [block["type"] for block in content] == ["text", "document"]
    assert content[0]["text"] == "Read A. and "


def test_rehearsal_reads_what_a_pdf_says_and_names_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data, picture = pdf(2), png(2, 2)
    refs = [File.of(data, name="a.pdf").ref, File.of(picture, name="a.png").ref]
    files = {refs[0].sha256: data, refs[1].sha256: picture}
    parts = asked("Read ", *refs).parts
    assert text_with_files(parts, files) == f"Read Ship 1 waited.\n\nShip 2 waited.{refs[1].label}"
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert "pip install 'baton-bus[pdf]' lets it read PDFs" in text_with_files(parts, files)


# ---- from the command line -------------------------------------------------------------------------


def test_arguments_give_files_texts_and_what_is_stored(tmp_path: Path) -> None:
    flow, path = flow_of("list[file]"), written(tmp_path / "a.pdf", pdf(1))
    stored = '{"file": {"name": "b.pdf", "sha256": "' + "a" * 64 + '", "size_bytes": 7}}'
    given = read_input(flow, [f"doc=@{path}", "doc=some text", f"doc={stored}"], "")
    assert given == {"doc": [path, "some text", msgspec.json.decode(stored)]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@{folder}/gone.pdf", "cannot be opened: No such file or directory"),
        ("@{folder}", "is a folder; name the files in it"),
        ("@{folder}/fake.pdf", "is named as a PDF, and is none"),
        ("paper.pdf", "looks like a path, and a text would be taken as the content. Give the file itself: @paper.pdf"),
        ('{{"file": {{"name": "a.pdf"}}}}', "it has none of base64, text, sha256"),
    ],
)
def test_argument_that_is_no_file_says_so_before_anything_starts(text: str, said: str, tmp_path: Path) -> None:
    written(tmp_path / "fake.pdf", b"hello")
    with pytest.raises(InputError) as refused:
        read_input(flow_of(), [f"doc={text.format(folder=tmp_path)}"], "")
    assert refused.value.place == "doc"
    assert said in str(refused.value)
