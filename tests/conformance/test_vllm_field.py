"""The field of a request on its way through vLLM's own classes of requests, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own requests")

MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    "body",
    [
        {"multiverse": {"max_depth": 1}},
        {"metadata": {"multiverse": {"max_depth": 1}}},
        {"metadata": {"multiverse": '{"max_depth": 1}', "user": "7"}},
    ],
)
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_the_field_reaches_the_engine_from_its_own_place_and_from_metadata(kind: str, body: dict[str, Any]) -> None:
    """Gateways that drop fields they don't know hand `metadata` on."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    from multiverse.serving.options import Options
    from multiverse_vllm.frontend.api import _take_field

    if kind == "chat":
        request: Any = ChatCompletionRequest.model_validate({"messages": MESSAGES, **body})
    else:
        request = CompletionRequest.model_validate({"prompt": "a", **body})
    params = _take_field(type(request).to_sampling_params)(request, 16, {})
    assert Options().for_request(params.extra_args["multiverse"]).max_depth == 1


def test_metadata_without_the_field_asks_for_nothing() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    from multiverse_vllm.frontend.api import _take_field

    request = ChatCompletionRequest.model_validate({"messages": MESSAGES, "metadata": {"user": "7"}})
    params = _take_field(ChatCompletionRequest.to_sampling_params)(request, 16, {})
    assert "multiverse" not in (params.extra_args or {})
