"""What the states of `sgl.function` programs keep in memory, and for how long."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from document_oracle import Oracle
from parallel_encoding import gen, sgl
from program_requests import POOL, commit, computed, fork, join, post

from multiverse_sglang.frontend.program_states import IDLE, States


def test_branches_that_no_longer_fit_are_computed_again(flushed: str, page: int, oracle: Oracle) -> None:
    """At most half of the pool is kept for branches."""
    texts = [f"{word} = " + "1 2 3 4 5 6 7 8 " * 55 + "\n" for word in ("A", "B", "C")]
    kept = sum(len(oracle.ids(text)) for text in texts)
    assert POOL // 2 < kept < POOL * 3 // 4
    branches = fork(flushed, "program-wide", "Root.\n", texts)
    before = computed(flushed)
    assert join(flushed, "program-wide", branches) == (200, {"success": True})
    again = len(oracle.ids("Root.\n")) + len(oracle.ids(texts[0]))  # what they were forked from is cached nowhere
    assert 0 <= computed(flushed) - before - again < page
    status, answer = commit(flushed, "program-wide", "Root.\n" + "".join(texts) + "Sum: ", 8)
    assert status == 200
    document = ["Root.\n", [(0, [text]) for text in texts], "Sum: "]
    assert oracle.difference(document, answer["meta_info"]) < 1e-4
    assert post(flushed, "/end_request", {"rids": ["program-wide"]})[0] == 200


def test_other_requests_come_before_what_is_kept(flushed: str, oracle: Oracle) -> None:
    texts = ["A = " + "1 2 3 4 5 6 7 8 " * 75 + "\n", "B = 2\n"]
    branches = fork(flushed, "program-short", "Root.\n", texts)
    body = {"text": "9 " * 1950, "sampling_params": {"max_new_tokens": 4, "temperature": 0}}
    assert post(flushed, "/generate", body)[0] == 200
    before = computed(flushed)
    assert join(flushed, "program-short", branches) == (200, {"success": True})
    assert computed(flushed) - before >= len(oracle.ids(texts[0]))
    answer = commit(flushed, "program-short", "Root.\n" + "".join(texts) + "Sum: ", 8)[1]
    document = ["Root.\n", [(0, [text]) for text in texts], "Sum: "]
    assert oracle.difference(document, answer["meta_info"]) < 1e-4
    assert post(flushed, "/end_request", {"rids": ["program-short"]})[0] == 200


def test_a_program_that_ends_leaves_nothing_behind(backend: Any, server: str) -> None:
    @sgl.function  # type: ignore[untyped-decorator]
    def program(s: Any) -> None:
        s += "Root.\n"
        forks = s.fork(2)
        forks += lambda i: f"Branch {i}.\n" + gen("said", 6)
        s.set_var("names", ["program-" + branch.stream_executor.sid for branch in forks.states])
        forks.join()  # of variables: the branches are never spliced

    state = program.run(backend=backend)
    assert state["said"]
    until = time.monotonic() + 30
    for name in state["names"]:  # each ends by itself, by a request that the program does not wait for
        while (status := commit(server, name, "Root.\n")[0]) == 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert status == 400
    assert post(server, "/generate", {"text": "A", "sampling_params": {"max_new_tokens": 1}})[0] == 200


def test_the_states_of_a_client_that_is_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse_sglang.frontend import program_calls

    monkeypatch.setattr(program_calls, "IDLE", 0.01)  # how often it looks; the clock is another
    now, sent = [0.0], []
    tokenizer = SimpleNamespace(encode=lambda text, **_: [len(text)])
    manager = SimpleNamespace(
        tokenizer=tokenizer, context_len=1024, rid_to_state={}, _dispatch_to_scheduler=sent.append
    )
    front = program_calls.Programs.of(manager)
    front.states = States(front._encode, clock=lambda: now[0])

    async def client() -> None:
        await front.fork("program-s", ["program-a"], "Root.", None)
        manager.rid_to_state["program-a/1"] = "a request that takes long"
        now[0] = 10 * IDLE
        await asyncio.sleep(0.05)
        assert len(front.states) == 2
        manager.rid_to_state.clear()
        now[0] = 20 * IDLE
        while len(front.states):
            await asyncio.sleep(0.001)

    asyncio.run(client())
    assert sorted(abort.rid for abort in sent) == ["program-a/", "program-s/"]
