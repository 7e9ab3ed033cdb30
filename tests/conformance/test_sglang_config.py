"""SGLang configured for what can't work with blocks: refused at start, with the flag."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.serving.options import Options

pytest.importorskip("sglang", reason="these are SGLang's own settings")


def test_what_can_not_work_is_refused_before_anything_is_loaded_with_its_flag() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "sglang.launch_server", "--plugin", "multiverse"]
    command += ["--model-path", str(TINY), "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--pp-size", "2", "--tokenizer-worker-num", "2", "--skip-tokenizer-init"]
    command += ["--kv-canary", "log", "--strip-thinking-cache"]
    command += ["--grpc-port", "50051", "--kv-events-config", '{"publisher": "null"}']
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("multiverse does not work with")]
    for flag in (
        "--pp-size",
        "--tokenizer-worker-num",
        "--skip-tokenizer-init",
        "--grpc-port",
        "--kv-events-config",
        "--kv-canary",
    ):
        assert flag in line
    assert "--speculative-algorithm" not in line


REFUSED: dict[str, Any] = {
    "enable_hierarchical_cache": True,
    "enable_lmcache": True,
    "enable_flexkv": True,
    "radix_cache_backend": "theirs",
    "enable_unified_memory": True,
    "enable_page_major_kv_layout": True,
    "kv_canary": "log",
    "strip_thinking_cache": True,
    "enable_strict_thinking": True,
    "enable_watermark": True,
    "enable_prefill_cp": True,
    "enable_two_batch_overlap": True,
    "enable_pdmux": True,
    "use_ray": True,
    "grpc_mode": True,
    "smg_grpc_mode": True,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_can_not_work_is_refused_by_its_flag(name: str) -> None:
    """Without a server: most of them SGLang itself refuses on a CPU."""
    from sglang_stepper import server_arguments

    from multiverse_sglang.refusals import refuse_arguments

    arguments = server_arguments(str(TINY))
    refuse_arguments(arguments)
    setattr(arguments, name, REFUSED[name])
    with pytest.raises(UnsupportedHostError, match="--" + name.replace("_", "-")):
        refuse_arguments(arguments)


@pytest.mark.parametrize("variable", ["SGLANG_RUST_SERVER", "SGLANG_USE_MLX"])
def test_a_front_end_and_a_runner_that_pass_us_by_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_stepper import server_arguments

    from multiverse_sglang.refusals import refuse_arguments

    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnsupportedHostError, match=variable):
        refuse_arguments(server_arguments(str(TINY)))


def test_the_report_tells_which_core_the_radix_tree_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse_sglang.hooks import report

    assert report()["details"] == "rust core of the radix tree"
    monkeypatch.setenv("SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND", "python")
    assert report()["details"] == "python core of the radix tree"


def test_hidden_states_and_blocks_are_not_for_one_request() -> None:
    """They would be those of one strand; who asks for both by name is told."""
    from multiverse_sglang.refusals import check_options

    internals = dict.fromkeys(("return_routed_experts", "return_indexer_topk", "return_sampling_mask"), False)
    request: Any = SimpleNamespace(grammar=None, return_hidden_states=True, **internals)
    check_options(request, Options(enabled=False))
    with pytest.raises(OptionError, match="hidden states"):
        check_options(request, Options())


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
        enable_overlap=True,
        spec_algorithm=SimpleNamespace(is_none=lambda: True),
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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"response_format": "json"}, "response_format must be an object, got 'json'"),
        ({"n": 0}, "n must be at least 1"),
    ],
)
def test_what_sglang_breaks_on_is_refused_without_the_field_too(wrong: dict[str, Any], said: str) -> None:
    """SGLang 0.5.23 answers the first with a 500, and breaks off the stream of the second."""
    from multiverse_sglang.frontend.field import LOOKS, move_field

    body = json.dumps({"messages": []} | wrong).encode()
    assert LOOKS.search(body)
    with pytest.raises(OptionError, match=said) as refused:
        move_field(body, "/v1/chat/completions")
    assert [refused.value.parameter] == list(wrong)
    fine = json.dumps({"messages": [], "n": 1, "response_format": {"type": "text"}}).encode()
    assert not LOOKS.search(fine)
    assert move_field(fine, "/v1/chat/completions") == fine
