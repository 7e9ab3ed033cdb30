"""What an `sgl.function` program joins is spliced, exactly, and not computed again."""

from __future__ import annotations

from typing import Any

from document_oracle import Oracle
from parallel_encoding import FACTS, encoded, gen, parallel_encoding, sgl
from program_requests import computed, post


def common(one: list[int], other: list[int]) -> int:
    """How many elements two lists begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


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
