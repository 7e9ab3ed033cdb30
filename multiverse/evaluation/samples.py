"""One graded answer with its figures: the row of everything that is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from multiverse.decoding.document import statistics
from multiverse.errors import RunError
from multiverse.evaluation.grading import Grader, Verdict, grade
from multiverse.harness.reply_store import Reply
from multiverse.structure.dialects import registry
from multiverse.structure.parser import parse_ids, parse_text
from multiverse.structure.tree import Transcript

ToTree = Callable[[str], Transcript]


@dataclass(frozen=True)
class Sample:
    """One answer to one problem.

    Attributes:
        found: the answer that the text states.
        counted: who counted tokens and critical path: `server`, `tokenizer`, or `text` (approximate).
        critical_path: positions from the first token to the last; `tokens` if nothing was forked.
        blocks: in the text, whether forked or not.
        fallbacks: blocks that were not forked, by reason.
        seconds: until the answer was there; 0 if unknown.
    """

    task: str
    id: str
    seed: int
    verdict: str
    expected: str
    found: str | None
    finish_reason: str | None
    tokens: int
    critical_path: int
    counted: str
    blocks: int
    max_width: int
    depth: int
    well_formed: bool
    violation: str | None
    fallbacks: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def correct(self) -> bool:
        """Whether it is right."""
        return self.verdict == Verdict.CORRECT

    @property
    def parallel_degree(self) -> float:
        """Tokens per position of the critical path."""
        return self.tokens / self.critical_path if self.critical_path else 1.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """What `to_dict` gave.

        Raises:
            TypeError: if it gave something else.
        """
        return cls(**data)


@dataclass(frozen=True)
class Describer:
    """Makes samples out of answers.

    Attributes:
        to_tree: parses a text.
        counted: `tokenizer` or `text`, what `to_tree` counts with.
        forking: whether what the text holds as parallel was decoded so.
    """

    to_tree: ToTree
    counted: str
    forking: bool = True

    def describe(self, task: str, id_: str, seed: int, grader: Grader, expected: str, reply: Reply) -> Sample:
        """Grade and measure one answer."""
        whole = reply.reasoning + reply.text  # a server with a reasoning parser keeps the blocks there
        graded = grade(grader, expected, reply.text)
        if graded.verdict is Verdict.NO_ANSWER:
            graded = grade(grader, expected, whole)
        figures = statistics(self.to_tree(whole))
        tokens, critical, counted = figures.tokens, figures.critical_path, self.counted
        if reply.completion_tokens:  # the server's count is exact; the text tells the proportion
            degree = figures.parallel_degree
            tokens, critical = reply.completion_tokens, round(reply.completion_tokens / degree)
        if reply.figures:
            tokens, critical, counted = reply.figures["tokens"], reply.figures["critical_path_tokens"], "server"
        return Sample(
            task=task,
            id=id_,
            seed=seed,
            verdict=str(graded.verdict),
            expected=expected,
            found=graded.found,
            finish_reason=reply.finish_reason,
            tokens=tokens,
            critical_path=critical if self.forking else tokens,
            counted=counted,
            blocks=figures.blocks,
            max_width=figures.max_width,
            depth=figures.depth,
            well_formed=figures.well_formed,
            violation=figures.first_violation,
            fallbacks=reply.figures.get("fallbacks", figures.fallbacks),
            seconds=round(reply.seconds, 4),
        )


def describer(dialect: str, tokenizer: str | None, forking: bool = True) -> Describer:
    """A describer for a dialect.

    Raises:
        RunError: if the tokenizer can't be loaded.
        BindingError: if it doesn't know the dialect's tags.
    """
    known = registry.get(dialect)
    if tokenizer is None:
        return Describer(lambda text: parse_text(text, known), "text", forking)
    from multiverse.structure.binding import bind

    try:
        from multiverse.models.loading import load_tokenizer

        loaded = load_tokenizer(tokenizer)
    except (ImportError, OSError, ValueError) as error:
        raise RunError(f"tokenizer {tokenizer}: can't be loaded ({error})") from error
    binding = bind(known, loaded)
    return Describer(
        lambda text: parse_ids(loaded.encode(text, add_special_tokens=False), binding), "tokenizer", forking
    )
