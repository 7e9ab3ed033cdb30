"""`multiverse view`: a finished answer as a page with its timeline; with `--live`, a page where one looks on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from multiverse.errors import TranscriptError
from multiverse.harness import records
from multiverse.structure.dialects import registry
from multiverse.structure.parser import parse_text
from multiverse.viewer import picture as view
from multiverse.viewer.live import QUESTION, LiveServer


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "view",
        help="draw the branches of an answer as a page",
        description="Draws a response that was asked for with return_tree, with positions and times; or any answer "
        "with blocks, as `multiverse parse` reads them, in approximate tokens. With the URL of a server, asks it; with "
        "--live, serves a page where one asks it and sees the branches grow.",
    )
    parser.add_argument("source", metavar="FILE|URL", help="a file (- is standard input), or a server's URL")
    parser.add_argument("--question", help="what to ask the server")
    parser.add_argument("--live", action="store_true", help="serve a page on this machine instead of writing one")
    parser.add_argument("--port", type=int, default=8765, help="of the live page (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=2000, help="of the server's answer (default: %(default)s)")
    parser.add_argument("--id", help="which answer of a file with several (default: the first)")
    parser.add_argument("--dialect", default="multiverse", help="name or TOML file (default: %(default)s)")
    parser.add_argument("-o", "--output", default="multiverse.html", help="the page (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page, or serve the live one until interrupted."""
    remote = options.source.startswith(("http://", "https://"))
    if options.live:
        return _serve(options, remote)
    try:
        picture = (_ask if remote else _read)(options)
    except RecursionError:
        raise TranscriptError(f"{options.source}: is nested too deeply to be read") from None
    picture.write(Path(options.output))
    print(f"{len(picture.lanes) - 1} branches drawn in {options.output}")
    return 0


def _serve(options: argparse.Namespace, remote: bool) -> int:
    if not remote:
        raise TranscriptError(f"--live needs the URL of a server, got {options.source!r}")
    with LiveServer(options.source.rstrip("/"), options.port, options.question or QUESTION) as server:
        print(f"{server.model} at {options.source} is asked on {server.url} (Ctrl+C ends)", flush=True)
        server.serve_forever()
    return 0


def _ask(options: argparse.Namespace) -> view.Picture:
    if not options.question:
        raise TranscriptError(f"--question is missing: what is {options.source} to be asked?")
    try:
        from openai import OpenAIError

        from multiverse.wire.client import Client
    except ImportError as error:
        raise TranscriptError("asking a server needs openai: pip install multiverse-engine[client]") from error
    try:
        with Client(f"{options.source.rstrip('/')}/v1") as client:
            answer = client.openai.chat.completions.create(
                model=client.model,
                messages=[{"role": "user", "content": options.question}],
                max_tokens=options.max_tokens,
                extra_body={"multiverse": {"return_tree": True}},
            )
    except OpenAIError as error:
        raise TranscriptError(f"{options.source}: {error}") from error
    picture = view.read(answer.model_dump(), options.question)
    if picture is None:
        raise TranscriptError(f"{options.source} answered without a tree: was it started with --plugin multiverse?")
    return picture


def _read(options: argparse.Namespace) -> view.Picture:
    title = "standard input" if options.source == "-" else Path(options.source).name
    if options.source != "-" and (picture := _response(options.source, title)) is not None:
        return picture
    for record in records.read_records(options.source):
        if isinstance(record, records.Problem):
            print(f"multiverse view: {record}", file=sys.stderr)
        elif options.id is None or record.id == options.id:
            try:
                return view.from_transcript(parse_text(record.text, registry.get(options.dialect)), record.id)
            except TranscriptError as error:
                raise TranscriptError(f"{options.source}: {error}") from error
    wanted = "no answer" if options.id is None else f"no answer with id {options.id!r}"
    raise TranscriptError(f"{options.source}: {wanted}")


def _response(file: str, title: str) -> view.Picture | None:
    """The picture of a saved response with a tree, if the file is one."""
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):  # not JSON, or not readable: the reader of records says so
        return None
    try:
        return view.read(data, title)
    except TranscriptError as error:
        raise TranscriptError(f"{file}: {error}") from error
