"""Libraries of training, evaluation and the Curator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import datasets
import openai
import pytest
import torch
from math_verify import parse, verify
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

MATH_VERIFY = ("math-verify", "0.9.0")
TORCH = ("torch", "2.13.0")


@pytest.mark.contract(*MATH_VERIFY, ours="multiverse/harness/answers.py")
@pytest.mark.parametrize(("text", "read"), [(r"10\,000", 0), (r"12\,345", 357), (r"10{,}000", 10000)])
def test_a_thin_space_parts_a_number(text: str, read: int) -> None:
    assert parse(f"${text}$")[0].doit() == read
    assert verify(parse(f"${read}$"), parse(f"${text}$"))


@pytest.mark.contract(*MATH_VERIFY, ours="multiverse/harness/answers.py")
def test_a_percentage_is_read_as_its_part_of_1_and_the_same_as_its_number() -> None:
    """0.8.0 takes it for another number."""
    assert verify(parse("$0.5$"), parse(r"$50\%$"))
    assert verify(parse("$50$"), parse(r"$50\%$"))


@pytest.mark.contract(*MATH_VERIFY, ours="multiverse/evaluation/grading.py")
def test_an_empty_box_makes_another_number_of_the_text_the_answer() -> None:
    assert verify(parse("$12$"), parse(r"There are 12 of them. $\boxed{}$"))


@pytest.mark.contract(*TORCH, ours="tests/attention/test_views.py")
def test_uncompiled_flex_attention_reads_no_tile_lists() -> None:
    """Those of the first mask name the tiles of the diagonal only."""

    def causal(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return query >= key

    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 128, 8) for _ in range(3))
    each = torch.arange(4, dtype=torch.int32).reshape(1, 1, 4, 1).repeat(1, 1, 1, 4)
    few = BlockMask.from_kv_blocks(torch.ones_like(each[..., 0]), each, BLOCK_SIZE=32, mask_mod=causal)
    whole = create_block_mask(causal, 1, 1, 128, 128, device="cpu", BLOCK_SIZE=32)
    assert (int(few.to_dense().sum()), int(whole.to_dense().sum())) == (4, 10)
    found = [flex_attention(query, key, value, block_mask=mask) for mask in (few, whole)]
    assert torch.equal(*found)


@pytest.mark.contract(*TORCH, ours="multiverse/training/muon.py")
def test_muon_steps_in_bfloat16_whatever_the_weights_are() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
    weight.grad = torch.randn(8, 8, dtype=torch.float64)
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
    assert torch.equal(weight.detach(), weight.detach().bfloat16().double())


class Busy(BaseHTTPRequestHandler):
    """Answers 429 and asks for two minutes and a second."""

    asked = 0

    def do_POST(self) -> None:  # as the library calls it
        Busy.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(429)
        self.send_header("Retry-After", "121")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.mark.contract("openai", "3.57.0", ours="multiverse/harness/retries.py")
def test_the_openai_client_does_not_retry_where_it_is_told_to_wait_longer_than_two_minutes(busy: str) -> None:
    Busy.asked = 0
    client = openai.OpenAI(base_url=busy, api_key="none", max_retries=2)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert Busy.asked == 1


@pytest.mark.contract("lm_eval", "0.4.13", ours="docs/evaluation.md")
def test_repeats_of_lm_eval_are_sent_with_one_seed() -> None:
    from lm_eval.models.openai_completions import LocalChatCompletion

    model = LocalChatCompletion(model="m", base_url="http://127.0.0.1:9/v1", tokenizer_backend=None)
    ask = {"messages": [{"role": "user", "content": "?"}], "generate": True, "gen_kwargs": {"temperature": 1.0}}
    first, second = (model._create_payload(**ask)["seed"] for _ in range(2))
    assert first == second == 1234


@pytest.mark.contract("lm_eval", "0.4.13", ours="multiverse/evaluation/harness/utils.py")
def test_a_filter_that_keeps_several_repeats_hands_them_on_as_lists() -> None:
    from lm_eval.filters.selection import TakeKFilter

    assert list(TakeKFilter(k=2).apply([["a", "b", "c"]], [{}])) == [["a", "b"]]


@pytest.mark.contract("datasets", "5.2.0", ours="multiverse/training/schema.py")
def test_a_sequence_of_objects_is_read_as_an_object_of_lists() -> None:
    """The form in which many published data sets have their `messages`."""
    turns = datasets.Sequence({"role": datasets.Value("string"), "content": datasets.Value("string")})
    rows = {"messages": [{"role": ["user", "assistant"], "content": ["?", "!"]}]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features({"messages": turns}))
    assert made[0]["messages"] == {"role": ["user", "assistant"], "content": ["?", "!"]}


@pytest.mark.contract("ray", "2.60.0", ours="multiverse/curator/distributed.py")
def test_a_function_that_fails_in_ray_data_costs_the_rows_of_the_others() -> None:
    import ray

    def fails_once(row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] == 1:
            raise ValueError("this row")
        return row

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(Exception, match="this row") as failed:
            ray.data.range(3).map(fails_once).take_all()
        assert not isinstance(failed.value, ValueError)
    finally:
        ray.shutdown()
