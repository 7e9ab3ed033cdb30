"""A toy tokenizer, blocks as text, and a host without an engine. No torch, no transformers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from multiverse import (
    Close,
    Controller,
    Dialect,
    Fallback,
    Finish,
    FinishReason,
    Fork,
    Join,
    Limits,
    Start,
    Status,
    Strand,
    bind,
)
from multiverse import get_dialect as get
from multiverse.decoding.actions import Action
from multiverse.decoding.stream import BranchEvent, DocumentStream, EventStream
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge

DIALECTS = ("multiverse", "npr", "threadweaver")
WORDS = "abcdefgh"
EOS = "<eos>"


class ToyTokenizer:
    """Longest match over a few letters, digits, white space and the tags of `dialects`; behaves like Hugging Face's.

    `Ġ1` stands for ` 1`, as byte-level vocabularies spell it. What it doesn't know is `<unk>`.
    """

    unk_token_id = 0
    eos_token_id = 1

    def __init__(self, *dialects: str | Dialect) -> None:
        names = ["<unk>", EOS, "\n", ":", ".", " ", "Ġ1", "2:", *WORDS, *"0123456789)"]
        for dialect in dialects:
            names += (get(dialect) if isinstance(dialect, str) else dialect).tags.values()
        self.vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self.texts = {i: name.replace("Ġ", " ") for name, i in self.vocabulary.items()}
        self._longest_first = sorted(self.texts.items(), key=lambda item: -len(item[1]))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        ids = []
        while text:
            token, piece = next(((i, t) for i, t in self._longest_first if text.startswith(t)), (0, text[0]))
            ids.append(token)
            text = text[len(piece) :]
        return ids

    def decode(self, token_ids: Any) -> str:
        return "".join(self.texts.get(token, f"<{token}>") for token in token_ids)

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


TOKENIZERS = {name: ToyTokenizer(name) for name in DIALECTS}
BINDINGS = {name: bind(name, TOKENIZERS[name]) for name in DIALECTS}


def encode(text: str, dialect: str = "multiverse") -> list[int]:
    return TOKENIZERS[dialect].encode(text)


def decode(ids: Sequence[int], dialect: str = "multiverse") -> str:
    return TOKENIZERS[dialect].decode(ids)


def goal(width: int, dialect: str = "multiverse", labels: Sequence[str] | None = None, prefix: str = "") -> str:
    """A block up to its goal-close, with `width` outlines labelled `prefix1`, `prefix2`, ..."""
    d = get(dialect)
    labels = [f"{prefix}{i + 1}" for i in range(width)] if labels is None else labels
    closing = f"\n{d.outline[1]}" if len(d.outline) > 1 else ""
    outlines = "".join(f"{d.outline[0]}\n{label}: a{closing}\n" for label in labels)
    opening = f"{d.block[0]}\n" if d.block else ""
    return f"{opening}{d.goal[0]}\n{outlines}{d.goal[1]}"


def block(
    *bodies: str, conclusion: str = "h", dialect: str = "multiverse", prefix: str = "", sep: str | None = None
) -> str:
    """A whole well-formed block with these path bodies; `sep` after goal-close and every path-close, if given."""
    d = get(dialect)
    first, between, last = [d.separator_at(place) if sep is None else sep for place in ("goal", "path", "last")]
    paths = between.join(f"{d.path[0]}\n{prefix}{i + 1}:{body}{d.path[1]}" for i, body in enumerate(bodies))
    end = ""
    if d.conclusion:
        end += d.conclusion[0] + conclusion + (d.conclusion[1] if len(d.conclusion) > 1 else "")
    if d.block:
        end += ("\n" if end else "") + d.block[1]
    return goal(len(bodies), dialect, prefix=prefix) + first + paths + last + end


class Host:
    """Carries out a controller's actions on a list of running strands, and checks that the two always agree.

    Attributes:
        log, events, shown: all actions, what clients were told of them, and the answer.
        starts: by strand key, the position of a branch's first token.
    """

    def __init__(self, controller: Controller, stops: Stops | None = None) -> None:
        self.controller = controller
        self.judge = Judge(controller, stops or Stops())
        self.running = [controller.root]
        self.log: list[Action] = []
        self.events: list[BranchEvent] = []
        self.shown: list[int] = []
        self.starts: dict[tuple[int, ...], int] = {}
        self._document, self._stream = DocumentStream(controller.root), EventStream(controller.root)
        self._carry_out(controller.root, controller.begin())

    @property
    def root(self) -> Strand:
        return self.controller.root

    def feed(self, strand: Strand, tokens: str | Sequence[int]) -> list[Action]:
        """Sample `tokens` for `strand`, one after the other; returns what came of it."""
        name = self.controller.binding.dialect.name
        done: list[Action] = []
        for token in encode(tokens, name) if isinstance(tokens, str) else tokens:
            done += self.sample(strand, token)
        return done

    def sample(self, strand: Strand, token: int, ended: FinishReason | None = None) -> list[Action]:
        """Sample one token, at which an engine may end the strand by rules of its own."""
        computed = [*strand.tokens, token]
        verdict = self.judge.decide(strand, token, ended)
        kept = verdict.kept
        assert kept <= len(computed)
        assert strand.tokens[:kept] == computed[:kept], "the engine would go on with other tokens than the strand"
        return self._carry_out(strand, verdict.actions)

    def do(self, strand: Strand, actions: Sequence[Action]) -> list[Action]:
        """Carry out what `end` or `abort` answered."""
        return self._carry_out(strand, actions)

    def strand(self, *key: int) -> Strand:
        """The strand with that key."""
        return next(strand for strand in self.root.walk() if strand.key == key)

    def _carry_out(self, strand: Strand, actions: Sequence[Action]) -> list[Action]:
        for action in actions:
            self._one(action)
        self.log += actions
        self.events += self._stream.push(strand, actions)
        self.shown += self._document.drain()
        self._agree()
        return list(actions)

    def _one(self, action: Action) -> None:
        match action:
            case Fork(strand=strand) | Close(strand=strand):
                self.running.remove(strand)
            case Start(strand=strand):
                self._go_on(strand, 0, strand.header)
                self.starts[strand.key] = strand.position_at(0)
            case Join(strand=strand):
                self._go_on(strand, strand.forks[-1][0], self.controller.binding.conclusion_header)
            case Finish():
                self.running.clear()
            case Fallback(strand=strand):
                assert strand in self.running

    def _go_on(self, strand: Strand, offset: int, inject: Sequence[int]) -> None:
        """Run a strand that the engine has written `inject` to, at `offset`."""
        assert strand not in self.running
        assert strand.tokens[offset:] == list(inject) or strand.close is not None
        assert strand.tokens[offset : offset + len(inject)] == list(inject)
        assert strand.position_at(offset) >= 0
        self.running.append(strand)

    def _agree(self) -> None:
        controller = self.controller
        assert set(map(id, self.running)) == {id(s) for s in self.root.walk() if s.status is Status.RUNNING}
        assert bool(self.running) == (controller.finish_reason is None), "a state on which no host could act"
        assert controller.ledger.used + controller.ledger.reserved <= controller.ledger.limit
        for strand in self.root.walk():
            assert strand.position_delta <= 0


def host(
    dialect: str = "multiverse", limits: Any = None, prompt: str = "", stops: Stops | None = None, **options: Any
) -> Host:
    """A host at the start of a request."""
    return Host(Controller(BINDINGS[dialect], limits, encode(prompt, dialect), **options), stops)


def play(
    dialect: str,
    caps: Limits,
    prompt: list[int],
    setting: str,
    seed: int,
    follow: float,
    steps: int = 400,
    stops: Stops | None = None,
) -> Host:
    """Sample at random, with probability `follow` a tag that the grammar allows; abort after `steps`."""
    chance, binding = random.Random(seed), BINDINGS[dialect]
    h = Host(Controller(binding, caps, prompt, separators=setting), stops)
    tags, texts = sorted(binding.tags), list(range(2, 26))
    for _ in range(steps):
        if not h.running:
            return h
        strand = chance.choice(h.running)
        allowed = sorted(h.controller.allowed(strand))
        if chance.random() < follow:
            token = chance.choice(allowed if allowed and chance.random() < 0.6 else texts)
        else:
            token = chance.choice([*tags, *texts[:6], 1 if chance.random() < 0.1 else 9])
        h.feed(strand, [token])
        if caps.max_parallel:
            assert len(h.running) <= caps.max_parallel
    h.do(h.root, h.controller.abort())
    return h
