"""What a sampled token means for its strand: the host's stop first, then the controller (SEMANTICS section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from multiverse.decoding.actions import Action
from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.controller import Controller
from multiverse.decoding.strand import Status, Strand
from multiverse.serving.stops import Found, Stops, StopSearch, matched


class Verdict(NamedTuple):
    """What came of a token.

    Attributes:
        actions: what the host has to do, in order.
        kept: how many of the strand's tokens the host has as they are: with the token if that was kept, without those
            that were taken back. What the strand has behind them the host was not given yet.
        string: the stop string that the token made whole, if any.
        from_end: how many characters before the end of the strand's text it begins.
    """

    actions: Sequence[Action]
    kept: int
    string: str | None = None
    from_end: int = 0


class Judge:
    """Decides about the tokens of one request.

    Args:
        controller: of the request.
        stops: what the request wants to end at.
    """

    def __init__(self, controller: Controller, stops: Stops) -> None:
        self._controller, self._stops = controller, stops
        self._searches: dict[tuple[int, ...], StopSearch] = {}

    def decide(
        self, strand: Strand, token: int, ended: FinishReason | None = None, expression: tuple[str, int] | None = None
    ) -> Verdict:
        """Take a token that was sampled for `strand`.

        If a step brings several, they are taken one by one for as long as the strand runs; the rest was sampled
        behind what is not there, and is dropped (SEMANTICS section 7).

        Args:
            ended: what the host ends the strand with at this token, by rules that know no strands: `STOP` at the end of
                a turn or at a stop token, `LENGTH` if it allows no further one, `ABORT`.
            expression: if it is a regular expression at which the host ends it, that, and the offset in the strand from
                which on it looked.
        """
        at = len(strand.tokens)
        if strand.status is not Status.RUNNING:
            return Verdict((), at)
        if ended is None and expression is None and not self._stops.strings:  # the common case
            actions = self._controller.accept(strand, token)
            return Verdict(actions, at + (not actions or strand.tokens[at : at + 1] == [token]))
        found = self._search(strand, token)
        if found is None and expression is not None and strand.parent is not None:
            found = matched(expression[0], strand, token, expression[1], self._stops, self._controller.binding)
        if found is None and ended is None:
            return self._accept(strand, token)
        self._searches.pop(strand.key, None)
        if strand.parent is None:
            return self._end_request(strand, token, found, ended)
        if found is not None:
            return self._cut(strand, token, found)
        kept = ended is not FinishReason.STOP or (self._stops.keep and token in self._stops.tokens)
        actions = self._controller.end(strand, ended or FinishReason.STOP, token if kept else None)
        return Verdict(actions, at + kept)

    def _accept(self, strand: Strand, token: int) -> Verdict:
        at = len(strand.tokens)
        actions = self._controller.accept(strand, token)
        kept = at + (strand.tokens[at : at + 1] == [token])
        search = self._searches.get(strand.key)
        if search is not None and strand.parent is not None and strand.status is Status.RUNNING:
            self._controller.hold(strand, search.open_from)
        return Verdict(actions, kept)

    def _end_request(self, root: Strand, token: int, found: Found | None, ended: FinishReason | None) -> Verdict:
        at, controller = len(root.tokens), self._controller
        if found is not None:
            actions = controller.end(root, FinishReason.STOP, token)
            return Verdict(actions, at + 1, found.string, found.from_end)
        if ended is not FinishReason.LENGTH:
            return Verdict(controller.end(root, ended or FinishReason.STOP, token), at + 1)
        controller.ledger.close()
        actions = [*controller.accept(root, token)]
        return Verdict([*actions, *controller.end(root, FinishReason.LENGTH)], at + 1)

    def _search(self, strand: Strand, token: int) -> Found | None:
        if not self._stops.strings:
            return None
        if strand.key not in self._searches:
            self._searches[strand.key] = StopSearch(self._stops, self._controller.binding)
        seen = strand.kv_length + 1 - len(self._controller.prompt.ids)
        return self._searches[strand.key].feed(strand, token, seen > self._stops.min_tokens)

    def _cut(self, strand: Strand, token: int, found: Found) -> Verdict:
        """End a branch at a stop string that is taken out of it, or at its end."""
        at, controller = len(strand.tokens), self._controller
        if found.offset > at:
            return Verdict(controller.end(strand, FinishReason.STOP, token), at + 1, found.string)
        ledger = controller.ledger
        room = min(ledger.left - 1, strand.position_end - strand.position)
        head = self._encode(strand.tokens[: found.offset], found.head, at - found.offset + room)
        controller.take_back(strand, found.offset, head)
        return Verdict(controller.end(strand, FinishReason.STOP), found.offset, found.string)

    def _encode(self, before: Sequence[int], head: str, most: int) -> tuple[int, ...]:
        """`head` in at most so many tokens behind `before`; none if there is no such way to write it."""
        binding, context = self._controller.binding, before[-4:]
        ids = binding.encode(head) if head else ()
        fits = len(ids) <= most and binding.text([*context, *ids]) == binding.text(context) + head
        return ids if fits and not any(token in binding.tags or token in binding.eos for token in ids) else ()
