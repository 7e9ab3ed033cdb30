"""Installs packages with uv, set up as pip is set up here; with pip where uv is not to be had or fails."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from environment import ROOT, VENVS, Environment
from pip_settings import pip_settings, uv_flags, uv_variables
from steps import TORCH


class SetupError(Exception):
    """A command ended badly; what it printed is in the log."""


class Installer:
    """Installs into one environment; what the commands print goes to `log`."""

    def __init__(self, python: str, environment: Environment, log: Path) -> None:
        self.base, self.environment, self.log = python, environment, log
        settings = pip_settings(python)
        self.flags = uv_flags(settings)
        self.variables = {**uv_variables(settings), **_cache(), **os.environ, "VIRTUAL_ENV": str(environment.path)}
        self.uv: str | None = shutil.which("uv") or self._own_uv()

    def install(self, requirements: Path, torch: str) -> str:
        """This project and the packages of `requirements`, which names every one of them but torch.

        Returns:
            Which program did it.

        Raises:
            SetupError: neither uv nor pip could.
        """
        if self.uv:
            try:
                self._install_with_uv(requirements, torch)
                return "uv"
            except SetupError:
                print(f"   uv could not install this (see {self.log}); pip takes over, which takes minutes", flush=True)
                self.uv = None
        self.run(self.base, "-m", "venv", str(self.environment.path))
        if torch:
            self._pip(torch)
        self._pip("--no-deps", "-r", str(requirements), "-e", ".")
        return "pip"

    def install_beside(self, requirement: str, directory: Path) -> None:
        """One package without its dependencies into a directory that is on nobody's path."""
        arguments = ("--no-deps", "--target", str(directory), requirement)
        if self.uv:
            self._uv("pip", "install", *arguments)
        else:
            self._pip(*arguments)

    def run(self, *command: str) -> None:
        """Run a command in the project's directory.

        Raises:
            SetupError: with the command.
        """
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            ended = subprocess.run(
                command, cwd=ROOT, env=self.variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False
            )
        if ended.returncode:
            raise SetupError(" ".join(command))

    def _install_with_uv(self, requirements: Path, torch: str) -> None:
        if torch:
            self._first_that_works(torch_attempts(torch))
        self._uv("pip", "install", "--no-deps", "-r", str(requirements), "-e", ".")

    def _first_that_works(self, attempts: Iterator[list[str]]) -> None:
        failure = SetupError()
        for attempt in attempts:
            try:
                return self._uv("pip", "install", *attempt)
            except SetupError as error:
                failure = error
        raise failure

    def _uv(self, *arguments: str) -> None:
        self.run(str(self.uv), *arguments, *self.flags)

    def _pip(self, *arguments: str) -> None:
        self.run(str(self.environment.python), "-m", "pip", "install", "--disable-pip-version-check", *arguments)

    def _own_uv(self) -> str | None:
        """uv in an environment of its own, from wherever pip gets its packages; None if it is not to be had."""
        own = Environment("uv")
        with own.locked():
            if not (own.path / "bin/uv").exists():
                print("   uv is not on the PATH: pip gets it", flush=True)
                try:
                    self._fetch_uv(own)
                except SetupError:
                    print(f"   uv is not to be had (see {self.log}); pip takes over, which takes minutes", flush=True)
                    return None
        return str(own.path / "bin/uv")

    def _fetch_uv(self, own: Environment) -> None:
        """By the interpreter's own pip, or, where it has none (Debian), by that of a new environment."""
        wanted = ("install", "--disable-pip-version-check", "uv>=0.9")
        try:
            self.run(self.base, "-m", "pip", *wanted, "--no-deps", "--target", str(own.path))
        except SetupError:
            self.run(self.base, "-m", "venv", "--clear", str(own.path))
            self.run(str(own.python), "-m", "pip", *wanted)


def torch_attempts(torch: str) -> Iterator[list[str]]:
    """How to ask uv for a torch.

    Its build for CPUs from where packages come from here, then the same from PyTorch's own index, then whatever there
    is, with the libraries that it needs.
    """
    if platform.system() == "Linux" and torch == TORCH:
        yield ["--no-deps", f"{torch}+cpu"]
        yield ["--no-deps", "--torch-backend", "cpu", torch]
    yield [torch]


def _cache() -> dict[str, str]:
    """uv's cache on this disk: environments then hold hard links to it, and torch is there once."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    there = next(path for path in (usual, *usual.parents) if path.exists())
    if there.stat().st_dev == VENVS.stat().st_dev and os.access(there, os.W_OK):
        return {}
    return {"UV_CACHE_DIR": str(VENVS / "cache")}
