"""Which requests have to be watched from their first token on. The others get a controller when they sample a tag."""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.serving.options import Options
from multiverse.serving.stops import Stops
from multiverse.structure.binding import Binding


def must_be_watched(
    options: Options, binding: Binding, prompt: Sequence[int], stops: Stops, *, streams: bool, logprobs: bool
) -> bool:
    """Whether there may be something to do about a request's tokens before it samples a tag.

    What else the options say is about blocks, or about the end (`multiverse.decoding.late`). Limits on tokens are the
    host's too, which ends a plain request at them by itself.

    Args:
        prompt: its ids; a tag in it may be part of a block.
        stops: what is not left to the host to look for.
        streams: whether the client gets its answer as it grows, and so with events, if it wants any.
        logprobs: whether it asked for those of sampled tokens, which the tree has then too, if it asked for that.
    """
    return (
        options.structure == "strict"
        or options.shape is not None
        or options.max_critical_path is not None
        or (streams and options.stream == "events")
        or (logprobs and options.return_tree)
        or bool(stops.strings)
        or not binding.tags.keys().isdisjoint(prompt)
    )
