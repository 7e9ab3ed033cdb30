"""A running server with the plugin, as a trainer uses it: answers with trees, and new weights. Knows HTTP, no model."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from multiverse.errors import TrainingError

SECONDS = 3600
"""An answer may take so long."""
AT_ONCE = 256
"""Requests that are open at the same time; others wait here, where they cost nothing."""
_GO_ON = "/continue_generation"


class Served:
    """A server.

    Args:
        url: of the server, without `/v1`.
        host: which of the two it is.
        model: as the server calls it; it is asked if not given.

    Every method raises `TrainingError` where the server does not answer or refuses, with what it says.
    """

    def __init__(self, url: str, host: Literal["vllm", "sglang"], model: str | None = None) -> None:
        self.url, self.host = url.rstrip("/"), host
        self.model = model or str(self.call("/v1/models", get=True)["data"][0]["id"])

    def call(self, path: str, body: Mapping[str, Any] | None = None, get: bool = False) -> Any:
        """What the server answers, read as JSON if it is."""
        text = self.text(path, body, get)
        return json.loads(text) if text.startswith(("{", "[")) else text

    def text(self, path: str, body: Mapping[str, Any] | None = None, get: bool = False) -> str:
        """What the server answers."""
        data = None if get else json.dumps(body or {}).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read().decode()[:500]}{_hint(error)}"
            raise TrainingError(f"{self.url}{path}: {said}") from error
        except OSError as error:
            raise TrainingError(f"{self.url}{path}: no answer: {error}") from error

    def body(self, **fields: Any) -> dict[str, Any]:
        """Of a request to `/v1/completions` whose answer a rollout can be made of."""
        asked = {"model": self.model, "logprobs": 1, "return_token_ids": True}
        return asked | fields | {"multiverse": {"return_tree": True, **fields.get("multiverse", {})}}

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Completions of several prompts, asked for side by side."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda body: self.call("/v1/completions", self.body(**body)), bodies))

    def replay(self) -> None:
        """Let all trees give up their KV and be computed again."""
        if self.host == "vllm":
            self.call("/reset_prefix_cache?reset_running_requests=true")
        else:
            self.call("/pause_generation", {"mode": "retract"})
            self.call(_GO_ON)

    def load(self, path: str, version: str) -> None:
        """Give the server the weights of a checkpoint that it can read at `path`; what runs goes on with them."""
        pause, resume = ("/pause?mode=keep", "/resume") if self.host == "vllm" else ("/pause_generation", _GO_ON)
        self.call(pause, {"mode": "retract"})
        try:
            (self._load_vllm if self.host == "vllm" else self._load_sglang)(path, version)
        finally:
            self.call(resume)

    def _load_vllm(self, path: str, version: str) -> None:
        self.call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        self.call("/reset_prefix_cache?reset_running_requests=true")
        self.call("/update_weight_version", {"new_version": version})

    def _load_sglang(self, path: str, version: str) -> None:
        asked = {"model_path": path, "flush_cache": True, "weight_version": version}
        self.call("/update_weights_from_disk", asked)  # it answers 400 if it did not take them


def _hint(error: urllib.error.HTTPError) -> str:
    """What a missing route means."""
    return " (vLLM has these routes with VLLM_SERVER_DEV_MODE=1)" if error.code == 404 else ""
