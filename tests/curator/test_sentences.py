"""A text is cut into sentences, never into less than all of it, and never through a formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curator.sentences import split

PIECES = st.sampled_from(
    [
        "A. ",
        "b",
        "So it is. ",
        "$a. B$",
        "\\[ x. Y \\]",
        "\n",
        "\n\n",
        "1. ",
        "e.g. ",
        "```\nA. B\n```",
        "$",
        "!? ",
        "…) X",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_joined_pieces_are_the_text_and_none_is_blank(text: str) -> None:
    pieces = split(text)
    assert "".join(pieces) == text
    if text.strip():
        assert all(piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One is done. Two follows! Is it?", ["One is done. ", "Two follows! ", "Is it?"]),
        ("First line\nSecond line\n\nThird", ["First line\n", "Second line\n\n", "Third"]),
        ("1. Take it.\n2. Leave it.", ["1. Take it.\n", "2. Leave it."]),
        ("It is 47. Then 3.5 follows.", ["It is 47. ", "Then 3.5 follows."]),
        ("Take some, e.g. Two. Or Three.", ["Take some, e.g. Two. ", "Or Three."]),
        ("Order B. As before.", ["Order B. ", "As before."]),
        ("So $f(x) = 1. Y$ holds. Good.", ["So $f(x) = 1. Y$ holds. ", "Good."]),
        ("\\[\na = b.\nC\n\\] Done. Yes.", ["\\[\na = b.\nC\n\\] Done. ", "Yes."]),
        ("```\nfoo. Bar\n\nbaz\n```\nEnd.", ["```\nfoo. Bar\n\nbaz\n```\n", "End."]),
        ("He said (so it was.) And left.", ["He said (so it was.) ", "And left."]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces
