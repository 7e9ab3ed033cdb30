"""What the controller does when a block can't be forked or a budget is used up (SEMANTICS sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from toy import decode, encode, goal, host

from multiverse import (
    Close,
    Fallback,
    FinishReason,
    Fork,
    Join,
    Limits,
    Reason,
    Start,
    Status,
    Strand,
    layout,
    statistics,
    to_transcript,
)


def fall_back(limits: Limits | None, text: str, dialect: str = "multiverse", **options: object) -> Fallback:
    """Feed `text`, which ends with a goal that must not fork; the strand has to go on, and the reason to be kept."""
    h = host(dialect, limits, **options)
    actions = h.feed(h.root, text)
    (fallback,) = [a for a in actions if isinstance(a, Fallback)]
    assert not any(isinstance(a, Fork) for a in h.log)
    assert fallback.strand is h.root
    assert h.root.status is Status.RUNNING
    assert (h.root.position, h.root.kv_length) == (len(encode(text, dialect)),) * 2
    h.feed(h.root, "a")
    if fallback.reason is not Reason.STRAY_GOAL_CLOSE:
        assert statistics(to_transcript(h.controller)).fallbacks == {fallback.reason.value: 1}
    return fallback


def test_no_outline() -> None:
    assert fall_back(None, "<Parallel>\n<Goal>\n</Goal>").reason is Reason.NO_OUTLINE


def test_single_outline() -> None:
    assert fall_back(None, goal(1)).reason is Reason.SINGLE_OUTLINE


def test_stray_goal_close() -> None:
    assert fall_back(None, "a</Goal>").reason is Reason.STRAY_GOAL_CLOSE


def test_too_wide() -> None:
    assert fall_back(Limits(max_branches=3), goal(4)).reason is Reason.TOO_WIDE


def test_a_hundred_outlines_do_no_harm() -> None:
    """One real answer of Multiverse-32B has them."""
    assert fall_back(None, goal(100)).reason is Reason.TOO_WIDE


def test_too_deep_for_the_limit() -> None:
    """`max_depth=0` decodes sequentially."""
    assert fall_back(Limits(max_depth=0), goal(2)).reason is Reason.TOO_DEEP


def test_too_deep_for_a_dialect_without_nesting() -> None:
    h = host("npr")
    h.feed(h.root, goal(2, "npr"))
    child = h.running[0]
    (fallback,) = h.feed(child, goal(2, "npr"))
    assert fallback == Fallback(child, Reason.TOO_DEEP)
    assert child.status is Status.RUNNING


def test_token_budget() -> None:
    """A fork has to leave every branch at least one token beside what the engine writes."""
    text = goal(2)
    least = least_budget(text)
    assert fall_back(Limits(max_tokens=least - 1), text).reason is Reason.TOKEN_BUDGET
    h = host(limits=Limits(max_tokens=least))
    assert isinstance(h.feed(h.root, text)[0], Fork)


def least_budget(text: str) -> int:
    """Goal, separator, headers, one sampled token per branch, closings, conclusion header; counted by hand."""
    headers = len(encode("<Path>\n1:")) + len(encode("<Path>\n2:"))
    return len(encode(text)) + 1 + headers + 2 * (1 + len(encode("</Path>\n"))) + 1


def test_positions_are_a_budget_too() -> None:
    """Paths that leave no position before `max_critical_path` are not opened."""
    assert fall_back(Limits(max_critical_path=len(encode(goal(2))) + 4), goal(2)).reason is Reason.TOKEN_BUDGET


def test_context_length_is_checked_before_the_fork() -> None:
    """The context must hold all that will be spliced, prompt included."""
    least = least_budget(goal(2))
    assert fall_back(Limits(context_length=least - 1), goal(2)).reason is Reason.CONTEXT_LENGTH
    limits = Limits(context_length=least + 2)
    h = host(limits=limits, prompt="ab")
    assert isinstance(h.feed(h.root, goal(2))[0], Fork)
    blocked = host(limits=limits, prompt="abc")
    (fallback,) = blocked.feed(blocked.root, goal(2))
    assert fallback == Fallback(blocked.root, Reason.CONTEXT_LENGTH)


def test_tokens_that_hosts_allow_up_to_the_context_count_as_the_context() -> None:
    """Hosts fill in `max_tokens` where a request has none; raising it would not help."""
    least = least_budget(goal(2))
    assert fall_back(Limits(max_tokens=least - 1, context_length=least - 1), goal(2)).reason is Reason.CONTEXT_LENGTH
    assert fall_back(Limits(max_tokens=least - 1, context_length=least), goal(2)).reason is Reason.TOKEN_BUDGET


def test_the_host_has_its_own_say_before_anything_is_changed() -> None:
    """The admit hook is asked with strand and labels, and its reason is recorded."""
    asked: list[tuple[Strand, list[str]]] = []

    def admit(strand: Strand, labels: Sequence[str]) -> Reason | None:
        asked.append((strand, list(labels)))
        return Reason.KV_CAPACITY

    assert fall_back(None, goal(2), admit=admit).reason is Reason.KV_CAPACITY
    assert [labels for _, labels in asked] == [["1", "2"]]
    assert asked[0][0].status is Status.RUNNING


def test_a_willing_host_lets_it_fork() -> None:
    h = host(admit=lambda *_: None)
    assert isinstance(h.feed(h.root, goal(2))[0], Fork)


@pytest.mark.parametrize("budget", [1, 5, 26, 27, 40])
def test_max_tokens_is_exact(budget: int) -> None:
    """Nothing is lost and nothing is added: an endless answer ends with exactly `max_tokens`."""
    h = host(limits=Limits(max_tokens=budget))
    text = encode("a" + goal(2))
    while h.running:
        strand = h.running[-1]
        h.feed(strand, [text[len(strand.tokens)] if strand is h.root and len(strand.tokens) < len(text) else 8])
    assert h.controller.finish_reason is FinishReason.LENGTH
    assert h.controller.ledger.used == len(h.shown) == budget


def test_out_of_tokens_inside_a_block_still_ends_well_formed_up_to_the_conclusion() -> None:
    """What was reserved pays for every path-close and the conclusion header."""
    h = host(limits=Limits(max_tokens=least_budget(goal(2)) + 1))
    h.feed(h.root, goal(2))
    h.feed(h.running[1], "abc")
    assert h.controller.finish_reason is FinishReason.LENGTH
    assert decode(h.shown).endswith("<Path>\n1:</Path>\n<Path>\n2:abc</Path>\n<Conclusion>")
    assert h.controller.ledger.reserved == 0


def test_injected_tokens_count_and_are_reported_apart() -> None:
    h = host()
    h.feed(h.root, goal(2))
    sampled = len(encode(goal(2)))
    assert h.controller.ledger.injected == 1 + len(encode("<Path>\n1:")) + len(encode("<Path>\n2:"))
    for child in list(h.running):
        h.feed(child, "ab</Path>")
    ledger = h.controller.ledger
    assert ledger.used - ledger.injected == sampled + 6
    assert ledger.reserved == 0


@pytest.mark.parametrize("separators", ["overlap", "advance"])
def test_max_critical_path_is_exact(separators: str) -> None:
    """Every branch closes in time for the conclusion header, and the answer ends at the last allowed position."""
    bound = len(encode(goal(2))) + 20
    h = host(limits=Limits(max_critical_path=bound), prompt="abc", separators=separators)
    h.feed(h.root, goal(2))
    while h.running:
        assert h.root not in h.running, "a branch was closed earlier than it had to be"
        h.feed(h.running[0], "a")
    assert all(s.finish_reason is FinishReason.LENGTH for s in h.root.walk())
    transcript = to_transcript(h.controller)
    assert layout(transcript, separators).critical_path(3) == bound
    assert len(h.shown) > bound


def test_a_prefilled_join_costs_no_critical_path() -> None:
    """Its tokens move positions ahead, but they are not decoded one after the other: the bound moves along."""
    bound = len(encode(goal(2, "threadweaver"), "threadweaver")) + 40
    h = host("threadweaver", Limits(max_critical_path=bound))
    h.feed(h.root, goal(2, "threadweaver"))
    for child in list(h.running):
        h.feed(child, "abcdefgh" * 2 + "</Thread>")
    while h.running:
        h.feed(h.root, "a")
    assert h.controller.finish_reason is FinishReason.LENGTH
    assert layout(to_transcript(h.controller), "advance").critical_path() == bound
    assert h.root.position > bound


def test_branches_wait_their_turn_with_the_same_result() -> None:
    """`max_parallel` changes when a branch runs, not what comes out."""
    documents = []
    for most in (None, 1, 2):
        h = host(limits=Limits(max_parallel=most))
        h.feed(h.root, goal(4))
        assert len(h.running) == (most or 4)
        while h.root not in h.running:
            child = h.running[-1]
            h.feed(child, "ab" * (child.key[-1] + 1) + "</Path>")
            assert len(h.running) <= (most or 4)
        join = h.log[-1]
        assert isinstance(join, Join)
        documents.append((decode(h.shown), h.root.position, list(h.starts.values())))
    assert documents[0] == documents[1] == documents[2]


def test_a_nested_block_starts_before_the_waiting_siblings() -> None:
    """Depth first, so that the KV of a deep block is joined early."""
    h = host(limits=Limits(max_parallel=1))
    h.feed(h.root, goal(2))
    h.feed(h.running[0], goal(2))
    assert [s.key for s in h.running] == [(0, 0, 0, 0)]


def test_a_closed_branch_gives_its_place_to_the_next() -> None:
    h = host(limits=Limits(max_parallel=1))
    h.feed(h.root, goal(2))
    close, start = h.feed(h.running[0], "<eos>")
    assert isinstance(close, Close)
    assert isinstance(start, Start)
    assert start.strand.key == (0, 1)


def test_strict_mode_keeps_to_the_caps() -> None:
    """No outline beyond `max_branches`, no block beyond `max_depth`."""
    h = host(limits=Limits(max_branches=2, max_depth=1))
    outline, block_open = encode("<Outline>")[0], encode("<Parallel>")[0]
    assert block_open in h.controller.allowed(h.root)
    text = goal(2)
    cut = text.rindex("</Goal>")
    h.feed(h.root, text[:cut])
    assert outline not in h.controller.allowed(h.root)
    h.feed(h.root, "</Goal>")
    assert block_open not in h.controller.allowed(h.running[0])
