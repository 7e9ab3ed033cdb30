"""A dialect binds to a tokenizer: every tag is one token id there, or the error says which is not."""

from __future__ import annotations

import dataclasses

import pytest
from toy import BINDINGS, DIALECTS, TOKENIZERS, ToyTokenizer, decode, encode

from multiverse import BindingError, Tag, bind, detect, get_dialect, parse_text


@pytest.mark.parametrize("name", DIALECTS)
def test_every_tag_is_one_id(name: str) -> None:
    binding = bind(name, TOKENIZERS[name])
    assert {TOKENIZERS[name].texts[i]: tag for i, tag in binding.tags.items()} == {
        text: tag for tag, text in get_dialect(name).tags.items()
    }
    assert all(binding.tag(token) is tag for tag, token in binding.ids.items())
    assert binding.tag(encode("a")[0]) is None


def test_the_error_names_each_tag_and_what_it_was_encoded_to() -> None:
    tokenizer = ToyTokenizer("multiverse")
    tokenizer.vocabulary = dict(tokenizer.vocabulary)
    tokenizer._longest_first = [(i, t) for i, t in tokenizer._longest_first if t not in ("<Goal>", "</Path>")]
    with pytest.raises(BindingError) as caught:
        bind("multiverse", tokenizer)
    message = str(caught.value)
    assert "<Goal> -> 6 tokens ['<unk>', '<unk>', '<unk>', 'a', '<unk>', '<unk>'] = [0, 0, 0, 8, 0, 0]" in message
    assert "</Path> -> 7 tokens" in message
    assert "<Outline>" not in message


def test_the_unknown_token_is_no_tag() -> None:
    class Unknowing(ToyTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
            return [0] if text == "</Goal>" else super().encode(text, add_special_tokens=add_special_tokens)

    with pytest.raises(BindingError, match="</Goal> -> the unknown token 0"):
        bind("multiverse", Unknowing("multiverse"))


def test_the_dialect_is_detected_from_the_vocabulary() -> None:
    assert [detect(TOKENIZERS[name]).name for name in DIALECTS] == list(DIALECTS)


def test_of_several_fitting_dialects_the_one_with_most_tags_is_taken() -> None:
    assert detect(ToyTokenizer(*DIALECTS)).name == "multiverse"


def test_detection_without_a_fit_says_for_each_dialect_what_is_missing() -> None:
    with pytest.raises(BindingError) as caught:
        detect(ToyTokenizer())
    message = str(caught.value)
    for name in DIALECTS:
        assert f"  {name}: {', '.join(get_dialect(name).tags.values())}" in message
    assert "multiverse.add_tags" in message


def test_headers_are_ids_that_read_as_the_dialect_says() -> None:
    binding = BINDINGS["multiverse"]
    assert list(binding.path_header("1.2")) == encode("<Path>\n1.2:")
    assert list(binding.conclusion_header) == encode("<Conclusion>")
    assert list(binding.forced_close) == encode("</Path>")
    for separator in (binding.goal_separator, binding.path_separator, binding.last_separator):
        assert list(separator) == encode("\n")


def test_each_place_has_a_separator_of_its_own() -> None:
    """Between threads there is none; behind the last, and before a close that the engine has to write, a newline."""
    binding = BINDINGS["threadweaver"]
    shown = (binding.goal_separator, binding.path_separator, binding.last_separator, binding.forced_close)
    assert [decode(ids, "threadweaver") for ids in shown] == ["\n", "", "\n", "\n</Thread>"]
    assert [binding.separator_after(last) for last in (False, True)] == [(), binding.last_separator]


def test_without_a_conclusion_tag_block_close_is_written_at_the_join_or_by_the_model() -> None:
    assert BINDINGS["threadweaver"].conclusion_header == ()
    dialect = dataclasses.replace(get_dialect("threadweaver"), engine_closes=True)
    binding = bind(dialect, TOKENIZERS["threadweaver"])
    assert binding.conclusion_header == (binding.ids[Tag.BLOCK_CLOSE],)


def test_a_space_that_a_tokenizer_puts_before_text_alone_does_not_get_into_headers() -> None:
    """Headers are encoded behind their tag: what stands alone may be encoded otherwise."""

    class Spacy(ToyTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
            return super().encode(text if text.startswith("<") else " " + text, add_special_tokens=add_special_tokens)

    binding = bind("multiverse", Spacy("multiverse"))
    assert list(binding.last_separator) == encode("\n")
    assert list(binding.forced_close) == encode("</Path>")
    assert list(binding.path_header("3")) == encode("<Path>\n3:")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *[
            ("\n1: a", "1"),
            ("\n1.2: a", "1.2"),
            ("12:", "12"),
            (" 1", "1"),
            ("2:3", "2"),
            ("1.2.3", "1.2.3"),
            ("7.", "7"),
            ("7) a", "7"),
            ("7.a", "7"),
            ("7\n</Outline>", "7"),
        ],
        *[("7 a", None), ("7a", None), ("7.5 a", None), ("7,5: a", None), ("7\n<unk>", None), ("7 2: a", None)],
        *[("1.1.1.1.1.1.1: a", None)],
        *[("\na 1", None), ("", None), (": 1", None), (".1", None), ("\n<Path>1", None)],
    ],
)
def test_labels_are_read_from_ids(text: str, label: str | None) -> None:
    """The number that the text starts with, if what follows says that it is one; whatever tokens it is made of."""
    assert BINDINGS["multiverse"].label(encode(text), 0) == label
    assert BINDINGS["multiverse"].label(encode("ab" + text), 2) == label
    assert (label is None) or parse_text(f"<Parallel><Goal><Outline>{text}").blocks[0].outlines[0].label == label


def test_nothing_is_decoded_while_a_model_generates() -> None:
    """Label pieces are decoded once; after that the tokenizer is not needed."""
    tokenizer = ToyTokenizer("multiverse")
    binding = bind("multiverse", tokenizer)
    assert binding.label(encode("1.2: a"), 0) == "1.2"
    tokenizer.decode = None  # type: ignore[assignment]
    assert binding.label(encode("\n34: a"), 0) == "34"
    assert binding.separates(encode("\n")[0])
    assert not binding.separates(encode("a")[0])


def test_the_end_of_a_turn_is_the_tokenizers_unless_named() -> None:
    assert BINDINGS["multiverse"].ends_turn(1)
    own = bind("multiverse", TOKENIZERS["multiverse"], eos=[8, 9])
    assert [token for token in range(12) if own.ends_turn(token)] == [8, 9]


def test_a_tokenizer_without_end_of_sequence_has_no_turns() -> None:
    tokenizer = ToyTokenizer("multiverse")
    tokenizer.eos_token_id = None  # type: ignore[assignment]
    assert bind("multiverse", tokenizer).eos == frozenset()
