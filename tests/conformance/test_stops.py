"""What ends a branch and what ends an answer (SEMANTICS 4): one rule on both hosts, that of docs/api.md."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest
from answer import Answer, Host

from multiverse import Binding, Tag

QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."
TREE = {"return_tree": True}


@pytest.fixture(scope="module")
def prompt(tiny: tuple[Any, Any]) -> list[int]:
    text = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    return list(tiny[1].encode(text))


@pytest.fixture(scope="module")
def whole(host: Host, prompt: list[int]) -> Answer:
    """The answer that nothing cuts: two branches, then the conclusion."""
    (answer,) = host.generate([prompt], logprobs=1, multiverse=TREE)
    return answer


def branches(answer: Answer, tiny: tuple[Any, Any]) -> list[tuple[str, str]]:
    """What each branch says between its header and its closing tag, and why it ended."""
    assert answer.record is not None
    texts = [(tiny[1].decode(strand["token_ids"]), strand["finish_reason"]) for strand in answer.record["tree"][1:]]
    return [(text.partition(":")[2].rpartition("</Path>\n")[0], reason) for text, reason in texts]


def check_counts(answer: Answer) -> None:
    """The record, its tree, the answer and its logprobs have the same tokens."""
    assert answer.record is not None
    assert answer.logprobs is not None
    tree = answer.record["tree"]
    assert answer.record["tokens"] == len(answer.ids) == len(answer.logprobs)
    assert len(answer.ids) == sum(len(strand["token_ids"]) for strand in tree)
    assert all(len(strand["logprobs"]) == len(strand["token_ids"]) == len(strand["positions"]) for strand in tree)
    written = sum(value is None for strand in tree for value in strand["logprobs"])
    assert written == answer.record["injected_tokens"]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("stop", ["</Path>", "2 7", "9 2 6 =", "x 4", "Path>", "\n"])
def test_a_stop_string_ends_each_branch_that_samples_it_and_goes_with_all_of_it(
    host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer, stop: str, keep: bool
) -> None:
    """Or stays with all of it, if the request keeps it. The answer goes on."""
    before = branches(whole, tiny)
    if stop == "\n":  # the goal has line breaks
        prompt = prompt + whole.ids[: whole.ids.index(host_goal_close(tiny)) + 1]
    (answer,) = host.generate([prompt], logprobs=1, stop=[stop], include_stop_str_in_output=keep, multiverse=TREE)
    check_counts(answer)
    for (said, _), (text, reason) in zip(before, branches(answer, tiny), strict=True):
        sampled = said + "</Path>"
        assert reason == ("stop" if stop in sampled else "path_close")
        cut = sampled.index(stop) + len(stop) * keep if stop in sampled else None
        assert text == sampled[:cut].removesuffix("</Path>")
    assert answer.ids.count(host_path_close(tiny)) == 2
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.skipif(find_spec("sglang") is None, reason="expressions are SGLang's own")
@pytest.mark.parametrize("keep", [False, True])
def test_what_an_expression_matches_in_a_branch_goes_with_all_of_it(
    host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer, keep: bool
) -> None:
    """Or stays, if the request keeps it. The answer goes on."""
    expression = "[27] [71]"
    (answer,) = host.generate(
        [prompt], logprobs=1, stop_regex=[expression], include_stop_str_in_output=keep, multiverse=TREE
    )
    check_counts(answer)
    reasons = []
    for (said, _), (text, reason) in zip(branches(whole, tiny), branches(answer, tiny), strict=True):
        found = re.search(expression, said)
        assert reason == ("stop" if found else "path_close")
        assert text == (said[: found.end() if keep else found.start()] if found else said)
        reasons.append(reason)
    assert "stop" in reasons
    assert not any(host.leftovers().values()), host.leftovers()


def host_goal_close(tiny: tuple[Any, Any]) -> int:
    return int(tiny[1].convert_tokens_to_ids("</Goal>"))


def host_path_close(tiny: tuple[Any, Any]) -> int:
    return int(tiny[1].convert_tokens_to_ids("</Path>"))


@pytest.mark.parametrize("stop", ["<Path>", "<Conclusion>", "</Path>\n<Path>", "Conclusion>\nsum", "\n</Path>\n"])
def test_no_stop_string_is_found_in_what_the_engine_wrote_or_across_strands(
    host: Host, prompt: list[int], whole: Answer, stop: str
) -> None:
    (answer,) = host.generate([prompt], logprobs=1, stop=[stop], multiverse=TREE)
    assert answer.ids == whole.ids
    check_counts(answer)


@pytest.mark.parametrize("stop", ["Answer:", "<Goal>", "1: A"])
def test_outside_of_branches_a_stop_string_ends_the_answer_and_its_record_comes(
    host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer, stop: str
) -> None:
    (answer,) = host.generate([prompt], logprobs=1, stop=[stop], multiverse=TREE)
    assert answer.finish_reason == "stop"
    assert answer.ids == whole.ids[: len(answer.ids)]
    text = tiny[1].decode(answer.ids)
    assert stop in text
    assert stop not in tiny[1].decode(answer.ids[:-1])
    check_counts(answer)
    assert answer.record is not None
    assert (answer.record["finish_reason"], answer.record["branches"]) == ("stop", 2 if stop == "Answer:" else 0)


@pytest.mark.parametrize("tag", [Tag.GOAL_CLOSE, Tag.BLOCK_OPEN, Tag.GOAL_OPEN])
def test_a_stop_token_ends_the_answer_whatever_tag_it_is(
    host: Host, binding: Binding, prompt: list[int], whole: Answer, tag: Tag
) -> None:
    token = binding.ids[tag]
    (answer,) = host.generate([prompt], logprobs=1, stop_token_ids=[token], multiverse=TREE)
    assert answer.ids == whole.ids[: whole.ids.index(token) + 1]
    assert answer.finish_reason == "stop"
    check_counts(answer)
    assert answer.record is not None
    assert answer.record["fallbacks"] == {}


def test_a_stop_token_ends_a_branch(host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer) -> None:
    """One that only the second branch samples."""
    assert whole.record is not None
    root, first, second = (strand["token_ids"] for strand in whole.record["tree"])
    fork = whole.record["tree"][0]["forks"][0]
    token = next(token for token in second[4:-2] if token not in first and token not in root[:fork])
    (answer,) = host.generate([prompt], logprobs=1, stop_token_ids=[token], multiverse=TREE)
    (one, why), (other, reason) = branches(answer, tiny)
    assert (one, why) == branches(whole, tiny)[0]
    assert (other, reason) == (tiny[1].decode(second[4 : second.index(token)]), "stop")
    check_counts(answer)


@pytest.mark.parametrize("tokens", [1, 5, "goal", "all"])
def test_the_last_allowed_token_is_in_the_record(
    host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer, tokens: int | str
) -> None:
    """Also if it closes a goal, and if it ends the answer by itself: then the reason is `stop`."""
    named = {"goal": whole.ids.index(host_goal_close(tiny)) + 1, "all": len(whole.ids)}
    most = tokens if isinstance(tokens, int) else named[tokens]
    (answer,) = host.generate([prompt], logprobs=1, max_tokens=most, multiverse=TREE)
    assert answer.finish_reason == ("stop" if tokens == "all" else "length")
    assert len(answer.ids) == most
    check_counts(answer)
    assert answer.record is not None
    assert answer.record["finish_reason"] == answer.finish_reason
    assert answer.record["fallbacks"] == ({"token_budget": 1} if tokens == "goal" else {})


def test_a_plain_answer_that_ends_at_its_last_allowed_token_has_stopped(host: Host, tiny: tuple[Any, Any]) -> None:
    prompt = tiny[1].encode("<|im_start|>user\nA = sum 3 5. Find A.<|im_end|>\n<|im_start|>assistant\n")
    for options in ({}, {"multiverse": {"enabled": False}}):
        (answer,) = host.generate([prompt], **options)
        (bounded,) = host.generate([prompt], max_tokens=len(answer.ids), **options)
        assert (bounded.ids, bounded.finish_reason) == (answer.ids, "stop")


def test_min_tokens_are_those_that_a_strand_sees(
    host: Host, tiny: tuple[Any, Any], prompt: list[int], whole: Answer
) -> None:
    """Its own and those before the fork; how far its siblings are makes no difference."""
    assert whole.record is not None
    (first, _), _ = branches(whole, tiny)
    root, branch = whole.record["tree"][:2]
    ids, fork = branch["token_ids"], root["forks"][0]
    end = next(n for n in range(len(ids)) if "2 7" in tiny[1].decode(ids[4:n]))
    for most, stops in ((fork + end - 1, True), (fork + end, False)):
        for parallel in (1, 2):
            options = TREE | {"max_parallel": parallel}
            (answer,) = host.generate([prompt], stop=["2 7"], min_tokens=most, multiverse=options)
            text, reason = branches(answer, tiny)[0]
            if stops:
                assert (text, reason) == (first[: first.index("2 7")], "stop")
            else:
                assert text.startswith(first[: first.index("2 7") + 3])


def test_stops_are_the_same_when_memory_is_short(
    host: Host, scarce_host: Host, prompt: list[int], whole: Answer
) -> None:
    """A strand that is computed again goes on looking where it was."""
    sampling: dict[str, Any] = {"stop": ["2 7 1 = 8", "9 2 6 = 9"], "multiverse": TREE}
    expected = host.generate([prompt], **sampling)[0].ids
    assert expected != whole.ids
    assert [answer.ids for answer in scarce_host.generate([prompt] * 4, **sampling)] == [expected] * 4
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()
