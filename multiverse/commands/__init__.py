"""Subcommands of `multiverse`: each module has `add_parser(commands)` and `run(options) -> exit status`."""
