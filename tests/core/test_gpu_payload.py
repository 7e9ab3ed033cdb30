"""`tools/gpu/accept --carry DIR --beside` and `--install`: what is laid beside a torch that a machine has."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from random import Random
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/gpu"))

import beside  # noqa: E402
from payload import LIST, Payload, PayloadError, pack, payloads, split  # noqa: E402
from slim import MAGIC, slimmed  # noqa: E402

PART = 1000
TRIED = Payload(
    "kernels",
    ("one==1.0",),
    leave_out=("one/large/*",),
    stand_ins={"two.py": "WHO = 'a stand-in'\n"},
    variables={"ONE_TRIED": "yes"},
    label="one without its large files",
)
PROGRAM = """
import json, os, pytest, multiverse
from importlib.metadata import entry_points, version
from importlib.util import find_spec
import one, two
found = [point.name for point in entry_points(group="vllm.general_plugins")]
print(json.dumps([one.WHO, two.WHO, os.environ["ONE_TRIED"], found, version("one"), find_spec("one.large") is None]))
"""


def test_every_release_is_pinned_and_nothing_of_torch_is_carried() -> None:
    table = tomllib.loads(LIST.read_text())
    there = set(table["there"].split())
    assert {"torch", "triton", "transformers", "numpy", "pytest"} <= there
    for payload in payloads():
        assert payload.label, "results tell what a host was tried with"
        for path, text in payload.stand_ins.items():
            compile(text, path, "exec")
        for wheel in payload.wheels:
            assert re.fullmatch(r"[\w.-]+==[\w.]+", wheel)
            assert not re.match(r"(torch|triton|numpy|nvidia-.*)==", wheel), wheel
        twice = {wheel.partition("==")[0] for wheel in payload.wheels} & there
        assert twice <= {"httpx", "anyio", "typing-extensions"}, "carried only where the release matters"


def _container(*entries: tuple[int, int, bytes]) -> bytes:
    body = b""
    for kind, architecture, code in entries:
        head = struct.pack("<HHIQ", kind, 0x101, 64, len(code)) + bytes(12) + struct.pack("<I", architecture)
        body += head.ljust(64, b"\1") + code
    return MAGIC + struct.pack("<HHQ", 1, 16, len(body)) + body


def test_only_code_for_hopper_is_kept_in_a_library_and_every_byte_stays_where_it_was() -> None:
    around = b"ELF" + MAGIC + b"no container"
    library = around + _container((2, 80, b"a" * 40), (2, 90, b"b" * 24), (1, 80, b"p" * 16)) + b"end"
    wanted = around + _container((2, 80, bytes(40)), (2, 90, b"b" * 24), (1, 80, b"p" * 16)) + b"end"
    assert slimmed(library) == wanted


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two folders of pieces, of a wheel that is packed here."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with ZipFile(wheels / "one-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("one/__init__.py", "WHO = 'one'\ndef main():\n    print('said by a command')\n")
        wheel.writestr("one/large/__init__.py", "")
        wheel.writestr("one-1.0.data/scripts/no", "")
        wheel.writestr("one-1.0.data/purelib/one/noise.bin", Random(1).randbytes(PART))  # doesn't compress
        wheel.writestr("one-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
        wheel.writestr("one-1.0.dist-info/entry_points.txt", "[console_scripts]\none = one:main\n")
    archive = tmp_path / "kernels.tar.xz"
    pack(TRIED, wheels, archive)
    written = split([archive], tmp_path, PART)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["1/kernels.1of2", "2/kernels.2of2"]
    assert written[0].stat().st_size == PART
    return [path.parent for path in written]


def test_an_environment_is_there_when_all_its_pieces_are(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "payloads", lambda: [TRIED])
    monkeypatch.setattr(sysconfig, "get_python_version", lambda: tomllib.loads(LIST.read_text())["python"])
    place = tmp_path / "environments"
    assert beside.install(parts[0], place) == []
    assert beside.install(parts[1], place) == ["kernels"]
    folder = place / "gpu-kernels"
    said = subprocess.run(
        [folder / "bin/python", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.stderr == ""
    assert json.loads(said.stdout) == ["one", "a stand-in", "yes", ["multiverse"], "1.0", True]
    command = subprocess.run([folder / "bin/one"], capture_output=True, text=True, check=True)
    assert command.stdout == "said by a command\n"
    assert (folder / "bin/multiverse").exists()
    assert (folder / "label").read_text() == TRIED.label
    assert not [*folder.rglob("no")], "no scripts of wheels"


def test_a_machine_that_is_not_as_it_was_taken_to_be_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LIST", tmp_path / "list.toml")
    there = 'torch = "9.9"\nthere = "pytest no-such-package rich"\n'
    (tmp_path / "list.toml").write_text(there)
    first, second = beside.differences()
    assert first.startswith("torch is ")
    assert first.endswith("; the pieces were tried with 9.9")
    assert second == "not there: no-such-package"


def test_pieces_that_are_for_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.1of1").write_bytes(b"")
    monkeypatch.setattr(sysconfig, "get_python_version", lambda: "3.9")
    with pytest.raises(PayloadError, match=r"for Python 3.12; this is 3.9"):
        beside.install(tmp_path, tmp_path)
    monkeypatch.setattr(sysconfig, "get_python_version", lambda: "3.12")
    with pytest.raises(PayloadError, match="no payload other"):
        beside.install(tmp_path, tmp_path)
