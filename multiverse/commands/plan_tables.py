"""The tables that `multiverse plan` prints in place of its usual one."""

from __future__ import annotations

import argparse
import json
from typing import Any

from multiverse.errors import RunError
from multiverse.serving.drafts import best_draft_lengths

_PREFIXES, _WIDTHS, _OWN = (1024, 4096, 16384, 65536), (2, 4, 8, 16, 32, 64), 512
"""Of `sharing`; each branch has so many tokens of its own."""


def sharing(roofline: Any, options: argparse.Namespace) -> int:
    """A table for each batch size, or JSON. Exit status 0."""
    from multiverse.evaluation.plan.sharing import sharing as gains
    from multiverse.evaluation.results import table

    found = {int(batch): gains(roofline, _PREFIXES, _WIDTHS, _OWN, int(batch)) for batch in options.batch}
    if options.json:
        print(json.dumps({"prefixes": _PREFIXES, "widths": _WIDTHS, "own": _OWN, "batches": found}, indent=1))
        return 0
    for batch, rows in found.items():
        print(f"{batch} requests at once: a step without sharing / with, {_OWN} tokens of each branch's own\n")
        cells = [
            [prefix, *("" if x is None else f"{x:.2f}" for x in row)]
            for prefix, row in zip(_PREFIXES, rows, strict=True)
        ]
        print(table(("shared tokens", *(f"{width} branches" for width in _WIDTHS)), cells), end="\n\n")
    return 0


def policies(roofline: Any, options: argparse.Namespace) -> int:
    """A table, or JSON. Exit status 0."""
    from multiverse.evaluation.plan.goodput import over_policies
    from multiverse.evaluation.results import table

    if not options.rate:
        raise RunError("--policies needs --rate")
    rows = over_policies(roofline, options.rate, options.tokens, options.prompt, options.slo)
    if options.json:
        print(json.dumps([row.to_dict() for row in rows], indent=1))
        return 0
    cells = [(f"{row.rate:g}", row.policy, f"{row.attainment:.0%}", f"{row.goodput:.2f}") for row in rows]
    print(f"{roofline.kv_tokens:,.0f} tokens of KV\n")
    print(table(("arrivals/s", "policy", "in time", "in time per second"), cells))
    return 0


def drafts(roofline: Any, options: argparse.Namespace) -> int:
    """A table for each acceptance, or JSON. Exit status 0."""
    from multiverse.evaluation.plan.drafts import rates
    from multiverse.evaluation.results import table

    context, lengths = options.prompt + options.tokens / 2, sorted({0, *options.drafts})
    rows = [int(count) for count in options.batch if count * context <= roofline.kv_tokens]
    if not rows:
        raise RunError(f"no --batch fits: the KV holds {roofline.kv_tokens:,.0f} tokens, a row has {context:,.0f}")
    found = {share: rates(roofline, rows, lengths, share, context) for share in options.acceptance}
    best = {share: str(best_draft_lengths(by_rows)) for share, by_rows in found.items()}
    if options.json:
        print(json.dumps({f"{x:g}": {"tokens_per_second": found[x], "table": best[x]} for x in found}, indent=1))
        return 0
    for share, by_rows in found.items():
        cells = [
            (count, f"{rate[0]:,.0f}", *(f"{rate[length] / rate[0]:.2f}" for length in lengths[1:]))
            for count, rate in by_rows.items()
        ]
        print(f"{share:.0%} accepted, {context:,.0f} tokens of context: tokens per second with drafts / without\n")
        print(table(("rows", "tokens/s without", *(f"{length} drafted" for length in lengths[1:])), cells))
        print(f"\n--multiverse-drafts {best[share]}\n")
    return 0
