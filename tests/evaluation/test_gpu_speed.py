"""`tools/gpu/speed.py` against servers that are programs: all experiments on one start, every figure told at once."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench_server import Server
from program import serve

from multiverse.evaluation.bench.hosts import Served
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.run import RESULTS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/gpu"))

import speed  # noqa: E402


@pytest.mark.parametrize(("size", "plugins"), [("small", [True]), ("12", [True, False])])
def test_every_figure_is_told_and_on_disk(
    size: str, plugins: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[tuple[bool, Server, Sequence[str]]] = []

    @contextmanager
    def started(_: str, model: str, more: Sequence[str], plugin: bool, __: bool) -> Iterator[Served]:
        program = Server()
        listening = serve(program)
        begun.append((plugin, program, more))
        yield Served(f"http://127.0.0.1:{listening.server_address[1]}", "tiny", model)
        listening.shutdown()
        listening.server_close()

    monkeypatch.setattr(speed, "started", started)
    monkeypatch.setattr(speed, "LARGE", speed.Sizes(repeats=1, tokens=(64,), widths=(2, 4), lengths=(4,), batches=(1,)))
    monkeypatch.setattr(speed, "PROMPTS", (64, 96))
    monkeypatch.setenv("MULTIVERSE_TEST_VLLM", '{"compilation_config": {"mode": 0}}')
    monkeypatch.setattr(sys, "argv", ["speed.py", "vllm", str(tmp_path), "--size", size])
    assert speed.main() == 0
    assert sorted((plugin for plugin, _, _ in begun), reverse=True) == plugins
    for plugin, program, more in begun:
        assert {"--load-format", "dummy"} <= {*more}
        assert ("--compilation-config" in more) == (size == "12"), "what the environment asks for"
        assert bool(program.asked["shape"]) == plugin
        assert plugin or program.asked["plain"] == sum(program.asked.values()) > 0, "its part of plain traffic"
    told: dict[str, Any] = dict(re.findall(r"^FIGURE (\S+) (\S+)$", capsys.readouterr().out, re.M))
    kinds = {tuple(name.split(":")[:2]) for name in told}
    ways = {("ways", way) for way in ("splice", "client", "sequential")}
    both = {("plain", "with"), ("plain", "without")}
    assert kinds == {("degree", "sequential"), ("degree", "splice"), *ways, *both, ("turns", "splice")}
    assert all(
        any(f"prompt={prompt}:" in name for name in told) for prompt in ((128,) if size == "small" else (64, 96))
    )
    assert {"degree", "plain", "ways", "turns"} == {
        point["experiment"] for point in json.loads((tmp_path / RESULTS).read_text())["points"]
    }


def test_a_gain_is_in_tokens_for_the_same_time(capsys: pytest.CaptureFixture[str]) -> None:
    first = Point("degree", "sequential", {"width": 1}, 1, 64, 100, 100, [2.0, 2.0])
    speed.tell(Point("degree", "splice", {"width": 4}, 1, 64, 120, 40, [1.0, 1.0]), first)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "FIGURE degree:splice:width=4,prompt=64:ms_per_token 8.3333",
        "FIGURE degree:splice:width=4,prompt=64:gain 2.400",
    ]


def test_the_shape_of_a_large_model_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "ROOT", tmp_path)
    config = json.loads((speed.make("32b") / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_key_value_heads"]) == (5120, 64, 8)
    assert len(config["layer_types"]) == 64
    assert (speed.make("32b") / "tokenizer.json").exists()
