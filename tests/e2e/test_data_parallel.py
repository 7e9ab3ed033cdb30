"""One server with two data-parallel engines: each forks, splices, counts and ends as a server with one engine does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from servers import FEW_BLOCKS
from streamed import Counts, Streamed, added, assert_whole, scraped, stream

from multiverse.evaluation.bench.hosts import words_of
from multiverse.harness.server import Server, command, free_port
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.training.grpo.served import Served

FLAGS = {"vllm": ("--data-parallel-size", "2", *FEW_BLOCKS), "sglang": ("--dp-size", "2")}
ENGINES = ("0", "1")
FLUSH = {"vllm": "/reset_prefix_cache", "sglang": "/flush_cache"}
TURNS = (
    "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.",  # vLLM finds its join: a whole block of KV reaches behind it
    "C = min 8 6 7 9 5; D = sum 1 2 3 4 5. Find max C D.",
)


@pytest.fixture(scope="module")
def pair(host: str) -> Iterator[str]:
    """The base URL of a server with two engines, which rehearsed. At the end nothing is left, no books disagreed."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MULTIVERSE", raising=False)
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        patch.setenv("CPU_VISIBLE_MEMORY_NODES", "0,0")  # else vLLM 0.33 wants a NUMA node for each engine
        cores = sorted(os.sched_getaffinity(0))  # and SGLang does
        patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
        arguments = ["--served-model-name", "tiny", "--multiverse-shapes", "accept", *FLAGS[host]]
        with Server(command(host, str(TINY), port, arguments), port) as server:
            server.wait(600)
            if host == "sglang":
                assert server.log.read_text().count("fork and splice rehearsed") == len(ENGINES)
            yield server.url
            found = scraped(server.url)
            assert sorted(found) == list(ENGINES)
            for engine in ENGINES:
                assert found[engine]["integrity_failures_total"] == 0
                assert found[engine]["running_branches"] == found[engine]["parked_sequences"] == 0


@pytest.fixture(scope="module")
def expected(server: str, problems: list[Problem]) -> list[dict[tuple[int, ...], list[int]]]:
    """What a server with one engine answers."""
    return [answer.tokens for answer in ask_all(server, problems)]


def ask_all(url: str, problems: Sequence[Problem], ranks: Sequence[int | None] | None = None) -> list[Streamed]:
    with ThreadPoolExecutor(len(problems)) as pool:
        return list(pool.map(stream, [url] * len(problems), problems, ranks or [None] * len(problems)))


def told(answers: Sequence[Streamed]) -> dict[str, float]:
    """What the metrics have to say about these answers."""
    forks = sum(answer.forks for answer in answers)
    spliced = sum(answer.spliced for answer in answers)
    return {"forks_total": forks, "joins_total": forks, "spliced_tokens_total": spliced, "block_width_count": forks}


def counted(url: str, before: Counts, answers: Sequence[Streamed]) -> list[dict[str, float]]:
    """The same metrics as each engine has them, once there are as many as these answers tell of."""
    names, forks = told(answers), told(answers)["forks_total"]
    new = added(url, before, lambda new: sum(new[engine]["block_width_count"] for engine in ENGINES) >= forks)
    return [{name: new[engine][name] for name in names} for engine in ENGINES]


def test_answers_are_those_of_one_engine_and_the_metrics_of_both_add_up_to_them(
    pair: str, problems: list[Problem], expected: list[dict[tuple[int, ...], list[int]]]
) -> None:
    before = scraped(pair)
    answers = ask_all(pair, problems)
    assert [answer.tokens for answer in answers] == expected
    for answer in answers:
        assert_whole(answer)
    first, second = counted(pair, before, answers)
    assert first["forks_total"] > 0
    assert second["forks_total"] > 0
    assert {name: first[name] + second[name] for name in first} == told(answers)


def test_the_header_chooses_the_engine_and_its_own_metrics_tell_its_answers(
    pair: str, problems: list[Problem], expected: list[dict[tuple[int, ...], list[int]]]
) -> None:
    before = scraped(pair)
    ranks = [0, 1, 1] * 3
    answers = ask_all(pair, problems[:9], ranks)
    assert [answer.tokens for answer in answers] == expected[:9]
    by_rank = [[answer for answer, rank in zip(answers, ranks, strict=True) if rank == each] for each in (0, 1)]
    assert counted(pair, before, answers) == [told(answers) for answers in by_rank]


