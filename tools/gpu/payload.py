"""Packages for a machine that has a torch of its own, made where there is a network; it travels in pieces."""

from __future__ import annotations

import io
import lzma
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

from slim import slimmed

LIST = Path(__file__).with_name("beside.toml")
MIB = 1 << 20
PLATFORMS = ("manylinux_2_17", "manylinux2014", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28", "manylinux_2_31")
"""And 2_34, 2_35: pip takes each by its name only."""
DATA = re.compile(r"[^/]+\.data/(purelib|platlib)/")
"""Where a wheel has what belongs beside its packages."""
PRESET = 3
"""Of xz: 6 takes three times as long and saves a twentieth."""


class PayloadError(Exception):
    """What could not be fetched or installed, and why."""


@dataclass(frozen=True)
class Payload:
    """What is laid beside torch for one environment; `beside.toml` says why.

    Attributes:
        leave_out: patterns of files; `*` stands for slashes, too.
        slim: libraries in which only one architecture's code is kept.
        stand_ins: files that are written in place of a package.
        variables: of every process of the environment, unless they are set.
        links: libraries of the machine that a linker should find, by the name that it looks for.
        label: what results must say of it.
    """

    name: str
    wheels: tuple[str, ...]
    leave_out: tuple[str, ...] = ()
    slim: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    def left_out(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self.leave_out)


def payloads() -> list[Payload]:
    """In the order in which they travel."""
    found = []
    entry: dict[str, Any]
    for name, entry in tomllib.loads(LIST.read_text())["environments"].items():
        for key in ("wheels", "leave_out", "slim"):
            entry[key] = tuple(entry.get(key, "").split())
        found.append(Payload(name, **entry))
    return found


def make(folder: Path, part: int) -> None:
    """Fetch what is not in `folder` yet, and write folders `1`, `2`, ... of at most `part` MiB each into it.

    Raises:
        PayloadError: if a wheel can't be fetched.
    """
    archives = []
    for payload in payloads():
        wheels, archive = folder / "wheels" / payload.name, folder / f"{payload.name}.tar.xz"
        fetch(payload, wheels)
        pack(payload, wheels, archive)
        print(f"{archive}: {archive.stat().st_size / MIB:.1f} MiB", flush=True)
        archives.append(archive)
    for piece in split(archives, folder, part * MIB):
        print(f"{piece}: {piece.stat().st_size / MIB:.1f} MiB", flush=True)


def fetch(payload: Payload, folder: Path) -> None:
    """The wheels of a payload, and nothing that they ask for."""
    python = tomllib.loads(LIST.read_text())["python"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for platform in (*PLATFORMS, "manylinux_2_34", "manylinux_2_35"):
        command += ["--platform", f"{platform}_x86_64"]
    ended = subprocess.run([*command, *payload.wheels], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PayloadError(f"{payload.name}: pip can't fetch its wheels\n{ended.stderr.strip()[-1000:]}")


def pack(payload: Payload, wheels: Path, archive: Path) -> None:
    """What is kept of the wheels, as it lies in `site-packages`."""
    slim: set[str] = set()
    with lzma.open(archive, "wb", preset=PRESET) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for wheel in sorted(wheels.glob("*.whl")):
            with ZipFile(wheel) as package:
                for path, member in _files(package):
                    if payload.left_out(path):
                        continue
                    data = package.read(member)
                    if path in payload.slim:
                        data = slimmed(data)
                        slim.add(path)
                    _add(tar, path, data, member.external_attr >> 16 & 0o777 or 0o644)
        for path, text in payload.stand_ins.items():
            _add(tar, path, text.encode(), 0o644)
    assert slim == {*payload.slim}, f"{payload.name}: not there: {sorted({*payload.slim} - slim)}"


def _files(package: ZipFile) -> Iterator[tuple[str, ZipInfo]]:
    """What is to be imported, by its place in `site-packages`; no scripts, no headers."""
    for member in package.infolist():
        path = DATA.sub("", member.filename)
        if not member.is_dir() and not re.match(r"[^/]+\.data/", path):
            yield path, member


def _add(tar: tarfile.TarFile, path: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def split(archives: list[Path], folder: Path, part: int) -> list[Path]:
    """Cut archives into pieces, `folder/1/NAME.1of2` and so on, so that each folder but the last has `part` bytes."""
    for old in folder.glob("[0-9]*/*of*"):
        old.unlink()
    written, place = [], 0
    for archive in archives:
        data, cuts, at = archive.read_bytes(), [], 0
        while at < len(data):
            size = min(part - place % part, len(data) - at)
            cuts.append((place // part + 1, data[at : at + size]))
            at, place = at + size, place + size
        for index, (number, piece) in enumerate(cuts, 1):
            path = folder / str(number) / f"{archive.name.partition('.')[0]}.{index}of{len(cuts)}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(piece)
            written.append(path)
    return written
