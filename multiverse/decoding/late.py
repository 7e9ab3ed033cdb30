"""A controller that comes late: until a tag is sampled there is nothing to decide, so nobody has to be there.

Most requests never fork. An adapter need not look at their tokens one by one: it makes the controller when one of them
is about to get its first tag, or ends. The controller is then what it would be, had it been there from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.decoding.controller import Controller
from multiverse.structure.binding import Binding


def deciding_tokens(binding: Binding) -> frozenset[int]:
    """Ids at which a controller may decide something; any other makes its strand longer by one, within its limits."""
    return frozenset(binding.tags.keys() | binding.eos)


def catch_up(controller: Controller, said: Sequence[int]) -> None:
    """Let the root of `controller`, which has begun, have sampled `said`, as if it had been asked about each token.

    Asserts that nothing was to be decided meanwhile: none of `deciding_tokens`, no limit reached.
    """
    root = controller.root
    assert not root.tokens
    assert not root.forks
    assert deciding_tokens(controller.binding).isdisjoint(said)
    assert len(said) <= controller.room(), (len(said), controller.room())
    controller.extend(root, said)
