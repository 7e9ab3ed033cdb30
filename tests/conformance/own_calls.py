"""Counts calls of the package's functions, which unlike time is the same on every machine."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

OWN = tuple(str(Path(__file__).parents[2] / name) for name in ("multiverse/", "multiverse_vllm/", "multiverse_sglang/"))


class OwnCalls:
    """Those of one thread between `begin` and `end`, by function. Attention is left out: it takes the host's place."""

    def begin(self) -> None:
        self._found: Counter[str] = Counter()
        sys.setprofile(self._note)

    def end(self) -> dict[str, int]:
        sys.setprofile(None)
        return dict(self._found)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OWN) and "/attention/" not in code.co_filename:
            self._found[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1
