"""The reference decoder along a script: every strand says what it is told to, the model only rates it.

So a test can name the document that a random model is to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from toy import BINDINGS, EOS, encode

from multiverse import Limits, Transcript, parse_ids
from multiverse.decoding.actions import Action
from multiverse.oracle import Decoder, Request, Sampling
from multiverse.oracle.rows import Row
from multiverse.structure.tree import Block

Lines = dict[tuple[int, ...], list[int]]


@dataclass(frozen=True)
class Scripted(Sampling):
    """Sampling with, by strand key, the tokens that the strand is to say."""

    lines: Lines = field(default_factory=dict)


def decode(
    model: Any,
    requests: Sequence[tuple[str, str]],
    dialect: str = "multiverse",
    limits: Limits | None = None,
    **options: Any,
) -> list[Transcript]:
    """Write, side by side, each answer of `(prompt, answer)`; returns the transcripts, with log-probabilities."""
    decoder = Decoder(model, BINDINGS[dialect], **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Row, "_sample", _say)
        made = [_add(decoder, dialect, prompt, answer, limits or Limits()) for prompt, answer in requests]
        while decoder.busy:
            decoder.step()
    for request, (prompt, answer) in zip(made, requests, strict=True):
        assert request.transcript().ids == encode(prompt + answer + EOS, dialect), "not the document of the script"
    return [request.transcript() for request in made]


def _add(decoder: Decoder, dialect: str, prompt: str, answer: str, limits: Limits) -> Request:
    return decoder.add(encode(prompt, dialect), limits, Scripted(lines=script(dialect, prompt, answer)))


def _say(row: Row, logits: Any) -> Sequence[Action]:  # noqa: ARG001  # in place of Row._sample
    lines = row.request.sampling.lines  # type: ignore[attr-defined]
    return row.request.controller.accept(row.strand, lines[row.strand.key].pop(0))


def script(dialect: str, prompt: str, answer: str) -> Lines:
    """What each strand has to sample for `answer` to come out: all that the engine doesn't write by itself."""
    binding = BINDINGS[dialect]
    tree = parse_ids(encode(prompt + answer + EOS, dialect), binding)
    assert tree.well_formed
    lines: Lines = {}

    def collect(key: tuple[int, ...], start: int, end: int, blocks: Sequence[Block]) -> None:
        line = lines.setdefault(key, [])
        forks = [block for block in _parallel(blocks) if block.paths[0].start >= start]
        for number, block in enumerate(forks):
            assert block.goal_close is not None
            line += tree.ids[start : block.goal_close + 1]
            for i, path in enumerate(block.paths):
                assert path.close is not None
                body = path.start + len(binding.path_header(path.label))
                collect((*key, number, i), body, path.close + 1, path.blocks)
            start = block.paths[-1].end + len(binding.conclusion_header)
        line += tree.ids[start:end]

    collect((), len(encode(prompt, dialect)), len(tree), tree.blocks)
    return lines


def _parallel(blocks: Sequence[Block]) -> Iterator[Block]:
    """The blocks that one strand forks, in order."""
    for block in blocks:
        if block.parallel:
            yield block
            yield from _parallel(block.conclusion.blocks if block.conclusion else [])
        else:
            yield from _parallel(block.inner())
