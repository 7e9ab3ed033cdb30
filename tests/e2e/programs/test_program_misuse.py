"""A misused state of an `sgl.function` program is answered with 400 and its reason, and harms nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from document_oracle import Oracle
from parallel_encoding import FACTS, encoded, parallel_encoding
from program_requests import commit, fork, join, post


def twice(server: str) -> tuple[int, Any]:
    branches = fork(server, "program-twice", "Root.\n", ["A\n", "B\n"])
    assert join(server, "program-twice", branches)[0] == 200
    return join(server, "program-twice", branches)


def too_long(server: str) -> tuple[int, Any]:
    branches = fork(server, "program-long", "Root.\n", [f"{number} " * 900 for number in (1, 2, 3)])
    return join(server, "program-long", branches)


def uncomputed(server: str) -> tuple[int, Any]:
    post(server, "/fork_request", {"src_rid": "program-u", "dst_rids": ["program-u-0"], "text": "Root.\n"})
    return join(server, "program-u", ["program-u-0"])


def nothing_behind(server: str) -> tuple[int, Any]:
    branches = fork(server, "program-bare", "Root.\n", ["A\n", "B\n"])
    assert join(server, "program-bare", branches)[0] == 200
    return commit(server, "program-bare", "Root.\nA\nB\n", 4)


def other_text(server: str) -> tuple[int, Any]:
    fork(server, "program-other", "Root.\n", ["A\n"])
    return commit(server, "program-other-0", "Another root.\n", 4)


def too_far(server: str, offset: Any) -> tuple[int, Any]:
    call = {"src_rid": "program-far", "dst_rids": ["program-far-0"], "text": "Root.\n", "position_ids_offset": [offset]}
    return post(server, "/fork_request", call)


def many_wrongs(server: str) -> tuple[int, Any]:
    status, message = post(server, "/end_request", {"rids": [1] * 10_000})
    return status, message if len(message) <= 1000 else "too long"


MISUSE: dict[str, tuple[Callable[[str], tuple[int, Any]], str]] = {
    "a state that SGLang's own backend names": (lambda server: join(server, "f00", ["ba5", "ba6"]), "RuntimeEndpoint"),
    "a state that was never forked": (lambda server: commit(server, "program-none", "A", 4), "there is no state"),
    "a second join": (twice, "there is no state 'program-twice-0'"),
    "a join that is too long": (too_long, "context length"),
    "a branch that was not computed": (uncomputed, "never computed"),
    "nothing behind the join": (nothing_behind, "nothing follows the join"),
    "a text that is not the state's": (other_text, "does not begin with what was forked"),
    "a body with a wrong field": (lambda server: post(server, "/end_request", {"rid": "program-a"}), "rids"),
    "an offset beyond the context": (lambda server: too_far(server, 1_000_000), "position_ids_offset"),
    "an offset beyond 64 bits": (lambda server: too_far(server, 2**70), "position_ids_offset"),
    "a body that is wrong in many places": (many_wrongs, "rids"),
    "a structure of the client's own": (
        lambda server: post(
            server,
            "/generate",
            {"text": "A", "sampling_params": {"custom_params": {"multiverse_program": {"spans": "bad"}}}},
        ),
        "multiverse_program",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_answered_with_400_and_harms_nothing(backend: Any, server: str, oracle: Oracle, name: str) -> None:
    call, says = MISUSE[name]
    status, message = call(server)
    assert status == 400
    assert says in message
    state = parallel_encoding.run("Who has plums?", FACTS, backend=backend)
    assert oracle.difference(encoded("Who has plums?"), state.get_meta_info("answer")) < 1e-4
