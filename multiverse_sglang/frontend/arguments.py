"""What is put around SGLang's command line: our flags are taken out of it, and what can't work is refused."""

from __future__ import annotations

from argparse import ArgumentParser

from multiverse.errors import UnsupportedHostError
from multiverse.serving.activation import take_flag
from multiverse.serving.options import show_flags, take_flags
from multiverse_sglang.host import ServerArgs
from multiverse_sglang.refusals import refuse_arguments
from multiverse_sglang.registry import Original


def prepare_server_args(original: Original, argv: list[str]) -> ServerArgs:
    arguments = ["sglang", *argv]
    take_flag(arguments)
    take_flags(arguments)
    from multiverse_sglang.frontend.api import install_api  # it imports SGLang's server, which takes seconds

    install_api()
    prepared: ServerArgs = original(arguments[1:])
    try:
        refuse_arguments(prepared)
    except UnsupportedHostError as refusal:
        raise SystemExit(str(refusal)) from refusal
    return prepared


def add_cli_args(_nothing: None, parser: ArgumentParser) -> None:
    show_flags(parser)
