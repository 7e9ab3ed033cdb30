#!/usr/bin/env bash
# Triton 3.9.0's interpreter: a condition of one scalar joined to the mask of a block.
#
# One would guess: TRITON_INTERPRET=1 runs what the compiler runs. `(i < 4) & (n > 0)`, with a block `i` and a scalar `n`, is an
#   everyday mask; both sides are int1, and compilers take it.
# What happens: tl.load and tl.store end with "mask has unsupported dtype". What compares two scalars keeps their type of numbers beside
#   data that is true or false; spread over the block it becomes whole numbers of that type, and so does the mask. Compared
#   over the block, `n + tl.zeros_like(i) > 0`, it works.
# Whom it meets: whoever tries kernels without a GPU. vLLM 0.32's n-gram drafts in the V2 model runner are such a kernel.
# What this project does: its tests let the interpreter keep conditions (tests/vllm_workers/conftest.py).
# Seen 2026-12-01; read in triton/runtime/interpreter.py (create_splat, binary_op).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu ||
  "${install[@]}" torch==2.13.0 # where that index can't be reached
"${install[@]}" triton==3.9.0 numpy==2.3.5
cat >masks.py <<'PYTHON'
from types import SimpleNamespace

import torch
import triton
import triton.backends
import triton.language as tl

triton.backends.backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))  # no device is asked for


@triton.jit
def copy(source, target, SCALAR: tl.constexpr):
    i = tl.arange(0, 8)
    n = tl.load(source + 3)
    if SCALAR:
        mask = (i < 4) & (n > 0)
    else:
        mask = (i < 4) & (n + tl.zeros_like(i) > 0)
    tl.store(target + i, tl.load(source + i, mask=mask, other=0), mask=mask)


for scalar in (False, True):
    target = torch.zeros(8, dtype=torch.int64)
    try:
        copy[(1,)](torch.arange(8), target, SCALAR=scalar)
        print("scalar condition:" if scalar else "over the block:", target.tolist())
    except Exception as error:
        print("scalar condition:" if scalar else "over the block:", error)
print("triton", triton.__version__)
PYTHON
said=$(TRITON_INTERPRET=1 env/bin/python masks.py)
echo "$said"
grep -q "^over the block: \[0, 1, 2, 3, 0, 0, 0, 0\]$" <<< "$said"
grep -q "^scalar condition: .*mask has unsupported dtype" <<< "$said"
