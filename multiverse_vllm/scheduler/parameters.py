"""Sampling parameters of requests that enter the batch again, their earlier output having become their prompt."""

from __future__ import annotations

from multiverse.decoding.strand import derive_seed
from multiverse.decoding.strict import StrictStart
from multiverse_vllm.channels import STRICT_START
from multiverse_vllm.scheduler.tree import Member


def adapt_sampling(member: Member) -> None:
    """Give the request of `member`, which is new to the workers, parameters of its own where they have to differ."""
    tree, strand, wanted = member.tree, member.strand, member.tree.sampling
    strict = tree.options.structure == "strict"
    scores = wanted.prompt_logprobs is not None or wanted.prompt_logprob_token_ids is not None
    if not strict and wanted.seed is None and not scores and not wanted.min_tokens:
        return
    parameters = member.request.sampling_params = member.request.sampling_params.clone()
    if strict:
        outputs = member.request.num_tokens - member.prompt_length()
        start = StrictStart(strand.frame, tree.options.max_branches, tree.options.max_depth, outputs)
        parameters.extra_args = {**(parameters.extra_args or {}), STRICT_START: start}
    if strand.tokens or tree.structured:
        parameters.prompt_logprobs = parameters.prompt_logprob_token_ids = None
        generated = member.prompt_length() - len(tree.controller.prompt.ids)
        parameters.min_tokens = max(0, wanted.min_tokens - max(0, generated))
    if wanted.seed is not None:  # the worker's new generator must not draw the same numbers again
        parameters.seed = derive_seed(wanted.seed, (*strand.key, len(strand.tokens))) if strand.tokens else wanted.seed
