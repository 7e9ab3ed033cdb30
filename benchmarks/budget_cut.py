"""Answers whose token budget ran out while branches were open.

How such a budget is split depends on when each branch was scheduled, so two of them are compared by what is certain.
"""

from __future__ import annotations

from typing import Any

from answer import Answer

CONTEXT = 1024
"""Tokens of prompt and answer together, as the host sets it. SGLang leaves the last one free."""
END = 2
"""Tokens that close a branch which has run out of them: path-close and separator."""


def is_cut(answer: Answer, prompt: int, max_tokens: int) -> bool:
    """Whether tokens ran out, behind a prompt of `prompt` of them, while branches were open."""
    budget = min(max_tokens, CONTEXT - prompt)
    tree = answer.record["tree"] if answer.record else []
    return len(answer.ids) >= budget - 1 and any(strand["finish_reason"] == "length" for strand in tree[1:])


def bodies(record: dict[str, Any]) -> dict[tuple[int, ...], list[int]]:
    """What first-level branches that neither fork nor are refused to sampled, without the end that was written."""
    return {
        tuple(strand["key"]): strand["token_ids"][: -END if strand["finish_reason"] == "length" else None]
        for strand in record["tree"]
        if len(strand["key"]) == 2 and strand["key"][0] == 0 and not strand["forks"] and not strand["fallbacks"]
    }


def begin_alike(record: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether of every branch of the first block the shorter version is the beginning of the longer."""
    mine, others = bodies(record), bodies(other)
    pairs = [(mine[key], others[key]) for key in mine.keys() & others.keys()]
    return all(a[: len(b)] == b[: len(a)] for a, b in pairs)
