"""`multiverse serve`: a host's own server with the plugin, in the foreground."""

from __future__ import annotations

import argparse
import os
from typing import Any

from multiverse.models import TINY
from multiverse.server import HOSTS, command, installed


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve a model with the plugin",
        description="Runs the server of an installed host with --plugin multiverse, on a machine without GPU with the "
        "settings it needs there. Options that this command does not know are handed to the host's server.",
    )
    parser.add_argument("model", nargs="?", default=str(TINY), help="default: the embedded model")
    parser.add_argument("--host", choices=HOSTS, help="default: the one that is installed here")
    parser.add_argument("--address", default="127.0.0.1", help="where it listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.set_defaults(run=run, takes_more=True)


def run(options: argparse.Namespace) -> int:
    """Become the server. Returns only if that fails."""
    host = options.host or next(filter(installed, HOSTS), HOSTS[0])
    start = command(host, options.model, options.port, options.more, options.address)
    print(" ".join(start.arguments), flush=True)
    os.execvpe(start.arguments[0], start.arguments, start.full_environment())
