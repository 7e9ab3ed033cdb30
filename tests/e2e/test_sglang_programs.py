"""`sgl.function` programs against a real `sglang serve --plugin multiverse`: what they join is spliced, exactly."""

from __future__ import annotations

import asyncio
import os
import runpy
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from document_oracle import Items, Oracle
from program_requests import commit, computed, fork, join, post

from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load
from multiverse.server import Server, command, free_port
from multiverse_sglang.states import IDLE, States

sgl = pytest.importorskip("sglang", reason="this server belongs to SGLang's environment")
programs = pytest.importorskip("multiverse_sglang.programs")

torch.set_num_threads(1)  # the oracle beside a busy server: more threads only wait for each other

EXAMPLES = Path(__file__).parents[2] / "examples"
POOL = 2400
FACTS = ["Ann has 3 apples.", "Ben has 4 pears and a dog.", "Cleo has 7 plums."]


@pytest.fixture(scope="module", params=[1, 16], ids=["pages of one token", "pages of 16 tokens"])
def page(request: pytest.FixtureRequest) -> int:
    """Tokens of a page."""
    return int(request.param)


@pytest.fixture(scope="module")
def server(page: int) -> Iterator[str]:
    """A server with the embedded model and little memory, whose leak checks are strict."""
    small = ["--context-length", "2000", "--max-total-tokens", str(POOL), "--served-model-name", "tiny"]
    small += ["--page-size", str(page)]
    port = free_port()
    started = command("sglang", str(TINY), port, [*small, "--enable-metrics"])
    environment = {**started.environment, "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1"}
    os.environ.pop("MULTIVERSE", None)
    with Server(replace(started, environment=environment), port) as running:
        running.wait(600)
        yield running.url
        assert post(running.url, "/generate", {"text": "A", "sampling_params": {"max_new_tokens": 1}})[0] == 200


@pytest.fixture
def backend(server: str) -> Any:
    """A backend for a server that has cached nothing."""
    assert urllib.request.urlopen(f"{server}/flush_cache?timeout=30", data=b"", timeout=60).status == 200
    return programs.RuntimeEndpoint(server)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(*load(str(TINY)))


def gen(name: str, tokens: int = 12, **options: Any) -> Any:
    return sgl.gen(name, max_tokens=tokens, temperature=0, return_logprob=True, top_logprobs_num=8, **options)


def common(one: list[int], other: list[int]) -> int:
    """How many elements two lists begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@sgl.function  # type: ignore[untyped-decorator]
def parallel_encoding(s: Any, question: str, facts: list[str]) -> None:
    """The shape of SGLang's own `test_parallel_encoding`."""
    s += "USER: Read these facts.\n"
    forks = s.fork(len(facts))
    forks += lambda i: f"Fact {i}: {facts[i]}\n"
    forks.join(mode="concate_and_append")
    s += f"Question: {question}\n"
    s += "ASSISTANT:" + gen("answer")


def encoded(question: str) -> Items:
    """What the oracle should see of `parallel_encoding`."""
    branches = [(0, [f"Fact {i}: {fact}\n"]) for i, fact in enumerate(FACTS)]
    return ["USER: Read these facts.\n", branches, f"Question: {question}\nASSISTANT:"]


def test_branches_that_were_encoded_apart_are_spliced(backend: Any, oracle: Oracle) -> None:
    state = parallel_encoding.run("Who has plums?", FACTS, backend=backend)
    facts = "".join(f"Fact {i}: {fact}\n" for i, fact in enumerate(FACTS))
    text = f"USER: Read these facts.\n{facts}Question: Who has plums?\nASSISTANT:"
    assert state.text() == text + state["answer"]
    info = state.get_meta_info("answer")
    assert oracle.difference(encoded("Who has plums?"), info) < 1e-4
    assert oracle.difference([text], info) > 0.1, "the model answers the same without a join, so this shows nothing"


def test_what_is_joined_is_not_computed_again(backend: Any, server: str, page: int, oracle: Oracle) -> None:
    before = computed(server)
    state = parallel_encoding.run("Who has pears?", FACTS, backend=backend)
    assert state["answer"]
    prefix, branches, rest = encoded("Who has pears?")
    own = [len(oracle.ids(text)) for _, (text,) in branches]
    total = len(oracle.ids(prefix)) + sum(own) + len(oracle.ids(rest))
    # every token once, and of the prefix at most what is in no whole page, for each branch and the join
    assert 0 <= computed(server) - before - total <= (len(FACTS) + 1) * (page - 1)
    info = state.get_meta_info("answer")
    assert (info["prompt_tokens"], info["cached_tokens"]) == (total, total - len(oracle.ids(rest)))


