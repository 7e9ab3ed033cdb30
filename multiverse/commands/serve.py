"""`multiverse serve`: a host's own server with the plugin, in the foreground."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from multiverse.harness.server import HOSTS, command, installed
from multiverse.models import TINY


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        usage="multiverse serve [MODEL] [--host {vllm,sglang}] [--address ADDRESS] [--port PORT] [OPTION ...]",
        help="serve a model with the plugin",
        description="Runs the server of an installed host with --plugin multiverse, on a machine without GPU with the "
        "settings it needs there. MODEL is the embedded model unless given. Options that this command does not know "
        "are handed to the host's server; they come behind MODEL.",
    )
    parser.add_argument("--host", choices=HOSTS, help="default: the one that is installed here")
    parser.add_argument("--address", default="127.0.0.1", help="where it listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.set_defaults(run=run, takes_more=True)


def run(options: argparse.Namespace) -> int:
    """Become the server. Returns only if that fails."""
    host = options.host or next(filter(installed, HOSTS), HOSTS[0])
    model, more = split_model(options.more)
    start = command(host, model, options.port, more, options.address)
    print(" ".join(start.arguments), flush=True)
    os.execvpe(start.arguments[0], start.arguments, start.full_environment())


def split_model(more: Sequence[str]) -> tuple[str, list[str]]:
    """The model and the host's options. Not argparse's work: it would take the value of an unknown option for MODEL."""
    if more and not more[0].startswith("-"):
        return more[0], list(more[1:])
    return str(TINY), list(more)
