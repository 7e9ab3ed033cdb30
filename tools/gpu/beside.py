"""Environments beside a torch that is there, made of pieces that were carried: `.venvs/gpu-NAME`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from payload import LIST, Payload, PayloadError, payloads

ROOT = Path(__file__).resolve().parents[2]
STARTED = '''"""Written by tools/gpu/accept --install; beside.pth imports it when Python starts."""
import os, site
for name, value in {variables!r}.items():
    os.environ.setdefault(name, value)
os.environ["LIBRARY_PATH"] = ":".join(filter(None, [{links!r}, os.environ.get("LIBRARY_PATH")]))
for folder in {folders!r}:
    site.addsitedir(folder)
'''
COMMAND = """#!{python}
import sys
from {module} import {function}
sys.argv[0] = "{name}"
sys.exit({function}())
"""


def pieces(folder: Path) -> list[Path]:
    """Those of one call."""
    return sorted(folder.glob("*.[0-9]*of[0-9]*"))


def install(folder: Path, place: Path = ROOT / ".venvs") -> list[str]:
    """Keep the pieces in `folder`, and make every environment that has all of its own; returns their names.

    Raises:
        PayloadError: for a piece that no payload has, or another Python than they are for.
    """
    python = tomllib.loads(LIST.read_text())["python"]
    if sysconfig.get_python_version() != python:
        raise PayloadError(f"the pieces are for Python {python}; this is {sysconfig.get_python_version()}")
    known, made = {payload.name: payload for payload in payloads()}, []
    for piece in pieces(folder):
        name, _, number = piece.name.partition(".")
        if name not in known:
            raise PayloadError(f"{piece}: there is no payload {name}")
        environment = place / f"gpu-{name}"
        kept = environment / "pieces"
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(piece, kept)
        count = int(number.partition("of")[2])
        whole = [kept / f"{name}.{index}of{count}" for index in range(1, count + 1)]
        if all(file.exists() for file in whole):
            _make(known[name], whole, environment)
            made.append(name)
    return made


def differences() -> list[str]:
    """What this Python has not of what the list takes a machine to have."""
    table = tomllib.loads(LIST.read_text())
    found = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in metadata.distributions()}
    torch = found.get("torch", "not there").partition("+")[0]
    told = [] if torch == table["torch"] else [f"torch is {torch}; the pieces were tried with {table['torch']}"]
    absent = [name for name in table["there"].split() if name not in found]
    return told + ([f"not there: {', '.join(absent)}"] if absent else [])


def _make(payload: Payload, whole: list[Path], environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    packages = next(environment.glob("lib/python3*/site-packages"))
    archive = environment / "pieces/whole.tar.xz"
    with archive.open("wb") as file:
        for piece in whole:
            file.write(piece.read_bytes())
    with tarfile.open(archive) as tar:
        tar.extractall(packages, filter="data")
    archive.unlink()
    _started(payload, environment, packages)
    _ours(packages)
    (environment / "label").write_text(payload.label)
    for entries in packages.glob("*.dist-info/entry_points.txt"):
        _commands(entries, environment / "bin")
    compiled = [str(environment / "bin/python"), "-m", "compileall", "-q", "-j", "0", str(packages)]
    subprocess.run(compiled, stdout=subprocess.DEVNULL, check=False)  # once, not in each of the processes that come


def _started(payload: Payload, environment: Path, packages: Path) -> None:
    """What happens when its Python starts: variables, this repository, and the packages of the Python that made it."""
    outer = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    links = environment / "links"
    links.mkdir(exist_ok=True)
    for name, target in payload.links.items():
        for folder in outer:
            if (there := Path(folder) / target).exists():
                (links / name).unlink(missing_ok=True)
                (links / name).symlink_to(there)
    variables = dict(payload.variables)
    if nvcc := shutil.which("nvcc"):
        variables["CUDA_HOME"] = str(Path(nvcc).resolve().parents[1])
    text = STARTED.format(variables=variables, links=str(links), folders=[str(ROOT), *outer])
    (packages / "multiverse_beside.py").write_text(text)
    (packages / "beside.pth").write_text("import multiverse_beside\n")


def _ours(packages: Path) -> None:
    """Say that this repository is installed: hosts find plugins by entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = packages / f"multiverse_engine-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [line for group, of in groups.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in of.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def _commands(entries: Path, folder: Path) -> None:
    """The commands of a package, as pip would write them."""
    found = ConfigParser(delimiters="=", interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(entries)
    for name, target in found["console_scripts"].items() if found.has_section("console_scripts") else ():
        module, _, function = target.partition(":")
        script = folder / name
        script.write_text(COMMAND.format(python=folder / "python", module=module, function=function, name=name))
        script.chmod(0o755)
