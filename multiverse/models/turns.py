"""Does a chat template give an answer back as it was generated? Only then a follow-up turn finds the answer's KV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_SHOWN = 40
"""Characters that are shown of each side."""
_QUESTION, _NEXT = "How many are there?", "And without the first?"


@dataclass(frozen=True)
class Parting:
    """Where the prompt of a second turn parts from the first turn and its answer.

    Attributes:
        at: characters of the answer that both have; negative if they part in the prompt already.
        generated: how the answer went on.
        rendered: what the template has there.
    """

    at: int
    generated: str
    rendered: str

    def to_json(self) -> dict[str, Any]:
        """As `multiverse check --json` tells it."""
        return asdict(self)


def sample_answers(block: str) -> dict[str, str]:
    """Answers by what they are: one with `block` in it, and one with `block` in a reasoning part."""
    return {
        "an answer": f"By parts.\n\n{block}\n\nSo three.",
        "an answer with reasoning": f"<think>\nBy parts.\n{block}\n</think>\n\nSo three.",
    }


def partings(tokenizer: Any, answers: Mapping[str, str]) -> dict[str, Parting | None]:
    """For each answer where a second turn parts from it; `None` if it doesn't.

    Args:
        tokenizer: with a chat template.
        answers: generated texts, without what ends a turn.

    Raises:
        Exception: whatever the template raises for two ordinary turns.
    """
    return {name: _parting(tokenizer, answer) for name, answer in answers.items()}


def _parting(tokenizer: Any, answer: str) -> Parting | None:
    turns = [{"role": "user", "content": _QUESTION}]
    prompt = _render(tokenizer, turns)
    turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": _NEXT}]
    first, second = prompt + answer, _render(tokenizer, turns)
    if second.startswith(first):
        return None
    at = next(i for i in range(len(first)) if not second.startswith(first[: i + 1]))
    return Parting(at - len(prompt), first[at : at + _SHOWN], second[at : at + _SHOWN])


def _render(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    text: str = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text
