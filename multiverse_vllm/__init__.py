"""Multiverse for vLLM: a plugin of the group `vllm.general_plugins`.

vLLM calls `register()` in every process of every start, so it never raises and, unless the plugin is switched on, it
changes nothing.
"""

from __future__ import annotations

import os
import sys

FLAG, NAME = "--plugin", "multiverse"
SWITCH = "MULTIVERSE"
"""Environment variable that switches the plugin on; it reaches the worker processes, which inherit it."""


def enable() -> None:
    """Switch the plugin on for every engine that this process starts from now on."""
    os.environ[SWITCH] = "1"
    register()


def register() -> None:
    """Entry point. Installs the hooks if the plugin is switched on and vLLM is one it knows."""
    if _take_flag(sys.argv):
        os.environ[SWITCH] = "1"
    if os.environ.get(SWITCH, "0") in ("", "0"):
        return
    from multiverse_vllm.hooks import install

    install()


def _take_flag(arguments: list[str]) -> bool:
    """Whether the command line says `--plugin multiverse`; takes it out, since vLLM's parser doesn't know it.

    vLLM loads its plugins before it parses the command line, so nothing of vLLM has to be changed for this.
    """
    for given in ([FLAG, NAME], [f"{FLAG}={NAME}"]):
        for at in range(1, len(arguments) - len(given) + 1):
            if arguments[at : at + len(given)] == given:
                del arguments[at : at + len(given)]
                return True
    return False
