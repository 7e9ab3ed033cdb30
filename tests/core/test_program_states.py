"""What a server remembers of programs: their text in tokens, piece by piece, for a bounded time."""

from __future__ import annotations

import pytest

from multiverse_sglang.frontend.program_states import CAPACITY, IDLE, StateError, States


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def letters(text: str, beginning: bool) -> list[int]:
    """One token per letter, and one that says where a sequence begins; `xy` is one token, which a seam may cut."""
    return [*([0] if beginning else []), *(map(ord, text.replace("xy", "z")))]


def shown(ids: list[int]) -> str:
    return "".join(chr(token) if token else "^" for token in ids)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def states(clock: Clock) -> States:
    return States(letters, clock)


def forked(states: States, *branches: str, text: str = "ab") -> list[str]:
    names = [f"program-{i}" for i in range(len(branches))]
    states.fork("program-s", names, text)
    for name, branch in zip(names, branches, strict=True):
        states.request(name, text + branch, 0)
    return names


def test_pieces_are_put_into_tokens_each_for_itself(states: States) -> None:
    names = forked(states, "cx", "de", text="abx")
    _, ids, program = states.request(names[0], "abxyc", 5)
    assert shown(ids) == "^abxyc"  # x and y lie on two sides of the fork
    assert program == {"state": "program-0/", "spans": [], "shared": 4, "branches": []}


def test_a_joined_state_says_what_it_is_made_of(states: States) -> None:
    names = forked(states, "cd", "", "efg")
    _, text = states.begin_join(names, "program-s")
    assert text == "abcdefg"
    _, ids, program = states.request("program-s", text, 0)
    assert shown(ids) == "^abcdefg"
    block = [[3, 5, 0, []], [5, 8, 0, []]]  # the empty branch is none
    branches = ["program-0/", "program-2/"]
    assert program == {"state": "program-s/", "spans": [block], "shared": None, "branches": branches}
    states.end_join(names, "program-s")
    _, ids, program = states.request("program-s", "abcdefgh", 5)
    assert shown(ids) == "^abcdefgh"
    assert program == {"state": "program-s/", "spans": [block], "shared": None, "branches": []}
    assert len(states) == 1


def test_forks_within_branches_are_within_the_block(states: States) -> None:
    states.fork("program-s", ["program-0", "program-1"], "ab", [0, 7])
    states.fork("program-1", ["program-10", "program-11"], "abc")
    states.request("program-10", "abcd", 0)
    states.request("program-11", "abce", 0)
    states.begin_join(["program-10", "program-11"], "program-1")
    states.end_join(["program-10", "program-11"], "program-1")
    _, _, program = states.request("program-1", "abcdef", 0)
    assert program is not None
    jump, inner = [[3, 3, 7, []]], [[4, 5, 0, []], [5, 6, 0, []]]
    assert program["spans"] == [jump, inner]
    states.request("program-0", "abgg", 0)
    states.begin_join(["program-0", "program-1"], "program-s")
    _, ids, program = states.request("program-s", "abggcdef", 0)
    assert shown(ids) == "^abggcdef"
    assert program is not None
    assert program["spans"] == [[[3, 5, 0, []], [5, 9, 7, [[[6, 7, 0, []], [7, 8, 0, []]]]]]]


def test_a_source_that_generates_is_a_plain_request_until_it_was_joined(states: States) -> None:
    forked(states, "c")
    assert states.request("program-s", "ab", 5)[2] is None
    assert states.request("program-s", "ab", 0)[2] == {
        "state": "program-s/",
        "spans": [],
        "shared": None,
        "branches": [],
    }


def test_every_request_of_a_state_has_a_name_of_its_own(states: States) -> None:
    (name,) = forked(states, "c")
    assert len({states.request(name, "abc", 1)[0] for _ in range(3)}) == 3


def test_a_join_that_could_not_be_computed_changes_nothing(states: States) -> None:
    names = forked(states, "c", "d")
    before, _ = states.begin_join(names, "program-s")
    states.end_join(names, "program-s", before)
    assert states.begin_join(names, "program-s")[1] == "abcd"


def test_states_of_a_program_that_nobody_uses_expire(states: States, clock: Clock) -> None:
    forked(states, "c", "d")
    clock.now = IDLE / 2
    states.fork("program-other", ["program-o"], "ab")
    clock.now = IDLE + 1
    assert sorted(states.expired()) == ["program-0", "program-1", "program-s"]


