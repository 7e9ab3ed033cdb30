"""Where it pays to read a shared prefix once is measured, not guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from multiverse.errors import OptionError
from multiverse.serving.options import Options
from multiverse.serving.sharing import Gate, Measured, gate


class Group(NamedTuple):
    rows: tuple[int, ...]
    length: int


def group(width: int, length: int) -> Group:
    return Group(tuple(range(width)), length)


def test_a_group_pays_if_a_smaller_one_was_measured_to() -> None:
    table = Gate(
        [Measured(4, 4096, 8, 0.9), Measured(16, 1024, 8, 0.7), Measured(2, 512, 8, 0.99), Measured(2, 1, 8, 1.3)]
    )
    groups = [group(4, 4096), group(4, 4095), group(3, 9000), group(16, 1024), group(64, 100_000), group(64, 1000)]
    assert table.paying(groups, kv_heads=8) == [groups[0], groups[3], groups[4]]
    assert table.paying(groups, kv_heads=4) == [], "fewer KV heads save fewer bytes"
    assert table.paying(groups, kv_heads=16) == [groups[0], groups[3], groups[4]]


def test_settings(tmp_path: Path) -> None:
    assert gate("always").paying([group(2, 1)], 1)
    assert not gate("never").paying([group(99, 99_999)], 99)
    file = tmp_path / "bench.json"
    row = {"width": 4, "shared": 100, "kv_heads": 2, "ratio": 0.5}
    file.write_text(json.dumps({"prefix": [row], "points": []}))
    assert gate(str(file)).table == [Measured(4, 100, 2, 0.5)]
    for wrong in ("{}", "[1]", json.dumps({"prefix": [{"width": 4}]}), "no JSON"):
        file.write_text(wrong)
        with pytest.raises(OptionError, match="a table that `multiverse bench` wrote"):
            gate(str(file))
    with pytest.raises(OptionError, match=r"lost\.json"):
        gate(str(tmp_path / "lost.json"))


def test_it_is_an_option_of_a_server() -> None:
    assert Options.from_environment({"MULTIVERSE_SHARED_PREFIX": "never"}).shared_prefix == "never"
    assert Options().shared_prefix is None
