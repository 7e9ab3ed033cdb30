"""Steps in which nothing is to be decided about a tree: its strands become longer, and nobody has to be asked.

Most steps are of this kind. The host then treats the rows of a tree as those of plain requests, and what they sampled
is written down once the step is over (`Controller.extend`). Only a deciding token, a limit, or somebody who looks at
each token makes a tree one that is asked, row by row.
"""

from __future__ import annotations

from multiverse.serving.request_tree import RequestTree


def is_quiet(tree: RequestTree, most: int = 1) -> bool:
    """Whether each of its strands can sample `most` more tokens, none of them deciding, and nothing is to be decided.

    `most` is how many a step can bring for one of them.
    """
    used, coming = tree.controller.ledger.used, most * len(tree.members)
    if used + coming > tree.quiet_until:
        settled = not tree.asked_always and all(member.settled for member in tree.members.values())
        tree.quiet_until = used + tree.room() if settled else 0
    return used + coming <= tree.quiet_until
