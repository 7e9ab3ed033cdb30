"""Multiverse for SGLang: a plugin of the group `sglang.srt.plugins`.

SGLang calls `register()` in every process of every start; unless the plugin is switched on, it changes nothing. SGLang
logs what a plugin raises and starts without it, so a refusal has to end the process.
"""

from __future__ import annotations

from multiverse.activation import is_on, switch_on
from multiverse.errors import UnsupportedHostError


def enable() -> None:
    """Switch the plugin on for every engine that this process starts from now on."""
    switch_on()
    register()


def register() -> None:
    """Entry point. Installs the hooks if the plugin is switched on and SGLang is one it knows.

    Raises:
        SystemExit: with everything that does not match.
    """
    if not is_on():
        return
    from multiverse_sglang.hooks import install

    try:
        install()
    except UnsupportedHostError as error:
        raise SystemExit(str(error)) from error
