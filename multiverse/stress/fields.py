"""The fields of a request that the hosts and this package document, and what can be drawn for each. Knows no HTTP.

Values are those that a client may send; combinations are left to chance, since faults live where two features meet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from multiverse.structure.dialects import Tag, registry

Draw = Callable[[Random], Any]
CHAT, COMPLETION, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
_OPENAI = (CHAT, COMPLETION)
_BOTH = ("vllm", "sglang")
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
_TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


class Field(NamedTuple):
    """One field of the hosts' own.

    Attributes:
        draw: gives a value, or several fields at once as a dictionary if `together`.
        paths: APIs that have it.
        hosts: that have it.
    """

    name: str
    draw: Draw
    paths: tuple[str, ...] = _OPENAI
    hosts: tuple[str, ...] = _BOTH
    together: bool = False


def among(*values: Any) -> Draw:
    return lambda rng: rng.choice(values)


def between(low: float, high: float) -> Draw:
    return lambda rng: round(rng.uniform(low, high), 3)


def whole(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def several(draw: Draw, most: int) -> Draw:
    return lambda rng: [draw(rng) for _ in range(rng.randint(1, most))]


def encode(body: Any) -> str:
    """A body as it is sent."""
    return json.dumps(body).replace(json.dumps(NESTED), "[" * 1500 + "]" * 1500)


def _top_logprobs(rng: Random) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": rng.choice((0, 1, 2, 5, 20))}


def _bias(rng: Random) -> dict[str, float]:
    return {str(rng.randint(0, 300)): round(rng.uniform(-20, 5), 1) for _ in range(rng.randint(1, 4))}


def _format(rng: Random) -> dict[str, Any]:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}
    return dict(rng.choice(({"type": "text"}, {"type": "json_object"}, schema)))


_TAGS = registry.get("multiverse").tags
_WORDS = among(
    "9", "sum", "Answer:", " = ", "\n", "A B", _TAGS[Tag.PATH_CLOSE], _TAGS[Tag.CONCLUSION_OPEN], "18", "max 4"
)  # fmt: skip

HOST_FIELDS: tuple[Field, ...] = (
    Field("temperature", among(0.0, 0.0, 0.7, 1.0, 2.0)),
    Field("top_p", between(0.1, 1.0)),
    Field("top_k", among(1, 5, 50)),
    Field("min_p", between(0.0, 0.5)),
    Field("seed", whole(0, 2**31 - 1)),
    Field("n", among(1, 2, 3)),
    Field("stop", several(_WORDS, 3)),
    Field("stop", _WORDS),
    Field("stop_regex", among("[0-9] =", "[27] [71]", "(Answer|x):"), hosts=("sglang",)),
    Field("stop_token_ids", several(whole(0, 330), 3)),
    Field("include_stop_str_in_output", among(True, False), hosts=("vllm",)),
    Field("no_stop_trim", among(True, False), hosts=("sglang",)),
    Field("min_tokens", whole(0, 40)),
    Field("ignore_eos", among(True, False)),
    Field("presence_penalty", between(-2, 2)),
    Field("frequency_penalty", between(-2, 2)),
    Field("repetition_penalty", between(0.5, 1.8)),
    Field("logit_bias", _bias),
    Field("logprobs", _top_logprobs, (CHAT,), together=True),
    Field("logprobs", among(0, 1, 5), (COMPLETION,)),
    Field("prompt_logprobs", among(0, 1, 3), hosts=("vllm",)),
    Field("echo", among(True, False), (COMPLETION,)),
    Field("skip_special_tokens", among(True, False)),
    Field("priority", whole(-3, 3)),
    Field("cache_salt", among("a", "b"), hosts=("vllm",)),
    Field("bad_words", several(_WORDS, 2), hosts=("vllm",)),
    Field("allowed_token_ids", among(list(range(300)), list(range(320))), hosts=("vllm",)),
    Field("truncate_prompt_tokens", whole(1, 60), hosts=("vllm",)),
    Field("return_token_ids", among(True, False), hosts=("vllm",)),
    Field("return_tokens_as_token_ids", among(True, False), hosts=("vllm",)),
    Field("response_format", _format),
    Field("structured_outputs", among({"regex": "[0-9]{3}"}, {"choice": ["18", "9"]}), hosts=("vllm",)),
    Field("regex", among("[0-9]{3}", "(yes|no)"), hosts=("sglang",)),
    Field("tools", among([_TOOL]), (CHAT,)),
    Field("add_generation_prompt", among(True, False), (CHAT,), hosts=("vllm",)),
    Field("user", among("someone", "")),
    Field("max_tokens", among(1, 2, 21, 40, 90)),
    Field("return_hidden_states", among(False), hosts=("sglang",)),
)

OUR_FIELDS: tuple[Field, ...] = (
    Field("enabled", among(True, True, False)),
    Field("max_branches", whole(1, 64)),
    Field("max_depth", whole(0, 4)),
    Field("max_parallel", whole(1, 8)),
    Field("max_critical_path", whole(1, 120)),
    Field("branch_sampling", among({"temperature": 1.0}, {"top_k": 3}, {"repetition_penalty": 1.2}, {})),
    Field("stream", among("document", "events")),
    Field("return_tree", among(True, True, False)),
    Field("drafts", among(0, 1, 3, "1:4,8:1")),
)

PROMISES: tuple[Field, ...] = (
    Field("slo", among({"tpot_ms": 10}, {"tpot_ms": 200}, {"deadline_ms": 5000}, {"tpot_ms": 50, "deadline_ms": 300})),
)
"""What a server under `--multiverse-admission slack` takes besides: some can be kept, some can't."""

