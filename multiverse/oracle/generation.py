"""`generate`: prompts in, finished answers out, decoded by the reference decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiverse.decoding.budgets import Limits
from multiverse.decoding.document import Statistics, statistics
from multiverse.oracle.decoder import Decoder
from multiverse.oracle.rows import Request
from multiverse.oracle.sampling import Sampling
from multiverse.serving.report import Observed, report
from multiverse.structure.binding import bind, detect
from multiverse.structure.dialects import Dialect
from multiverse.structure.layout import Separators
from multiverse.structure.tree import Transcript


@dataclass(frozen=True)
class Generation:
    """One finished answer.

    Attributes:
        transcript: prompt and completion, with log-probabilities; feed it to `check`.
        ids: the completion, in document order.
        text: the completion as text.
        finish_reason: `stop` or `length`.
        statistics: figures about the completion.
        record: figures and tree as a host tells them; logprobs are those of the raw model.
    """

    transcript: Transcript
    ids: list[int]
    text: str
    finish_reason: str
    statistics: Statistics
    record: dict[str, Any]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    dialect: Dialect | str | None = None,
    limits: Limits | None = None,
    separators: Separators = "overlap",
    splice_branches: bool = True,
    **sampling: Any,
) -> list[Generation]:
    """Decode `prompts` side by side, forking and splicing as the model asks for it.

    Args:
        model: a Hugging Face causal LM with full attention in every layer.
        tokenizer: its tokenizer.
        prompts: texts (encoded as they are, apply the chat template before) or lists of token ids.
        dialect: a dialect, its name or TOML file; detected from the tokenizer if not given.
        limits: budgets. `Limits(max_depth=0)` decodes the same model sequentially. By default 512 tokens.
        separators: see `multiverse.structure.layout`.
        splice_branches: see `Decoder`.
        **sampling: `do_sample`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`.

    Returns:
        one `Generation` per prompt, in order.

    Raises:
        BindingError: if the tokenizer doesn't know the dialect's tags.
        UnsupportedModelError: if the model has layers, or a kind of RoPE, whose KV can't be spliced.
        TypeError: if a sampling parameter is unknown.
    """
    binding = bind(dialect or detect(tokenizer), tokenizer)
    decoder = Decoder(model, binding, separators=separators, splice_branches=splice_branches)
    parameters = Sampling(**sampling)
    ids = [tokenizer.encode(p, add_special_tokens=False) if isinstance(p, str) else list(p) for p in prompts]
    requests = [decoder.add(prompt, limits or Limits(max_tokens=512), parameters) for prompt in ids]
    while decoder.busy:
        decoder.step()
    return [_finished(request, tokenizer) for request in requests]


def _finished(request: Request, tokenizer: Any) -> Generation:
    transcript = request.transcript()
    start, separators = len(request.controller.prompt.ids), request.controller.separators
    ids = transcript.ids[start:]
    reason = str(request.controller.finish_reason)
    figures = statistics(transcript, start, separators)
    record = report(request.controller, Observed(logprobs=_sampled(request)), with_tree=True)
    return Generation(transcript, ids, tokenizer.decode(ids), reason, figures, record)


def _sampled(request: Request) -> dict[tuple[int, ...], list[float | None]]:
    """The logprobs of what was sampled, by strand key; `None` for what the engine wrote."""
    found = {}
    for strand in request.controller.root.walk():
        written = {at for span in strand.injected for at in range(*span)}
        rated = request.logprobs.get(strand.key, [])
        found[strand.key] = [None if at in written else rated[at] for at in range(len(strand.tokens))]
    return found
