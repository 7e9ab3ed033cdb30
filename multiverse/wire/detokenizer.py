"""Text of a growing token sequence, piece by piece. Knows no dialect; any Hugging Face tokenizer will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Token ids in, text out, each piece as soon as its bytes make whole characters.

    Args:
        tokenizer: anything with `decode(ids, skip_special_tokens=...)`.
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._shown: list[int] = []
        self._held: list[int] = []

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that `tokens` complete; what ends within a character is held back."""
        self._held += tokens
        text = self._pending()
        return "" if text.endswith(INCOMPLETE) else self._release(text)

    def flush(self) -> str:
        """Whatever was held back, since nothing follows."""
        return self._release(self._pending())

    def _pending(self) -> str:
        """Text of the held tokens. Decoded behind those shown last: a word may look different at the beginning."""
        before = self._decode(self._shown)
        return self._decode([*self._shown, *self._held])[len(before) :]

    def _release(self, text: str) -> str:
        if self._held:
            self._shown, self._held = self._held, []
        return text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip)
        return text
