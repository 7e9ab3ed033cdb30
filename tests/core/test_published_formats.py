"""Each built-in dialect writes what the published code of its models writes: format only, the words are ours.

`multiverse`: the released training data of Multiverse-32B. `npr`: NPR's engine. `threadweaver`: its rollout, and the
filter of its training data (facebookresearch/threadweaver: `single_turn_agent_loop.py`, `save_dataset.py`,
`filter-format-correct-and-obtain-stats.py`).
"""

from __future__ import annotations

import pytest
from toy import host

from multiverse import parse_text, to_transcript
from multiverse.structure.parser import parse_ids

MULTIVERSE = """abc
<Parallel>
<Goal>
<Outline>
1: a bed
</Outline>
<Outline>
2: a cab
</Outline>
</Goal>
<Path>
1: a bed. 12
</Path>
<Path>
2: a cab
</Path>
<Conclusion>
a bed. a cab
</Conclusion>
</Parallel>

ab"""
NPR = """abc
<guideline>
<plan>1: a bed</plan>
<plan>2: a cab</plan>
</guideline>
<step>
1: a bed. 12
</step>
<step>
2: a cab
</step>
<takeaway>
a bed. a cab
</takeaway>
ab"""
THREADWEAVER = """abc
<Parallel>
<Outlines>
<Outline>1: a bed
<Outline>2: a cab
</Outlines>
<Thread>
1: a bed. 12
</Thread><Thread>
2: a cab
</Thread>
</Parallel>

ab"""
FORMATS = {"multiverse": MULTIVERSE, "npr": NPR, "threadweaver": THREADWEAVER}
SAMPLED = {
    "multiverse": ("</Goal>", "</Path>", "<Conclusion>"),
    "npr": ("</guideline>", "</step>", "<takeaway>"),
    "threadweaver": ("</Outlines>", "</Thread>", "</Thread>\n"),
}
"""The tag that forks, the one that ends a path, and what stands before the first token behind the join."""


def sampled(dialect: str) -> tuple[str, list[str], str]:
    """What the model itself writes: up to the goal's end, in the paths, and behind the join."""
    text, (fork, close, join) = FORMATS[dialect], SAMPLED[dialect]
    head, _, rest = text.partition(fork)
    body, _, tail = rest.rpartition(join)
    paths = [part.partition(":")[2] for part in (body + join).split(close)[:2]]
    return head + fork, [path + close for path in paths], tail


@pytest.mark.parametrize("dialect", FORMATS)
def test_it_reads_as_a_block_of_two_paths(dialect: str) -> None:
    tree = parse_text(FORMATS[dialect], dialect)
    assert tree.violations == []
    assert tree.stray_text == []
    assert [(block.parallel, [p.label for p in block.paths]) for block in tree.blocks] == [(True, ["1", "2"])]


@pytest.mark.parametrize("dialect", FORMATS)
def test_decoded_in_parallel_it_is_the_same_to_the_last_newline(dialect: str) -> None:
    head, paths, tail = sampled(dialect)
    h = host(dialect)
    h.feed(h.root, head)
    for child, path in zip(list(h.running), paths, strict=True):
        h.feed(child, path)
    h.feed(h.root, tail)
    tree = to_transcript(h.controller)
    text = h.controller.binding.text(tree.ids)
    assert text == FORMATS[dialect]
    assert tree.well_formed
    assert tree.blocks == parse_ids(tree.ids, h.controller.binding).blocks


@pytest.mark.parametrize("dialect", FORMATS)
def test_a_path_that_ends_by_itself_is_closed_as_in_the_data(dialect: str) -> None:
    """A thread gets the newline that its model would have written; the others leave that to the text."""
    head, paths, tail = sampled(dialect)
    close = SAMPLED[dialect][1]
    h = host(dialect)
    h.feed(h.root, head)
    for child, path in zip(list(h.running), paths, strict=True):
        ended = path.removesuffix("\n" + close if dialect == "threadweaver" else close)
        h.feed(child, ended + "<eos>")
    h.feed(h.root, tail)
    assert h.controller.binding.text(to_transcript(h.controller).ids) == FORMATS[dialect]
