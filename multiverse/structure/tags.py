"""Adding a dialect's tags to a model before training (SEMANTICS section 3)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from multiverse.structure.dialects import Dialect, registry


def add_tags(tokenizer: Any, model: Any, dialect: Dialect | str = "multiverse") -> list[str]:
    """Make every tag of `dialect` one token of `tokenizer`, with embedding rows that already mean something.

    A new tag's rows in the input and output embeddings start as the mean of the rows of what it says (`<Goal>` as
    `Goal`, `</Goal>` as `/Goal`), so that no two start alike: equal rows would read and be written alike. The tags
    are added as ordinary, not special, tokens, so that `skip_special_tokens` keeps them in the text. Tags that are
    one token already are left alone, so calling it twice changes nothing. If the vocabulary grows past the embedding
    matrix, the matrix is resized.

    Args:
        tokenizer: a Hugging Face tokenizer; changed in place.
        model: a Hugging Face causal LM; changed in place. `None` to change only the tokenizer.
        dialect: a dialect, its registered name, or the path of a TOML file.

    Returns:
        the tags that were added, in the dialect's order.

    Raises:
        DialectError: if the name is not known.
    """
    from tokenizers import AddedToken

    dialect = registry.get(dialect) if isinstance(dialect, str) else dialect
    known = tokenizer.get_vocab()
    missing = [text for text in dialect.tags.values() if text not in known]
    if not missing:
        return []
    words = _pieces(tokenizer, missing)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in missing])
    if model is not None:
        _fill_rows(tokenizer, model, words)
    return missing


def _pieces(tokenizer: Any, tags: list[str]) -> dict[str, list[int]]:
    """The ids that say what each tag says: of its bare words, or of its whole text if two tags would be alike."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    words = {tag: encode(_bare_word(tag)) for tag in tags}
    counts = Counter(tuple(sorted(ids)) for ids in words.values())
    return {tag: ids if ids and counts[tuple(sorted(ids))] == 1 else encode(tag) for tag, ids in words.items()}


def _bare_word(tag: str) -> str:
    """What a tag says: `<Goal>` -> `Goal`, `</Goal>` -> `/Goal`. One without a letter or digit stands for itself."""
    return "".join(re.findall(r"[^\W_]+|/", tag)) if re.search(r"[^\W_]", tag) else tag


def _fill_rows(tokenizer: Any, model: Any, words: dict[str, list[int]]) -> None:
    import torch

    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [inputs.weight]
    if outputs is not None and outputs.weight is not inputs.weight:
        weights.append(outputs.weight)
    with torch.no_grad():
        for text, ids in words.items():
            row = tokenizer.convert_tokens_to_ids(text)
            for weight in weights:
                weight[row] = weight[ids].float().mean(dim=0).to(weight.dtype)
