"""The tables on the terminal: summary of a run, statistics of a corpus, estimate of a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from multiverse.curator.config import Price
from multiverse.curator.estimate import Estimate
from multiverse.curator.outcome import STAGES
from multiverse.curator.statistics import CorpusStatistics

_TEXTS = ("", "stage", "model", "most frequent reason against")
"""Columns of words; all others hold numbers."""


def statistics_tables(statistics: CorpusStatistics, prices: Mapping[str, Price]) -> RenderableType:
    """Everything that is known of a corpus."""
    refused = sum(statistics.rejected_at.values())
    head = f"{statistics.chains} chains: {statistics.accepted} accepted, {statistics.parallel} of them with blocks"
    parts: list[RenderableType] = [Text(f"{head}; {refused} rejected{_where(statistics.rejected_at)}")]
    if statistics.parallel:
        parts += ["", _shape(statistics)]
    if statistics.stages:
        parts += ["", _stages(statistics)]
    if statistics.usage:
        parts += ["", _usage(statistics, prices)]
    return Group(*parts)


def _where(rejected_at: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{stage} {n}' for stage, n in sorted(rejected_at.items()))})" if rejected_at else ""


def _shape(statistics: CorpusStatistics) -> Table:
    table = _table("examples with blocks", "", "")
    means = statistics.means
    counts = {
        "blocks per example": statistics.blocks,
        "width of blocks": statistics.widths,
        "depth": statistics.depths,
    }
    for name, counter in counts.items():
        table.add_row(name, ", ".join(f"{value}: {times}" for value, times in sorted(counter.items())))
    table.add_row("branches", f"collective: {statistics.collective}, selective: {statistics.selective} (groups)")
    table.add_row("sentences", f"{means['sentences']:.0f} on average")
    lengths = f"{means['sequential_characters']:.0f} → {means['parallel_characters']:.0f} characters on average"
    table.add_row("sequential → parallel", lengths)
    table.add_row(
        "tokens, critical path", f"{means['tokens']:.0f}, {means['critical_path']:.0f} on average, approximate"
    )
    table.add_row("parallel degree", f"{means['parallel_degree']:.2f} on average")
    return table


def _stages(statistics: CorpusStatistics) -> Table:
    table = _table("stages", "stage", "judged", "passed", "first tries passed", "most frequent reason against")
    for name in (stage for stage in STAGES if stage in statistics.stages):
        figures = statistics.stages[name]
        reason = list(figures.frequent(1).items())
        table.add_row(
            name,
            str(figures.asked),
            f"{figures.passed / figures.asked:.1%}",
            f"{figures.first_passed / figures.first:.1%}" if figures.first else "",
            f"{reason[0][0]} ({reason[0][1]})" if reason else "",
        )
    return table


def _usage(statistics: CorpusStatistics, prices: Mapping[str, Price]) -> Table:
    table = _table("requests answered", "stage", "model", "requests", "prompt tokens", "reply tokens")
    for used in statistics.usage:
        counts = (used.requests, used.prompt_tokens, used.completion_tokens)
        table.add_row(used.stage, used.model, *(f"{count:,}" for count in counts))
    cost = statistics.cost(prices)
    table.caption = "cost: unknown, `prices` lacks a model" if cost is None else f"cost: {cost:.2f}"
    table.caption_justify = "left"
    return table


def estimate_table(rows: Sequence[Estimate], chains: int) -> Table:
    """What a dry run found."""
    table = _table(
        f"estimate for {chains} chains", "stage", "model", "requests", "prompt tokens", "reply tokens", "cost"
    )
    for row in rows:
        counts = (row.requests, row.prompt_tokens, row.completion_tokens)
        cost = "no price" if row.cost is None else f"{row.cost:.2f}"
        table.add_row(row.stage, row.model, *(f"{count:,.0f}" for count in counts), cost)
    costs = [row.cost for row in rows if row.cost is not None]
    sums = (sum(getattr(row, name) for row in rows) for name in ("requests", "prompt_tokens", "completion_tokens"))
    total = f"{sum(costs):.2f}" if len(costs) == len(rows) else "no price"
    table.add_row("all", "", *(f"{count:,.0f}" for count in sums), total, style="bold")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, title=title, title_justify="left", header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXTS else "right")
    return table
