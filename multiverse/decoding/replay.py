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
    """The parts of `strand`, in the order in which they have to be computed.

    Part `i + 1` can be computed once the branches of part `i` are joined: its tokens come behind theirs in the KV
    sequence. Its first token has the position `len(KV sequence before it) + delta`, each further one the next.

    Args:
        controller: of the request that `strand` belongs to; it knows the prompt.
        strand: the root, a branch, or a strand of the prompt (`Prompt.strand`) with its branches.

    Returns:
        at least one part. For the root, those of the prompt come first, and the last of them goes on with the first of
        what was generated. A strand whose branches are not joined yet ends with the part that forks, any other with one
        without `children`, whose `tokens` may be empty. Lists are copies: the strand may grow meanwhile.
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


def part_offsets(strand: Strand) -> list[int]:
    """Where in the KV sequence of `strand`, whose branches are all joined, each of its parts begins."""
    found, at = [0], 0
    for offset, children in strand.forks:
        found.append(found[-1] + offset - at + sum(end - start for c in children for _, start, end in c.spans()))
        at = offset
    return found
