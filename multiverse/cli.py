"""The command `multiverse`. Each subcommand is a module in `multiverse.commands`, imported when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import multiverse
from multiverse.commands import bench, check, curate, demo, evaluate, parse, plan, serve, stress, train, view
from multiverse.errors import MultiverseError

COMMANDS = (parse, check, view, curate, demo, serve, stress, train, evaluate, bench, plan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 fine, 1 a negative verdict, 2 bad input."""
    parser = argparse.ArgumentParser(prog="multiverse", description="Natively parallel language models.")
    parser.add_argument("--version", action="version", version=f"multiverse-engine {multiverse.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    options, more = parser.parse_known_args(arguments)
    if more and not getattr(options, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.more = more
    try:
        return int(options.run(options))
    except MultiverseError as error:
        print(f"multiverse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `multiverse parse ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
