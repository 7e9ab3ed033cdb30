"""`multiverse parse` reads what people have, reports what is wrong with it, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multiverse.cli import main
from multiverse.models import TINY

BLOCK = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n"
    "<Path>\n1: x\n</Path>\n<Path>\n2: y\n</Path>\n<Conclusion>\nz\n</Conclusion>\n</Parallel>"
)
BROKEN = BLOCK.replace("</Path>\n<Conclusion>", "<Conclusion>")


def parse(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, object]], str]:
    """Run with `--json`: exit status, one object per transcript, what was said on standard error."""
    status = main(["parse", "--json", *arguments])
    output = capsys.readouterr()
    return status, [json.loads(line) for line in output.out.splitlines()], output.err


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_plain_text_is_one_transcript(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, _ = parse(capsys, write(tmp_path / "answer.txt", f"Hm. {BLOCK} So."))
    assert status == 0
    assert [(r["id"], r["well_formed"], r["blocks"], r["max_width"], r["depth"]) for r in rows] == [
        ("answer.txt", True, 1, 2, 1)
    ]
    assert rows[0]["first_violation"] is None
    assert 1 < float(str(rows[0]["parallel_degree"])) < 2


def test_a_malformed_transcript_is_a_finding_with_its_place_and_not_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows, _ = parse(capsys, write(tmp_path / "a.txt", BROKEN))
    assert status == 0
    assert rows[0]["well_formed"] is False
    assert rows[0]["first_violation_offset"] == BROKEN.index("<Conclusion>")
    assert str(rows[0]["first_violation"]).startswith("<Conclusion> is not expected in a path")
    assert rows[0]["blocks"] == 1


@pytest.mark.parametrize(
    "record",
    [
        {"id": "q", "response": BLOCK},
        {"id": "q", "prompt": "Say <Goal>.", "response": f"Say <Goal>.{BLOCK}"},
        {"id": "q", "messages": [{"role": "user", "content": "<Path>"}, {"role": "assistant", "content": BLOCK}]},
        {"id": "q", "messages": [{"role": "assistant", "content": [{"type": "text", "text": BLOCK}]}]},
        {"id": "q", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": BLOCK}]},
        {"id": "q", "choices": [{"message": {"role": "assistant", "content": BLOCK}}]},
        {"id": "q", "choices": [{"message": {"reasoning_content": BLOCK, "content": "4"}}]},
        {"id": "q", "choices": [{"text": BLOCK}]},
        {"id": "q", "generated_text": BLOCK, "score": 1},
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ""])
def test_records_of_common_shapes_are_understood(
    record: dict[str, object], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows, error = parse(capsys, write(tmp_path / f"file{suffix}", record))
    assert (status, error) == (0, "")
    assert [(row["id"], row["well_formed"], row["blocks"]) for row in rows] == [("q", True, 1)]


def test_every_sample_and_every_turn_is_a_transcript_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": BLOCK},
    ]
    lines = [{"id": "s", "response": [BLOCK, BROKEN]}, {"id": "c", "messages": chat}]
    _, rows, _ = parse(capsys, write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(row["id"], row["well_formed"]) for row in rows] == [
        ("s#1", True),
        ("s#2", False),
        ("c#1", True),
        ("c#2", True),
    ]


def test_text_between_the_parts_of_a_block_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is well formed, but no engine that forks would write it."""
    stray = BLOCK.replace("</Goal>\n", "</Goal>\nNow go.\n")
    file = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"response": text}) for text in (BLOCK, stray)))
    _, rows, _ = parse(capsys, file)
    assert [(row["well_formed"], row["stray_text"]) for row in rows] == [(True, 0), (True, 1)]
    assert main(["parse", file]) == 0
    assert "1 places hold text between the parts of a block" in capsys.readouterr().out


