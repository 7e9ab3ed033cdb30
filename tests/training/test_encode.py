"""What a model has to predict, and where: the answer, as the engine will let it be written."""

from __future__ import annotations

import pytest
from small import TOKENIZER, answer, encoder, example

from multiverse import parse_ids
from multiverse.structure.injected import injected
from multiverse.training.encode import IGNORE, EncodingError
from multiverse.training.schema import Example

TAG = TOKENIZER.convert_tokens_to_ids


def text(ids: list[int]) -> str:
    return TOKENIZER.decode([token for token in ids if token != IGNORE])


def test_prompt_and_answer_are_those_of_the_chat_template() -> None:
    turns = [*example("a", "b").messages, {"role": "assistant", "content": answer("a", "b")}]
    whole = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert TOKENIZER.decode(encoder().encode(example("a", "b")).ids) == whole.rstrip("\n")


def test_the_loss_is_taken_over_the_answer_without_what_an_engine_writes() -> None:
    """Goal, bodies of the paths with their closing tag, rest of the conclusion, end of the turn."""
    encoded = encoder().encode(example("one", "two"))
    learnt = text(encoded.targets)
    goal = answer("one", "two").partition("\n<Path>")[0]
    assert learnt == f"{goal} one\n</Path> two\n</Path>\nboth\n</Conclusion>\n</Parallel>\nAnswer: 5<|im_end|>"


def test_a_target_stands_where_the_layout_says_it_is_predicted() -> None:
    encoded = encoder(learn_injected=True).encode(example("one", "two"))
    predecessors = encoded.layout.predecessors
    expected = {before: encoded.ids[i] for i, before in enumerate(predecessors) if before >= 0}
    found = {i: target for i, target in enumerate(encoded.targets) if target != IGNORE}
    assert found.items() <= expected.items()
    paths = [i for i, token in enumerate(encoded.ids) if token == TAG("<Path>")]
    assert len(paths) == 2
    fork = paths[0] - 1
    assert {predecessors[i] for i in paths} == {fork}, "both paths follow the goal"
    assert found[fork] == TAG("<Path>")
    assert TAG("<Conclusion>") not in found.values(), "no single token predicts what follows a join"


def test_every_token_of_the_answer_is_learnt_or_injected_exactly_once() -> None:
    encoded = encoder().encode(example("one", "two three", "four"))
    tree = parse_ids(encoded.ids, encoder().binding)
    written = sum(len(tokens) for _, tokens in injected(tree, encoder().binding))
    prompt = TOKENIZER.apply_chat_template(example("a", "b").messages, add_generation_prompt=True, tokenize=False)
    answered = len(encoded) - len(TOKENIZER.encode(prompt, add_special_tokens=False))
    assert sum(target != IGNORE for target in encoded.targets) == answered - written


def test_the_sequential_form_is_plain_text() -> None:
    encoded = encoder().encode(example("a", "b"), parallel=False)
    assert text(encoded.targets) == "in turn<|im_end|>"
    assert encoded.layout.position_delta == 0


def test_as_plain_text_a_block_has_ordinary_positions_and_the_same_tokens() -> None:
    structured, plain = (encoder().encode(example("a", "b"), causal=causal) for causal in (False, True))
    assert plain.ids == structured.ids
    assert plain.layout.positions == list(range(len(plain)))
    assert structured.layout.position_delta < 0


def test_as_plain_text_the_headers_are_learnt_too_since_nothing_writes_them_then() -> None:
    structured, plain = (encoder().encode(example("a", "b"), causal=causal) for causal in (False, True))
    assert "<Path>" not in text(structured.targets)
    assert text(plain.targets) == answer("a", "b") + "<|im_end|>"


def test_the_mode_prompt_names_the_form_that_is_learnt() -> None:
    for parallel, ending in ((True, "step by step and in parallel."), (False, "Think step by step.")):
        encoded = encoder().encode(example("a", "b"), parallel=parallel, mode_prompt=True)
        turn = TOKENIZER.decode(encoded.ids).partition("<|im_end|>")[0]
        assert turn.endswith(ending)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("</Path>\n<Path>", "</Path> <Path>", r"an engine would write '\\n', but the text has ' '"),
        ("<Path>\n2:", "<Path>2:", r"an engine would write '<Path>\\n2:', but the text has '<Path>2:"),
        ("</Goal>\n", "</Goal>", r"an engine would write '\\n', but the text has '<Path>'"),
    ],
)
def test_text_that_an_engine_would_not_decode_is_refused(old: str, new: str, reason: str) -> None:
    good = example("a", "b")
    bad = Example("x", good.messages, good.text(True).replace(old, new), None)
    with pytest.raises(EncodingError, match=reason):
        encoder().encode(bad)


def test_too_long_an_example_is_refused_with_its_length() -> None:
    length = len(encoder().encode(example("a", "b")))
    assert len(encoder(max_length=length).encode(example("a", "b"))) == length
    with pytest.raises(EncodingError, match=f"has {length} tokens, max_length is {length - 1}"):
        encoder(max_length=length - 1).encode(example("a", "b"))


def test_truncation_cuts_text_but_never_a_block() -> None:
    good = example("a", "b")
    long = Example("x", good.messages, f"first {good.parallel} then {good.parallel}", None)
    whole = encoder().encode(long)
    tree = parse_ids(whole.ids, encoder().binding)
    first, second = tree.blocks
    for length in range(first.start + 1, len(whole)):
        cut = encoder(max_length=length, truncate=True).encode(long)
        inside = [block for block in (first, second) if block.start < length < block.end]
        assert len(cut) == (inside[0].start if inside else length)
        assert cut.ids == whole.ids[: len(cut)]
    with pytest.raises(EncodingError, match="nothing of the answer is left"):
        encoder(max_length=5, truncate=True).encode(long)
