"""SGLang's n-gram drafts, and what takes their place: drafts that are known.

SGLang asks its corpus of n-grams for drafts and verifies them, whatever they are. So a test that wants certain ones
answers in place of the corpus.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_LONGEST = 6
"""Tokens by which the place is found at which a row stands in a known sequence."""


def drafting(most: int, breadth: int = 1) -> dict[str, Any]:
    """SGLang's settings with which an engine drafts so many tokens for a row, in chains if `breadth` is 1."""
    return {
        "speculative_algorithm": "NGRAM",
        "speculative_num_draft_tokens": most + 1,  # the last token of the row among them
        "speculative_ngram_max_bfs_breadth": breadth,
        "speculative_ngram_capacity": 20_000,  # by default it takes 2 GB
    }


class KnownDrafts:
    """Drafts what comes in `known` sequences behind the last tokens of a row.

    Args:
        count: tokens of a row's drafts, its last one among them.
        wrong: each so-manieth drafted token is another one; 0: none is.
        forked: whether each drafted token has a sibling that is wrong, and comes before it.
    """

    def __init__(self, known: list[list[int]], count: int, wrong: int, forked: bool) -> None:
        self._known, self._count, self._wrong, self._forked = known, count, wrong, forked

    def __call__(self, _: Any, tails: list[list[int]], lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """As `NgramCorpus.batch_get`: for each row its drafts, and which of them sees which."""
        tokens, masks = zip(*map(self._tree, tails, lengths), strict=True)
        return np.concatenate(tokens), np.concatenate([mask.flatten() for mask in masks])

    def _tree(self, tail: list[int], length: int) -> tuple[np.ndarray, np.ndarray]:
        nodes, parents, last = [tail[-1]], [-1], 0
        for offset, token in enumerate(self._behind(tail)):
            wrong = self._wrong > 0 and (length + offset) % self._wrong == 0
            for node in [_other(token, 2), _other(token, wrong)] if self._forked else [_other(token, wrong)]:
                nodes.append(node)
                parents.append(last)
            last = len(nodes) - 1
        nodes, parents = nodes[: self._count], parents[: self._count]
        nodes += [0] * (self._count - len(nodes))  # as SGLang fills drafts up: they go on from the last token
        parents += [0] * (self._count - len(parents))
        mask = np.eye(self._count, dtype=bool)
        for node, parent in enumerate(parents[1:], 1):
            mask[node, :node] = mask[parent, :node]
        return np.array(nodes, dtype=np.int64), mask

    def _behind(self, tail: list[int]) -> list[int]:
        last = tail[-_LONGEST:]
        for sequence in self._known:
            for start in range(len(sequence) - len(last), -1, -1):
                if sequence[start : start + len(last)] == last:
                    return sequence[start + len(last) :][: self._count]
        return []


def _other(token: int, by: int) -> int:
    """Another token that there is, unless `by` is 0."""
    return (token + by) % 97 if by else token


class Drafting:
    """Answers to the test's requests that are about drafts: a part of SGLang's stepper.

    Attributes:
        behind: tokens that were accepted in front of others in one step, since it was asked last.
    """

    scheduler: Any
    behind: set[int]

    def on_draft(self, known: list[list[int]] | None, wrong: int = 0, forked: bool = False) -> None:
        """Draft what is known from now on; `None`: what SGLang's n-grams say."""
        worker = self.scheduler.draft_worker
        vars(worker.ngram_corpus).pop("batch_get", None)
        if known is not None:
            worker.ngram_corpus.batch_get = KnownDrafts(known, worker.draft_token_num, wrong, forked)

    def on_accepted_before_others(self) -> set[int]:
        """Note which tokens are accepted in front of others in one step; those that were since it was asked last."""
        from multiverse_sglang.scheduler.deferral import sampled_in

        found = getattr(self, "behind", None)
        if found is None:
            process = self.scheduler.process_batch_result

            def processed(batch: Any, result: Any) -> Any:
                self.behind.update(token for row in sampled_in(batch, result).rows for token in row[:-1])
                return process(batch, result)

            self.scheduler.process_batch_result = processed
        self.behind = set()
        return found or set()
