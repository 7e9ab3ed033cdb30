"""What the adapters rely on, in every release that they were tested with; no host is installed for it."""

from __future__ import annotations

import json
import sys
import types
from datetime import date, timedelta
from fnmatch import fnmatch
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import SimpleNamespace

import pytest

from multiverse.serving.hooks import release
from multiverse.serving.pins import hints, pin, read
from multiverse.serving.source import Source

ROOT = Path(__file__).parents[2]
HOSTS = {name: import_module(f"multiverse_{name}.hooks") for name in ("vllm", "sglang")}
PINS = {name: read(module.RELEASES) for name, module in HOSTS.items()}
RELEASES = [(name, version) for name, pins in PINS.items() for version in pins]


@pytest.mark.parametrize("host", HOSTS)
def test_every_release_that_is_promised_is_pinned_and_no_other(host: str) -> None:
    for pattern in HOSTS[host].VERSIONS:
        assert [version for version in PINS[host] if fnmatch(version, pattern)], pattern
    for version in PINS[host]:
        assert [pattern for pattern in HOSTS[host].VERSIONS if fnmatch(version, pattern)], version


@pytest.mark.parametrize(("host", "version"), RELEASES)
def test_a_release_has_what_the_rows_that_concern_it_ask_for(host: str, version: str) -> None:
    pins = PINS[host][version]
    for hook in HOSTS[host].EVERY:
        if release(hook.since) <= release(version):
            assert hook.target in pins, hook.target
            assert set(hook.parameters) <= set(pins[hook.target]["names"]), hook.target


@pytest.mark.parametrize(("host", "version"), RELEASES)
def test_no_row_is_newer_than_what_it_asks_for(host: str, version: str) -> None:
    """`since` decides which releases are asked: one too late would ask an older release for too little."""
    pins = PINS[host][version]
    for hook in HOSTS[host].EVERY:
        if release(hook.since) > release(version):
            there = set(pins.get(hook.target, {"names": ()})["names"])
            assert hook.target not in pins or not set(hook.parameters) <= there, hook.target


@pytest.mark.parametrize(("host", "version"), RELEASES)
def test_what_is_replaced_has_a_digest(host: str, version: str) -> None:
    replaced = [hook for hook in HOSTS[host].EVERY if hook.replaced]
    assert replaced
    assert all(hook.wrapped and PINS[host][version][hook.target]["digest"] for hook in replaced)


def compat(version: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """`multiverse_vllm/compat.py` as it is in this release of vLLM, of which no more is there than is pinned."""
    pins = PINS["vllm"][version]
    scheduler = "vllm.v1.core.sched.async_scheduler"
    defined = dict.fromkeys(pins[f"{scheduler}:AsyncScheduler"]["defines"])
    parts = scheduler.split(".")
    for name in (".".join(parts[: length + 1]) for length in range(len(parts))):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[scheduler].AsyncScheduler = type("AsyncScheduler", (), defined)  # type: ignore[attr-defined]
    outputs = types.ModuleType("vllm.outputs")
    if "vllm.outputs:WeightVersionSpan" in pins:
        outputs.WeightVersionSpan = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.outputs", outputs)
    sys.modules["vllm"].outputs = outputs  # type: ignore[attr-defined]
    spec = spec_from_file_location("compat", ROOT / "multiverse_vllm/compat.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_feature_test_is_true_in_one_release_and_false_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = {
        version: {name: value for name, value in vars(compat(version, monkeypatch)).items() if name.isupper()}
        for version in PINS["vllm"]
    }
    assert {version: found["WEIGHT_VERSION_SPANS"] for version, found in tests.items()} == {
        "0.31.0": False,
        "0.32.0": True,
        "0.33.0": True,
    }
    for name in next(iter(tests.values())):
        assert {found[name] for found in tests.values()} == {True, False}, name


def test_a_request_without_a_word_on_special_tokens_leaves_them_to_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = compat("0.33.0", monkeypatch)
    for given, default, skips in [(True, False, True), (False, True, False), (None, False, False), (None, True, True)]:
        request = SimpleNamespace(skip_special_tokens=given)
        server = SimpleNamespace(default_sampling_params={"skip_special_tokens": default})
        assert module.skips_special_tokens(request, server) is skips
    assert module.skips_special_tokens(
        SimpleNamespace(skip_special_tokens=None), SimpleNamespace(default_sampling_params={})
    )


def test_compat_is_short_and_nothing_else_asks_for_a_release() -> None:
    assert len((ROOT / "multiverse_vllm/compat.py").read_text().splitlines()) <= 60
    for file in (file for name in HOSTS for file in (ROOT / f"multiverse_{name}").rglob("*.py")):
        text = file.read_text()
        assert "__version__" not in text, file
        assert "metadata.version" not in text or file.name == "hooks.py", file


def test_one_changed_line_is_hinted_at_and_other_words_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.serving.hooks import Hook

    package = tmp_path / "a_host_with_pins"
    package.mkdir()
    code = 'def step(budget):\n    """Does it."""\n    used = budget\n    return used\n\ndef read(): ...\n'
    (package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [Hook(f"a_host_with_pins:{name}", (), name == "step", "why", "1.0", "never") for name in ("step", "read")]
    releases = {"1.0.0": pin(Source(tmp_path), rows), "1.1.0": {}}
    assert json.loads(json.dumps(releases)) == releases
    (package / "__init__.py").write_text(
        code.replace("Does it.", "Does it well.").replace("used\n\n", "used  # all\n\n")
    )
    assert hints("a_host_with_pins", "1.0.3", rows, releases) == []
    (package / "__init__.py").write_text(code.replace("used = budget", "used = budget - 1").replace("...", "pass"))
    (hint,) = hints("a_host_with_pins", "1.0.3", rows, releases)
    assert "a_host_with_pins:step" in hint
    assert "wrapped, is not that of 1.0.0" in hint


@pytest.mark.parametrize("host", HOSTS)
def test_ci_tries_every_release_but_the_installed_one_within_days(host: str) -> None:
    loader = SourceFileLoader("turn", str(ROOT / "tools/turn"))
    spec = spec_from_loader("turn", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    days = [date(2026, 11, 29) + timedelta(days=count) for count in range(len(PINS[host]) - 1)]
    tried = [module.turn(host, day) for day in days]
    assert len(set(tried)) == len(tried)
    (installed,) = set(PINS[host]) - set(tried)
    assert f"=={installed}\n" in (ROOT / f"tools/locks/{host}.txt").read_text()
