"""vLLM whose functions are all there and mean something else: the rehearsal at start refuses it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang's is in test_sglang_rehearsal.py")

from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm_host import VLLMHost

from multiverse.errors import UnsupportedHostError
from multiverse.models import TINY
from multiverse_vllm import hooks
from multiverse_vllm.scheduler import rehearsal

FAULTS = [
    (BlockPool, "get_cached_block", lambda _: lambda *_: None, "tokens are in the prefix cache"),
    (
        SingleTypeKVCacheManager,
        "take_pending_cow_copies",
        lambda _: lambda *_: [],
        "a rehearsed fork and splice differs",
    ),
    (
        BlockPool,
        "touch",
        lambda touch: lambda self, blocks: (touch(self, blocks), touch(self, blocks)),
        "something over",
    ),
]
"""What means something else: as if it did nothing, or did it twice. The last one stays wrong."""


@pytest.fixture(scope="module")
def late_host() -> Iterator[VLLMHost]:
    return VLLMHost(str(TINY), late=True, settings={"max_num_seqs": 8})


@pytest.mark.parametrize(("owner", "name", "change", "said"), FAULTS, ids=[name for _, name, _, _ in FAULTS])
def test_a_change_of_meaning_is_refused(
    late_host: VLLMHost, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, change: Any, said: str
) -> None:
    late_host.core.reset_prefix_cache()
    monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    with pytest.raises(UnsupportedHostError, match=said):
        rehearsal.rehearse(late_host.core)


def test_an_untested_release_rehearses_with_a_warning_or_does_not_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = VLLMHost(str(TINY))
    monkeypatch.setattr(hooks, "VERSIONS", ("0.30.*",))
    with pytest.raises(UnsupportedHostError, match="--multiverse-untested-host tries it"):
        hooks.require(hooks.table())
    monkeypatch.setenv("MULTIVERSE_UNTESTED_HOST", "1")
    hooks.require(hooks.table())
    with caplog.at_level(logging.INFO, "vllm.multiverse"):
        monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
        rehearsal.rehearse(host.core)
    assert f"vLLM {hooks.host_version()} was never tested" in caplog.text
    assert "fork and splice rehearsed" in caplog.text
    monkeypatch.setattr(host.scheduler, "max_model_len", 100)
    with pytest.raises(UnsupportedHostError, match="has to rehearse, and can't: a context of 100 tokens"):
        rehearsal.rehearse(host.core)
