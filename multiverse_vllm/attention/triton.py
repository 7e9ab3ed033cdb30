"""vLLM's Triton backend with decode steps of ours."""

from __future__ import annotations

from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadataBuilder,
)

from multiverse_vllm.attention.around import StepAttention, StepBuilder


class SharedPrefixTritonImpl(StepAttention, TritonAttentionImpl):
    """Of one layer."""


class SharedPrefixTritonBuilder(StepBuilder, TritonAttentionMetadataBuilder):
    """Of metadata."""


class SharedPrefixTritonBackend(TritonAttentionBackend):
    """Goes by the name of vLLM's, since to whatever asks it is that."""

    @staticmethod
    def get_impl_cls() -> type[SharedPrefixTritonImpl]:
        return SharedPrefixTritonImpl

    @staticmethod
    def get_builder_cls() -> type[SharedPrefixTritonBuilder]:
        return SharedPrefixTritonBuilder
