"""Puts wrappers in place through SGLang's own registry, which only logs a hook that fails to apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multiverse.errors import UnsupportedHostError
from multiverse.serving.hooks import Hook, resolve

Original = Callable[..., Any]
"""What a wrapper is put around."""
Wrappers = Mapping[str, tuple[object, Original]]
"""By target of a hook table: how SGLang's registry has to apply what."""


def apply(hooks: Iterable[Hook], wrappers: Wrappers) -> None:
    """Wrap what the table says.

    Raises:
        UnsupportedHostError: with every wrapper that SGLang failed to apply.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    before = {hook.target: resolve(hook.target) for hook in hooks if hook.wrapped}
    for target in before:
        kind, wrapper = wrappers[target]
        HookRegistry.register(target.replace(":", "."), wrapper, kind)
    HookRegistry.apply_hooks()
    if failed := [target for target, found in before.items() if resolve(target) is found]:
        raise UnsupportedHostError("SGLang did not apply the hooks of multiverse:\n  " + "\n  ".join(failed))


def require(problems: list[str]) -> None:
    """Raise UnsupportedHostError with what does not match, if anything."""
    if problems:
        raise UnsupportedHostError("multiverse can't run in this SGLang:\n  " + "\n  ".join(problems))
