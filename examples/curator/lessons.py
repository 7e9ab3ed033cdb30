"""What the teacher knows: the right reply to each stage's prompt, found by rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = dict[str, Any]

_CUES = (
    (re.compile(r"Now for order (\w)\."), "Work out order {}", "order"),
    (re.compile(r"Turning to warehouse (\d)\."), "Work out warehouse {}", "warehouse"),
    (re.compile(r"Hence warehouse (\d) ships"), "Put warehouse {} together", "closing"),
    (re.compile(r"Suppose the number were n = (\d+)\."), "Try the candidate n = {}", "candidate"),
    (re.compile(r"On day (\d+) the stock"), "Follow day {}", "day"),
    (re.compile(r"Let me (put the .*|pick the .*)\."), "Let me {}", "sum"),
)

_LEAN = re.compile(r"^(?:Similarly|As before|As in the previous case), ")


@dataclass
class Part:
    """A stretch of sentences that begins with a cue."""

    title: str
    kind: str
    sentences: list[int]


def _sentences(prompt: str) -> dict[int, str]:
    return {int(number): text for number, text in re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE)}


def _parts(prompt: str) -> list[Part]:
    parts = [Part("See what is asked", "opening", [])]
    for number, text in _sentences(prompt).items():
        for cue, title, kind in _CUES:
            if match := cue.match(text):
                parts.append(Part(title.format(match[1]), kind, []))
        parts[-1].sentences.append(number)
    return [part for part in parts if part.sentences]


def _titles(prompt: str) -> dict[str, str]:
    steps = prompt.split("# Steps")[1].split("\n# ", maxsplit=1)[0]
    return dict(re.findall(r"^ *(\d+(?:\.\d+)?)\. (.*)$", steps, re.MULTILINE))


def _runs(labels: list[str], titles: dict[str, str], word: str) -> list[list[str]]:
    """Runs of neighbouring labels whose titles begin with `word`."""
    runs: list[list[str]] = [[]]
    for label in labels:
        if titles[label].startswith(word):
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def _summary(prompt: str) -> Value:
    steps: list[Value] = []
    for part in _parts(prompt):
        inside = steps and steps[-1]["title"].startswith("Work out warehouse")
        if part.kind == "warehouse":
            steps.append({"title": part.title, "substeps": [f"Name {part.title.split(' ', 2)[2]}"]})
        elif part.kind in ("order", "closing") and inside:
            steps[-1]["substeps"].append(part.title)
        else:
            steps.append({"title": part.title, "substeps": []})
    return {"steps": steps}


def _grouping(prompt: str) -> Value:
    titles = _titles(prompt)
    levels = {label.rpartition(".")[0] for label in titles}
    groups = []
    for parent in sorted(levels):
        labels = [label for label in titles if label.rpartition(".")[0] == parent]
        for word, kind in (("Work out", "collective"), ("Try the candidate", "selective")):
            for run in _runs(labels, titles, word):
                groups.append({"steps": run, "kind": kind, "reason": "each is given all that it needs by the question"})
    return {"groups": groups}


def _restructuring(prompt: str) -> Value:
    titles = _titles(prompt)
    groups = [steps.split(", ") for steps in re.findall(r"^- ([\d., ]+) \(\w+\):", prompt, re.MULTILINE)]

    def level(parent: str) -> list[Any]:
        plan: list[Any] = []
        labels = [label for label in titles if label.rpartition(".")[0] == parent]
        for label in labels:
            group = next((group for group in groups if label in group), None)
            if group is None:
                plan.append(label)
            elif label == group[0]:
                plan.append({"parallel": [inside(each) for each in group]})
        return plan

    def inside(label: str) -> list[Any]:
        return level(label) if any(group[0].startswith(f"{label}.") for group in groups) else [label]

    return {"plan": level("")}


def _refilling(prompt: str) -> Value:
    titles = _titles(prompt)
    wanted = re.search(r"at least\s+once: ([\d., ]+)\.\n", prompt)
    assert wanted
    labels = wanted[1].split(", ")
    by_title = {title: label for label, title in titles.items()}
    found: dict[str, list[int]] = {label: [] for label in labels}
    last = labels[0]
    for part in _parts(prompt):
        title = part.title.replace("Work out warehouse", "Name warehouse")
        label = by_title.get(title, by_title.get(part.title, ""))
        while label and label not in found:  # a step that the plan has as a whole
            label = label.rpartition(".")[0]
        last = label or last
        found[last] += part.sentences
    return {"sentences": {label: _ranges(numbers) for label, numbers in found.items()}}


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _mapreduce(prompt: str) -> Value:
    blocks = re.split(r"^## Path \d+: ", prompt.split("# Task", maxsplit=1)[0], flags=re.MULTILINE)[1:]
    outlines, edits, findings = [], {}, []
    for block in blocks:
        sentences = _sentences(block)
        outlines.append(block.split("\n")[0].split(" / ")[0].replace("Name warehouse", "Work out warehouse"))
        for number, text in sentences.items():
            if match := _LEAN.match(text):
                rest = text[match.end() :]
                edits[str(number)] = rest[0].upper() + rest[1:]
        findings.append(list(sentences.values())[-1])
    return {
        "goal": "These do not need each other, so let me work on them in parallel.",
        "outlines": outlines,
        "edits": edits,
        "conclusion": " ".join(findings),
    }


def _judge(prompt: str) -> Value:
    texts = re.split(r"^## Path (\d+): .*$", prompt.split("# Task", maxsplit=1)[0], flags=re.MULTILINE)[1:]
    leaning = [
        {"path": int(number), "quote": match[0], "reason": "leans on what was said before"}
        for number, text in zip(texts[::2], texts[1::2], strict=True)
        for match in [re.search(r"As order \w was done, ", text)]
        if match
    ]
    return {"dependencies": leaning}


STAGES: dict[str, Callable[[str], Value]] = {
    "summary tree": _summary,
    "independent groups": _grouping,
    "parallel plan": _restructuring,
    "refilling": _refilling,
    "map and reduce": _mapreduce,
    "judge independence": _judge,
}
