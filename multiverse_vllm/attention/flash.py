"""vLLM's FlashAttention backend with decode steps of ours."""

from __future__ import annotations

from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from multiverse_vllm.attention.around import StepAttention, StepBuilder


class SharedPrefixFlashImpl(StepAttention, FlashAttentionImpl):
    """Of one layer."""


class SharedPrefixFlashBuilder(StepBuilder, FlashAttentionMetadataBuilder):
    """Of metadata."""


class SharedPrefixFlashBackend(FlashAttentionBackend):
    """Goes by the name of vLLM's, since to whatever asks it is that."""

    @staticmethod
    def get_impl_cls() -> type[SharedPrefixFlashImpl]:
        return SharedPrefixFlashImpl

    @staticmethod
    def get_builder_cls() -> type[SharedPrefixFlashBuilder]:
        return SharedPrefixFlashBuilder
