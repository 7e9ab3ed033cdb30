"""Rollouts say of an answer what its controller did: same tokens, positions and visibility, whatever became of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import limits, separators, stop_rules, token_soup, trees
from tiers import sizes
from toy import BINDINGS, Host, encode, goal, play

from multiverse import Controller, Limits, layout, to_transcript
from multiverse.errors import RolloutError
from multiverse.serving.report import Observed, report
from multiverse.structure.layout import Layout
from multiverse.training.rollouts import Reader, Rollout, flatten, from_dict, join, read, share, to_dict, to_row, write

BINDING = BINDINGS["multiverse"]


def record(host: Host) -> dict[str, Any]:
    """As a host that was asked for logprobs and tree reports it."""
    logprobs = {
        strand.key: [
            None if any(start <= at < end for start, end in strand.injected) else -(at + 1) / 8
            for at in range(len(strand.tokens))
        ]
        for strand in host.root.walk()
    }
    told: dict[str, Any] = json.loads(json.dumps(report(host.controller, Observed(logprobs=logprobs), with_tree=True)))
    return told


def rollout(host: Host, name: str = "r", **options: Any) -> Rollout:
    reader = Reader(BINDING, separators=host.controller.separators, **options)
    return reader.record(record(host), host.controller.prompt.ids, name, "g")


def answer(*bodies: str, prompt: str = "ab", before: str = "c", after: str = "gh<eos>") -> Host:
    """What a model says whose block has these paths."""
    host = Host(Controller(BINDING, Limits(), encode(prompt)))
    host.feed(host.root, before + goal(len(bodies)))
    for body in bodies:
        host.feed(host.running[0], body + "</Path>")
    host.feed(host.root, "</Conclusion></Parallel>" + after)
    return host


def seen(laid: Layout) -> list[tuple[int, int, list[int]]]:
    """Of every token its position, its predecessor and the earlier tokens it sees."""
    found = []
    for segment in laid.segments:
        hidden = {at for start, end in segment.hidden for at in range(start, end)}
        for at in range(segment.start, segment.end):
            visible = [before for before in range(at) if before not in hidden]
            found.append((laid.positions[at], laid.predecessors[at], visible))
    return found


@settings(max_examples=sizes().streams)
@given(st.data(), limits, separators, st.integers(0, 1 << 30), st.sampled_from([0.6, 0.95, 1.0]), stop_rules)
def test_the_layout_of_a_rollout_is_that_of_the_document_it_was_decoded_as(
    data: st.DataObject, caps: Any, setting: str, seed: int, follow: float, stops: Any
) -> None:
    """Cut, fallen back, aborted, with stop strings taken out, behind prompts that hold blocks or leave one open."""
    whole = data.draw(st.one_of(trees().map(encode), token_soup("multiverse", 25)))
    prompt = [9, *whole[: data.draw(st.integers(0, len(whole)))]]
    host = play("multiverse", caps, prompt, setting, seed, follow, stops=stops)
    found = rollout(host)
    expected = to_transcript(host.controller)
    assert found.ids == expected.ids
    assert seen(found.layout) == seen(layout(expected, host.controller.separators))
    if host.controller.finish_reason != "abort":
        assert found.layout.next_position == host.root.position
    assert sum(found.document("injected")) == host.controller.ledger.injected
    row = to_row(found, 2.0)
    assert [row.ids[p.place] for p in row.predictions] == [
        found.ids[before]
        for at, before in enumerate(found.layout.predecessors)
        if at >= len(prompt) and before >= 0 and not found.document("injected")[at - len(prompt)]
    ]
    assert from_dict(json.loads(json.dumps(to_dict(found)))) == found


def test_what_the_engine_wrote_is_context_and_all_else_is_learnt() -> None:
    host = answer("ab", "c")
    found = rollout(host, temperature=0.5, branch_temperature=2.0, weight_version="7")
    root, first, second = found.strands
    assert (root.parent, first.parent, second.parent) == (-1, 0, 0)
    assert first.token_ids == encode("<Path>\n1:ab</Path>\n")
    assert first.injected == [True] * 4 + [False] * 3 + [True]
    assert (root.temperature, first.temperature, second.weight_versions) == (0.5, 2.0, [("7", 0, 6)])
    learnt = to_row(found).encoded()
    predicted = [target for target in learnt.targets if target >= 0]
    assert predicted == encode("c" + goal(2) + "ab</Path>c</Path></Conclusion></Parallel>gh<eos>")
    assert len(to_row(found).predictions) == len(predicted)


def test_advantages_are_of_an_answer_of_its_strands_or_of_its_tokens() -> None:
    found = rollout(answer("ab", "c"))
    count = len(found.ids) - 2
    by_strand = to_row(found, {(): 1.0, (0, 0): 2.0, (0, 1): 3.0}).predictions
    assert [p.advantage for p in by_strand if p.advantage > 1] == [2.0] * 3 + [3.0] * 2
    by_token = to_row(found, [float(at) for at in range(count)]).predictions
    sampled = [at for at, written in enumerate(found.document("injected")) if not written]
    assert [p.advantage for p in by_token] == sampled
    assert {p.advantage for p in to_row(found, -1).predictions} == {-1.0}
    with pytest.raises(RolloutError, match=r"no advantage for strands \[\[0, 1\]\]"):
        to_row(found, {(): 1.0, (0, 0): 2.0})
    with pytest.raises(RolloutError, match=f"2 advantages for {count} tokens"):
        to_row(found, [1.0, 2.0])


def test_a_group_has_what_its_answers_share_once_and_each_sees_what_it_saw_alone() -> None:
    hosts = [answer("ab", "c"), answer("ab", "cd"), answer("ab", "c"), answer("b", "c")]
    hosts += [answer("b", "c", after="gha<eos>"), answer("a", "b", prompt="abc")]
    rows = [to_row(rollout(host, str(at)), float(at)) for at, host in enumerate(hosts)]
    shared = share(rows)
    assert len(shared) < sum(map(len, rows)) / 2
    assert shared.rollouts == len(rows)
    laid = seen(shared.layout)
    for at, row in enumerate(rows):
        alone, mine = seen(row.layout), [p for p in shared.predictions if p.rollout == at]
        for one, prediction in zip(row.predictions, mine, strict=True):
            assert prediction == one._replace(place=prediction.place, rollout=at)
            position, _, visible = alone[one.place]
            there, _, context = laid[prediction.place]
            assert there == position
            assert [(shared.ids[i], laid[i][0]) for i in context] == [(row.ids[i], alone[i][0]) for i in visible]


@given(st.data(), st.lists(st.integers(0, 1 << 30), min_size=2, max_size=4))
def test_any_group_is_its_answers(data: st.DataObject, seeds: list[int]) -> None:
    caps = Limits(max_tokens=data.draw(st.integers(10, 80)))
    prompt = encode("ab" + data.draw(trees(max_depth=2, max_width=3)))
    hosts = [play("multiverse", caps, prompt, "overlap", seed, 0.97) for seed in [*seeds, seeds[0]]]
    rows = [to_row(rollout(host)) for host in hosts]
    shared = share(rows)
    assert len(shared) <= sum(map(len, rows[:-1])) - len(prompt) * (len(seeds) - 1)
    packed, laid = join(rows), seen(shared.layout)
    alone = seen(packed.layout)
    for one, other in zip(packed.predictions, shared.predictions, strict=True):
        assert one == other._replace(place=one.place)
        mine, theirs = (
            ([*alone[one.place][2], one.place], packed.ids),
            ([*laid[other.place][2], other.place], shared.ids),
        )
        (context, ids), (same, shared_ids) = mine, theirs
        assert [(ids[i], alone[i][0]) for i in context] == [(shared_ids[i], laid[i][0]) for i in same]


def test_flat_sequences_say_which_tokens_a_causal_forward_gets_wrong() -> None:
    found = rollout(answer("ab", "c"))
    flat = flatten(found)
    before = len(encode("c" + goal(2)))
    assert flat.response_ids == found.document("token_ids")
    assert flat.exact == [at < before + 1 for at in range(len(flat.exact))]
    assert flat.lost == sum(flat.response_mask) - before
    plain = Host(Controller(BINDING, Limits(), encode("ab")))
    plain.feed(plain.root, "abc<eos>")
    assert flatten(rollout(plain)).lost == 0
    assert flatten(rollout(plain)).response_mask == [1, 1, 1, 1]


def test_files_hold_all_of_it(tmp_path: Path) -> None:
    prompt = encode("ab" + goal(2))
    found = [
        rollout(answer("ab", "c"), weight_version="3"),
        rollout(play("multiverse", Limits(max_tokens=60), prompt, "overlap", 3, 0.95), "cut"),
        rollout(play("multiverse", Limits(max_depth=0), encode("a"), "overlap", 5, 1.0), "fallen back"),
    ]
    assert any(strand.fallbacks for one in found for strand in one.strands)
    file = tmp_path / "rollouts.jsonl"
    write(file, found)
    assert read(file) == found


def test_parquet_without_pyarrow_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RolloutError, match=r"pip install 'multiverse-engine\[rollouts\]', or write .jsonl"):
        write(tmp_path / "r.parquet", [])
    with pytest.raises(RolloutError, match=r"are kept in .jsonl or .parquet files"):
        read(tmp_path / "r.csv")


def test_http_answers_streamed_or_not_are_the_same_rollouts() -> None:
    host, reader = answer("ab", "c"), Reader(BINDING)
    told, ids = record(host), host.controller.prompt.ids
    whole = {"id": "x", "prompt_token_ids": ids, "choices": [{"index": 0, "multiverse": told}]}
    expected = reader.record(told, ids, "x-0", "x")
    assert reader.response(whole) == [expected]
    assert reader.response({"id": "x", "choices": [{**whole["choices"][0], "prompt_token_ids": ids}]}) == [expected]
    chunks: list[dict[str, Any]] = [
        {"id": "x", "prompt_token_ids": ids, "choices": [{"index": 0, "delta": {"content": ""}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {}, "multiverse": {"events": []}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {}, "multiverse": told}]},
        {"id": "x", "choices": [], "usage": {}},
    ]
    assert reader.chunks(chunks) == [expected]
    assert reader.chunks(chunks[1:], ids) == [expected]
    with pytest.raises(RolloutError, match="x-0: the response does not say which tokens the prompt has"):
        reader.chunks(chunks[1:])


def test_what_is_no_rollout_is_refused_by_name() -> None:
    host, reader = answer("ab", "c"), Reader(BINDING)
    told, ids = record(host), host.controller.prompt.ids
    with pytest.raises(RolloutError, match="r: the answer came without its tree: ask with"):
        reader.record(None, ids, "r", "g")
    with pytest.raises(RolloutError, match="r: the answer begins at position 2, the prompt ends before 3"):
        reader.record(told, [*ids, 9], "r", "g")
    bare = [{name: value for name, value in strand.items() if name != "logprobs"} for strand in told["tree"]]
    with pytest.raises(RolloutError, match="r: the answer came without logprobs"):
        reader.record({**told, "tree": bare}, ids, "r", "g")
    lost = json.loads(json.dumps(told))
    lost["tree"][1]["logprobs"][4] = None
    count = told["injected_tokens"]
    with pytest.raises(RolloutError, match=f"r: {count + 1} tokens have no logprob, the engine wrote {count}"):
        reader.record(lost, ids, "r", "g")
    found = rollout(host)
    first = replace(found.strands[1], logprobs=[0.0, *found.strands[1].logprobs[1:]])
    with pytest.raises(RolloutError, match=r"strand \[0, 0\]: token 0: the engine wrote it, but it has a logprob"):
        replace(found, strands=(found.strands[0], first, found.strands[2]))
    with pytest.raises(RolloutError, match="every fork must be in order and have branches"):
        replace(found, strands=found.strands[:1])
    with pytest.raises(RolloutError, match="rollouts of schema 1 are read here, got one of 2"):
        from_dict({**to_dict(found), "schema": 2})
    with pytest.raises(RolloutError, match="rollout 'r' has not the fields of schema 1: 'strands'"):
        from_dict({name: value for name, value in to_dict(found).items() if name != "strands"})


def test_branches_of_a_dialect_that_reads_them_again_are_refused() -> None:
    host = Host(Controller(BINDINGS["threadweaver"], Limits(), [9]))
    host.feed(host.root, goal(2, "threadweaver"))
    for _ in range(2):
        host.feed(host.running[0], "a</Thread>")
    host.feed(host.root, "b<eos>")
    with pytest.raises(RolloutError, match="branches of dialect threadweaver are read again after a join"):
        Reader(BINDINGS["threadweaver"]).record(record(host), [9], "r", "g")
