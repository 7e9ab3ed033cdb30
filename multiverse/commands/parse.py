"""`multiverse parse`: is it well formed, and how parallel is it?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from multiverse.decoding.document import statistics
from multiverse.errors import TranscriptError
from multiverse.harness.records import Record, read_records
from multiverse.structure.binding import Binding, bind
from multiverse.structure.dialects import registry
from multiverse.structure.injected import injected
from multiverse.structure.parser import parse_ids, parse_text
from multiverse.structure.tree import Transcript


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "parse",
        help="show well-formedness, blocks and parallelism of transcripts",
        description="Reads answers of a model from text files, JSON, JSON lines, chats, training data, API responses "
        "and results of batches.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file; - is standard input")
    parser.add_argument("--dialect", default="multiverse", help="name or TOML file (default: %(default)s)")
    parser.add_argument(
        "--field", help="key of a record that holds the answer, or a path like results.0.text (default: found out)"
    )
    parser.add_argument("--tokenizer", metavar="MODEL", help="count its tokens instead of approximate ones")
    parser.add_argument("--separators", choices=("overlap", "advance"), default="overlap", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object per transcript")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 2 if something could not be read, else 0: a malformed transcript is a finding, not an error."""
    unread: list[str] = []
    rows = _rows(options, unread)
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _print_table(list(rows), exact=options.tokenizer is not None)
    for message in unread:
        print(f"multiverse parse: {message}", file=sys.stderr)
    return 2 if unread else 0


def _rows(options: argparse.Namespace, unread: list[str]) -> Iterator[dict[str, Any]]:
    to_tree, binding = _parser(options)
    for file in options.files:
        for record in read_records(file, options.field):
            if isinstance(record, Record):
                tree = to_tree(record.text)
                yield _describe(record, tree, options.separators) | _seams(tree, binding)
            else:
                unread.append(str(record))


def _parser(options: argparse.Namespace) -> tuple[Callable[[str], Transcript], Binding | None]:
    dialect = registry.get(options.dialect)
    if options.tokenizer is None:
        return lambda text: parse_text(text, dialect), None
    try:
        import transformers  # noqa: F401

        from multiverse.models.loading import load_tokenizer
    except ImportError as error:
        raise TranscriptError("--tokenizer needs transformers: pip install multiverse-engine[oracle]") from error
    try:
        tokenizer = load_tokenizer(options.tokenizer)
    except (OSError, ValueError) as error:
        raise TranscriptError(f"--tokenizer {options.tokenizer}: can't be loaded ({error})") from error
    binding = bind(dialect, tokenizer)
    return lambda text: parse_ids(tokenizer.encode(text, add_special_tokens=False), binding), binding


def _seams(tree: Transcript, binding: Binding | None) -> dict[str, Any]:
    """How many places the text's tokens have otherwise than the engine that wrote them: its ids are not these."""
    if binding is None:
        return {}
    places = injected(tree, binding)
    return {"merged_seams": sum(tuple(tree.tokens[at : at + len(tokens)]) != tokens for at, tokens in places)}


def _describe(record: Record, tree: Transcript, separators: Any) -> dict[str, Any]:
    widths = [block.width for block in tree.walk()]
    figures = statistics(tree, separators=separators).to_dict()
    place = tree.violations[0].offset if tree.violations else None
    return {"id": record.id, **figures, "first_violation_offset": place, "widths": widths}


def _print_table(rows: list[dict[str, Any]], exact: bool) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 200
    table = Table(box=None, header_style="bold")
    table.add_column("id", no_wrap=True)
    for name in ("blocks", "max width", "depth", "tokens", "critical path", "parallel degree"):
        table.add_column(name, justify="right")
    table.add_column("well formed")
    for row in rows:
        verdict = "[green]yes[/]" if row["well_formed"] else f"[red]no[/]: {_escape(row['first_violation'])}"
        figures = (row[key] for key in ("blocks", "max_width", "depth", "tokens", "critical_path"))
        table.add_row(_escape(row["id"]), *map(str, figures), f"{row['parallel_degree']:.2f}", verdict)
    console.print(table)
    sound, blocks = sum(row["well_formed"] for row in rows), [row["blocks"] for row in rows if row["blocks"]]
    tokens, critical = sum(row["tokens"] for row in rows), sum(row["critical_path"] for row in rows)
    stray = sum(row["stray_text"] for row in rows)
    console.print(
        f"\n{len(rows)} transcripts: {sound} well formed, {len(rows) - sound} not; {len(blocks)} with blocks "
        f"({sum(blocks)} in all); parallel degree {tokens / critical if critical else 1:.2f} over all"
    )
    if stray:
        console.print(
            f"[yellow]{stray} places hold text between the parts of a block[/] (stray_text): an engine that forks "
            "writes a separator there and nothing else, and `multiverse train` refuses them"
        )
    if merged := sum(row.get("merged_seams", 0) for row in rows):
        console.print(
            f"[yellow]{merged} headers or separators are other tokens than an engine writes[/] (merged_seams; often "
            "':' and a newline in one): the ids of such answers can't be had from their text, ask a server for them"
        )
    if not exact:
        console.print("[dim]Token counts are approximate; --tokenizer MODEL counts exactly.[/]")


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
