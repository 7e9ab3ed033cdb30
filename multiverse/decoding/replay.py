"""How to compute a strand again, or for the first time if it came in a prompt: as it was decoded, in parts.

Replay is the same fork and join with known tokens: a part is one ordinary causal extend, its branches are extended
side by side, they are joined, and so on. It needs no mask and no kernel, and serves structured prompts, preempted
requests and evicted prefixes alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.decoding.controller import Controller
from multiverse.decoding.strand import Status, Strand


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a strand's own tokens, computed in one extend.

    Attributes:
        tokens: the ids.
        delta: what turns their index in the KV sequence into a position.
        children: the branches that fork behind them; empty for the last part.
    """

    tokens: list[int]
    delta: int
    children: tuple[Strand, ...]


def parts(controller: Controller, strand: Strand) -> list[Part]:
    """The parts of `strand`, in order; for the root, those of the prompt first.

    A strand whose branches are not joined yet ends with the part that forks.
    """
    own = _own_parts(strand)
    if strand.parent is not None or strand is controller.prompt.strand:
        return own
    before = _own_parts(controller.prompt.strand)
    seam = Part(before[-1].tokens + own[0].tokens, before[-1].delta, own[0].children)
    return [*before[:-1], seam, *own[1:]]


def _own_parts(strand: Strand) -> list[Part]:
    found, at = [], 0
    for (offset, children), delta in zip(strand.forks, strand.deltas, strict=False):
        found.append(Part(strand.tokens[at:offset], delta, children))
        at = offset
    if strand.status is not Status.PARKED:
        found.append(Part(strand.tokens[at:], strand.deltas[-1], ()))
    return found


def starts(strand: Strand) -> list[int]:
    """Where in the KV sequence of `strand`, whose branches are all joined, each of its parts begins."""
    found, at = [0], 0
    for offset, children in strand.forks:
        found.append(found[-1] + offset - at + sum(end - start for c in children for _, start, end in c.spans()))
        at = offset
    return found
