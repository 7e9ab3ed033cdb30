"""A dialect whose joined text is prefilled and whose model closes the block itself: nothing is written at the join."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from answer import Host
from hosts import Engines
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from multiverse import Limits, bind, get_dialect, parse_ids
from multiverse.models import TINY
from multiverse.oracle import generate, load

GOAL = "<Parallel>\n<Outlines>\n<Outline>1: A\n<Outline>2: B\n<Outline>3: C\n</Outlines>"
LIMITS = {"max_critical_path": 60, "max_tokens": 140}


@pytest.fixture(scope="module")
def weaver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights, with the tags of `threadweaver` in place of ours."""
    path = tmp_path_factory.mktemp("weaver")
    file = json.loads((TINY / "tokenizer.json").read_text())
    ours, theirs = (list(get_dialect(name).tags.values()) for name in ("multiverse", "threadweaver"))
    names = dict(zip(ours, [*theirs, *(f"<unused{i}>" for i in range(len(ours) - len(theirs)))], strict=True))
    for token in file["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    (path / "raw.json").write_text(json.dumps(file))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(path / "raw.json")))
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.save_pretrained(path)
    config = AutoConfig.from_pretrained(TINY)
    config.num_hidden_layers, config.layer_types, config.initializer_range = 2, config.layer_types[:2], 0.2
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    return str(path)


def test_threadweaver_is_decoded_as_by_the_oracle(weaver: str, engines: Engines) -> None:
    """Threads end by a limit, so the engine closes them; what follows is sampled from their text, prefilled."""
    model, tokenizer = load(weaver)
    prompts = [tokenizer.encode(f"{text}\n{GOAL}", add_special_tokens=False) for text in ("A = sum 1 2", "B = 77")]
    host: Host = engines(weaver)
    answers: list[Any] = host.generate(prompts, max_tokens=140, multiverse={"max_critical_path": 60})
    expected = generate(model, tokenizer, prompts, limits=Limits(**LIMITS))
    binding = bind("threadweaver", tokenizer)
    for prompt, answer, oracle in zip(prompts, answers, expected, strict=True):
        assert answer.ids == oracle.ids
        (block,) = parse_ids(prompt + answer.ids, binding).blocks[:1]
        text = tokenizer.decode(answer.ids)
        assert [path.label for path in block.paths] == ["1", "2", "3"]
        assert text.count("</Thread><Thread>\n") == 2
        assert text.rpartition("</Thread>")[2].startswith("\n")
    assert not any(host.leftovers().values())
