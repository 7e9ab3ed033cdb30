"""Random prompts that hold blocks."""

from __future__ import annotations

from random import Random

from multiverse import Binding, Tag


def structured_prompts(rng: Random, binding: Binding, count: int, longest: int = 900) -> list[list[int]]:
    """`count` prompts of less than `longest` tokens: three levels of blocks, paths of 0 to 60 tokens."""
    found: list[list[int]] = []
    while len(found) < count:
        prompt = [*text(rng, 40), *block(rng, binding, 3), *text(rng, 10), 5]
        if len(prompt) < longest:
            found.append(prompt)
    return found


def text(rng: Random, most: int) -> list[int]:
    """0 to `most` tokens that are no tags."""
    return [rng.randrange(100) for _ in range(rng.randint(0, most))]


def block(rng: Random, binding: Binding, depth: int) -> list[int]:
    """A block of 2 to 4 paths, in which others may lie, `depth` levels in all."""
    ids, labels = binding.ids, range(1, rng.randint(2, 4) + 1)
    goal = [ids[Tag.BLOCK_OPEN], ids[Tag.GOAL_OPEN]]
    for _ in labels:
        goal += [ids[Tag.OUTLINE_OPEN], ids[Tag.OUTLINE_CLOSE]]
    paths: list[int] = []
    for label in labels:
        inner = block(rng, binding, depth - 1) if depth > 1 and rng.random() < 0.6 else []
        paths += [*binding.path_header(str(label)), *text(rng, 40), *inner, *text(rng, 20), ids[Tag.PATH_CLOSE]]
        paths += binding.path_separator
    end = [ids[Tag.CONCLUSION_OPEN], *text(rng, 20), ids[Tag.CONCLUSION_CLOSE], ids[Tag.BLOCK_CLOSE]]
    return [*goal, ids[Tag.GOAL_CLOSE], *binding.goal_separator, *paths, *end]
