"""The embedded model: a task, a recipe that trains a tiny model on it, its evaluation and the trained checkpoint.

`TINY` is the directory of the checkpoint; it loads with ``AutoModelForCausalLM`` and ``AutoTokenizer`` and no custom
code. Importing this package needs the standard library only.
"""

from pathlib import Path

TINY: Path = Path(__file__).parent / "tiny"

__all__ = ["TINY"]
