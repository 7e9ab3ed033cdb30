"""The embedded model under other names for its tags, so that models of other dialects can be shown without weights.

A stand-in: it thinks as before, only what its tags are called changes, in its tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from multiverse import Dialect, get_dialect
from multiverse.models import TINY


def retag(target: Path, dialect: Dialect, unused: Mapping[str, str] | None = None) -> Path:
    """Write the embedded model with the tags of `dialect` to the directory `target`.

    Args:
        unused: names for tags that `dialect` does not have, by their old name; they become ordinary text.
    """
    old = get_dialect("multiverse").tags
    names = {text: dialect.tags[tag] for tag, text in old.items() if tag in dialect.tags} | dict(unused or {})
    shutil.copytree(TINY, target)
    file = target / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return target
