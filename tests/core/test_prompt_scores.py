"""SEMANTICS 6: whoever computes a prompt, in parts or in one go, every token is scored once, by its predecessor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import trees
from toy import BINDINGS, encode, goal

from multiverse import Controller, Strand
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.replay import parts

Places = dict[tuple[tuple[int, ...], int], int]
"""By strand key and offset in the strand, a token's index in the prompt."""


def score(scores: PromptScores[int], key: tuple[int, ...], kv: list[int], start: int, end: int) -> None:
    """Compute the tokens `[start, end)` of a KV sequence, which is a list of places; rows are predecessors' places."""
    for target in scores.targets(key, start, end):
        assert start <= target.at < end
        scores.record(target.place, kv[target.at])


def replay(
    controller: Controller, strand: Strand, kv: list[int], places: Places, scores: PromptScores[int], chunk: int
) -> list[int]:
    """Compute `strand` behind the KV it shares, as a host would; returns its sequence."""
    kv, offset = list(kv), 0
    for part in parts(controller, strand):
        first = len(kv)
        kv += [places[strand.key, at] for at in range(offset, offset + len(part.tokens))]
        offset += len(part.tokens)
        for at in range(first, len(kv), chunk):
            score(scores, strand.key, kv, at, min(at + chunk, len(kv)))
        forked = len(kv)
        for child in part.children:
            kv += replay(controller, child, kv[:forked], places, scores, chunk)[forked:]
    return kv


@given(text=trees(), open_goal=st.booleans(), start=st.integers(0, 30), chunk=st.integers(1, 40))
def test_rows_are_those_of_the_layouts_predecessors(text: str, open_goal: bool, start: int, chunk: int) -> None:
    prompt = encode("ab" + text + (goal(3) if open_goal else ""))
    controller = Controller(BINDINGS["multiverse"], prompt=prompt)
    before = controller.prompt.layout.predecessors
    start = min(start, len(prompt) - 1)
    expected = [None, *(place if place >= 0 else None for place in before[start + 1 :])]
    places: Places = {}
    for strand, first, end in controller.prompt.strand.spans():
        places |= {(strand.key, at): len(places) + at - first for at in range(first, end)}
    whole = list(range(len(prompt)))
    in_parts, in_one_go = PromptScores[int](controller.prompt, start), PromptScores[int](controller.prompt, start)
    assert replay(controller, controller.root, [], places, in_parts, chunk) == whole
    for at in range(in_one_go.first, len(prompt), chunk):
        score(in_one_go, (), whole, at, at + chunk)  # the last ones are beyond the prompt: nothing is asked of them
    for scores in (in_parts, in_one_go):
        assert scores.complete
        assert scores.rows() == expected


def test_targets_name_the_token_that_is_scored_in_whichever_strand_its_predecessor_lies() -> None:
    prompt = encode("a" + goal(2) + "\n<Path>\n1:x</Path>\n<Path>\n2:y</Path>\n<Conclusion>z")
    controller = Controller(BINDINGS["multiverse"], prompt=prompt)
    scores: PromptScores[int] = PromptScores(controller.prompt)
    paths = [place for place, token in enumerate(prompt) if token == encode("<Path>")[0]]
    root, first, second = controller.prompt.strand.walk()
    (fork, _), own = root.forks[0], len(first.tokens)
    assert [target.place for target in scores.targets((), fork - 1, fork)] == paths
    assert [target.place for target in scores.targets(second.key, fork, fork + 1)] == [paths[1] + 1]
    assert scores.targets(second.key, 0, fork) == []  # what it shares is not its own
    assert scores.targets(first.key, fork + own - 1, fork + own) == []  # nothing predicts the tag after a join
    assert scores.targets((0, 0), 0, 5) == []  # a branch of the answer
