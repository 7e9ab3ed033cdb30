#!/usr/bin/env bash
# transformers 5.24.0 with tokenizers 0.23.3: AutoTokenizer on a model's files whose tokenizer.json cuts numbers whole.
#
# One would guess: AutoTokenizer cuts text as tokenizer.json says; where a class would not, `tokenizer_class:
#   PreTrainedTokenizerFast` in tokenizer_config.json, the class that is nothing but that file, makes it so.
# What happens: under `model_type: llama` or `qwen3` that holds. Under `qwen2` the class in tokenizer_config.json is passed
#   over: Qwen2Tokenizer is built anew from the vocabulary and the merges, with Qwen's own pre-tokenizer in place of the
#   file's. The ids differ (20 for 7 here), all of them are valid, text comes back whole, and there is no warning.
#   And under any type, `tokenizer_class: Qwen2Tokenizer` does the same to a file that says otherwise.
# Whom it meets: whoever trains a tokenizer of their own for a model of the Qwen2 architecture (a common one for small models),
#   and then decodes with what reads tokenizer.json alone.
# What this project does: multiverse/models/loading.py compares both at loading and refuses what differs.
# Seen 2026-11-29; the code has a list of model types whose class it calls incorrect (tokenization_auto.py), qwen2 among them;
#   the documentation of AutoTokenizer says nothing of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cat >look.py <<'PYTHON'
import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

LINE = "year 2024, 1500 of 12345 items"
raw = Tokenizer(models.BPE())
whole_numbers = pre_tokenizers.Split(Regex(r" ?\d+| ?[a-z]+|[^a-z\d]"), "isolated")
bytes_of_text = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
raw.pre_tokenizer = pre_tokenizers.Sequence([whole_numbers, bytes_of_text])
raw.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
raw.train_from_iterator([LINE] * 50, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
model = Path("model")
model.mkdir()
raw.save(str(model / "tokenizer.json"))

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
found = {("the file itself", ""): len(raw.encode(LINE).ids)}
for kind in ("llama", "qwen3", "qwen2"):
    for cls in ("PreTrainedTokenizerFast", "Qwen2Tokenizer"):
        (model / "config.json").write_text(json.dumps({"model_type": kind}))
        (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls}))
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        ids = tokenizer.encode(LINE, add_special_tokens=False)
        assert tokenizer.decode(ids) == LINE
        found[kind, cls] = len(ids)
for (kind, cls), ids in found.items():
    print(f"{kind:15} {cls:24} {ids} ids")
assert list(found.values()) == [7, 7, 20, 7, 20, 20, 20]
PYTHON
env/bin/python look.py
