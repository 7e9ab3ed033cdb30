"""An untied copy says what the model says, and learns with two matrices where the model has one."""

from __future__ import annotations

from pathlib import Path

import torch

from multiverse.models import TINY
from multiverse.models.untie import untie
from multiverse.oracle import load


def test_an_untied_copy_has_an_output_matrix_of_its_own_and_says_the_same(tmp_path: Path) -> None:
    untie(str(TINY), tmp_path)
    (model, tokenizer), (copy, copied) = load(str(TINY)), load(str(tmp_path))
    prompt = "<|im_start|>user\nA = sum 3 5. Find A.<|im_end|>\n"
    assert copied.encode(prompt) == tokenizer.encode(prompt)
    assert copied.chat_template == tokenizer.chat_template
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, copy(ids).logits)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert copy.lm_head.weight is not copy.model.embed_tokens.weight
