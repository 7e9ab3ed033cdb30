"""vLLM in bfloat16, with the attention that it chooses, beside the oracle in float32: `halves.py`.

Rounding decides ties, so answers may differ. What may not: an answer that doesn't end well, or a token that the oracle
finds much less likely than another.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/conformance")]

import torch  # noqa: E402
from answer import Answer  # noqa: E402
from device import ON_CPU  # noqa: E402
from vllm_host import VLLMHost  # noqa: E402

from multiverse import Limits, bind, layout, parse_ids  # noqa: E402
from multiverse.attention import additive, dense_mask, positions  # noqa: E402
from multiverse.models import TINY  # noqa: E402
from multiverse.models.task import generate  # noqa: E402
from multiverse.models.tokenizer import turn  # noqa: E402
from multiverse.oracle import generate as reference  # noqa: E402
from multiverse.oracle import load  # noqa: E402

QUESTIONS = 4 if ON_CPU else 32
EQUAL = 0.9
"""The least share of answers that are the oracle's, token by token."""


def gaps(model: Any, prompt: list[int], answer: Answer, binding: Any) -> list[float]:
    """How much likelier the oracle finds its own choice than what was sampled, in nats, at every sampled token."""
    ids = prompt + answer.ids
    seen = layout(parse_ids(ids, binding))
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([ids]),
            position_ids=positions(seen)[None],
            attention_mask=additive(dense_mask(seen)[None, None], model.dtype),
            use_cache=False,
        ).logits[0]
    assert answer.logprobs is not None
    sampled = [len(prompt) + i for i, value in enumerate(answer.logprobs) if value < 0]  # 0: what the engine wrote
    return [float(logits[seen.predecessors[i]].max() - logits[seen.predecessors[i], ids[i]]) for i in sampled]


def main() -> int:
    model, tokenizer = load(str(TINY))
    binding, rng = bind("multiverse", tokenizer), Random(23)
    prompts = [list(tokenizer.encode(turn(generate(rng, held_out=True)))) for _ in range(QUESTIONS)]
    host = VLLMHost(str(TINY), late=True, settings={"dtype": "bfloat16"})
    answers = host.generate(prompts, logprobs=1)
    assert not any(host.leftovers().values()), host.leftovers()
    assert host.integrity() == []
    expected = reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))
    equal = sum(found.ids == wanted.ids for found, wanted in zip(answers, expected, strict=True))
    largest = [max(gaps(model, *pair, binding)) for pair in zip(prompts, answers, strict=True)]
    ended = sum(answer.finish_reason == "stop" for answer in answers)
    blocks = sum(len(list(parse_ids(p + a.ids, binding).walk())) for p, a in zip(prompts, answers, strict=True))
    for name, value in {"answers": len(answers), "equal": equal, "ended": ended, "blocks": blocks}.items():
        print(f"FIGURE {name} {value}")
    print(f"FIGURE largest_gap {max(largest):.4f}")
    return 0 if equal >= EQUAL * len(answers) and ended == len(answers) and blocks else 1


if __name__ == "__main__":
    sys.exit(main())
