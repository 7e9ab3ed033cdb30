"""The tokenizer of the embedded model: a byte-level BPE small enough to read, in which every tag is one token."""

from __future__ import annotations

from itertools import islice

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from multiverse.models.task import Problem, stream
from multiverse.structure.dialects import get_dialect

TAGS: tuple[str, ...] = tuple(get_dialect("multiverse").tags.values())
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTEXT = 2048

#: One digit, one word or one mark, with the space before it; any other white space alone. So digits never merge, and
#: the header "\n1.2:" that an engine injects is tokenised the same with and without the text after it.
_PIECES = r" ?\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s"
_CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def turn(problem: Problem) -> str:
    """The prompt as the chat template renders it, up to the place where the assistant starts to write."""
    return f"{TURN_START}user\n{problem.prompt}{TURN_END}\n{TURN_START}assistant\n"


def build_tokenizer(examples: int = 2000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the vocabulary on solved problems.

    The tags are added tokens but not special ones, so that they survive ``skip_special_tokens=True``.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(_corpus(examples, seed), trainer)
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, TURN_START, TURN_END)])
    raw.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=TURN_END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def _corpus(examples: int, seed: int) -> list[str]:
    """Plain text only: what lies between the tags, and the words of the chat template."""
    texts = ["user\n", "system\n", "assistant\n"] * examples
    for problem in islice(stream(seed, held_out=False), examples):
        text = f"{problem.prompt}\0{problem.parallel}\0{problem.sequential}"
        for tag in TAGS:
            text = text.replace(tag, "\0")
        texts += text.split("\0")
    return texts
