"""Which weights said which token is kept strand by strand and told in document order."""

from __future__ import annotations

from toy import BINDINGS, decode, encode, goal

from multiverse import Controller
from multiverse.serving.weights import WeightVersions


def say(controller: Controller, key: tuple[int, ...], text: str) -> None:
    (strand,) = (strand for strand in controller.root.walk() if strand.key == key)
    for token in encode(text):
        controller.accept(strand, token)


def forked() -> Controller:
    controller = Controller(BINDINGS["multiverse"], prompt=encode("a"))
    say(controller, (), goal(2))
    return controller


def document(controller: Controller) -> list[int]:
    return [token for strand, start, end in controller.root.spans() for token in strand.tokens[start:end]]


def test_without_a_change_all_is_of_the_current_version() -> None:
    controller, versions = forked(), WeightVersions()
    assert not versions
    assert versions.of_document(controller.root, "1") == [("1", 0, len(document(controller)))]


def test_a_change_in_the_middle_of_two_branches_is_told_at_its_place_in_each() -> None:
    controller, versions = forked(), WeightVersions()
    first, second = (child for _, children in controller.root.forks for child in children)
    headers = len(first.tokens), len(second.tokens)
    say(controller, first.key, "ab")
    say(controller, second.key, "c")
    versions.replaced(controller.root, "1")
    say(controller, first.key, "dd")
    say(controller, second.key, "ee")
    versions.replaced(controller.root, "2")
    say(controller, second.key, "f")
    assert versions.of_strand(first, "3") == [("1", 0, headers[0] + 2), ("2", headers[0] + 2, headers[0] + 4)]
    assert [version for version, _, _ in versions.of_strand(second, "3")] == ["1", "2", "3"]
    ids, spans = document(controller), versions.of_document(controller.root, "3")
    assert [0, *(end for _, _, end in spans)] == [*(start for _, start, _ in spans), len(ids)]
    said = [(version, decode(ids[start:end])) for version, start, end in spans]
    (version, beginning), *rest = said
    assert (version, beginning[-2:]) == ("1", "ab")
    assert rest == [("2", "dd"), ("1", decode(second.tokens[: headers[1]]) + "c"), ("2", "ee"), ("3", "f")]


def test_what_a_host_noted_before_the_first_fork_is_of_the_root() -> None:
    controller, versions = forked(), WeightVersions()
    assert not versions
    versions.begin(controller.root, [])
    assert not versions
    versions.begin(controller.root, [("a", 2)])
    assert versions.of_strand(controller.root, "b")[:2] == [("a", 0, 2), ("b", 2, len(controller.root.tokens))]
    assert versions.of_document(controller.root, "b")[0] == ("a", 0, 2)


def test_strands_that_said_nothing_between_two_changes_have_no_empty_span() -> None:
    controller, versions = forked(), WeightVersions()
    for version in "123":
        versions.replaced(controller.root, version)
    assert versions.of_document(controller.root, "4") == [("1", 0, len(document(controller)))]
