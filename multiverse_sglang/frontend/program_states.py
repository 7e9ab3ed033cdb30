"""States of programs, as the HTTP server knows them: what their text is made of, in tokens.

SGLang's front end knows a state by its text only, and its server nothing at all. Here a state has a name, its text is
put into tokens piece by piece (up to a fork, each branch, what follows a join), and every request that it makes tells
the scheduler which pieces are branches. So nothing depends on what the scheduler still has of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiverse.decoding.budgets import UNBOUNDED
from multiverse.decoding.program import EMPTY, Laid, shifted
from multiverse.errors import MultiverseError, shown
from multiverse_sglang.channels import STATE

IDLE = 600.0
"""Seconds after the last request of any state of a program that its states may be forgotten."""
CAPACITY = 10_000
"""States that a server remembers at a time."""


class StateError(MultiverseError, ValueError):
    """A call that does not fit the states there are. Says which state and what to do."""


@dataclass
class Life:
    """Of a program: when any of its states made a request for the last time."""

    used: float = 0.0


@dataclass(frozen=True)
class State:
    """One state.

    Attributes:
        name: its name.
        life: of its program, shared by all states of it.
        source: the state it was forked from, if any.
        fork: what it had in common with its source then.
        offset: how many positions later than there it goes on.
        known: everything up to its last join, or else its fork; of the blocks only those it joined itself.
        committed: its text when it was last asked to be computed, with nothing to be generated.
        joins: the states that are being joined into it.
    """

    name: str
    life: Life
    source: str | None = None
    fork: Laid = EMPTY
    offset: int = 0
    known: Laid = EMPTY
    committed: str | None = None
    joins: tuple[str, ...] = ()


class States:
    """All states of a server.

    Args:
        encode: text to token ids; the second argument says whether it is the beginning of a sequence.
        clock: seconds.
        context: positions that the model has.
    """

    def __init__(
        self,
        encode: Callable[[str, bool], list[int]],
        clock: Callable[[], float] = time.monotonic,
        context: int = UNBOUNDED,
    ) -> None:
        self._encode = encode
        self._context = context
        self._clock = clock
        self._states: dict[str, State] = {}
        self._requests = 0

    def __len__(self) -> int:
        return len(self._states)

    # --- fork, join, end -----------------------------------------------------------------------------------------

    def fork(self, source: str, names: Sequence[str], text: str, offsets: Sequence[int] | None = None) -> None:
        """Let the state `source`, whose text is `text`, go on as several.

        Raises:
            StateError: if `text` is not the source's, or a name is taken or no name of a state.
        """
        offsets = [0] * len(names) if offsets is None else list(offsets)
        if len(offsets) != len(names) or any(not isinstance(o, int) or isinstance(o, bool) or o < 0 for o in offsets):
            raise StateError(
                f"position_ids_offset must be {len(names)} integers >= 0, one per branch, got {shown(offsets)}"
            )
        for name in (source, *names):
            if not name.startswith(STATE) or "/" in name:
                raise StateError(f"a state's name must begin with {STATE!r} and have no '/', got {shown(name)}")
        if taken := [name for name in names if name in self._states or name == source]:
            raise StateError(f"there is a state {shown(taken[0])} already")
        if len(set(names)) != len(names):
            raise StateError(f"names of branches must differ, got {shown(list(names))}")
        if len(self._states) + len(names) > CAPACITY:
            raise StateError(f"there are {len(self._states)} states of programs already, and at most {CAPACITY} can be")
        state = self._states.get(source) or State(source, Life())
        laid = self._lay(state, text)
        if (farthest := max(offsets, default=0)) and farthest + laid.reach >= self._context:
            raise StateError(
                f"position_ids_offset must leave room within the model's {self._context} positions, of which the text "
                f"takes {laid.reach}, got {shown(farthest)}"
            )
        self._states[source] = state
        for name, offset in zip(names, offsets, strict=True):
            own = replace(laid, spans=[])
            self._states[name] = State(name, state.life, source, laid, offset, own)
        self.touch(source)

    def begin_join(self, names: Sequence[str], target: str) -> tuple[State, str | None]:
        """Splice the states `names` behind what they were forked from, and let `target` go on from there.

        Returns:
            `target` as it was; its text now, which is yet to be computed, or `None` if no branch has any text.

        Raises:
            StateError: if a state is unknown, was never computed, or was not forked from `target` as it is now.
        """
        state, branches = self._get(target), [self._get(name) for name in names]
        if not branches or len(set(names)) != len(branches):
            raise StateError(f"src_rids must be the names of different states, got {shown(list(names))}")
        fork = branches[0].fork
        ids, text, block, joins = list(fork.ids), fork.text, [], []
        for branch in branches:
            if branch.source != target or branch.fork != fork or not self._is_now(state, fork):
                raise StateError(f"state {branch.name!r} was not forked from what {target!r} is now")
            if branch.committed is None:
                raise StateError(f"state {branch.name!r} was never computed: send its text with max_new_tokens 0 first")
            own = self._lay(branch, branch.committed).ids[len(fork.ids) :]
            text += branch.committed[len(fork.text) :]
            if own:
                inner = shifted(branch.known.spans, len(ids) - len(fork.ids))
                block.append([len(ids), len(ids) + len(own), branch.offset, inner])
                ids += own
                joins.append(branch.name)
        if not fork.ids:
            raise StateError(f"state {target!r} had no text when it was forked, so its branches can't be joined")
        if not block:
            return state, None
        known = Laid(text, ids, [*state.known.spans, block])
        self._states[target] = replace(state, known=known, joins=tuple(joins))
        self.touch(target)
        return state, text

    def end_join(self, names: Sequence[str], target: str, before: State | None = None) -> None:
        """The joined text was computed: forget the branches. Or it was not: `target` is what it was `before`."""
        if before is not None:
            self._states[target] = before
            return
        if target in self._states:
            self._states[target] = replace(self._states[target], joins=())
        for name in names:
            self.end(name)

    def end(self, name: str) -> bool:
        """Forget a state, and say whether there was one."""
        return self._states.pop(name, None) is not None

    def touch(self, name: str) -> None:
        """Note that the program of this state, if there is one, is alive."""
        if name in self._states:
            self._states[name].life.used = self._clock()

    def expired(self) -> list[str]:
        """Names of the states of programs that made no request for too long."""
        before = self._clock() - IDLE
        return [state.name for state in self._states.values() if state.life.used < before]

    # --- requests ------------------------------------------------------------------------------------------------

    def request(self, name: str, text: str, tokens: int | None) -> tuple[str, list[int], dict[str, Any] | None]:
        """A request of the state `name` for `tokens` tokens behind `text`.

        Returns:
            a name for the request; the ids of its prompt; what the scheduler has to know of them, if anything.

        Raises:
            StateError: if there is no such state, the text is not its own, or nothing can be generated behind it.
        """
        state = self._get(name)
        laid = self._lay(state, text)
        if tokens != 0 and laid.spans and laid.spans[-1][-1][1] == len(laid.ids):
            raise StateError(
                f"nothing follows the join in state {name!r} (or the fork, if it has a position offset): append text "
                "before anything is generated"
            )
        self._check_reach(name, laid, tokens)
        self._requests += 1
        self.touch(name)
        if tokens == 0:
            self._states[name] = replace(state, committed=text)
        shared = len(state.fork.ids) if state.source is not None else None
        program = {"state": key(name), "spans": laid.spans, "shared": shared}
        program["branches"] = [key(branch) for branch in state.joins]
        special = laid.spans or shared is not None or tokens == 0
        return f"{key(name)}{self._requests}", laid.ids, program if special else None

    def _check_reach(self, name: str, laid: Laid, tokens: object) -> None:
        """Raise StateError if offsets could lead a request beyond the model's positions; SGLang counts tokens only."""
        if laid.reach > len(laid.ids) and not (isinstance(tokens, int) and laid.reach + tokens <= self._context):
            raise StateError(
                f"with its position_ids_offset the text of state {shown(name)} takes {laid.reach} of the model's "
                f"{self._context} positions: give a max_new_tokens that fits, got {shown(tokens)}"
            )

    def _get(self, name: str) -> State:
        if name not in self._states:
            raise StateError(
                f"there is no state {shown(name)}: it was never forked, it ended or was joined, or it was not used for "
                f"{IDLE:.0f} s. Programs need multiverse_sglang.programs.RuntimeEndpoint as their backend"
            )
        return self._states[name]

    def _is_now(self, state: State, fork: Laid) -> bool:
        """Whether `state` could still be forked like this: nothing was joined into it since."""
        return fork.text.startswith(state.known.text) and self._lay(state, fork.text) == fork

    def _lay(self, state: State, text: str) -> Laid:
        """The tokens and blocks of `state`, whose text is `text`. An offset is a block of one branch without tokens."""
        known, fork = state.known, state.fork
        if not text.startswith(known.text):
            raise StateError(f"the text of state {state.name!r} does not begin with what was forked or joined before")
        rest = text[len(known.text) :]
        ids = [*known.ids, *(self._encode(rest, not known.ids) if rest else ())]
        jump = [[[len(fork.ids), len(fork.ids), state.offset, []]]] if state.offset else []
        return Laid(text, ids, [*fork.spans, *jump, *known.spans])


def key(name: str) -> str:
    """What the scheduler calls a state: the beginning of the names of its requests, and of no other state's."""
    return f"{name}/"
