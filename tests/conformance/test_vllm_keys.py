"""Keys of spliced KV on vLLM: what they depend on besides tokens, positions and branches (invariant I4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="they are hashed by vLLM")

from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import init_none_hash

from multiverse.decoding.splice import KVOrder
from multiverse_vllm.scheduler.prefix_cache import LayoutKeys


def keys(lora: tuple[str, str] | None = None, salt: str | None = None) -> list[Any]:
    """Of two blocks of four tokens, the second one partly joined."""
    function = get_hash_fn_by_name("sha256")
    init_none_hash(function)
    entries = [*((token, token, ()) for token in range(5)), (5, 5, ((0, 0),)), (6, 5, ((0, 1),))]
    adapter = lora and SimpleNamespace(lora_name=lora[0], lora_path=lora[1])
    request = SimpleNamespace(
        block_hashes=[], num_tokens=8, all_token_ids=list(range(8)), lora_request=adapter, cache_salt=salt
    )
    return LayoutKeys(function, 4, KVOrder(entries, []), -1)(request)


def test_the_same_is_found_again() -> None:
    assert keys(("math", "/a")) == keys(("math", "/a"))
    assert len(set(keys())) == 2


@pytest.mark.parametrize(
    "other",
    [{"lora": ("math", "/b")}, {"lora": ("code", "/a")}, {"lora": None}, {"lora": ("math", "/a"), "salt": "mine"}],
    ids=["another adapter under its name", "another name", "none", "another salt"],
)
def test_kv_of_another_adapter_or_tenant_is_not(other: dict[str, Any]) -> None:
    assert not set(keys(("math", "/a"))) & set(keys(**other))
