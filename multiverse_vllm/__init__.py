"""Multiverse for vLLM: a plugin of the group `vllm.general_plugins`.

vLLM calls `register()` in every process of every start, so it never raises and, unless the plugin is switched on, it
changes nothing.
"""

from __future__ import annotations

import sys

from multiverse.serving.activation import is_on, switch_on
from multiverse.serving.options import take_flags


def enable() -> None:
    """Switch the plugin on for every engine that this process starts from now on."""
    switch_on()
    register()


def register() -> None:
    """Entry point. Installs the hooks if the plugin is switched on and vLLM is one it knows."""
    if is_on():
        take_flags(sys.argv)
        from multiverse_vllm.install import install

        install()
