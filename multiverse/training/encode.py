"""From an example to token ids, what each of them has to predict, and their layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiverse.structure.binding import bind
from multiverse.structure.dialects import Dialect
from multiverse.structure.injected import injected
from multiverse.structure.layout import Layout, Separators, layout
from multiverse.structure.parser import parse_ids
from multiverse.structure.tree import Transcript
from multiverse.training.schema import Example, Message

IGNORE = -100
MODE_PROMPTS = {False: "Think step by step.", True: "Think step by step and in parallel."}
_ANSWER = "\x02answer\x03"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example, or several packed into one row, ready for a model. ``n`` tokens.

    Attributes:
        ids: token ids, `n`.
        targets: for every place the token that it has to predict, or `IGNORE`: `n`. Shifted already, and shifted as
            the layout says: what predicts the first token of a path is not the token before it.
        layout: positions and visibility.
    """

    ids: list[int]
    targets: list[int]
    layout: Layout

    def __len__(self) -> int:
        return len(self.ids)


class EncodingError(ValueError):
    """Why an example can't be encoded."""


class Encoder:
    """Encodes examples for one tokenizer and dialect.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template, whose vocabulary has the dialect's tags.
        dialect: the dialect of the blocks.
        separators: see `multiverse.structure.layout`.
        max_length: longest example in tokens.
        truncate: cut longer answers at the last place that fits and lies outside of any block; else they are errors.
        learn_injected: take the loss also over the tokens that an engine writes itself, where something predicts them.

    Raises:
        BindingError: if a tag is not one token.
    """

    def __init__(
        self,
        tokenizer: Any,
        dialect: Dialect,
        *,
        separators: Separators = "overlap",
        max_length: int = 1 << 30,
        truncate: bool = False,
        learn_injected: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.binding = bind(dialect, tokenizer)
        self.separators: Separators = separators
        self.max_length = max_length
        self.truncate = truncate
        self.learn_injected = learn_injected

    def encode(
        self, example: Example, *, parallel: bool = True, mode_prompt: bool = False, causal: bool = False
    ) -> Encoded:
        """Encode one example.

        Args:
            example: a checked example.
            parallel: learn its parallel form, or the sequential one.
            mode_prompt: tell the model in the last user turn which of the two is wanted.
            causal: lay it out as plain text even if it holds blocks.

        Raises:
            EncodingError: with the reason, if it is too long, or if its headers are not those an engine would write.
        """
        turns = list(example.messages)
        if mode_prompt:
            turns = _instruct(turns, MODE_PROMPTS[parallel])
        prompt, answer = self._render(turns, example.text(parallel))
        tree = parse_ids(prompt + answer, self.binding)
        self._check_injected(tree)
        if len(tree) > self.max_length:
            tree = self._cut(tree, len(prompt))
        if causal:  # nothing writes the headers for the model then: it has to learn them
            tree = Transcript(tree.dialect, tree.tokens)
        laid = layout(tree, self.separators, self._join)
        return Encoded(tree.ids, self._targets(tree, laid, len(prompt)), laid)

    @property
    def _join(self) -> str:
        return self.binding.dialect.join

    def _render(self, turns: Sequence[Message], text: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the answer with the end of its turn, encoded apart, as they are when served."""
        prompt = render_prompt(self.tokenizer, turns)
        marked = [*turns, {"role": "assistant", "content": _ANSWER}]
        whole = self.tokenizer.apply_chat_template(marked, tokenize=False)
        end, eos = whole.rpartition(_ANSWER)[2], self.tokenizer.eos_token
        turn_end = end[: end.index(eos) + len(eos)] if eos and eos in end else end or (eos or "")
        encode = self.tokenizer.encode
        return encode(prompt, add_special_tokens=False), encode(text + turn_end, add_special_tokens=False)

    def _check_injected(self, tree: Transcript) -> None:
        for start, tokens in injected(tree, self.binding):
            found = tree.tokens[start : start + len(tokens)]
            if tuple(found) != tuple(tokens):
                wanted, got = self.tokenizer.decode(list(tokens)), self.tokenizer.decode(found)
                raise EncodingError(f"at token {start} an engine would write {wanted!r}, but the text has {got!r}")

    def _cut(self, tree: Transcript, prompt: int) -> Transcript:
        if not self.truncate:
            raise EncodingError(f"has {len(tree)} tokens, max_length is {self.max_length}")
        end = self.max_length
        for block in tree.blocks:
            if block.start < end < block.end:
                end = block.start
        if end <= prompt:
            raise EncodingError(f"nothing of the answer is left within max_length {self.max_length} outside of blocks")
        return parse_ids(tree.ids[:end], self.binding)

    def _targets(self, tree: Transcript, laid: Layout, prompt: int) -> list[int]:
        skipped = set()
        if not self.learn_injected:
            skipped = {i for start, tokens in injected(tree, self.binding) for i in range(start, start + len(tokens))}
        ids, targets = tree.ids, [IGNORE] * len(tree)
        for index, before in enumerate(laid.predecessors):
            if index >= prompt and before >= 0 and index not in skipped:
                targets[before] = ids[index]
        return targets


def render_prompt(tokenizer: Any, turns: Sequence[Message]) -> str:
    """The text of `turns` up to where the assistant begins to write, as an engine renders it."""
    text = tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=False)
    return str(text)


def _instruct(turns: list[Message], instruction: str) -> list[Message]:
    """`turns` with an instruction behind the last user turn."""
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        return [*turns, {"role": "user", "content": instruction}]
    changed = turns[last] | {"content": f"{turns[last]['content']}\n{instruction}"}
    return [*turns[:last], changed, *turns[last + 1 :]]
