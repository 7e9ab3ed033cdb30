"""`multiverse curate` and `curate stats` as a user calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from chains import chain
from curating import ROOT, Configure, Serve, lines, run


def test_a_run_ends_with_a_table_and_the_place_of_the_results(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    _, url = teach()
    done = run(configure(url, 8, prices={"teacher": {"input": 1, "output": 2}}))
    assert done.returncode == 0, done.stderr
    assert "8 chains: 8 accepted" in done.stderr
    assert re.search(r"mapreduce +\d+ +100.0%", done.stderr)
    assert re.search(r"cost: \d+\.\d\d", done.stderr)
    assert f"results: {tmp_path / 'run'}" in done.stderr.replace("\n", "")
    assert len(lines(tmp_path / "run" / "train.jsonl")) == 8


def test_stats_tell_blocks_widths_depth_kinds_lengths_degree_and_acceptance(teach: Serve, configure: Configure) -> None:
    _, url = teach(faults=0.2, hang=0.1)
    config = configure(url, 30)
    assert run(config).returncode == 0
    shown = run("stats", config)
    assert shown.returncode == 0, shown.stderr
    rows = (
        "blocks per example",
        "width of blocks",
        "depth",
        "collective: ",
        "selective: ",
        "parallel degree",
        "refilling",
    )
    assert all(row in shown.stdout for row in rows)
    figures = json.loads(run("stats", config, "--json").stdout)
    training = lines(config.parent / "run" / "train.jsonl")
    assert figures["accepted"] == len(training)
    assert sum(int(n) * times for n, times in figures["blocks_per_example"].items()) == sum(
        example["parallel"].count("<Parallel>") for example in training
    )
    assert sum(int(n) * times for n, times in figures["widths"].items()) == sum(
        example["parallel"].count("<Path>") for example in training
    )
    assert figures["means"]["parallel_degree"] > 1.3
    assert figures["stages"]["refilling"]["passed"] <= figures["stages"]["refilling"]["asked"]


def test_the_report_is_one_page_with_originals_results_and_marked_differences(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    _, url = teach()
    wrong = chain(2) | {"answer": "1"}
    config = configure(url, [chain(0), chain(1), wrong])
    assert run(config).returncode == 0
    assert run("stats", config, "--html", tmp_path / "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"(?:src|href)=|url\(|@import", page)
    assert "<del>As before, the</del>" in page
    assert "<ins>The</ins>" in page
    text = unescape(re.sub(r"<[^>]*>", "", page))
    assert all(formula in text for formula in re.findall(r"\$[^$]*\$", chain(0)["reasoning"]))
    assert "rejected: input" in text
    assert "does not come to the answer '1'" in text
    few = run("stats", config, "--html", tmp_path / "few.html", "--samples", 1)
    assert "1 samples" in few.stdout


def test_a_dry_run_asks_nothing_writes_nothing_and_comes_near_to_what_is_used(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    teacher, url = teach()
    config = configure(url, 30, prices={"teacher": {"input": 1, "output": 2}})
    dry = run(config, "--dry-run", "--json")
    assert not teacher.seen
    assert not (tmp_path / "run").exists()
    estimated = json.loads(dry.stdout)
    assert run(config).returncode == 0
    used = json.loads((tmp_path / "run" / "report.json").read_text())["usage"]
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        ratio = sum(row[name] for row in estimated) / sum(row[name] for row in used)
        assert 0.5 < ratio < 2, name
    assert all(row["cost"] > 0 for row in estimated)
    assert "estimate for 30 chains" in run(config, "--dry-run").stdout


def test_a_limit_takes_the_first_records_and_a_later_run_the_rest(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    teacher, url = teach()
    config = configure(url, 9)
    assert run(config, "--limit", 4).returncode == 0
    assert len(lines(tmp_path / "run" / "train.jsonl")) == 4
    assert run(config).returncode == 0
    assert len(lines(tmp_path / "run" / "train.jsonl")) == 9
    assert set(teacher.seen.values()) == {1}


def test_bad_settings_and_missing_runs_are_told_in_one_line_with_status_2(configure: Configure, tmp_path: Path) -> None:
    config = configure("http://127.0.0.1:9", 1)
    for arguments, words in (
        ((tmp_path / "none.yaml",), "can't be read"),
        (("stats", config), "holds no store"),
        ((config, "--limit", 0), "--limit must be at least 1"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_chains_that_got_no_answer_give_status_1(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    teacher.answer = lambda _: (500, {"error": {"message": "down"}})  # type: ignore[method-assign]
    done = run(configure(url, 2, endpoint={"retries": 0}))
    assert done.returncode == 1
    assert "2 chains are unfinished" in done.stderr


def test_the_example_corpus_is_what_its_program_makes() -> None:
    corpus = lines(ROOT / "examples" / "curator" / "chains.jsonl")
    assert corpus == [chain(number) for number in range(len(corpus))]
    assert len(corpus) == 40


def test_without_its_packages_the_command_says_what_to_install(configure: Configure) -> None:
    config = configure("http://127.0.0.1:9", 1)
    code = (
        "import sys; sys.modules['openai'] = None\n"
        f"from multiverse.cli import main; sys.exit(main(['curate', {str(config)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install multiverse-engine[curate]" in done.stderr
