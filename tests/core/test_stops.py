"""What ends a strand: the host's stop first, stop strings in what was sampled, then the controller (SEMANTICS 4)."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import stop_strings
from toy import Host, decode, encode, goal, host

from multiverse import Close, FinishReason, Limits, Strand
from multiverse.serving.report import Observed, report
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge

GOAL = len(encode(goal(2)))


def branches(*strings: str, keep: bool = False, least: int = 0, prompt: str = "") -> tuple[Host, Strand, Strand]:
    """Two branches of a request with these stop strings."""
    h = host(prompt=prompt + goal(2), stops=Stops(strings, keep=keep, min_tokens=least))
    first, second = h.running
    return h, first, second


def body(strand: Strand) -> str:
    """What a branch says between its header and its closing tag."""
    return decode(strand.tokens[len(strand.header) : strand.close])


@pytest.mark.parametrize(
    ("sampled", "stop", "left", "kept"),
    [
        ("abcd", "c", "ab", "abc"),
        ("abcd", "bc", "a", "abc"),
        ("abcd", "abcd", "", "abcd"),
        ("a2:b", ":", "a2", "a2:"),
        ("a2:b", "2", "a", "a2"),
        ("a 1b", "a ", "", "a "),
        ("ab 1b", "1b", "ab ", "ab 1b"),
        ("a<Goal>b", "<Goal>", "a", "a<Goal>"),
        ("a<Goal>b", "<G", "a", "a<unk>G"),
        ("ab</Path>", "b</Path>", "a", "ab"),
        ("ab</Path>", "</Path>", "ab", "ab"),
        ("aab", "ab", "a", "aab"),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_the_whole_stop_string_is_taken_out_of_the_branch_or_all_of_it_stays(
    sampled: str, stop: str, left: str, kept: str, keep: bool
) -> None:
    """Wherever it begins and ends. The other branch and the request go on."""
    h, first, second = branches(stop, keep=keep)
    h.feed(first, sampled)
    assert first.finish_reason is FinishReason.STOP
    if "<unk>" not in kept or not keep:
        assert body(first) == (kept if keep else left)
    assert decode(first.tokens).count("</Path>") == 1
    h.feed(second, "h</Path>")
    assert h.running == [h.root]
    assert decode(h.shown).endswith("h</Path>\n<Conclusion>")


@pytest.mark.parametrize(
    ("sampled", "expression", "left", "kept"),
    [
        ("ab12", "[0-9]{2}", "ab", "ab12"),
        ("ab1", "b[0-9]", "a", "ab1"),
        ("ab", "a?b", "", "ab"),
        ("ab a 1b", "a 1+", "ab ", "ab a 1"),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_what_a_host_matched_by_an_expression_is_taken_out_of_the_branch_or_all_of_it_stays(
    sampled: str, expression: str, left: str, kept: str, keep: bool
) -> None:
    h, first, _ = branches(keep=keep)
    judge, since = Judge(h.controller, Stops(keep=keep)), len(first.tokens)
    for token in encode(sampled)[:-1]:
        judge.decide(first, token)
    judge.decide(first, encode(sampled)[-1], FinishReason.STOP, (expression, since))
    assert first.finish_reason is FinishReason.STOP
    assert body(first) == (kept if keep else left)


def test_a_part_that_has_not_become_whole_is_kept_and_shown_once_it_is_certain() -> None:
    h, first, second = branches("abc")
    shown = len(h.shown)
    h.feed(first, "dab")
    assert decode(h.shown[shown:]) == "d"
    h.feed(first, "a")
    assert decode(h.shown[shown:]) == "dab"
    h.feed(first, "b</Path>")
    h.feed(second, "ab</Path>")
    assert (body(first), body(second)) == ("dabab", "ab")
    assert {first.finish_reason, second.finish_reason} == {FinishReason.PATH_CLOSE}


@pytest.mark.parametrize(
    "stop", ["<Path>", ":", "</Path>\n", "\n<Path>", "ab", "</Path>\n<Path>", "<Conclusion>", "n>h"]
)
def test_nothing_is_found_in_what_the_engine_wrote_nor_across_strands(stop: str) -> None:
    h, first, second = branches(stop)
    h.feed(first, "a</Path>")
    h.feed(second, "b</Path>")
    assert h.running == [h.root]
    h.feed(h.root, "h")
    assert h.running == [h.root]
    assert [strand.finish_reason for strand in (first, second)] == [FinishReason.PATH_CLOSE] * 2


def test_a_part_before_a_fork_and_a_part_after_the_join_make_no_whole() -> None:
    h = host(stops=Stops(("</Goal>\n<Conclusion>h", "Goal>h")))
    h.feed(h.root, goal(2))
    for child in list(h.running):
        h.feed(child, "a</Path>")
    h.feed(h.root, "h")
    assert h.running == [h.root]


def test_outside_of_a_branch_a_stop_string_ends_the_request_with_all_of_it_in() -> None:
    """The engine that sends the answer cuts its text; its tokens were generated."""
    h, first, second = branches("ef")
    h.feed(first, "a</Path>")
    h.feed(second, "e</Path>")
    h.feed(h.root, "fe")
    assert h.running == [h.root]
    h.feed(h.root, "f")
    assert h.controller.finish_reason is FinishReason.STOP
    assert decode(h.shown).endswith("<Conclusion>fef")


@pytest.mark.parametrize("least", [0, GOAL + 1 + 4 + 1, GOAL + 1 + 4 + 2, 1000])
def test_min_tokens_counts_what_the_strand_sees_of_what_was_generated(least: int) -> None:
    """Whatever its siblings have written meanwhile: when a branch runs never changes what it says."""
    h = host(stops=Stops(("b",), min_tokens=least))
    h.feed(h.root, goal(2))
    first, second = h.running
    h.feed(second, "aaaaaaaa")
    h.feed(first, "ab")
    assert (first.finish_reason is FinishReason.STOP) == (least < GOAL + 1 + 4 + 2)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("tag", ["</Goal>", "</Path>", "a"])
def test_a_stop_token_ends_a_branch_before_it_means_anything(tag: str, keep: bool) -> None:
    """It stays if the request keeps what it stops at; the end of a turn never does."""
    (token,) = encode(tag)
    h = host(prompt=goal(2), stops=Stops(tokens=frozenset([token]), keep=keep))
    first, second = h.running
    h.feed(first, "b")
    (close,) = h.sample(first, token, FinishReason.STOP)
    assert isinstance(close, Close)
    assert close.reason is FinishReason.STOP
    assert decode(first.tokens) == f"<Path>\n1:b{tag if keep and tag != '</Path>' else ''}</Path>\n"
    h.sample(second, encode("<eos>")[0], FinishReason.STOP)
    assert decode(second.tokens) == "<Path>\n2:</Path>\n"


def test_goal_close_as_a_stop_token_ends_the_request_and_does_not_fork() -> None:
    h = host(stops=Stops(tokens=frozenset(encode("</Goal>"))))
    *before, last = encode(goal(2))
    h.feed(h.root, before)
    h.sample(h.root, last, FinishReason.STOP)
    assert h.controller.finish_reason is FinishReason.STOP
    assert h.shown == [*before, last]
    record = report(h.controller, Observed())
    assert (record["tokens"], record["blocks"], record["branches"], record["fallbacks"]) == (GOAL, 1, 0, {})


def test_the_hosts_stop_wins_over_the_last_allowed_token() -> None:
    h = host(limits=Limits(max_tokens=3))
    h.feed(h.root, "ab")
    h.sample(h.root, encode("c")[0], FinishReason.STOP)
    assert h.controller.finish_reason is FinishReason.STOP
    assert decode(h.shown) == "abc"


def test_a_stop_string_wins_over_the_last_allowed_token() -> None:
    h = host(limits=Limits(max_tokens=3), stops=Stops(("bc",)))
    h.feed(h.root, "abc")
    assert h.controller.finish_reason is FinishReason.STOP


def test_a_branch_that_ends_with_the_last_allowed_token_leaves_none_to_the_others() -> None:
    """A kept stop string, unlike path-close, is not paid for from what is reserved."""
    stops = Stops(("b",), keep=True)
    ledger = host(prompt=goal(2), stops=stops).controller.ledger
    most = ledger.used + ledger.reserved + 2
    h = host(prompt=goal(2), limits=Limits(max_tokens=most), stops=stops)
    first, second = h.running
    h.feed(first, "ab")
    assert h.controller.finish_reason is FinishReason.LENGTH
    assert h.feed(second, "a") == []
    assert h.controller.ledger.used == most


@pytest.mark.parametrize("limit", [None, GOAL, GOAL + 100])
def test_the_token_at_which_the_host_runs_out_reaches_the_record(limit: int | None) -> None:
    """Also a goal-close, whose block can't be forked then: whichever of the two counts it, the host or we."""
    h = host(limits=Limits(max_tokens=limit))
    *before, last = encode(goal(2))
    h.feed(h.root, before)
    h.sample(h.root, last, FinishReason.LENGTH)
    record = report(h.controller, Observed())
    assert (record["tokens"], record["finish_reason"]) == (GOAL, "length")
    assert record["fallbacks"] == {"token_budget": 1}
    assert h.shown == [*before, last]


@given(st.text("abc12: \n", max_size=30), st.lists(stop_strings, min_size=1, max_size=3), st.booleans())
def test_a_branch_says_what_was_sampled_up_to_the_first_stop_string(
    sampled: str, strings: list[str], keep: bool
) -> None:
    """Against the plain definition: the text up to the string that is whole first, token by token."""
    assume(all(string in sampled or string not in sampled + "</Path>" for string in strings))
    h, first, second = branches(*strings, keep=keep)
    ids, text, stopped = encode(sampled), "", None
    h.feed(first, ids)
    for token in ids:
        text += decode([token])
        found = [(text.find(string) + len(string), string) for string in strings if string in text]
        if found:
            stopped = min(found, key=lambda place: place[0])
            break
    if stopped is None:
        assert body(first) == sampled
        h.feed(first, "</Path>")
        stopped_text = sampled
    else:
        end, string = stopped
        stopped_text = text[: end if keep else end - len(string)]
        assert first.finish_reason is FinishReason.STOP
    assert body(first) == stopped_text
    h.feed(second, "</Path>")
    told = [token for event in h.events for token in event.tokens if event.key == first.key]
    assert told == first.tokens
    assert h.controller.ledger.used == len(h.shown)
