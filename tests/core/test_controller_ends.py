"""How strands and requests end in the controller, whoever says so (SEMANTICS sections 2 and 4)."""

from __future__ import annotations

import pytest
from toy import decode, goal, host

from multiverse import (
    Close,
    FinishReason,
    Status,
)


@pytest.mark.parametrize("ending", ["eos", "stop", "length"])
def test_whatever_ends_a_branch_the_engine_closes_it(ending: str) -> None:
    """End-of-sequence, a stop string or a length limit: the parent reads a path-close, the reason is kept."""
    h = host()
    h.feed(h.root, goal(2))
    child = h.running[0]
    h.feed(child, "ab")
    actions = (
        h.feed(child, "<eos>")
        if ending == "eos"
        else h.do(child, h.controller.end(child, FinishReason.STOP if ending == "stop" else FinishReason.LENGTH))
    )
    (close,) = actions
    assert isinstance(close, Close)
    assert close.reason is (FinishReason.LENGTH if ending == "length" else FinishReason.STOP)
    assert decode(child.tokens) == "<Path>\n1:ab</Path>\n"
    assert h.root.status is Status.PARKED


def test_end_of_sequence_can_be_ignored() -> None:
    h = host(ignore_eos=True)
    assert h.feed(h.root, "a<eos>b") == []
    assert h.controller.finish_reason is None


def test_the_host_ends_the_request_by_ending_the_root() -> None:
    h = host()
    h.feed(h.root, goal(2))
    h.do(h.root, h.controller.end(h.root, FinishReason.STOP))
    assert h.running == []
    assert h.controller.finish_reason is FinishReason.STOP
    assert h.controller.end(h.root, FinishReason.STOP) == []


def test_tokens_that_come_too_late_are_ignored() -> None:
    """Asynchronous scheduling samples one token more for a strand that has just parked, closed or finished."""
    h = host()
    h.feed(h.root, goal(2))
    child = h.running[0]
    used = h.controller.ledger.used
    assert h.feed(h.root, "a</Goal><eos>") == []
    assert h.controller.ledger.used == used
    h.feed(child, "</Path>")
    before = list(child.tokens)
    assert h.feed(child, "b</Path>") == []
    assert child.tokens == before
    h.do(h.root, h.controller.abort())
    assert h.feed(h.root, "c") == []


def test_abort_ends_all_strands_once() -> None:
    h = host()
    h.feed(h.root, goal(3))
    h.feed(h.running[0], goal(2))
    h.do(h.root, h.controller.abort())
    assert h.running == []
    assert all(s.status is Status.CLOSED for s in h.root.walk())
    assert h.controller.finish_reason is FinishReason.ABORT
    assert h.controller.abort() == []
