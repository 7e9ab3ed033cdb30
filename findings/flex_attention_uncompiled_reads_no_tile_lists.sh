#!/usr/bin/env bash
# torch 2.13.0, its build for CPUs: flex_attention with a BlockMask whose lists of tiles name fewer tiles than its mask_mod.
#
# One would guess: a BlockMask means the same whether flex_attention is compiled or not: tiles that its lists don't name are
#   not computed, as `BlockMask.to_dense()` shows them.
# What happens: without torch.compile the lists are not read. The whole matrix of scores is computed and masked by mask_mod
#   alone: a BlockMask with the diagonal's tiles and one with all of them give the same numbers to the last bit. Compiled, the
#   first attends to the diagonal's tiles only.
# Whom it meets: whoever makes tile lists by BlockMask.from_kv_blocks (create_block_mask takes quadratic memory) and tests
#   them without compiling, as on a CPU without a compiler: wrong lists pass every test and fail on the accelerator.
# What this project does: tests/attention/test_views.py compares the lists themselves with the dense mask.
# Seen 2026-11-29; the documentation of flex_attention warns of the speed of the uncompiled form, not of this.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu ||
  "${install[@]}" torch==2.13.0 # where that index can't be reached; any build has a CPU
cat >look.py <<'PYTHON'
import warnings

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

warnings.simplefilter("ignore")
TILE, TILES = 64, 4


def causal(_batch, _head, query, key):
    return query >= key


torch.manual_seed(0)
query, key, value = (torch.randn(1, 1, TILE * TILES, 16) for _ in range(3))
whole = create_block_mask(causal, 1, 1, TILE * TILES, TILE * TILES, device="cpu", BLOCK_SIZE=TILE)
ones = torch.ones(1, 1, TILES, dtype=torch.int32)
own = torch.arange(TILES, dtype=torch.int32).reshape(1, 1, TILES, 1).repeat(1, 1, 1, TILES)
diagonal = BlockMask.from_kv_blocks(ones, own, BLOCK_SIZE=TILE, mask_mod=causal)
found = {name: flex_attention(query, key, value, block_mask=mask) for name, mask in (("all", whole), ("own", diagonal))}
tiles = {name: int(mask.to_dense().sum()) for name, mask in (("all", whole), ("own", diagonal))}
difference = (found["all"] - found["own"]).abs().max().item()
print("torch", torch.__version__, "tiles", tiles, "largest difference", difference)
assert tiles == {"all": 10, "own": 4}
assert difference == 0
last = found["own"][..., -TILE:, :]
narrow = torch.nn.functional.scaled_dot_product_attention(
    query[..., -TILE:, :], key[..., -TILE:, :], value[..., -TILE:, :], is_causal=True
)
print("against attention within the last tile", (last - narrow).abs().max().item())
assert (last - narrow).abs().max() > 0.1
PYTHON
env/bin/python look.py