def test_a_program_is_alive_as_long_as_any_of_its_states_is(states: States, clock: Clock) -> None:
    forked(states, "c", "d")
    clock.now = IDLE
    states.request("program-1", "abd", 0)
    clock.now = 2 * IDLE
    assert states.expired() == []
    assert all(map(states.end, ["program-0", "program-1", "program-s"]))
    assert (len(states), states.end("program-0")) == (0, False)


def test_there_is_a_bound_to_how_many_there_are(states: States) -> None:
    states.fork("program-s", [f"program-{i}" for i in range(CAPACITY - 1)], "ab")
    with pytest.raises(StateError, match=f"at most {CAPACITY}"):
        states.fork("program-s", ["program-more"], "ab")


def forks(*names: str, offsets: list[int] | None = None, source: str = "program-s") -> object:
    return lambda states: states.fork(source, list(names), "ab", offsets)


def joins(*names: str, target: str = "program-s") -> object:
    return lambda states: states.begin_join(list(names), target)


def refusals() -> dict[str, object]:
    return {
        "must begin with 'program-'": forks("a"),
        "have no '/'": forks("program-a/1"),
        "already": forks("program-0"),
        "must differ": forks("program-a", "program-a"),
        "2 integers >= 0": forks("program-a", "program-b", offsets=[0, -1]),
        "does not begin with what was forked": lambda states: states.request("program-0", "ba", 1),
        "no state 'program-x'": joins("program-0", "program-x"),
        "different states": joins("program-0", "program-0"),
        "src_rids": joins(),
        "not forked from what 'program-0' is": joins("program-1", target="program-0"),
        "nothing follows": lambda states: (
            states.begin_join(["program-0", "program-1"], "program-s"),
            states.request("program-s", "abcd", 1),
        ),
        "has a position offset": lambda states: (
            states.fork("program-s", ["program-o"], "ab", [3]),
            states.request("program-o", "ab", 1),
        ),
        "never computed": lambda states: (
            states.fork("program-s", ["program-n"], "ab"),
            states.begin_join(["program-n"], "program-s"),
        ),
        "not forked from what 'program-s' is now": lambda states: (
            states.begin_join(["program-0"], "program-s"),
            states.end_join(["program-0"], "program-s"),
            states.begin_join(["program-1"], "program-s"),
        ),
        "had no text": lambda states: (
            states.fork("program-e", ["program-e0"], ""),
            states.request("program-e0", "c", 0),
            states.begin_join(["program-e0"], "program-e"),
        ),
    }


@pytest.mark.parametrize("says", refusals())
def test_a_call_that_does_not_fit_says_why(states: States, says: str) -> None:
    forked(states, "c", "d")
    with pytest.raises(StateError, match=says):
        refusals()[says](states)  # type: ignore[operator]


@pytest.mark.parametrize("offset", [97, 1_000_000, 2**31, 2**70, 10**5000], ids=lambda n: f"{n.bit_length()} bits")
def test_an_offset_beyond_the_positions_of_the_model_is_refused_and_changes_nothing(clock: Clock, offset: int) -> None:
    states = States(letters, clock, context=100)
    with pytest.raises(StateError, match="must leave room within the model's 100 positions") as told:
        states.fork("program-s", ["program-0"], "ab", [offset])
    assert len(str(told.value)) < 300
    assert len(states) == 0
    states.fork("program-s", ["program-0"], "ab", [96])


def test_a_request_never_reaches_beyond_the_positions_of_the_model(clock: Clock) -> None:
    """SGLang itself counts tokens, of which there are few."""
    states = States(letters, clock, context=100)
    states.fork("program-s", ["program-0", "program-1"], "ab", [80, 0])  # 3 tokens
    assert states.request("program-0", "abcd", 15)  # 3 + 80 + 2 + 15 = 100
    for tokens in (16, None, "15", 2**70):
        with pytest.raises(StateError, match="give a max_new_tokens that fits, got"):
            states.request("program-0", "abcd", tokens)  # type: ignore[arg-type]
    assert states.request("program-1", "abcd", None)
    for name in ("program-0", "program-1"):
        states.request(name, "abc", 0)
    _, text = states.begin_join(["program-0", "program-1"], "program-s")
    assert text == "abcc"
    states.end_join(["program-0", "program-1"], "program-s")
    assert states.request("program-s", "abccd", 15)  # behind the longer branch, at 84
    with pytest.raises(StateError, match="of the model's 100 positions"):
        states.request("program-s", "abccd", 16)
