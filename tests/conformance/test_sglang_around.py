"""Decode steps of ours around one of SGLang's own attention backends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang", reason="the attention backend belongs to SGLang's adapter")

from multiverse.attention.shared_prefix import Group
from multiverse_sglang.attention.around import SharedPrefixSteps
from multiverse_sglang.attention.groups import told
from multiverse_sglang.channels import STEPS


class Theirs:
    """A backend of SGLang, as far as our steps look at it."""

    def __init__(self) -> None:
        self.planned = self.decoded = 0

    def init_forward_metadata(self, _: Any) -> None:
        self.planned += 1

    def forward_decode(self, *_: Any, **__: Any) -> str:
        self.decoded += 1
        return "theirs"


def runner_of(backend: Theirs) -> SimpleNamespace:
    pool = SimpleNamespace(get_key_buffer=lambda _: "keys", get_value_buffer=lambda _: "values")
    return SimpleNamespace(
        attn_backend=backend,
        decode_cuda_graph_runner="graphs",
        req_to_token_pool=SimpleNamespace(req_to_token="table"),
        token_to_kv_pool=pool,
        model_config=SimpleNamespace(get_total_num_kv_heads=lambda: 8),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_only_steps_that_pay_are_ours_and_only_while_they_last(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a graph; one that can't be planned is SGLang's all the same."""

    class Engine:
        def prepare(self, passes: Any, table: Any, rows: Any, queries: int) -> None:
            assert (table, rows, queries, len(passes)) == ("table", "rows", 4, 5)
            if fails:
                raise RuntimeError("planted")

        def __call__(self, query: torch.Tensor, *_: Any) -> torch.Tensor:
            return query

    monkeypatch.setenv("MULTIVERSE_SHARED_PREFIX", "always")
    theirs = Theirs()
    runner = runner_of(theirs)
    setattr(theirs, STEPS, SharedPrefixSteps(theirs, Engine(), runner))
    mode = SimpleNamespace(is_decode=lambda: True)
    lengths = torch.full((4,), 1010)
    forward = SimpleNamespace(forward_mode=mode, seq_lens=lengths, seq_lens_cpu=None, req_pool_indices="rows")
    layer = SimpleNamespace(tp_q_head_num=2, qk_head_dim=3, layer_id=0, scaling=1.0)

    def step() -> tuple[Any, Any]:
        theirs.init_forward_metadata(forward)
        return theirs.forward_decode(torch.zeros(4, 6), None, None, layer, forward), runner.decode_cuda_graph_runner

    with told(runner, [Group((0, 1, 2, 3), 1000)]):
        found, graphs = step()
        assert graphs is None
    assert (isinstance(found, str), theirs.kv_tokens) == (fails, 0 if fails else 1040)
    assert theirs.planned == 1, "so that SGLang can go on where we can't"
    with told(runner, ()):
        assert step() == ("theirs", "graphs")
    assert step() == ("theirs", "graphs")
    assert theirs.decoded == 2 + fails
