"""Loading a model for the oracle."""

from __future__ import annotations

from typing import Any

from multiverse.errors import UnsupportedModelError
from multiverse.models.loading import load_model, load_tokenizer


def load(name: str) -> tuple[Any, Any]:
    """Load a causal LM in float32, for evaluation, and its tokenizer.

    Args:
        name: a directory or the name of a model that transformers can find.

    Returns:
        the model and the tokenizer.

    Raises:
        UnsupportedModelError: if it can't be loaded, with transformers' reason, or its tokenizer or weights would not
            be what its files say (see `multiverse.models.loading`).
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = load_tokenizer(name)
        model = load_model(name, dtype="float32").eval()
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"model {name} can't be loaded: {error}") from error
    return model, tokenizer
