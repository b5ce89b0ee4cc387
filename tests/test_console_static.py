"""What the console's pages load: others' files as they were published, and little enough to be there at once."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

from baton_actors.console.assets import served_as
from baton_actors.console.rendering import HERE

STATIC = HERE / "static"
MOST_BYTES = 30_000
"""Of scripts and styles, compressed: a budget of the design."""


def test_files_of_others_are_as_they_were_published() -> None:
    told = [line.split("  ") for line in (STATIC / "VENDORED").read_text().splitlines() if "  " in line]
    assert {name for _, name in told} == {path.name for path in STATIC.glob("*.min.js")}
    for sha256, name in told:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256, name


def loaded_by(template: Path) -> set[str]:
    """The scripts and styles of a page: its own, those of the templates that it extends, and what they import."""
    text = template.read_text("utf-8")
    found = set(re.findall(r'"/static/([\w.-]+\.(?:js|css))"', text))
    for other in re.findall(r'{% extends "([\w.-]+)" %}', text):
        found |= loaded_by(template.with_name(other))
    for name in tuple(found):
        found |= set(re.findall(r'from "\./([\w.-]+)"', (STATIC / name).read_text("utf-8")))
    return found


def test_scripts_and_styles_of_each_page_are_small() -> None:
    pages = {template: loaded_by(template) for template in (HERE / "templates").rglob("*.html")}
    later = set(
        re.findall(r'import\("\./([\w.-]+)"\)', "".join(path.read_text("utf-8") for path in STATIC.glob("*.js")))
    )
    assert {path.name for path in STATIC.glob("*.[jc]s*")} == set().union(later, *pages.values())
    for template, files in pages.items():
        sizes = {name: len(gzip.compress(text_of(name))) for name in files}
        assert sum(sizes.values()) < MOST_BYTES, (template.name, sizes)


def text_of(name: str) -> bytes:
    """A file as it is served."""
    path = STATIC / name
    return path.read_bytes() if name.endswith(".min.js") else served_as(path).encode()


def test_scripts_and_styles_of_ours_have_no_text_of_several_lines() -> None:
    for path in STATIC.glob("*.js"):
        if not path.name.endswith(".min.js"):
            assert all(line.count("`") % 2 == 0 for line in path.read_text("utf-8").splitlines()), path
    for path in STATIC.glob("*.css"):
        assert all(line.count("/*") == line.count("*/") for line in path.read_text("utf-8").splitlines()), path


def test_templates_have_no_script_style_or_handler_of_their_own() -> None:
    templates = list((HERE / "templates").rglob("*.html"))
    assert templates
    for template in templates:
        text = template.read_text("utf-8")
        assert "|safe" not in text.replace(" ", ""), template
        for bad in (" style=", " onclick=", " onload=", "<style", "javascript:"):
            assert bad not in text, (template, bad)
        assert text.count("<script") == text.count('<script nonce="{{ nonce }}" src="/static/'), template
