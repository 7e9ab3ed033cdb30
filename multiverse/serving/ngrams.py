"""Drafts without a model: what came behind the same tokens the last time, in anything that a server has read or said.

Branches of a block are alike, and so are answers to like questions. A drafter that only looks at the row it drafts for
sees neither its siblings nor them.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 8
"""Tokens by which one is found, at most; if these are unknown, by fewer of them."""
KEPT = 1 << 18
"""Beginnings that are kept at least; twice as many at most, about 60 MB."""
_WINDOW, _MOST = 32, 4096
"""Tokens at the end of a row that are looked at first, and all that ever are."""


class NGrams:
    """What follows what.

    Args:
        kept: beginnings to keep at least. Older ones are forgotten, unless they are looked for meanwhile.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._young: dict[tuple[int, ...], int] = {}
        self._old: dict[tuple[int, ...], int] = {}

    def learn(self, row: Sequence[int], new: int) -> None:
        """Note what follows what in the ids of `row`: of its last `new` tokens, and of unknown ones before."""
        window = _WINDOW
        while True:
            tokens = [int(token) for token in row[-window:]]
            if (start := self._unknown_from(tokens, new)) > LONGEST or len(tokens) < window or window >= _MOST:
                break
            window *= 8
        for at in range(start, len(tokens)):
            for length in range(1, min(LONGEST, at) + 1):
                self._young[tuple(tokens[at - length : at])] = tokens[at]
        if len(self._young) > self._kept:
            self._old, self._young = self._young, {}

    def draft(self, row: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may come behind `row`."""
        said = [int(token) for token in row[-LONGEST:]]
        held = len(said)
        while len(said) < held + most and (token := self._behind(said)) is not None:
            said.append(token)
        return said[held:]

    def _unknown_from(self, tokens: list[int], new: int) -> int:
        """The index in `tokens` from which on they have to be learned."""
        at = max(0, len(tokens) - 1 - new)
        while at > 0 and self._find(tuple(tokens[max(0, at - LONGEST) : at])) != tokens[at]:
            at -= 1
        return at + 1

    def _behind(self, said: list[int]) -> int | None:
        for length in range(min(LONGEST, len(said)), 0, -1):
            if (token := self._find(tuple(said[-length:]))) is not None:
                return token
        return None

    def _find(self, beginning: tuple[int, ...]) -> int | None:
        found = self._young.get(beginning)
        if found is None and (found := self._old.get(beginning)) is not None:
            self._young[beginning] = found
        return found
