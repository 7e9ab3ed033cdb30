"""Engines that draft, whichever host is installed here, and drafts that a test knows."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from answer import Answer, Host

ON_VLLM = find_spec("vllm") is not None
MOST = 8
"""Tokens that are drafted for a row, unless a test says another number."""


def row_drafts(most: int) -> dict[str, Any]:
    """What `engines` takes for a host whose rows draft from what has been said, up to `most` tokens."""
    if ON_VLLM:
        from vllm_drafter import RowDrafter, drafting

        return {"settings": drafting(RowDrafter, most)}
    from sglang_drafter import drafting as drafting_in_sglang

    return {"settings": drafting_in_sglang(most)}


def known_drafts() -> dict[str, Any]:
    """What `engines` takes for a host that drafts what `draft` tells it."""
    if ON_VLLM:
        from vllm_drafter import KnownDrafter, drafting

        return {"settings": drafting(KnownDrafter, MOST)}
    return row_drafts(MOST)


def draft(host: Host, known: list[list[int]], wrong: int = 0, forked: bool = False) -> None:
    """Let a host that has `known_drafts` draft what comes in `known` sequences behind the last tokens of a row.

    Args:
        wrong: each so-manieth drafted token is another one; 0: none is.
        forked: whether each has a sibling that is wrong, which vLLM's drafts can't have.
    """
    if ON_VLLM:
        from vllm_drafter import KnownDrafter

        assert not forked
        KnownDrafter.known, KnownDrafter.wrong = known, wrong
    else:
        host.operate("draft", known, wrong, forked)  # type: ignore[attr-defined]


def draft_no_more(host: Host) -> None:
    """Undo `draft`."""
    if ON_VLLM:
        draft(host, [])
    else:
        host.operate("draft", None)  # type: ignore[attr-defined]


def accepted_before_others(host: Host) -> set[int]:
    """The tokens that were accepted in front of others in one step, since this was asked last."""
    if ON_VLLM:
        from vllm_drafter import accepted_before_others as in_vllm

        return in_vllm(host)
    found: set[int] = host.operate("accepted_before_others")  # type: ignore[attr-defined]
    return found


def same(found: list[Answer], expected: list[Answer]) -> None:
    """Assert that answers are others', and their log-probabilities to 1e-4."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.finish_reason == theirs.finish_reason
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert [set(entry) for entry in ours.entries or ()] == [set(entry) for entry in theirs.entries or ()]
