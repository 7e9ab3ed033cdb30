"""`multiverse check` gives a verdict, `multiverse demo` shows the embedded model at work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from multiverse.cli import main
from multiverse.models import TINY


def test_check_decodes_with_the_embedded_model_and_finds_it_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "ok"
    assert set(report["dialects"]) >= {"multiverse", "npr", "threadweaver"}
    assert report["model"]["dialect"] == "multiverse"
    assert report["model"]["branches"] == 3
    assert report["model"]["difference"] < 1e-4
    assert report["model"]["causal_difference"] > 0.1


def test_check_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"installed: .*torch \d", output)
    assert "verdict: ok" in output


def test_check_refuses_a_model_without_tags_and_one_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--model", str(tmp_path)]) == 1
    assert "can't be loaded" in capsys.readouterr().out
    for file in TINY.iterdir():
        content = file.read_bytes()
        if file.name == "tokenizer.json":
            tokenizer = json.loads(content)
            tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["special"]]
            content = json.dumps(tokenizer).encode()
        (tmp_path / file.name).write_bytes(content)
    assert main(["check", "--model", str(tmp_path)]) == 1
    assert "the tokenizer knows the tags of no dialect" in capsys.readouterr().out


def copy_of_the_model(into: Path, config: dict[str, Any] | None = None, template: str | None = None) -> Path:
    """The embedded model with other fields in its configuration or another chat template."""
    for file in TINY.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    settings = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps(settings | (config or {})))
    if template is not None:
        (into / "chat_template.jinja").write_text(template)
    return into


def test_check_shows_where_a_second_turn_parts_from_what_was_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Templates drop earlier reasoning, trim, or put something before an answer; the embedded one keeps all."""
    assert main(["check"]) == 0
    output = capsys.readouterr().out
    assert "a second turn keeps an answer as it was generated" in output
    assert "a second turn keeps an answer with reasoning as it was generated" in output
    dropping = "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1].lstrip() }}{% endfor %}"
    dropping += "{% if add_generation_prompt %}[assistant]{% endif %}"
    assert main(["check", "--model", str(copy_of_the_model(tmp_path, template=dropping))]) == 0
    output = capsys.readouterr().out
    assert "a second turn keeps an answer as it was generated" in output
    assert (
        r"a second turn parts from an answer with reasoning at its character 0: generated was '<think>\nBy parts."
        in output
    )
    assert "the chat template has 'So three.[user]And without the first?[as'" in output


def test_check_says_that_a_template_refuses_two_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = (
        "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}[user]{{ messages[0].content }}\n"
    )
    assert main(["check", "--model", str(copy_of_the_model(tmp_path, template=one))]) == 0
    assert "the chat template can't render two turns: one turn only" in capsys.readouterr().out


def test_check_says_what_hosts_make_of_a_rope_that_the_oracle_can_not_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert main(["check", "--model", str(copy_of_the_model(tmp_path, {"rope_parameters": rope}))]) == 0
    output = capsys.readouterr().out
    assert "not tried: RoPE of the kind 'dynamic': on vLLM keys are computed per position" in output


def test_demo_shows_branches_side_by_side_and_compares_with_sequential_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    page = tmp_path / "pages" / "demo.html"
    question = "A = sum 3 5 2 7 1 9; B = max 4 1 9 2 6 8; C = min 8 6 7 9 5 4. Find sum A B C."
    assert main(["demo", "--host", "oracle", "--question", question, "-o", str(page)]) == 0
    output = capsys.readouterr().out
    assert f"3 branches are drawn in {page.as_uri()}" in output
    assert question in page.read_text(encoding="utf-8")
    assert re.search(r"branch 1 .*branch 2 .*branch 3 ", output)
    tokens, steps, degree = verdicts(output)[0]
    assert "Answer: 40" in output
    assert "without branches:" not in output, "it says the same in as many tokens"
    assert degree == pytest.approx(tokens / steps, abs=0.01)
    assert degree > 1.5


def verdicts(output: str) -> list[tuple[int, int, float]]:
    """Tokens, steps and parallel degree of the line under each answer."""
    lines = re.findall(r"^→ .*parallel degree (\S+) \((\d+) tokens, (\d+) steps\), \S+ times as fast$", output, re.M)
    assert all(len(line) <= 80 for line in output.splitlines() if line.startswith("→"))
    return [(int(tokens), int(steps), float(degree)) for degree, tokens, steps in lines]
