"""What the console's pages load: others' files as they were published, and little enough to be there at once."""

from __future__ import annotations

import gzip
import hashlib

from baton_actors.console.rendering import HERE

STATIC = HERE / "static"
MOST_BYTES = 30_000
"""Of scripts and styles, compressed: a budget of the design."""


def test_files_of_others_are_as_they_were_published() -> None:
    told = [line.split("  ") for line in (STATIC / "VENDORED").read_text().splitlines() if "  " in line]
    assert {name for _, name in told} == {path.name for path in STATIC.glob("*.min.js")}
    for sha256, name in told:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256, name


def test_scripts_and_styles_of_all_pages_together_are_small() -> None:
    sizes = {path: len(gzip.compress(path.read_bytes())) for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css")]}
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_templates_have_no_script_style_or_handler_of_their_own() -> None:
    templates = list((HERE / "templates").rglob("*.html"))
    assert templates
    for template in templates:
        text = template.read_text("utf-8")
        assert "|safe" not in text.replace(" ", ""), template
        for bad in (" style=", " onclick=", " onload=", "<style", "javascript:"):
            assert bad not in text, (template, bad)
        assert text.count("<script") == text.count('<script nonce="{{ nonce }}" src="/static/'), template