def test_a_plain_request_with_the_same_text_gets_none_of_it(backend: Any, server: str, oracle: Oracle) -> None:
    state = parallel_encoding.run("Who has pears?", FACTS, backend=backend)
    text = state.text()[: -len(state["answer"])]
    body = {"text": text, "sampling_params": {"max_new_tokens": 12, "temperature": 0}}
    status, answer = post(server, "/generate", body | {"return_logprob": True, "top_logprobs_num": 8})
    assert status == 200
    prefix, branches, _ = encoded("")
    causal = len(oracle.ids(prefix)) + len(oracle.ids(branches[0][1][0]))
    assert answer["meta_info"]["cached_tokens"] <= causal
    assert oracle.difference([text], answer["meta_info"]) < 1e-4


def test_branches_may_generate_before_they_are_joined(backend: Any, server: str, page: int, oracle: Oracle) -> None:
    @sgl.function  # type: ignore[untyped-decorator]
    def program(s: Any) -> None:
        s += "Three stories.\n"
        forks = s.fork(3)
        forks += lambda i: f"Story {i}: A = "
        forks += gen("story", 10)
        s.set_var("infos", [branch.get_meta_info("story") for branch in forks.states])
        forks += lambda _: "\n"
        forks.join(mode="concate_and_append")
        s.set_var("stories", [branch.text() for branch in forks.states])
        s += "The end: " + gen("end")

    before = computed(server)
    state = program.run(backend=backend)
    own = [text.removeprefix("Three stories.\n") for text in state["stories"]]
    document = ["Three stories.\n", [(0, [text]) for text in own], "The end: "]
    assert oracle.difference(document, state.get_meta_info("end")) < 1e-4
    # what a branch generated is computed again only from where its text makes other tokens, or else its last token
    again = 0
    for i, (text, info) in enumerate(zip(own, state["infos"], strict=True)):
        begun, generated = oracle.ids(f"Story {i}: A = "), [token for _, token, _ in info["output_token_logprobs"]]
        again += len(begun) + len(oracle.ids(text)) - common(oracle.ids(text), begun + generated[:-1])
    rest = sum(len(oracle.ids(text)) for text in ("Three stories.\n", "The end: "))
    assert computed(server) - before <= rest + again + (3 + 1) * (page - 1)


def test_forks_within_branches_and_several_joins(backend: Any, oracle: Oracle) -> None:
    @sgl.function  # type: ignore[untyped-decorator]
    def program(s: Any) -> None:
        s += "Root.\n"
        outer = s.fork(2)
        outer += lambda i: f"Branch {i}.\n"
        inner = outer[0].fork(2)
        inner += lambda i: f"Leaf {i} is small{' and green' * i}.\n"
        inner.join(mode="concate_and_append")
        outer[0] += "Leaves end.\n"
        outer.join(mode="concate_and_append")
        again = s.fork(2)
        again += lambda i: f"Again {i}.\n"
        again.join(mode="concate_and_append")
        s += "Sum: " + gen("sum")

    leaves = [(0, ["Leaf 0 is small.\n"]), (0, ["Leaf 1 is small and green.\n"])]
    first = [(0, ["Branch 0.\n", leaves, "Leaves end.\n"]), (0, ["Branch 1.\n"])]
    second = [(0, ["Again 0.\n"]), (0, ["Again 1.\n"])]
    state = program.run(backend=backend)
    assert oracle.difference(["Root.\n", first, second, "Sum: "], state.get_meta_info("sum")) < 1e-4


def test_position_offsets_are_heeded(backend: Any, oracle: Oracle) -> None:
    @sgl.function  # type: ignore[untyped-decorator]
    def program(s: Any) -> None:
        s += "Root.\n"
        forks = s.fork(2, position_ids_offset=[0, 40])
        forks += lambda i: f"Branch {i} says: "
        forks += gen("said", 6)
        s.set_var("infos", [branch.get_meta_info("said") for branch in forks.states])
        forks += lambda _: "\n"
        forks.join(mode="concate_and_append")
        s.set_var("texts", [branch.text().removeprefix("Root.\n") for branch in forks.states])
        s += "Sum: " + gen("sum")

    state = program.run(backend=backend)
    for i, info in enumerate(state["infos"]):
        assert oracle.difference(["Root.\n", [(40 * i, [f"Branch {i} says: "])]], info) < 1e-4
    document = ["Root.\n", [(0, [state["texts"][0]]), (40, [state["texts"][1]])], "Sum: "]
    assert oracle.difference(document, state.get_meta_info("sum")) < 1e-4


