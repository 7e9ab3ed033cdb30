"""Models and tokenizers as their files say: what transformers would make of them otherwise is refused.

`tokenizer_class` in `tokenizer_config.json`, or the model's type where that is missing, wins over `tokenizer.json` in
transformers (5.24: `Qwen2Tokenizer` cuts digits and spaces its own way), so a model would be trained or checked on
other ids than its file says. For some types, `qwen2` among them, the type's class wins over `tokenizer_class`, too.
And an output matrix that is missing from the files starts at random with no more than a report.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from multiverse.errors import UnsupportedModelError
from multiverse.structure.dialects import registry

logger = logging.getLogger(__name__)

FOLLOWS_FILE = "PreTrainedTokenizerFast"
"""The class that is what `tokenizer.json` says, under transformers 4 and 5."""
_LINES = (
    "Find the sum of 12345 and 67.\n\n  Then: x = 3.5e-7;\tdone.",
    "def f(a):\n    return a  +  b\n\n\n",
    " spaces  at   both ends ",
    "It's 1,000,000 \u00e9\u4e2d\u6587, don't they?",
)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model.

    Raises:
        OSError, ValueError: if transformers can't load it.
        UnsupportedModelError: if it cuts text otherwise than its file says, with the remedy.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    if (file := _file(name, "tokenizer.json")) is not None:
        _compare(tokenizer, file, name)
    return tokenizer


def save_tokenizer(tokenizer: Any, directory: str | Path) -> None:
    """Write a tokenizer so that whoever loads it gets this one, and no class that is built anew from its vocabulary."""
    tokenizer.save_pretrained(directory)
    config = Path(directory) / "tokenizer_config.json"
    if (Path(directory) / "tokenizer.json").exists():
        settings = json.loads(config.read_text(encoding="utf-8")) | {"tokenizer_class": FOLLOWS_FILE}
        config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(name: str, **options: Any) -> Any:
    """A causal LM; `options` are those of transformers.

    Raises:
        OSError, ValueError: if transformers can't load it.
        UnsupportedModelError: if weights are missing from its files.
    """
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        tied = "; set tie_word_embeddings if it has no output matrix of its own" if "lm_head.weight" in missing else ""
        raise UnsupportedModelError(f"its files lack {', '.join(missing[:5])}, which would be random{tied}")
    _warn_of_two_heads(model, name)
    return model


def _compare(tokenizer: Any, file: Path, name: str) -> None:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(file))
    raw.no_truncation()
    raw.no_padding()
    tags = [tag for dialect in registry.all() for tag in dialect.tags.values()]
    for line in (*_LINES, *(f"a {tag}\n1: b{tag} \n" for tag in dict.fromkeys(tags))):
        found = tokenizer.encode(line, add_special_tokens=False)
        expected = raw.encode(line, add_special_tokens=False).ids
        if found != expected:
            raise UnsupportedModelError(
                f"the tokenizer of {name} is loaded as {type(tokenizer).__name__}, which cuts {line!r} into "
                f"{len(found)} tokens, but tokenizer.json into {len(expected)} others: {_remedy(tokenizer, name)}"
            )


def _remedy(tokenizer: Any, name: str) -> str:
    config = _file(name, "tokenizer_config.json")
    settings = json.loads(config.read_text(encoding="utf-8")) if config else {}
    if settings.get("tokenizer_class") not in (FOLLOWS_FILE, "TokenizersBackend"):
        return f"set tokenizer_class in tokenizer_config.json to {FOLLOWS_FILE}"
    built = type(tokenizer).__name__
    return f"transformers builds {built} for its model_type whatever tokenizer_class says, so the file has to cut alike"


def _warn_of_two_heads(model: Any, name: str) -> None:
    """Files of a tied model may hold an output matrix all the same; which one counts depends on the program."""
    from safetensors import safe_open

    if not getattr(model.config, "tie_word_embeddings", False) or (file := _file(name, "model.safetensors")) is None:
        return
    with safe_open(file, "pt") as weights:
        if "lm_head.weight" not in weights.keys():  # noqa: SIM118  # it is no mapping
            return
        head = weights.get_tensor("lm_head.weight")
    rows = model.get_input_embeddings().weight
    if head.shape != rows.shape or not (head.to(rows.dtype) == rows).all():
        logger.warning(
            "%s: config.json ties the output rows to the embedding, but the files hold an output matrix of their own: "
            "engines may use either; set tie_word_embeddings to false, or remove lm_head.weight",
            name,
        )


def _file(name: str, file: str) -> Path | None:
    """A file of a model, in its directory or in the cache of the hub; `None` if it has no such file."""
    from transformers.utils import cached_file

    found = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if found is None else Path(found)
