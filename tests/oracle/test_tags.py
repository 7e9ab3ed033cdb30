"""`add_tags` prepares a model for training: each tag one token, whose rows already mean something."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import SIZE
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from toy import DIALECTS
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from multiverse import BindingError, Dialect, DialectError, add_tags, bind, detect, get_dialect


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer as models have them: every byte is a token, so a bare word is several."""
    vocabulary = {text: i for i, text in enumerate(sorted(ByteLevel.alphabet()))}
    raw = Tokenizer(BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.add_special_tokens(["<eos>"])
    from tokenizers.decoders import ByteLevel as Decoder

    raw.decoder = Decoder()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")


def model(rows: int, tied: bool) -> Any:
    torch.manual_seed(2)
    return Qwen3ForCausalLM(Qwen3Config(**SIZE | {"vocab_size": rows}, tie_word_embeddings=tied))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_tag_becomes_one_token_and_the_dialect_binds(dialect: str) -> None:
    tok = tokenizer()
    with pytest.raises(BindingError):
        bind(dialect, tok)
    added = add_tags(tok, None, dialect)
    assert added == list(get_dialect(dialect).tags.values())
    assert all(len(tok.encode(tag, add_special_tokens=False)) == 1 for tag in added)
    assert bind(dialect, tok).dialect is detect(tok)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_start_as_the_mean_of_the_tokens_of_what_the_tag_says(tied: bool) -> None:
    """Of the input embedding and, if it has one of its own, of the output embedding. A closing tag says `/word`."""
    tok, lm = tokenizer(), model(300, tied)
    before = [lm.get_input_embeddings().weight.clone(), lm.get_output_embeddings().weight.clone()]
    for tag in add_tags(tok, lm):
        word = tok.encode(tag.strip("<>"), add_special_tokens=False)
        assert len(word) > 1
        row = tok.convert_tokens_to_ids(tag)
        for old, layer in zip(before, (lm.get_input_embeddings(), lm.get_output_embeddings()), strict=True):
            assert torch.allclose(layer.weight[row], old[word].mean(0), atol=1e-6)
    tie = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    assert tie == tied


@pytest.mark.parametrize("words", ["</>", "[[]]"], ids=["slash", "without a slash"])
def test_no_two_tags_start_alike(words: str) -> None:
    """Tags with equal rows would be read and written alike, and a path never closed."""
    names = ["goal", "outline", "path", "block", "conclusion"]
    pairs = {n: (f"<{n}>", f"</{n}>") if words == "</>" else (f"[{n}]", f"[[{n}]]") for n in names}
    tok, lm = tokenizer(), model(300, False)
    added = tok.convert_tokens_to_ids(add_tags(tok, lm, Dialect(name="mine", **pairs)))
    for layer in (lm.get_input_embeddings(), lm.get_output_embeddings()):
        rows = torch.nn.functional.normalize(layer.weight[added].float(), dim=1)
        assert (rows @ rows.T - 2 * torch.eye(len(added))).max() < 0.999


def test_other_rows_stay_as_they_are() -> None:
    tok, lm = tokenizer(), model(300, False)
    known, before = len(tok), lm.get_input_embeddings().weight.clone()
    add_tags(tok, lm)
    assert torch.equal(lm.get_input_embeddings().weight[:known], before[:known])
    assert lm.get_input_embeddings().weight.shape == before.shape, "there was room: no resizing"


def test_adding_twice_changes_nothing() -> None:
    tok, lm = tokenizer(), model(300, True)
    add_tags(tok, lm)
    size, weights = len(tok), lm.get_input_embeddings().weight.clone()
    assert add_tags(tok, lm) == []
    assert len(tok) == size
    assert torch.equal(lm.get_input_embeddings().weight, weights)


def test_only_missing_tags_are_added() -> None:
    tok, lm = tokenizer(), model(300, True)
    add_tags(tok, lm, "threadweaver")
    shared = {"<Parallel>", "</Parallel>", "<Outline>"}
    row = tok.convert_tokens_to_ids("<Outline>")
    with torch.no_grad():
        lm.get_input_embeddings().weight[row] = 7.0
    assert not shared & set(add_tags(tok, lm, "multiverse"))
    assert (lm.get_input_embeddings().weight[row] == 7.0).all(), "a trained row is left alone"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_embedding_grows_if_it_has_to(tied: bool) -> None:
    tok = tokenizer()
    lm = model(len(tok), tied)
    add_tags(tok, lm)
    assert lm.get_input_embeddings().weight.shape[0] == lm.get_output_embeddings().weight.shape[0] == len(tok)
    assert lm.config.vocab_size == len(tok)
    ids = torch.tensor([tok.encode("<Goal>a</Goal>", add_special_tokens=False)])
    assert lm(ids).logits.shape == (1, 3, len(tok))


def test_tags_survive_when_special_tokens_are_skipped() -> None:
    """They are part of the text a client reads; end-of-sequence isn't."""
    tok = tokenizer()
    add_tags(tok, None)
    text = "<Parallel>\n<Goal>a</Goal>"
    ids = [*tok.encode(text, add_special_tokens=False), tok.eos_token_id]
    assert tok.decode(ids, skip_special_tokens=True) == text


def test_an_unknown_dialect_is_refused_before_anything_changes() -> None:
    tok = tokenizer()
    size = len(tok)
    with pytest.raises(DialectError, match="unknown dialect 'nope'"):
        add_tags(tok, None, "nope")
    assert len(tok) == size
