"""SGLang's `torch_native` backend with all rows of a step attending at once, and shared prefixes read once.

SGLang's own loops over rows and, in an extend, computes every row's queries from its first token on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from multiverse.attention.batched import WORTH, BatchedAttention, extend
from multiverse.attention.draft_trees import verify
from multiverse.attention.shared_prefix import Group, kv_tokens, plan
from multiverse.serving.options import Options
from multiverse.serving.sharing import ALWAYS, gate
from multiverse_sglang.host import ForwardBatch, ModelRunner
from multiverse_sglang.refusals import refuse_attention


class SharedPrefixBackend(TorchNativeAttnBackend):
    """Attention on a CPU.

    Attributes:
        groups_of_step: who shares what in the next decode step (`channels.GROUPS`).
        kv_tokens: slots read per layer by all decode steps so far.

    Raises:
        UnsupportedHostError: if the model or the device needs something else.
    """

    def __init__(self, runner: ModelRunner) -> None:
        refuse_attention(runner)
        super().__init__(runner)
        self.kv_tokens = 0
        self.groups_of_step: Sequence[Group] = ()
        self._gate = gate(Options.from_environment().shared_prefix or ALWAYS)
        self._kv_heads = runner.model_config.get_total_num_kv_heads()
        self._attention = BatchedAttention()
        self._dtype = runner.dtype

    def init_forward_metadata(self, forward: ForwardBatch) -> None:
        """Decide, for all layers, who attends to what."""
        mode = forward.forward_mode
        if mode.is_idle():
            return
        if mode.is_decode():
            groups = self._gate.paying(self.groups_of_step, self._kv_heads)
            passes = plan(forward.seq_lens.tolist(), groups, WORTH)
            self.kv_tokens += kv_tokens(passes)
        elif mode.is_target_verify():
            drafts, count = forward.spec_info, forward.spec_info.draft_token_num
            passes = verify(forward.seq_lens.tolist(), drafts.custom_mask.view(-1, count, count).tolist())
        else:
            passes = extend(forward.extend_prefix_lens.tolist(), forward.extend_seq_lens.tolist())
        table = self.req_to_token_pool.req_to_token
        self._attention.prepare(passes, table, forward.req_pool_indices, self._dtype)

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor,
        layer: RadixAttention,
        forward: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """Write the KV of the new tokens, then attend: `[tokens, heads x width]`."""
        pool = self.token_to_kv_pool
        if save_kv_cache and k is not None:
            pool.set_kv_buffer(layer, KVWriteLoc(forward.out_cache_loc), k, v)
        query = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        keys, values = pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)
        return self._attention(query, keys, values, layer.scaling).flatten(1)

    forward_extend = forward_decode
