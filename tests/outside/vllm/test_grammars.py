"""xgrammar and llguidance, which hold structured outputs to a grammar: may a text in JSON hold a tag?"""

from __future__ import annotations

import json

import llguidance.hf
import llguidance.torch
import pytest
import torch
import xgrammar
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from multiverse.models import TINY

SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
OURS = "multiverse/wire/responses.py"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def opened(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The beginning of a JSON object, up to inside its text."""
    return tokenizer.encode('{"a": "b')


def allowed(mask: torch.Tensor, token: int) -> bool:
    return bool(mask.view(-1)[token // 32].item() >> (token % 32) & 1)


@pytest.mark.contract("xgrammar", "0.2.8", ours=OURS)
def test_under_xgrammar_a_text_in_json_may_hold_a_tag(tokenizer: PreTrainedTokenizerFast, opened: list[int]) -> None:
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(info).compile_json_schema(SCHEMA))
    assert all(matcher.accept_token(token) for token in opened)
    mask = xgrammar.allocate_token_bitmask(1, len(tokenizer))
    matcher.fill_next_token_bitmask(mask)
    assert allowed(mask, tokenizer.convert_tokens_to_ids("</Goal>"))


@pytest.mark.contract("llguidance", "1.7.6", ours=OURS)
def test_under_llguidance_a_text_in_json_holds_no_added_token_in_angle_brackets(
    tokenizer: PreTrainedTokenizerFast, opened: list[int]
) -> None:
    made = llguidance.hf.from_tokenizer(tokenizer, len(tokenizer))
    matcher = llguidance.LLMatcher(made, llguidance.LLMatcher.grammar_from_json_schema(SCHEMA))
    assert matcher.consume_tokens(opened)
    mask = torch.zeros(1, (len(tokenizer) + 31) // 32, dtype=torch.int32)
    llguidance.torch.fill_next_token_bitmask(matcher, mask)
    assert not allowed(mask, tokenizer.convert_tokens_to_ids("</Goal>"))
    assert allowed(mask, tokenizer.encode("<")[0])
