"""Every argument and variable of the installed host stands in docs/arguments/*.toml: what a release adds is noticed."""

from __future__ import annotations

import argparse
import importlib
import tomllib
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

HOST = "vllm" if find_spec("vllm") is not None else "sglang"
KNOWN = tomllib.loads((Path(__file__).parents[2] / f"docs/arguments/{HOST}.toml").read_text())
NAMES = [*KNOWN["refused"], *KNOWN["works"], *(name for names in KNOWN["apart"].values() for name in names)]


def arguments() -> list[list[str]]:
    """The names of each argument of the host's server."""
    if HOST == "vllm":
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        at = "launchers" if find_spec("vllm.entrypoints.launchers.cli_args") is not None else "common"
        made = importlib.import_module(f"vllm.entrypoints.{at}.cli_args").make_arg_parser(FlexibleArgumentParser())
        parser: argparse.ArgumentParser = made
    else:
        from sglang.srt.server_args import ServerArgs

        parser = argparse.ArgumentParser()
        ServerArgs.add_cli_args(parser)
    names = [list(action.option_strings) or [action.dest] for action in parser._actions]
    return [each for each in names if "multiverse" not in each[0]]


def variables() -> set[str]:
    """The environment variables that the host declares."""
    if HOST == "vllm":
        from vllm import envs

        return set(envs.environment_variables)
    from sglang.srt.environ import EnvField, Envs

    return {name for name, field in vars(Envs).items() if isinstance(field, EnvField)}


def known(name: str) -> bool:
    return any(fnmatchcase(name, one) for one in NAMES)


def test_nothing_that_the_installed_host_takes_is_unknown() -> None:
    found = [*arguments(), *([name] for name in variables())]
    assert len(found) > 500
    assert [names for names in found if not any(map(known, names))] == []
