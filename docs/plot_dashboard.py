"""Writes the Grafana dashboard `docs/grafana/multiverse.json` from a table of panels: `make docs`.

Knows Grafana's format; the metrics are those of `multiverse/serving/metrics.py`, which a test compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "grafana" / "multiverse.json"
_CHOSEN = 'model_name=~"$model", engine=~"$engine"'
_WIDTH, _HEIGHT = 12, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def rate(name: str, more: str = "") -> str:
    """Growth of a counter per second, summed over what is chosen."""
    return f"sum{more}(rate(multiverse:{name}{{{_CHOSEN}}}[$__rate_interval]))"


def quantile(name: str, share: float) -> str:
    """A quantile of a histogram."""
    buckets = f"sum by (le) (rate(multiverse:{name}_bucket{{{_CHOSEN}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def mean(name: str) -> str:
    """The mean of a histogram."""
    return f"{rate(f'{name}_sum')} / {rate(f'{name}_count')}"


def gauge(name: str) -> str:
    """A gauge, summed over what is chosen."""
    return f"sum(multiverse:{name}{{{_CHOSEN}}})"


def spread(name: str) -> dict[str, str]:
    """Mean and quantiles of a histogram, by legend."""
    return {"mean": mean(name), "median": quantile(name, 0.5), "95 %": quantile(name, 0.95)}


@dataclass(frozen=True)
class Panel:
    """One chart: a query by legend (`{{reason}}` takes a label's value)."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    text: str = ""


PANELS = (
    Panel("Blocks", {"forked": rate("forks_total"), "joined": rate("joins_total")}, "ops", "Per second."),
    Panel(
        "Blocks that were not forked",
        {"{{reason}}": rate("fallbacks_total", " by (reason) ")},
        "ops",
        "Per second and reason; docs/troubleshooting.md says what each means.",
    ),
    Panel("Branches", {"running": gauge("running_branches"), "parked sequences": gauge("parked_sequences")}),
    Panel("Branches per block", spread("block_width")),
    Panel("Parallel degree", spread("parallel_degree"), text="Tokens over critical path, of answers with blocks."),
    Panel("From goal to branch", spread("fork_seconds"), "s"),
    Panel("From last branch to conclusion", spread("join_seconds"), "s"),
    Panel(
        "KV shared and taken over",
        {
            "spliced": rate("spliced_tokens_total"),
            "of these moved": rate("moved_tokens_total"),
            "copied for branches": rate("copied_tokens_total"),
        },
        text="Tokens per second. Spliced KV is not computed again; moved and copied is what shares a page.",
    ),
    Panel(
        "KV given up",
        {"recomputed tokens": rate("recomputed_tokens_total"), "trees replayed": rate("replays_total")},
        text="Per second. Above zero for long means that KV memory is short.",
    ),
    Panel(
        "Drafts",
        {"tried": rate("draft_tokens_total"), "in answers": rate("accepted_draft_tokens_total")},
        text="Tokens per second, of answers with blocks; with speculative decoding.",
    ),
    Panel("Accepted per step of a root", spread("accepted_drafts_root")),
    Panel("Accepted per step of a branch", spread("accepted_drafts_branch")),
    Panel("Branches held", {"held": gauge("held_branches")}, text="Could be decoded, and are held back for others."),
    Panel(
        "Requests with an SLO",
        {"in time": rate("slo_met_total"), "late": rate("slo_missed_total")},
        "ops",
        "Finished ones, per second.",
    ),
    Panel("Slack", spread("slack_seconds"), "s", "Least slack before each step with branches."),
    Panel("Error of predicted steps", spread("step_time_error"), "percentunit"),
    Panel("Prompts with blocks", {"tokens from the prefix cache": rate("cached_tokens_total")}, text="Per second."),
    Panel(
        "Integrity failures",
        {"books that do not agree": rate("integrity_failures_total")},
        text="Per second. Anything above zero is a defect: the log says what leaked.",
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard, ready to be imported into Grafana."""
    return {
        "title": "Multiverse",
        "uid": "multiverse",
        "tags": ["llm", "multiverse"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_source(), _variable("model", "model_name"), _variable("engine", "engine")]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
        for i, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str, label: str) -> dict[str, Any]:
    query = f"label_values(multiverse:forks_total, {label})"
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": query,
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
    print(f"{len(PANELS)} panels in {FILE}")
