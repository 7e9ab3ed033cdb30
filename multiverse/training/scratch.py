"""A model from random weights, by the fields of its config alone."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from multiverse.errors import TrainingError


def build(fields: dict[str, Any], tokenizer: Any, attention: str) -> Any:
    """A causal LM with fresh weights; it depends on torch's random state only.

    Args:
        fields: ``model_type``, and what its config in transformers takes. The vocabulary is that of `tokenizer`, padded
            to a multiple of 64 so that tensor parallelism can split it, unless they give a ``vocab_size``.
        tokenizer: with all its tags; it says which tokens end a turn and pad.
        attention: how transformers computes it.

    Raises:
        TrainingError: if ``model_type`` is missing or unknown, or a field is none of the config's or has a wrong
            value, naming it.
    """
    config = _config(fields, tokenizer)
    try:
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    except ValueError as error:
        raise TrainingError(f"scratch: {error}") from error
    initialise(model)
    ends = {tokenizer.eos_token_id: None, tokenizer.pad_token_id: None}  # in this order, each once
    model.generation_config = GenerationConfig(
        eos_token_id=[token for token in ends if token is not None],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=config.max_position_embeddings // 2,
        do_sample=False,
    )
    return model


def _config(fields: dict[str, Any], tokenizer: Any) -> Any:
    if "model_type" not in fields:
        raise TrainingError("scratch: field model_type is missing")
    try:
        known = AutoConfig.for_model(fields["model_type"]).to_dict()
    except ValueError as error:
        raise TrainingError(f"scratch: model_type: {fields['model_type']!r} is not known to transformers") from error
    if unknown := sorted(set(map(str, fields)) - set(known)):
        raise TrainingError(f"scratch: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    given = {
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    try:
        return AutoConfig.for_model(**given | fields)
    except StrictDataclassError as error:
        raise TrainingError(f"scratch: {error}") from error


@torch.no_grad()
def initialise(model: Any) -> None:
    """Draw the matrices anew: small embeddings, and what is added to the residual stream starts next to nothing.

    So every layer begins close to the identity, whatever the size. A matrix with ``fan_in`` inputs gets a standard
    deviation of 0.5 / sqrt(fan_in), one that writes into the stream 0.1 / sqrt(fan_in), embeddings 0.02.
    """
    embeddings = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            scale = 0.1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.5
            torch.nn.init.normal_(weight, std=0.02 if id(weight) in embeddings else scale * weight.shape[1] ** -0.5)
