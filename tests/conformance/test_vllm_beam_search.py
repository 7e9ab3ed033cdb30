"""Beam search of vLLM's class `LLM` beside the plugin: beams are plain, whatever blocks their text holds."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang's beam search is one request, which decodes plainly")

from answer import Host
from vllm.sampling_params import BeamSearchParams

BLOCK = """<Parallel>
<Goal>
<Outline>
1: x
</Outline>
<Outline>
2: y
</Outline>
</Goal>
<Path>
1: sum 1 2 3
</Path>
<Path>
2: max 4 5
</Path>
<Conclusion>
sum"""


def test_a_beam_over_text_with_a_block_is_computed_causally(random_host: Host, tiny: tuple[Any, Any]) -> None:
    """The block was not forked for it: its paths were written one after the other, and see each other."""
    prompt = list(tiny[1].encode(BLOCK))

    def greedy(**options: Any) -> float:
        (answer,) = random_host.generate([prompt], max_tokens=1, logprobs=1, ignore_eos=True, **options)
        assert answer.logprobs is not None
        return answer.logprobs[0]

    plain = greedy(multiverse={"enabled": False})
    assert abs(greedy() - plain) > 1e-3, "laid out, the same text says something else"
    search = BeamSearchParams(beam_width=1, max_tokens=1, ignore_eos=True)
    (found,) = random_host.llm.beam_search([{"prompt_token_ids": prompt}], search)  # type: ignore[attr-defined]
    assert found.sequences[0].cum_logprob == pytest.approx(plain, abs=1e-5)
    assert not any(random_host.leftovers().values()), random_host.leftovers()
