"""Where figures were measured, and with which model: written beside each of them."""

from __future__ import annotations

import json
import math
import os
import platform
from pathlib import Path
from typing import Any

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0}


def facts() -> dict[str, Any]:
    """Processor, cores, bytes of memory, load and Python of this machine now."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def model_figures(path: str, dtype: str | None) -> dict[str, Any] | None:
    """What `multiverse plan` has to know about a model: the fields of its `Model`.

    Args:
        path: directory of a checkpoint in safetensors.
        dtype: that it is served in; its own if not given.

    Returns:
        `None` if there is no such directory, or a model of another kind in it.
    """
    home = Path(path)
    try:
        config = json.loads((home / "config.json").read_text())
        sizes = [_parameters(file) for file in home.glob("*.safetensors")]
        heads, dtype = config["num_attention_heads"], dtype or config.get("dtype") or config["torch_dtype"]
        known = {
            "name": home.resolve().name,
            "parameters": sum(sizes),
            "layers": config["num_hidden_layers"],
            "heads": heads,
            "kv_heads": config.get("num_key_value_heads", heads),
            "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        }
        return known | {"weight_bytes": _BYTES[dtype], "kv_bytes": _BYTES[dtype]} if sizes else None
    except (OSError, ValueError, KeyError):
        return None


def _parameters(file: Path) -> int:
    """How many a file in safetensors holds, from its header."""
    with file.open("rb") as data:
        header = json.loads(data.read(int.from_bytes(data.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
