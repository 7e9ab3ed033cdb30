"""Stop strings whose characters take several tokens (SEMANTICS section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from multiverse import Strand
from multiverse.serving.stops import Stops, StopSearch
from multiverse.structure.grammar import Frame, Phase
from multiverse.wire.detokenizer import INCOMPLETE


class Bytes:
    """A vocabulary of bytes, as byte-level ones have for rare characters; larger tokens are several of them."""

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(token.to_bytes(1 + (token > 0xFF), "big") for token in tokens).decode(errors="replace")

    def characters(self, token: int) -> frozenset[str]:
        return frozenset(self.text([token]))


@given(st.text("aé€😀", max_size=8), st.text("aé€😀", min_size=1, max_size=3))
def test_characters_that_take_several_tokens_are_found_and_held_back_whole(sampled: str, stop: str) -> None:
    strand, search = Strand((), "", None, Frame(Phase.BRANCH)), StopSearch(Stops((stop,)), Bytes())
    for token in sampled.encode():
        found = search.feed(strand, token)
        strand.tokens.append(token)
        said = bytes(strand.tokens).decode(errors="replace")
        if found is not None:
            before = sampled[: sampled.index(stop)]
            assert said == before + stop
            assert (found.offset, found.head, found.from_end) == (len(before.encode()), "", len(stop))
            return
        certain = bytes(strand.tokens[: search.open_from]).decode()  # never a part of a character
        held = max(n for n in range(len(stop)) if said.rstrip(INCOMPLETE).endswith(stop[:n]))
        assert certain == said.rstrip(INCOMPLETE)[: len(said.rstrip(INCOMPLETE)) - held]
    assert stop not in sampled


def test_bytes_that_make_no_character_are_not_held_back_for_ever() -> None:
    strand, search = Strand((), "", None, Frame(Phase.BRANCH)), StopSearch(Stops(("b",)), Bytes())
    for token in [0x80] * 9:
        assert search.feed(strand, token) is None
        strand.tokens.append(token)
    assert search.open_from >= 4
    assert search.feed(strand, ord("b")) is not None


def test_a_character_that_was_begun_before_the_token_that_is_cut_goes_and_comes_with_it() -> None:
    strand, search = Strand((), "", None, Frame(Phase.BRANCH)), StopSearch(Stops(("b",)), Bytes())
    for token in (ord("a"), 0xC3):
        assert search.feed(strand, token) is None
        strand.tokens.append(token)
    assert search.feed(strand, 0xA962) == ("b", 1, "é", 1)