SAMPLING_PARAMS: tuple[Field, ...] = (
    *(field for field in HOST_FIELDS if "sglang" in field.hosts and field.name in (
        "temperature", "top_p", "top_k", "min_p", "n", "stop", "stop_regex", "stop_token_ids", "no_stop_trim",
        "ignore_eos", "presence_penalty", "frequency_penalty", "repetition_penalty", "skip_special_tokens", "regex",
    )),
    Field("min_new_tokens", whole(0, 20)),
    Field("custom_params", among({}, {"mine": 1}, {"multiverse": {"return_tree": True}})),
)  # fmt: skip
"""Of SGLang's own API, inside `sampling_params`."""

GENERATE_FIELDS: tuple[Field, ...] = (
    Field("return_logprob", among(True, False)),
    Field("logprob_start_len", among(-1, 0, 5)),
    Field("top_logprobs_num", among(0, 1, 4)),
    Field("token_ids_logprob", several(whole(0, 300), 3)),
    Field("return_text_in_logprobs", among(True, False)),
    Field("stream", among(True, False)),
)
"""Of SGLang's own API, at the top level."""

GRAMMARS = ("response_format", "structured_outputs", "regex")
FORBIDDING = ("min_tokens", "min_new_tokens", "ignore_eos", "logit_bias", "bad_words", "allowed_token_ids")
"""Fields that can forbid every token that a grammar allows: vLLM 0.32 and SGLang 0.5.23 themselves then answer 500."""
NESTED = "1500 lists inside each other"
"""Stands for just that, which Python's own encoder can't write."""
WRONG: tuple[tuple[str, Any], ...] = (
    ("temperature", "hot"), ("temperature", -1), ("max_tokens", -5), ("max_tokens", "many"), ("top_p", 7.0),
    ("n", 0), ("n", "two"), ("seed", "x"), ("stop", {"a": 1}), ("logit_bias", "x"), ("stop_token_ids", "x"),
    ("presence_penalty", 99), ("response_format", "json"), ("stream", "maybe"), ("min_tokens", -1),
)  # fmt: skip
"""Values of the hosts' own fields that they refuse."""
WRONG_OURS: tuple[Any, ...] = (
    {"max_parallel": 2**64}, {"max_critical_path": 2**200}, {"max_branches": True}, {"widht": 1}, "[" * 2000, "{", 7,
    [1, 2], {"branch_sampling": {"temperature": 1e9}}, {"branch_sampling": {"repetition_penalty": 1e-9}},
    {"branch_sampling": "x"}, {"stream": 1}, {"structure": "loose"}, {"max_depth": NESTED}, {"x" * 100_000: 1},
    {"slo": {"tpot_ms": 0}}, {"drafts": "few"},
)  # fmt: skip
"""Values of our field that have to be refused with a 400, whatever else the request asks for."""
WRONG_CUSTOM_PARAMS: tuple[Any, ...] = ("abc", ["a"], 7, {"multiverse": "[" * 2000}, {"multiverse": {"max_depth": -1}})
"""The same in SGLang's `custom_params`; those that are no object at all may also be taken, as without the plugin."""
