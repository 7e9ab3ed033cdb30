"""SGLang: what it makes of sampling parameters, logprobs, streams; no engine is started."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, CompletionRequest, StreamOptions
from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion
from sglang.srt.entrypoints.openai.utils import should_include_usage
from sglang.srt.layers import sampler
from sglang.srt.managers.detokenizer_manager import DetokenizerManager
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import SchedulePolicy
from sglang.srt.parser.reasoning_parser import DeepSeekR1Detector
from sglang.srt.sampling.penaltylib.orchestrator import BatchedPenalizerOrchestrator
from sglang.srt.sampling.penaltylib.repetition_penalty import BatchedRepetitionPenalizer
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from sglang.srt.sampling.sampling_params import TOP_K_ALL, SamplingParams
from sglang.srt.server_args import ServerArgs
from transformers import AutoTokenizer

from multiverse.models import TINY

SGLANG = ("sglang", "0.5.23")
FLOOR = torch.finfo(torch.float32).min


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Logprobs that are reported of two rows, the first of them greedy; the last token is 200 nats away."""
    usual = SimpleNamespace(
        deterministic=SimpleNamespace(rl_on_policy_target=None, enable_deterministic_inference=False),
        kernel=SimpleNamespace(sampling_backend="pytorch"),
        features=SimpleNamespace(sampling_mask_max_tokens=0),
    )
    group = SimpleNamespace(tp_group=SimpleNamespace(device_group=None))
    monkeypatch.setattr(sampler, "get_exec", lambda: usual)
    monkeypatch.setattr(sampler, "get_parallel", lambda: group)
    monkeypatch.setattr(sampler, "is_dp_attention_enabled", lambda: False)
    monkeypatch.setattr(sampler, "SYNC_TOKEN_IDS_ACROSS_TP", False)

    def report(temperatures: list[float], top_ks: list[int]) -> torch.Tensor:
        greedy = [top_k == 1 for top_k in top_ks]
        info = SamplingBatchInfo(
            temperatures=torch.tensor(temperatures)[:, None],
            top_ps=torch.ones(2),
            top_ks=torch.tensor(top_ks, dtype=torch.int32),
            min_ps=torch.zeros(2),
            is_all_greedy=all(greedy),
            is_any_greedy=any(greedy),
            need_top_p_sampling=False,
            need_top_k_sampling=any(top_k != TOP_K_ALL for top_k in top_ks),
            need_min_p_sampling=False,
            vocab_size=3,
            device="cpu",
        )
        found = SimpleNamespace(next_token_logits=torch.tensor([[0.0, -1.0, -200.0]] * 2))
        sampler.Sampler()(found, info, True, [0, 0], [[0, 1, 2], [0, 1, 2]], torch.zeros(2, dtype=torch.int64))
        return torch.tensor([list(map(float, row)) for row in found.next_token_token_ids_logprobs_val])

    return report


@pytest.mark.contract(*SGLANG, ours="multiverse/wire/logprobs.py")
def test_logprobs_are_floored_in_a_batch_in_which_anybody_samples(sampled: Any) -> None:
    assert sampled([1.0, 1.0], [1, 1])[:, 2].tolist() == pytest.approx([-200.3133, -200.3133])
    assert sampled([1.0, 1.0], [1, TOP_K_ALL])[:, 2].tolist() == [FLOOR, FLOOR]


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_logprobs_are_reported_after_the_temperature(sampled: Any) -> None:
    expected = torch.tensor([0.0, -0.25, -50.0]).log_softmax(-1)
    assert torch.allclose(sampled([1.0, 4.0], [1, TOP_K_ALL])[1], expected, atol=1e-5)


@pytest.mark.contract(*SGLANG, ours="multiverse_sglang/sampling.py")
def test_a_greedy_request_is_one_of_top_k_1_and_keeps_its_other_cuts() -> None:
    made = SamplingParams(temperature=0, top_p=0.5, top_k=5, min_p=0.5)
    assert (made.temperature, made.top_p, made.top_k, made.min_p) == (1.0, 0.5, 1, 0.5)


