"""How an installed plugin is switched on: by `--plugin multiverse`, by the environment, or by a call. Else it is inert.

Hosts load plugins in every process of every start, before they parse the command line, so nothing of a host has to be
changed for the flag; the environment variable hands the decision on to the processes that the host starts.
"""

from __future__ import annotations

import os
import sys

FLAG, NAME = "--plugin", "multiverse"
SWITCH = "MULTIVERSE"
"""Environment variable that switches the plugin on."""


def switch_on() -> None:
    """Switch the plugin on for this process and those that it starts."""
    os.environ[SWITCH] = "1"


def is_on() -> bool:
    """Whether the plugin is switched on; takes the flag out of the command line, since no host's parser knows it."""
    if take_flag(sys.argv):
        switch_on()
    return os.environ.get(SWITCH, "0") not in ("", "0")


def take_flag(arguments: list[str]) -> bool:
    """Whether `arguments` say `--plugin multiverse`; removes it if so."""
    for given in ([FLAG, NAME], [f"{FLAG}={NAME}"]):
        for at in range(1, len(arguments) - len(given) + 1):
            if arguments[at : at + len(given)] == given:
                del arguments[at : at + len(given)]
                return True
    return False