@pytest.mark.parametrize("home", [0, 1])
def test_a_follow_up_turn_finds_its_kv_on_its_own_engine_and_is_right_on_the_other(
    pair: str, server: str, host: str, home: int
) -> None:
    httpx.post(f"{pair}{FLUSH[host]}").raise_for_status()
    answer = stream(pair, [{"role": "user", "content": TURNS[0]}], home)
    said = zip(("user", "assistant", "user"), (TURNS[0], answer.text, TURNS[1]), strict=True)
    turns = [{"role": role, "content": content} for role, content in said]
    prompt, spliced = answer.usage["prompt_tokens"], answer.spliced
    assert spliced > 0
    found = []
    follow_ups = []
    for rank in (home, 1 - home):
        before = scraped(pair)
        follow_ups.append(stream(pair, turns, rank))
        new = added(pair, before, lambda new, rank=rank: new[str(rank)]["joins_total"] > 0)  # type: ignore[misc]
        assert new[str(1 - rank)]["cached_tokens_total"] == 0
        found.append(new[str(rank)]["cached_tokens_total"])
    at_home, elsewhere = found
    assert at_home > prompt + spliced
    assert elsewhere == 0
    alone = stream(server, turns)
    assert [follow_up.tokens for follow_up in follow_ups] == [alone.tokens] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_client_that_goes_away_ends_its_tree_on_either_engine(
    pair: str, host: str, problems: list[Problem], expected: list[dict[tuple[int, ...], list[int]]], rank: int
) -> None:
    before = scraped(pair)
    for problem in [problem for problem in problems if problem.forks][:3]:
        stream(pair, problem, rank, leave=lambda answer: answer.is_forked)
    until = time.monotonic() + 30
    while (left := used(pair, host)) and time.monotonic() < until:
        time.sleep(0.2)
        for each in (0, 1):  # vLLM writes it anew as it steps
            stream(pair, problems[0], each)
    assert left == 0
    assert added(pair, before, lambda _: True)[str(rank)]["forks_total"] >= 3
    assert [stream(pair, problems[2], each).tokens for each in (0, 1)] == [expected[2]] * 2


def test_a_program_joins_what_both_engines_have_computed(pair: str, server: str, host: str) -> None:
    """Its requests go round; what an engine lacks it computes again."""
    if host != "sglang":
        pytest.skip("these programs belong to SGLang")
    import sglang as sgl

    from multiverse_sglang.programs import RuntimeEndpoint

    @sgl.function  # type: ignore[untyped-decorator]
    def program(s: Any) -> None:
        s += "USER: Read these facts.\n"
        forks = s.fork(3)
        forks += lambda i: f"Fact {i}: there are {i + 3} apples.\n"
        forks.join(mode="concate_and_append")
        s += "ASSISTANT:" + sgl.gen("answer", max_tokens=12, temperature=0, return_logprob=True)

    infos = [program.run(backend=RuntimeEndpoint(url)).get_meta_info("answer") for url in (server, pair)]
    (alone, both) = ([entry[:2] for entry in info["output_token_logprobs"]] for info in infos)
    assert [token for _, token in both] == [token for _, token in alone]
    assert [value for value, _ in both] == pytest.approx([value for value, _ in alone], abs=1e-4)


def used(url: str, host: str) -> float:
    """The share, or the number, of KV slots in use, of both engines."""
    if host == "sglang":  # its gauge may show the last prefill for half a minute
        return sum(load["num_used_tokens"] for load in httpx.get(f"{url}/v1/loads").json()["loads"])
    name = "vllm:kv_cache_usage_perc{"
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_new_weights_come_to_both_engines_in_the_middle_of_their_trees(
    pair: str, host: str, problems: list[Problem], expected: list[dict[tuple[int, ...], list[int]]]
) -> None:
    """The same weights under other names, so the answers are known. Where cores are few, a server may hear of them only
    when its engines have nothing to do; so this is tried until they came to both in the midst of an answer."""
    served, version, met = Served(pair, host), 0, set[int]()  # type: ignore[arg-type]
    bias = {str(token): -100 for token in words_of(str(TINY)).banned}
    shape = {"multiverse": {"shape": [8, [[300], [300]], 100]}, "max_tokens": 900}

    def ask(number: int) -> Streamed:
        return stream(pair, problems[number], number % 2, logit_bias=bias, ignore_eos=True, **shape)

    known = [ask(number).tokens for number in range(4)]
    while met != {0, 1} and version < 20:
        with ThreadPoolExecutor(len(known)) as pool:
            asked = [pool.submit(ask, number) for number in range(len(known))]
            time.sleep(0.05 * version)
            version += 1
            served.load(str(TINY), str(version))
            answers = [future.result() for future in asked]
        assert [answer.tokens for answer in answers] == known
        trees = enumerate(answer.record["tree"] for answer in answers)
        met |= {number % 2 for number, tree in trees for strand in tree if len(strand["weight_versions"]) > 1}
    assert met == {0, 1}
    for rank in (0, 1):
        answer = stream(pair, problems[2], rank)
        assert answer.tokens == expected[2]
        versions = [strand["weight_versions"] for strand in answer.record["tree"]]
        assert versions == [[[str(version), 0, len(strand["token_ids"])]] for strand in answer.record["tree"]]
