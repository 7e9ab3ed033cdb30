"""What branches sample beside drafts follows the distribution without them, on a CPU by the plugin's own doing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang's drafts need a GPU")

from hosts import Engines
from vllm_drafter import KnownDrafter
from vllm_drafter import drafting as drafting_with
from vllm_host import VLLMHost

SETTINGS = drafting_with(KnownDrafter, 8)
GOAL = "<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 2 + "</Goal>"


def drawn(host: VLLMHost, goal: list[int], most: int = 1536) -> Counter[tuple[str, int, int]]:
    """Of so many answers of two branches, how often each branch begins with which two tokens."""
    found: Counter[tuple[str, int, int]] = Counter()
    for seed in range(0, most, 64):
        wanted = {"temperature": 0.5, "multiverse": {"return_tree": True, "max_critical_path": 10}}
        answers = host.generate_each([(goal, {**wanted, "seed": seed + at}) for at in range(64)])
        for entry in (one for answer in answers for one in answer.record["tree"][1:]):  # type: ignore[index]
            first, second = [*entry["token_ids"], -1, -1][4:6]
            found[entry["label"], first, second] += 1
    return found


def test_what_branches_sample_follows_the_same_distribution(
    engines: Engines, random_model: Path, tiny: tuple[Any, Any]
) -> None:
    """Two samples of the first tokens of branches, with drafts of which many are refused: chi-square, p above 0.001."""
    goal = list(tiny[1].encode(GOAL))
    drafting, plain = (engines(str(random_model), **given) for given in ({"settings": SETTINGS}, {"late": False}))
    theirs = drawn(plain, goal)  # type: ignore[arg-type]
    (greedy,) = plain.generate([goal], multiverse={"return_tree": True}, max_tokens=60)
    assert greedy.record is not None
    KnownDrafter.known = [goal + entry["token_ids"] for entry in greedy.record["tree"]]
    KnownDrafter.known += [goal + [198] + entry["token_ids"] for entry in greedy.record["tree"]]
    ours = drawn(drafting, goal)  # type: ignore[arg-type]
    assert drafting.counters()["draft_tokens"] > 500
    assert ours.total() == theirs.total()
    likely = {key for key in ours | theirs if ours[key] + theirs[key] >= 16}
    pairs = [(ours[key], theirs[key]) for key in likely]
    pairs.append((ours.total() - sum(n for n, _ in pairs), theirs.total() - sum(n for _, n in pairs)))
    assert len(pairs) > 8
    chi = sum((a - b) ** 2 / (a + b) for a, b in pairs if a + b)
    freedom = len(pairs) - 1
    assert chi < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson and Hilferty