def test_a_seam_that_the_tokenizer_merges_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Qwen's does with `:` and a newline: a branch that begins with one is not to be had back from its text."""
    file = json.loads((TINY / "tokenizer.json").read_text())
    file["added_tokens"].append(file["added_tokens"][-1] | {"id": 383, "content": ":\n", "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    (tmp_path / "tokenizer_config.json").write_text((TINY / "tokenizer_config.json").read_text())
    merged = BLOCK.replace("<Path>\n1: ", "<Path>\n1:\n")
    assert merged != BLOCK
    answers = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"response": text}) for text in (BLOCK, merged)))
    _, rows, _ = parse(capsys, "--tokenizer", str(tmp_path), answers)
    assert [row["merged_seams"] for row in rows] == [0, 1]
    assert main(["parse", "--tokenizer", str(tmp_path), answers]) == 0
    assert "1 headers or separators are other tokens than an engine writes" in capsys.readouterr().out


def test_a_chat_file_is_one_conversation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": BLOCK}]
    _, rows, _ = parse(capsys, write(tmp_path / "chat.json", chat))
    assert [row["id"] for row in rows] == ["chat.json"]


def test_a_broken_line_is_reported_with_its_place_and_the_others_are_still_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", f'{{"response": "x"}}\n{{"response": \n{{"other": 1}}\n[1]\n{json.dumps(BLOCK)}')
    status, rows, error = parse(capsys, file)
    assert status == 2
    assert [row["id"] for row in rows] == ["a.jsonl:1", "a.jsonl:5"]
    for place in ("a.jsonl:2: is not JSON", "a.jsonl:3: holds no answer", "a.jsonl:4: must be an object"):
        assert place in error
    assert "found other (see --field)" in error


def test_a_missing_file_and_one_that_is_not_text_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary.txt").write_bytes(b"ab\xff")
    good = write(tmp_path / "good.txt", BLOCK)
    status, rows, error = parse(capsys, str(tmp_path / "none.txt"), str(tmp_path / "binary.txt"), good)
    assert status == 2
    assert [row["id"] for row in rows] == ["good.txt"]
    assert "none.txt: can't be read" in error
    assert "binary.txt: is not UTF-8 (byte 2)" in error


def test_the_field_and_the_dialect_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "<guideline>\n<plan>1: a</plan>\n<plan>2: b</plan>\n</guideline>\n"
        "<step>\n1: x\n</step>\n<step>\n2: y\n</step>\n<takeaway>\nz\n</takeaway>"
    )
    file = write(tmp_path / "a.json", {"id": 7, "mine": text, "response": "other"})
    _, rows, _ = parse(capsys, "--dialect", "npr", "--field", "mine", file)
    assert [(row["id"], row["well_formed"], row["blocks"]) for row in rows] == [("7", True, 1)]


def test_an_unknown_dialect_is_named_with_those_that_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["parse", "--dialect", "multivers", write(tmp_path / "a.txt", "x")])
    assert status == 2
    assert "unknown dialect 'multivers'; known are multiverse, npr, threadweaver" in capsys.readouterr().err


def test_a_tokenizer_counts_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from multiverse.models import TINY

    _, approximate, _ = parse(capsys, write(tmp_path / "a.txt", BLOCK))
    _, exact, _ = parse(capsys, "--tokenizer", str(TINY), write(tmp_path / "a.txt", BLOCK))
    from transformers import AutoTokenizer

    assert exact[0]["tokens"] == len(AutoTokenizer.from_pretrained(TINY)(BLOCK)["input_ids"])
    assert {key: exact[0][key] for key in ("blocks", "max_width", "depth")} == {
        key: approximate[0][key] for key in ("blocks", "max_width", "depth")
    }
    assert main(["parse", "--tokenizer", str(tmp_path / "nothing"), write(tmp_path / "a.txt", BLOCK)]) == 2
    assert "can't be loaded" in capsys.readouterr().err


def test_the_table_has_a_line_per_transcript_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": "good", "response": BLOCK}, {"id": "bad [1]", "response": BROKEN}]
    assert main(["parse", write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))]) == 0
    output = capsys.readouterr().out
    assert "bad [1]" in output
    assert "2 transcripts: 1 well formed, 1 not; 2 with blocks (2 in all)" in output


def test_standard_input_is_a_file_and_a_closed_pipe_is_no_error() -> None:
    many = "\n".join(json.dumps({"response": BLOCK}) for _ in range(3000))
    command = f"{sys.executable} -m multiverse parse --json - | head -n 1"
    done = subprocess.run(["sh", "-c", command], input=many, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["id"] == "stdin:1"
    assert done.stderr == ""
