"""Tags are data: three dialects come with the package, a user adds others, and every mistake is named."""

from __future__ import annotations

import dataclasses
import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from multiverse import Dialect, DialectError, MultiverseError, Tag, get_dialect, load_dialect, registry
from multiverse.structure.dialects import Registry, dialect_from_dict

MINE: dict[str, Any] = {
    "name": "mine",
    "block": ["<B>", "</B>"],
    "goal": ["<G>", "</G>"],
    "outline": ["<O>"],
    "path": ["<P>", "</P>"],
}
TOML = 'name = "mine"\nblock = ["<B>", "</B>"]\ngoal = ["<G>", "</G>"]\noutline = ["<O>"]\npath = ["<P>", "</P>"]\n'


def test_multiverse_is_the_dialect_of_the_paper() -> None:
    dialect = get_dialect("multiverse")
    assert (dialect.block, dialect.goal) == (("<Parallel>", "</Parallel>"), ("<Goal>", "</Goal>"))
    assert (dialect.outline, dialect.path) == (("<Outline>", "</Outline>"), ("<Path>", "</Path>"))
    assert dialect.conclusion == ("<Conclusion>", "</Conclusion>")
    assert (dialect.path_header, dialect.separator) == ("\n{label}:", "\n")
    assert (dialect.nesting, dialect.join) == (True, "splice")


def test_npr_has_no_tag_around_the_block_and_does_not_nest() -> None:
    dialect = get_dialect("npr")
    assert list(dialect.tags.values()) == (
        ["<guideline>", "</guideline>", "<plan>", "</plan>", "<step>", "</step>", "<takeaway>", "</takeaway>"]
    )
    assert (dialect.block, dialect.nesting, dialect.join) == ((), False, "splice")


def test_threadweaver_goes_on_after_the_last_thread_and_prefills_the_joined_text() -> None:
    dialect = get_dialect("threadweaver")
    assert dialect.goal == ("<Outlines>", "</Outlines>")
    assert dialect.path == ("<Thread>", "</Thread>")
    assert (dialect.conclusion, dialect.nesting, dialect.join) == ((), False, "prefill")


def test_a_dialect_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_dialect("npr").nesting = True  # type: ignore[misc]


def test_a_tag_says_what_it_means_in_words() -> None:
    assert [str(tag) for tag in (Tag.BLOCK_OPEN, Tag.GOAL_CLOSE)] == ["block-open", "goal-close"]


def test_a_toml_file_makes_a_dialect_that_is_known_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_dialects", {d.name: d for d in registry.all()})  # what is added goes again
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    dialect = load_dialect(path)
    assert dialect == Dialect(**MINE)
    assert get_dialect("mine") is dialect
    assert get_dialect(str(path)) == dialect


def test_an_entry_point_adds_a_dialect_or_a_function_that_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Dialect(**MINE), Dialect(**MINE | {"name": "second"})
    _entry_points(monkeypatch, first, lambda: second)
    fresh = Registry()
    assert fresh.get("mine") is first
    assert fresh.get("second") is second
    assert [d.name for d in fresh.all()] == ["multiverse", "npr", "threadweaver", "mine", "second"]


def test_a_broken_entry_point_is_logged_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Dialect:
        raise RuntimeError("not today")

    _entry_points(monkeypatch, broken, Dialect(**MINE))
    with caplog.at_level(logging.WARNING):
        assert Registry().get("mine").name == "mine"
    assert "point0 was skipped: not today" in caplog.text


def test_what_a_program_adds_replaces_a_built_in_of_the_same_name() -> None:
    fresh = Registry()
    own = fresh.add(Dialect(**MINE | {"name": "npr"}))
    assert fresh.get("npr") is own


def _entry_points(monkeypatch: pytest.MonkeyPatch, *loaded: Any) -> None:
    class Point:
        def __init__(self, name: str, value: Any) -> None:
            self.name, self.value = name, value

        def load(self) -> Any:
            return self.value

    points = [Point(f"point{i}", value) for i, value in enumerate(loaded)]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: points if group == "multiverse.dialects" else [])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DialectError, match="unknown dialect 'multivers'; known are multiverse, npr, threadweaver"):
        get_dialect("multivers")


MISTAKES = [
    ({"goal": ["<G>"]}, "'mine': goal needs 2 tags, got 1"),
    ({"path": ["<P>", "</P>", "x"]}, "'mine': path needs 2 tags, got 3"),
    ({"outline": []}, "'mine': outline needs 1 or 2 tags, got 0"),
    ({"block": ["<B>"]}, "'mine': block needs 0 or 2 tags, got 1"),
    ({"conclusion": ["a", "b", "c"]}, "'mine': conclusion needs 0 or 1 or 2 tags, got 3"),
    ({"goal": ["<G>", " "]}, "'mine': goal must be a list of non-empty tags"),
    ({"path": "<P>"}, "'mine': path must be a list of non-empty tags"),
    ({"path": ["<G>", "</P>"]}, "'mine': the same text is given to two tags: <G>"),
    ({"join": "merge"}, "'mine': join is 'merge', allowed are splice, prefill"),
    ({"block": []}, "'mine': join 'splice' needs a conclusion or block tags"),
    ({"path_header": "{number}:"}, "'mine': path_header '{number}:' may only use {label}"),
    ({"path_header": "{"}, "'mine': path_header '{' may only use {label}"),
    ({"nesting": "yes"}, "here: nesting must be of type bool, got 'yes'"),
    ({"separator": 1}, "here: separator must be of type str, got 1"),
    ({"path_separator": 1}, "here: path_separator must be of type str, got 1"),
    ({"engine_closes": False}, "'mine': engine_closes can be false only where join is 'prefill'"),
    ({"gaol": ["a", "b"]}, "here: unknown field gaol; known are"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_every_mistake_names_the_dialect_or_file_and_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DialectError) as caught:
        dialect_from_dict(MINE | change, source="here")
    assert message in str(caught.value)
    assert isinstance(caught.value, MultiverseError)


@pytest.mark.parametrize("field", ["name", "goal", "outline", "path"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(DialectError, match=f"here: field {field} is missing"):
        dialect_from_dict({key: value for key, value in MINE.items() if key != field}, source="here")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DialectError, match=r"none\.toml: can't be read \(No such file"):
        load_dialect(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(DialectError, match=r"bad\.toml: not a TOML file"):
        load_dialect(tmp_path / "bad.toml")


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(TOML + "color = 1\n")
    with pytest.raises(DialectError, match=r"odd\.toml: unknown field color"):
        load_dialect(tmp_path / "odd.toml")
