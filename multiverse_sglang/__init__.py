"""Multiverse for SGLang: a plugin of the group `sglang.srt.plugins`.

SGLang calls `register()` in every process of every start; unless the plugin is switched on, it changes nothing. SGLang
logs what a plugin raises and starts without it, so a refusal has to end the process.
"""

from __future__ import annotations

import sys

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.serving.activation import is_on, switch_on
from multiverse.serving.options import take_flags


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
    from multiverse_sglang.install import install

    try:
        take_flags(sys.argv)
        install()
    except (UnsupportedHostError, OptionError) as error:
        raise SystemExit(str(error)) from error
