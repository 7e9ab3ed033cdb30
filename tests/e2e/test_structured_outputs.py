"""A text inside JSON may hold tags: that is no block, and nothing forks."""

from __future__ import annotations

import json

from openai import OpenAI
from transformers import AutoTokenizer

from multiverse import bind
from multiverse.models import TINY

TEXT = "<Parallel> <Goal> <Outline> 1: a </Outline> <Outline> 2: b </Outline> </Goal>"
SCHEMA = {"type": "object", "properties": {"a": {"enum": [TEXT]}}, "required": ["a"], "additionalProperties": False}


def test_a_text_in_json_that_holds_a_whole_goal_does_not_fork(client: OpenAI) -> None:
    """A bias sees to it that each tag is sampled as one token, as elsewhere, and no white space without end."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    bias = dict.fromkeys(bind("multiverse", tokenizer).ids.values(), 100)
    bias |= {token: -100 for token in range(len(tokenizer)) if tokenizer.decode([token]).isspace()}
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Find A."}],
        temperature=0,
        max_tokens=200,
        logprobs=True,
        logit_bias={str(token): value for token, value in bias.items()},
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    )
    (choice,) = answer.choices
    assert json.loads(choice.message.content or "") == {"a": TEXT}
    assert choice.logprobs is not None
    sampled = [entry.token for entry in choice.logprobs.content or ()]
    assert "</Goal>" in sampled
    assert sampled.count("<Outline>") == 2
    assert answer.usage is not None
    assert "multiverse" not in (answer.usage.model_extra or {})
    assert choice.finish_reason == "stop"
    assert len(sampled) == answer.usage.completion_tokens
