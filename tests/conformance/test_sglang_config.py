"""SGLang configured for what can't work with blocks: refused at start, with the flag."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.serving.options import Options

pytest.importorskip("sglang", reason="these are SGLang's own settings")


def test_what_can_not_work_is_refused_before_anything_is_loaded_with_its_flag() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "sglang.launch_server", "--plugin", "multiverse"]
    command += ["--model-path", str(TINY), "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--pp-size", "2", "--tokenizer-worker-num", "2", "--skip-tokenizer-init"]
    command += ["--grpc-port", "50051", "--kv-events-config", '{"publisher": "null"}']
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("multiverse does not work with")]
    for flag in ("--pp-size", "--tokenizer-worker-num", "--skip-tokenizer-init", "--grpc-port", "--kv-events-config"):
        assert flag in line
    assert "--speculative-algorithm" not in line


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_kind_of_rope_that_was_not_tried_is_refused_by_name(kind: str) -> None:
    from multiverse_sglang.refusals import refuse_unsupported

    scheduler = a_scheduler({"rope_type": "llama3"})
    refuse_unsupported(scheduler, Options())
    scheduler.model_config.hf_text_config.rope_parameters = {"rope_type": kind}
    with pytest.raises(UnsupportedHostError, match=rf"RoPE of the kind '{kind}'"):
        refuse_unsupported(scheduler, Options())


def a_scheduler(rope: dict[str, str]) -> SimpleNamespace:
    """What the refusals look at, of a scheduler that has nothing else in the way."""
    model = SimpleNamespace(
        model_is_mrope=False, is_encoder_decoder=False, hf_text_config=SimpleNamespace(rope_parameters=rope)
    )
    allocator = SimpleNamespace(page_size=1, get_kvcache=object)
    switched_off = ("require_mlp_sync", "enable_hisparse", "enable_unified_cache_external_linker", "is_hybrid_swa")
    return SimpleNamespace(
        server_args=SimpleNamespace(grammar_backend="xgrammar"),
        token_to_kv_pool_allocator=allocator,
        page_size=1,
        is_hybrid_ssm=False,
        dllm_config=None,
        is_generation=True,
        model_config=model,
        **dict.fromkeys(switched_off, False),
    )


@pytest.mark.parametrize("inside", [{"max_depth": 1}, '{"max_depth": 1}'])
def test_the_field_is_read_from_metadata_too(inside: object) -> None:
    """Gateways that drop fields they don't know hand `metadata` on; elsewhere it is refused as its own place is."""
    from multiverse_sglang.frontend.field import move_field

    body = {"messages": [], "metadata": {"multiverse": inside, "user": "7"}}
    moved = json.loads(move_field(json.dumps(body).encode(), "/v1/chat/completions"))
    assert Options().for_request(moved["custom_params"]["multiverse"]).max_depth == 1
    with pytest.raises(OptionError, match="multiverse is not taken here"):
        move_field(json.dumps(body).encode(), "/v1/messages")
    own = json.loads(move_field(json.dumps({"messages": [], "multiverse": inside}).encode(), "/v1/chat/completions"))
    assert own["custom_params"] == moved["custom_params"]
    plain = json.dumps({"messages": [], "metadata": {"user": "multiverse"}}).encode()
    assert move_field(plain, "/v1/chat/completions") == plain


def test_a_field_that_is_given_twice_is_refused() -> None:
    """Which of the two was meant, nobody knows; the one in custom_params used to be lost."""
    from multiverse_sglang.frontend.field import move_field

    inside = {"sampling_params": {"custom_params": {"multiverse": {"max_depth": -1}}}, "text": "x"}
    with pytest.raises(OptionError, match="given twice"):
        move_field(json.dumps(inside | {"multiverse": {}}).encode(), "/generate")
