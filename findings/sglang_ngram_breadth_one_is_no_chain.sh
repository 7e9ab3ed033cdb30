#!/usr/bin/env bash
# SGLang 0.5.23, --speculative-algorithm NGRAM with --speculative-ngram-max-bfs-breadth 1.
#
# One would guess: with a breadth of 1 there is one way on from each token, so what is drafted for a row is a chain, which
#   causal attention verifies. `arg_groups/kv_cache_hook.py` says so where it lets trtllm_mha verify n-grams at that breadth
#   alone.
# What happens: the corpus goes on from every length of match at a time, and each may go on with another token, so the
#   root has several children. A position of a tree is not its place in the row, and tokens of one way must not see those
#   of the other: with causal attention, logits of the second way are those of another text. What is left of the number of
#   drafts is filled up with token 0, each a child of the root.
# Whom it meets: whoever verifies drafts at breadth 1 with attention that takes no tree mask; and whoever counts drafts by
#   depth, as the fillings are tried, too.
# What this project does: --attention-backend multiverse takes trees at any breadth (`multiverse/attention/draft_trees.py`);
#   docs/drafts.md says that they are no chains; tests/conformance/test_sglang_drafts.py has both.
# Seen 2026-12-01. It compiles SGLang's corpus with g++, for some minutes on a slow machine.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu ||
  "${install[@]}" torch==2.13.0 # where that index can't be reached
"${install[@]}" --no-deps sglang==0.5.23 # of its other packages, CUDA's among them, the corpus needs these:
"${install[@]}" triton==3.9.0 apache-tvm-ffi==0.1.11 ninja numpy transformers==5.19.0 accelerate dill pillow psutil pybase64 \
  pyzmq requests soundfile aiohttp msgspec orjson pydantic python-multipart starlette ipython setuptools httpx2
cat >look.py <<'PYTHON'
import json

import numpy as np
from sglang.srt.speculative.cpp_ngram.ngram_corpus import NgramCorpus

corpus = NgramCorpus(max_bfs_breadth=1, min_bfs_breadth=1, draft_token_num=8, capacity=100_000)
for said in ([1, 2, 3, 10, 11, 12, 13, 14], [7, 2, 3, 30, 31, 32]):
    corpus.batch_put([said])
    corpus.synchronize()
seen = {}
for name, context in {"two lengths of match": [1, 2, 3], "one": [7, 2, 3]}.items():
    tokens, mask = corpus.batch_get([name], [context], [len(context)])
    ancestors = np.tril(np.asarray(mask).reshape(8, 8), -1)
    parents = [int(row.nonzero()[0].max(initial=-1)) for row in ancestors]
    seen[name] = {"tokens": [int(token) for token in tokens], "parents": parents}
print(json.dumps(seen))
PYTHON
env/bin/python -m pip list --disable-pip-version-check 2>/dev/null | grep -iE '^(sglang|torch|apache-tvm-ffi) '
PATH="$work/env/bin:$PATH" XDG_CACHE_HOME="$work/cache" TVM_FFI_CACHE_DIR="$work/cache" env/bin/python -W ignore look.py 2>errors.txt >seen.txt ||
  { tail -5 errors.txt; exit 1; }
cat seen.txt
python3 - <<'PYTHON'
import json

seen = json.loads(open("seen.txt").read().splitlines()[-1])
two, one = seen["two lengths of match"], seen["one"]
assert two["parents"].count(0) > 1, "the root has one child: breadth 1 is a chain now"
assert {two["tokens"][at] for at, parent in enumerate(two["parents"]) if parent == 0} == {10, 30}, two
filled = [parent for token, parent in zip(one["tokens"], one["parents"]) if token == 0]
assert filled and set(filled) == {0}, "what is filled up is no child of the root"
print("as seen: at breadth 1 the root has two children where matches of two lengths differ; fillings are children of it, too")
PYTHON