def test_branches_that_no_longer_fit_are_computed_again(server: str, page: int, oracle: Oracle) -> None:
    """At most half of the pool is kept for branches."""
    texts = [f"{word} = " + "1 2 3 4 5 6 7 8 " * 55 + "\n" for word in ("A", "B", "C")]
    kept = sum(len(oracle.ids(text)) for text in texts)
    assert POOL // 2 < kept < POOL * 3 // 4
    branches = fork(server, "program-wide", "Root.\n", texts)
    before = computed(server)
    assert join(server, "program-wide", branches) == (200, {"success": True})
    assert 0 <= computed(server) - before - len(oracle.ids(texts[0])) < page
    status, answer = commit(server, "program-wide", "Root.\n" + "".join(texts) + "Sum: ", 8)
    assert status == 200
    document = ["Root.\n", [(0, [text]) for text in texts], "Sum: "]
    assert oracle.difference(document, answer["meta_info"]) < 1e-4
    assert post(server, "/end_request", {"rids": ["program-wide"]})[0] == 200


def test_other_requests_come_before_what_is_kept(server: str, oracle: Oracle) -> None:
    texts = ["A = " + "1 2 3 4 5 6 7 8 " * 75 + "\n", "B = 2\n"]
    branches = fork(server, "program-short", "Root.\n", texts)
    body = {"text": "9 " * 1950, "sampling_params": {"max_new_tokens": 4, "temperature": 0}}
    assert post(server, "/generate", body)[0] == 200
    before = computed(server)
    assert join(server, "program-short", branches) == (200, {"success": True})
    assert computed(server) - before >= len(oracle.ids(texts[0]))
    answer = commit(server, "program-short", "Root.\n" + "".join(texts) + "Sum: ", 8)[1]
    document = ["Root.\n", [(0, [text]) for text in texts], "Sum: "]
    assert oracle.difference(document, answer["meta_info"]) < 1e-4
    assert post(server, "/end_request", {"rids": ["program-short"]})[0] == 200


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


MISUSE: dict[str, tuple[Callable[[str], tuple[int, Any]], str]] = {
    "a state that SGLang's own backend names": (lambda server: join(server, "f00", ["ba5", "ba6"]), "RuntimeEndpoint"),
    "a state that was never forked": (lambda server: commit(server, "program-none", "A", 4), "there is no state"),
    "a second join": (twice, "there is no state 'program-twice-0'"),
    "a join that is too long": (too_long, "context length"),
    "a branch that was not computed": (uncomputed, "never computed"),
    "nothing behind the join": (nothing_behind, "nothing follows the join"),
    "a text that is not the state's": (other_text, "does not begin with what was forked"),
    "a body with a wrong field": (lambda server: post(server, "/end_request", {"rid": "program-a"}), "rids"),
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
    while (status := commit(server, state["names"][0], "Root.\n")[0]) == 200 and time.monotonic() < until:
        time.sleep(0.1)
    assert status == 400
    assert commit(server, state["names"][1], "Root.\n")[0] == 400
    assert post(server, "/generate", {"text": "A", "sampling_params": {"max_new_tokens": 1}})[0] == 200


def test_the_states_of_a_client_that_is_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse_sglang import program_front

    monkeypatch.setattr(program_front, "IDLE", 0.01)  # how often it looks; the clock is another
    now, sent = [0.0], []
    tokenizer = SimpleNamespace(encode=lambda text, **_: [len(text)])
    manager = SimpleNamespace(tokenizer=tokenizer, rid_to_state={}, _dispatch_to_scheduler=sent.append)
    front = program_front.Programs.of(manager)
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


def test_the_examples_run(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "sglang_program_driven.py"))["main"](server, "How many hens does Ben have now?")
    assert "Of a prompt of" in capsys.readouterr().out
    problem = generate(Random(21), "flat", held_out=True)
    runpy.run_path(str(EXAMPLES / "sglang_model_driven.py"))["main"](server, [turn(problem)])
    assert f"branch {problem.width}:" in capsys.readouterr().out


def test_a_model_driven_program_has_its_tree(backend: Any) -> None:
    problem = generate(Random(21), "flat", held_out=True)

    @sgl.function  # type: ignore[untyped-decorator]
    def solve(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=900, temperature=0)

    state = solve.run(turn(problem), backend=backend)
    (block,) = programs.transcript(state, "answer").blocks
    record = programs.record(state, "answer")
    assert len(block.paths) == problem.width
    assert record is not None
    assert record["branches"] == problem.width
