"""The dialect, bound to the tokenizer of the model that vLLM serves."""

from __future__ import annotations

from typing import Any

from multiverse.serving.options import Options
from multiverse.structure.binding import Binding, bind, detect


def bind_model(config: Any, options: Options) -> Binding:
    """The dialect that `options` name, or that the tokenizer speaks. What ends a sequence is left to vLLM.

    Args:
        config: vLLM's `ModelConfig`.
        options: the server's.

    Raises:
        BindingError: if the tokenizer doesn't know the tags, naming them.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        config.tokenizer, revision=config.tokenizer_revision, trust_remote_code=config.trust_remote_code
    )
    return bind(options.dialect or detect(tokenizer), tokenizer, eos=())
