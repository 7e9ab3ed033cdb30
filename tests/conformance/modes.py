"""How a host schedules while a test of this suite runs, and which tests run in more than one way."""

from __future__ import annotations

MODES = ("step by step", "a step ahead", "pages of 16 tokens")
"""How a host schedules, the last one for SGLang only, whose pages are of one token else; vLLM's are always of more."""
DRAFTS = "with drafts"
"""Drafts in every strand, with which both hosts schedule step by step."""
DRAFTED = ("test_answers", "test_life", "test_prompt_logprobs", "test_vllm_operator", "test_vllm_containment")
SCHEDULED = {
    "test_answers": MODES,
    "test_life": MODES[1:],
    "test_prompt_logprobs": MODES[1:],
    "test_sglang_prefill": MODES[:2],
    "test_sampled_logprobs": MODES[:2],
    "test_vllm_operator": MODES[:2],
    "test_vllm_weights": MODES[:2],
    "test_admission": MODES,
    "test_sglang_holding": MODES,
    "test_vllm_deferral": MODES[:2],
    "test_vllm_containment": MODES[:2],
    "test_sglang_attention": MODES[1:],
}
"""What is run in several modes. The rest does not depend on scheduling: a step ahead, as the hosts do on GPUs."""
