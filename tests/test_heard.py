"""What is known of a text that comes in live words: only what is certain, nothing twice, and in the end all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baton_schemas.show.heard import Hearing
from baton_schemas.wire.words import Wrote

TAKES = st.lists(st.text("ab", max_size=12), min_size=1, max_size=4)


@given(TAKES, st.lists(st.integers(1, 4), min_size=1), st.data())
def test_whatever_is_lost_what_is_shown_is_a_beginning_of_a_take_and_in_the_end_all_of_it(
    takes: list[str], sizes: list[int], data: st.DataObject
) -> None:
    hearing, screen = Hearing(), ""
    for number, text in enumerate(takes):
        words: list[Wrote] = []
        at = 0
        while at < len(text):
            size = sizes[len(words) % len(sizes)]
            words.append(Wrote(step="a", attempt=1 + number // 2, take=number, at=at, text=text[at : at + size]))
            at += size
        heard = [word for word in words if not data.draw(st.booleans(), "lost")]
        late = [Wrote(step="a", attempt=1, take=number - 1, at=0, text="late")] if number and heard else []
        for word in [*heard, *late]:
            piece = hearing.hear(word)
            screen = piece.text if piece.anew else screen + piece.text
        assert screen == hearing.shown
        assert any(take.startswith(screen) for take in takes[: number + 1])
    piece = hearing.end(takes[-1])
    screen = piece.text if piece.anew else screen + piece.text
    assert screen == hearing.shown == takes[-1]


def test_listener_that_missed_a_word_waits_for_the_whole() -> None:
    hearing = Hearing()
    first, _, third = (Wrote(attempt=1, take=7, at=at, text=text) for at, text in ((0, "one "), (4, "two "), (8, "3")))
    assert hearing.hear(first).text == "one "
    assert hearing.hear(third).text == ""
    assert hearing.hear(first).text == "", "nothing twice"
    assert hearing.end("one two 3") == ("two 3", False, 0)


def test_second_take_that_says_the_same_goes_on_where_the_first_broke_off() -> None:
    hearing = Hearing()
    hearing.hear(Wrote(attempt=1, take=1, text="It was a"))
    assert hearing.hear(Wrote(attempt=2, take=2, text="It w")) == ("", False, 0)
    assert hearing.hear(Wrote(attempt=2, take=2, at=4, text="as a day")) == (" day", False, 0)
    assert hearing.hear(Wrote(attempt=1, take=1, at=8, text=" night")) == ("", False, 0)
