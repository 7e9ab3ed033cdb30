"""SEMANTICS section 2, word by word, in O(n^2) or worse: what the layout has to agree with.

It shares no code with `structure.layout`; all it asks of a tree are the spans of parallel blocks and their paths.
"""

from __future__ import annotations

from multiverse import Block, Path, Transcript


class Slow:
    """Positions, visibility and predecessors of every token."""

    def __init__(self, transcript: Transcript, separators: str = "overlap") -> None:
        self.length = len(transcript)
        self.overlap = separators == "overlap"
        self.blocks = [block for block in transcript.walk() if block.parallel]
        self.paths = {path.start: (block, path) for block in self.blocks for path in block.paths}
        self.joins: dict[int, list[Block]] = {}
        for block in self.blocks:  # outer before inner
            self.joins.setdefault(block.paths[-1].end, []).append(block)
        homes = [self._homes(t) for t in range(self.length)]
        everywhere = range(self.length)
        self.visible = [[s <= t and self._sees(homes[t], homes[s]) for s in everywhere] for t in everywhere]
        self.positions: list[int] = []
        for t in range(self.length):
            self.positions.append(self._position(t))

    def _homes(self, t: int) -> dict[int, int]:
        """By block, the path that token `t` lies in."""
        return {
            i: j
            for i, block in enumerate(self.blocks)
            for j, path in enumerate(block.paths)
            if path.start <= t < path.end
        }

    @staticmethod
    def _sees(t: dict[int, int], s: dict[int, int]) -> bool:
        """There is no block in which the two lie in two different paths."""
        return all(t.get(block, path) == path for block, path in s.items())

    def _position(self, t: int) -> int:
        if t in self.paths:
            return self._after_goal(self.paths[t][0])
        if joined := self._joined(t):
            return max(self._last(path, joined) for path in joined.paths) + 1
        return self.positions[t - 1] + 1 if t else 0

    def _joined(self, t: int) -> Block | None:
        """The block whose paths all ended right before `t`; of several the outermost, whose join is the last reset."""
        found = self.joins.get(t)
        return found[0] if found else None

    def _after_goal(self, block: Block) -> int:
        fork = block.paths[0].start
        return self.positions[block.goal_close if self.overlap and block.goal_close is not None else fork - 1] + 1

    def _last(self, path: Path, block: Block) -> int:
        """The position after which the block goes on, as far as this path is concerned."""
        assert block.parallel
        if self.overlap and path.close is not None:
            return self.positions[path.close]
        return self.positions[path.end - 1]

    def predecessor(self, t: int) -> int:
        """Whose logits predict `t`."""
        if t in self.paths:
            return self.paths[t][0].paths[0].start - 1
        return -1 if t in self.joins else t - 1

    def critical_path(self, start: int) -> int:
        return max(self.positions[start:]) - self.positions[start] + 1 if start < self.length else 0
