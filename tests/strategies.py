"""Hypothesis strategies: transcripts that follow the grammar, and streams of tokens that follow nothing."""

from __future__ import annotations

from hypothesis import strategies as st
from toy import BINDINGS, DIALECTS, EOS, WORDS, block

from multiverse import Limits, get_dialect
from multiverse.serving.stops import Stops

dialects = st.sampled_from(DIALECTS)
separators = st.sampled_from(["overlap", "advance"])
_words = st.text(WORDS, max_size=4)


@st.composite
def trees(
    draw: st.DrawFn,
    dialect: str = "multiverse",
    max_depth: int = 4,
    max_width: int = 12,
    separator: str | None = None,
) -> str:
    """A well-formed transcript as text: uneven and empty paths, blocks in paths and in conclusions, one-path blocks.

    Without a given `separator` there may be none, or several tokens of it.
    """
    depth = max_depth if get_dialect(dialect).nesting else 1
    bodies = [draw(_body(dialect, depth, max_width, separator)) for _ in range(draw(st.integers(1, 2)))]
    return "".join(bodies)


@st.composite
def _body(draw: st.DrawFn, dialect: str, depth: int, width: int, separator: str | None) -> str:
    text = draw(_words)
    if not depth or not draw(st.integers(0, 2)):
        return text
    paths = [draw(_words) for _ in range(draw(st.integers(1, width)))]
    conclusion = draw(_words)
    if depth > 1:  # at most two of the paths are worked out, or a tree would have thousands of tokens
        for i in draw(st.lists(st.integers(0, len(paths) - 1), max_size=2)):
            paths[i] = draw(_body(dialect, depth - 1, max(2, width // 3), separator))
        conclusion += draw(_body(dialect, depth - 1, 2, separator))
    sep = draw(st.sampled_from(["\n", "\n", "", "\n\n "])) if separator is None else separator
    return text + block(*paths, conclusion=conclusion, dialect=dialect, sep=sep) + draw(_words)


@st.composite
def token_soup(draw: st.DrawFn, dialect: str, max_size: int = 120) -> list[int]:
    """Any tokens in any order, tags more often than text."""
    binding = BINDINGS[dialect]
    tags = st.sampled_from(sorted(binding.tags))
    rest = st.integers(0, max(binding.tags))
    return draw(st.lists(st.one_of(tags, tags, rest), max_size=max_size))


@st.composite
def text_soup(draw: st.DrawFn, dialect: str) -> str:
    """Any text, with the dialect's tags strewn in."""
    tags = st.sampled_from([*get_dialect(dialect).tags.values(), EOS, "\n", "1:", "2.3: "])
    return "".join(draw(st.lists(st.one_of(tags, tags, st.text(max_size=6)), max_size=40)))


def _maybe(low: int, high: int) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.integers(low, high))


limits = st.builds(
    Limits,
    max_tokens=_maybe(1, 300),
    max_critical_path=_maybe(1, 120),
    context_length=_maybe(1, 250),
    max_branches=st.sampled_from([2, 4, 12]),
    max_depth=st.integers(0, 4),
    max_parallel=_maybe(1, 3),
)

stop_strings = st.text("abc12: \n<>/Path", min_size=1, max_size=4)
stop_rules = st.builds(
    Stops,
    strings=st.lists(stop_strings, max_size=3).map(tuple),
    tokens=st.frozensets(st.integers(2, 45), max_size=2),
    keep=st.booleans(),
    min_tokens=st.sampled_from([0, 0, 0, 40]),
)
