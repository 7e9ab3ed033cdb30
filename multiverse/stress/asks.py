"""What is asked: bodies of requests, well and badly meant, and what has to come back. Knows no HTTP.

Wide blocks and deep nesting don't depend on what a model likes to write: they are in prompts of the completions API
that end with a closed goal, at which a server forks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from multiverse.structure.dialects import Dialect, Tag

Kind = Literal[
    "structured", "events", "plain", "hot", "wide", "deep", "abort", "gone", "malformed", "mixed", "wrong", "operator"
]  # fmt: skip
WEIGHTS: dict[Kind, int] = {
    "structured": 6, "events": 3, "plain": 5, "hot": 4, "wide": 3, "deep": 3, "abort": 5, "gone": 3, "malformed": 4,
}  # fmt: skip
"""How often each kind is drawn."""
COMPARED: tuple[Kind, ...] = ("structured", "events", "plain")
"""Kinds that are greedy and left in peace: their answers must be those of a quiet server."""
MALFORMED: tuple[tuple[Any, str], ...] = (
    ({"max_branches": 0}, "max_branches"),
    ({"max_branches": 1 << 40}, "max_branches"),
    ({"max_depth": -1}, "max_depth"),
    ({"max_parallel": "many"}, "max_parallel"),
    ({"max_critical_path": 1.5}, "max_critical_path"),
    ({"structure": "loose"}, "structure"),
    ({"stream": "sse"}, "stream"),
    ({"enabled": "no"}, "enabled"),
    ({"return_tree": 1}, "return_tree"),
    ({"branch_sampling": {"beams": 1}}, "branch_sampling"),
    ({"branch_sampling": {"top_k": 0.5}}, "top_k"),
    ({"branch_sampling": {"temperature": -1}}, "temperature"),
    ({"branches": 3}, "branches"),
    ([1, 2], "object"),
    ("{", "JSON"),
)
"""Fields that have to be refused with a 400, and a word that its message has to contain."""
_TOKENS_PER_OUTLINE = 14
"""At least so many tokens are left for an outline, whatever the tokenizer."""


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        kind: what it is for.
        body: of a chat completion if it has `messages`, else of a completion.
        question: number of its question; answers to the same one are compared.
        complaint: what the message of its refusal has to contain.
        patience: for `abort`, chunks after which the client goes away; for `gone`, seconds.
        path: where it goes, for what is sent as it is.
        must_be_refused: whether the answer has to be a 400.
        leaves: lines of the answer after which the client goes away, if it does.
        may_fail: whether the host by itself answers 500 if its fields leave no token to choose.
    """

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    question: int | None = None
    complaint: str = ""
    patience: float = 0.0
    path: str = ""
    must_be_refused: bool = False
    leaves: int | None = None
    may_fail: bool = False


@dataclass(frozen=True)
class Writer:
    """Draws requests.

    Attributes:
        model: its name on the server.
        dialect: the model's.
        questions: what users say.
        max_tokens: of an answer.
        context: what prompt and answer may have together.
    """

    model: str
    dialect: Dialect
    questions: Sequence[str]
    max_tokens: int
    context: int

    def draw(self, rng: Random) -> Ask:
        """One request of a random kind."""
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        question = rng.randrange(len(self.questions))
        if kind in COMPARED:
            return self.compared(kind, question)
        if kind == "hot":
            options: dict[str, Any] = {"branch_sampling": {"temperature": 2.0}, "max_parallel": rng.choice((1, 2, 8))}
            sampled = {"temperature": 1.0, "seed": rng.getrandbits(31), "max_tokens": rng.randint(1, self.max_tokens)}
            return Ask(kind, self._chat(question, options, **sampled))
        if kind in ("wide", "deep"):
            return Ask(kind, self._wide(rng) if kind == "wide" else self._deep(rng))
        if kind == "malformed":
            given, complaint = rng.choice(MALFORMED)
            return Ask(kind, self._chat(question, given, stream=rng.random() < 0.5), complaint=complaint)
        if kind == "gone":
            return Ask(kind, self._chat(question, {}), patience=rng.random())
        told = {"stream": rng.choice(("document", "events"))}
        return Ask(kind, self._chat(question, told, stream=True), patience=rng.randrange(60))

    def prompts(self, answers: Sequence[str]) -> list[str]:
        """Texts for APIs without chat: questions, open goals, whole blocks, conversations that hold answers."""
        goals = [self._goal(2), self._goal(7), f"{self._until_conclusion()}1 and 2\n", self._until_conclusion()]
        told = [f"{question}\n{answer}\n{question}" for question, answer in zip(self.questions, answers, strict=False)]
        return [*self.questions, *goals, *goals, *told]

    def compared(self, kind: Kind, question: int) -> Ask:
        """A greedy request, to be left in peace."""
        if kind == "events":
            body = self._chat(question, {"stream": "events"}, stream=True, stream_options={"include_usage": True})
        else:
            body = self._chat(question, {"enabled": kind != "plain"})
        return Ask(kind, body, question)

    def _chat(self, question: int, options: Any, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.questions[question]}]
        body = {"model": self.model, "messages": messages, "temperature": 0.0, "max_tokens": self.max_tokens}
        return {**body, **more, "multiverse": options}

    def _completion(self, rng: Random, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
        room = max(16, min(self.max_tokens, self.context // 4))
        return {
            "model": self.model,
            "prompt": prompt,
            "temperature": 1.0,
            "seed": rng.getrandbits(31),
            "max_tokens": rng.randint(1, room),
            "multiverse": options,
        }

    def _wide(self, rng: Random) -> dict[str, Any]:
        """A goal with very many outlines, more than are allowed or than there are tokens for now and then."""
        width = rng.randint(2, max(2, min(128, self.context // 2 // _TOKENS_PER_OUTLINE)))
        options = {"max_branches": rng.randint(2, 64), "max_parallel": rng.choice((1, 4, 64))}
        return self._completion(rng, self._goal(width), options)

    def _deep(self, rng: Random) -> dict[str, Any]:
        """Blocks in conclusions of blocks, deeper than is allowed now and then."""
        fitting = max(1, self.context // 2 // (4 * _TOKENS_PER_OUTLINE))
        nests = self.dialect.nesting and self.dialect.conclusion
        depth = rng.randint(1, min(8, fitting)) if nests else 1
        opened = "".join(self._until_conclusion() for _ in range(depth - 1))
        return self._completion(rng, opened + self._goal(2), {})

    def _goal(self, width: int) -> str:
        """A block up to its goal-close, which is where it forks."""
        tags = self.dialect.tags
        close = f"\n{tags[Tag.OUTLINE_CLOSE]}" if Tag.OUTLINE_CLOSE in tags else ""
        outlines = "".join(
            f"{tags[Tag.OUTLINE_OPEN]}\n{number}: {number % 10}{close}\n" for number in range(1, width + 1)
        )
        opening = f"{tags[Tag.BLOCK_OPEN]}\n" if Tag.BLOCK_OPEN in tags else ""
        return f"{opening}{tags[Tag.GOAL_OPEN]}\n{outlines}{tags[Tag.GOAL_CLOSE]}\n"

    def _until_conclusion(self) -> str:
        """A block up to the beginning of its conclusion, in which another may follow."""
        tags = self.dialect.tags
        paths = "".join(
            f"{tags[Tag.PATH_OPEN]}{self.dialect.path_header.format(label=label)} 1\n{tags[Tag.PATH_CLOSE]}\n"
            for label in (1, 2)
        )
        return f"{self._goal(2)}{paths}{tags[Tag.CONCLUSION_OPEN]}\n"