@pytest.mark.contract(*SGLANG, ours="multiverse_sglang/sampling.py")
def test_min_p_and_seeds_exclude_each_other() -> None:
    row, one = torch.ones(1, 2) / 2, torch.ones(1)
    with pytest.raises(AssertionError, match="wrong results"):
        sampler.top_k_top_p_min_p_sampling_from_probs_torch(row, one, one, one / 2, True, one, one)


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_several_greedy_answers_are_allowed() -> None:
    SamplingParams(temperature=0, n=2).verify(100)


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_the_repetition_penalty_does_not_count_the_prompt() -> None:
    request = SimpleNamespace(sampling_params=SimpleNamespace(repetition_penalty=2.0), origin_input_ids=[0])
    batch = type("Batch", (), {"reqs": [request], "device": "cpu"})()
    orchestrator = BatchedPenalizerOrchestrator(4, batch, {BatchedRepetitionPenalizer})
    orchestrator.cumulate_output_tokens(torch.tensor([1]))
    assert weakref.ref(batch)() is batch
    (penalizer,) = orchestrator.penalizers.values()
    assert penalizer.get_scaling_penalties().tolist() == [[1.0, 2.0, 1.0, 1.0]]


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_seeds_are_ignored_unless_inference_is_deterministic() -> None:
    assert ServerArgs("model").enable_deterministic_inference is False


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_the_higher_priority_goes_first_and_sets_running_ones_back_past_ten() -> None:
    defaults = ServerArgs("model")
    assert not defaults.schedule_low_priority_values_first
    assert defaults.priority_scheduling_preemption_threshold == 10
    queue = [SimpleNamespace(priority=p, time_stats=SimpleNamespace(wait_queue_entry_time=0.0)) for p in (5, 1, 9)]
    SchedulePolicy._sort_by_priority_and_fcfs(queue, -1)
    assert [request.priority for request in queue] == [9, 5, 1]


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_continuous_usage_alone_has_no_last_line() -> None:
    assert should_include_usage(StreamOptions(continuous_usage_stats=True), False) == (False, True)


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_the_messages_api_drops_fields_that_it_does_not_know() -> None:
    turn = {"role": "user", "content": "?"}
    made = AnthropicMessagesRequest(model="m", max_tokens=1, messages=[turn], multiverse={"enabled": False})
    assert "multiverse" not in made.model_dump()


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_ids_beyond_the_tokenizer_are_decoded_as_token_0() -> None:
    assert DetokenizerManager._clamp_decode_ids([3, 10, 99], 10) == [3, 0, 0]


@pytest.mark.contract(*SGLANG, ours="docs/evaluation.md")
def test_the_echo_of_token_ids_loses_special_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    manager = SimpleNamespace(tokenizer_manager=SimpleNamespace(tokenizer=tokenizer))
    ids = tokenizer.encode("<|im_start|>user")
    asked = CompletionRequest(model="m", prompt=ids, echo=True)
    assert OpenAIServingCompletion._get_echo_text(manager, asked, 0) == "user"


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_stop_strings_of_plain_requests_are_matched_with_special_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    parameters = SamplingParams(stop="<|im_start|>", skip_special_tokens=True)
    parameters.normalize(tokenizer)
    request = SimpleNamespace(
        sampling_params=parameters,
        tokenizer=tokenizer,
        output_ids=tokenizer.encode("<|im_start|>"),
        _stop_match_tail_len=lambda _: 5,
    )
    assert Req.tail_str(request) == "<|im_start|>"


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_the_reasoning_parser_deletes_a_second_marker() -> None:
    found = DeepSeekR1Detector().detect_and_parse("<think><think>a</think>b")
    assert (found.reasoning_text, found.normal_text) == ("a", "b")


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_the_last_newline_of_a_message_that_is_continued_is_kept() -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<Goal>\n"}]
    asked = ChatCompletionRequest(model="m", messages=turns, continue_final_message=True, add_generation_prompt=False)
    assert OpenAIServingChat._handle_last_assistant_message(SimpleNamespace(), turns, asked)[1] == "<Goal>\n"


@pytest.mark.contract(*SGLANG, ours="docs/api.md")
def test_do_sample_of_a_generation_config_is_ignored(tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((TINY / file).read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    assert ModelConfig(str(tmp_path), sampling_defaults="model").get_default_sampling_params() == {}
