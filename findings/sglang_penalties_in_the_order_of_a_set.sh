#!/usr/bin/env bash
# SGLang 0.5.23 without its overlap scheduler: several penalties in one request.
#
# One would guess: a request with a repetition penalty beside a frequency or presence penalty gets the same log-probabilities
#   from every server, as both kinds are defined and no documentation leaves their order open.
# What happens: the repetition penalty scales logits, the other two are subtracted from them, so the order matters, and the
#   order is that of a Python set of classes (`penalizers={...}` in `sampling/sampling_batch_info.py`, taken over by
#   `BatchedPenalizerOrchestrator`, applied one after the other by its `apply`). Classes are hashed by address: each process
#   has an order of its own, and PYTHONHASHSEED does not settle it. With the overlap scheduler, the default, the subtracted
#   ones always come first (`accumulate_additive_penalties`, then `accumulate_scaling_penalties`).
# Whom it meets: whoever compares answers of two servers, or an engine's log-probabilities with a trainer's, under
#   --disable-overlap-schedule; ranks of one server, too, each of which has its own set.
# What this project does: docs/api.md says so; tests/conformance/test_sampled_logprobs.py takes any order there.
# Seen 2026-11-30.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu ||
  "${install[@]}" torch==2.13.0 # where that index can't be reached
"${install[@]}" --no-deps sglang==0.5.23 # of its other packages, CUDA's among them, the penalties need these:
"${install[@]}" triton==3.9.0 transformers==5.19.0 accelerate dill numpy pillow psutil pybase64 pyzmq requests soundfile \
  aiohttp msgspec orjson pydantic python-multipart starlette ipython setuptools httpx2
cat >look.py <<'PYTHON'
import ast
import importlib.util
import json
import pathlib
import types

import torch
from sglang.srt.sampling import penaltylib as known

source = pathlib.Path(importlib.util.find_spec("sglang").origin).parent / "srt/sampling/sampling_batch_info.py"
calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.keyword)]
(given,) = [node.value for node in calls if node.arg == "penalizers"]
assert isinstance(given, ast.Set), "it is a set no longer"


class Batch:
    device = "cpu"

    def __init__(self, **penalties):
        asked = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "min_new_tokens": 0}
        self.reqs = [types.SimpleNamespace(sampling_params=types.SimpleNamespace(**asked | penalties))]


def penalized(batch, overlapped):
    penalizers = {getattr(known, name.attr) for name in given.elts}
    orchestrator = known.BatchedPenalizerOrchestrator(vocab_size=8, batch=batch, penalizers=penalizers)
    for token in (3, 3):
        orchestrator.cumulate_output_tokens(torch.tensor([token]))
    logits = torch.linspace(-1, 4, 8)[None].contiguous()
    if overlapped:
        orchestrator.accumulate_additive_penalties(logits)
        scale = orchestrator.accumulate_scaling_penalties()
        logits = torch.where(logits > 0, logits / scale, logits * scale)
    else:
        orchestrator.apply(logits)
    return round(logits.log_softmax(-1)[0, 3].item(), 4)


batch = Batch(repetition_penalty=1.3, frequency_penalty=0.7, presence_penalty=0.4)
print(json.dumps({"not overlapped": penalized(batch, False), "overlapped": penalized(batch, True)}))
PYTHON
env/bin/python -m pip list --disable-pip-version-check 2>/dev/null | grep -iE '^(sglang|torch|transformers) '
for _ in 1 2 3 4 5 6 7 8; do
  PYTHONHASHSEED=0 env/bin/python -W ignore look.py 2>/dev/null | tee -a seen.txt
done
python3 - <<'PYTHON'
import json

seen = [json.loads(line) for line in open("seen.txt")]
assert len(seen) == 8, "a process did not say anything"
orders, fixed = ({each[way] for each in seen} for way in ("not overlapped", "overlapped"))
assert len(fixed) == 1, f"overlapped: {fixed}"
assert len(orders) > 1, "the same order in eight processes: it has been settled"
print(f"as seen: log-probability of a token said twice, by process: {sorted(orders)}; overlapped always {fixed.pop()}")
PYTHON
