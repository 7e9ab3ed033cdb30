"""Requests drawn from all documented fields at once, good values and wrong ones. Knows no HTTP.

Each is drawn from a generator of its own, so that a mix is told by a seed and the numbers of its requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from multiverse.stress.asks import Ask, Kind
from multiverse.stress.fields import (
    CHAT,
    COMPLETION,
    FORBIDDING,
    GENERATE,
    GENERATE_FIELDS,
    GRAMMARS,
    HOST_FIELDS,
    OUR_FIELDS,
    PROMISES,
    SAMPLING_PARAMS,
    WRONG,
    WRONG_CUSTOM_PARAMS,
    WRONG_OURS,
    Field,
)
from multiverse.wire.responses import FIELD

_WRONG, _LEAVES, _STREAMS, _PROMISED = 0.12, 0.15, 0.5, 0.5
"""Shares of requests with a wrong value, whose client goes away, that are streamed, that may name a promise."""


@dataclass(frozen=True)
class Surface:
    """What can be asked of one server.

    Attributes:
        host: `vllm` or `sglang`.
        model: its name on the server.
        questions: what users say.
        prompts: texts for the other APIs, those with open goals and with whole blocks among them.
        max_tokens: of an answer.
        promises: whether its admission is `slack`, so that requests may name what they are to be served in.
    """

    host: str
    model: str
    questions: Sequence[str]
    prompts: Sequence[str]
    max_tokens: int
    promises: bool = False

    def draw(self, rng: Random) -> Ask:
        """One request: an API, a prompt, a few fields of the host's, a few of ours, now and then a wrong value."""
        paths = (CHAT, CHAT, COMPLETION, COMPLETION, GENERATE) if self.host == "sglang" else (CHAT, COMPLETION)
        path = rng.choice(paths)
        body = self._generate(rng) if path == GENERATE else self._openai(rng, path)
        ours = _some(rng, OUR_FIELDS, 3)
        if rng.random() < 0.7:
            body[FIELD] = ours
        if self.promises and rng.random() < _PROMISED:
            body[FIELD] = body.get(FIELD, {}) | _some(rng, PROMISES, 1)
        wrong = rng.random() < _WRONG
        refused = wrong and self._spoil(rng, path, body)
        leaves = rng.randrange(60) if rng.random() < _LEAVES and not wrong else None
        kind: Kind = "wrong" if wrong else "mixed"
        may_fail = may_leave_nothing(body)
        return Ask(kind, body, path=path, must_be_refused=refused, leaves=leaves, may_fail=may_fail)

    def _openai(self, rng: Random, path: str) -> dict[str, Any]:
        known = [field for field in HOST_FIELDS if path in field.paths and self.host in field.hosts]
        body: dict[str, Any] = {"model": self.model, "temperature": 0.0, "max_tokens": self.max_tokens}
        if path == CHAT:
            body["messages"] = [{"role": "user", "content": rng.choice(self.questions)}]
        else:
            body["prompt"] = rng.choice(self.prompts)
        if rng.random() < _STREAMS:
            body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if rng.random() < 0.5 else {})
        return body | _some(rng, known, 4)

    def _generate(self, rng: Random) -> dict[str, Any]:
        sampling = {"temperature": 0.0, "max_new_tokens": self.max_tokens} | _some(rng, SAMPLING_PARAMS, 3)
        return {"text": rng.choice(self.prompts), "sampling_params": sampling} | _some(rng, GENERATE_FIELDS, 3)

    def _spoil(self, rng: Random, path: str, body: dict[str, Any]) -> bool:
        """Put a wrong value in; whether the answer has to be a 400."""
        if rng.random() < 0.5:
            body[FIELD] = rng.choice(WRONG_OURS)
            return True
        if path == GENERATE:
            value = rng.choice(WRONG_CUSTOM_PARAMS)
            body["sampling_params"]["custom_params"] = value
            return isinstance(value, dict)
        name, value = rng.choice(WRONG)
        body[name] = value
        return False


def _some(rng: Random, fields: Sequence[Field], most: int) -> dict[str, Any]:
    """Values of up to `most` of these fields."""
    drawn: dict[str, Any] = {}
    for field in rng.sample(fields, rng.randint(0, min(most, len(fields)))):
        value = field.draw(rng)
        drawn |= value if field.together else {field.name: value}
    return drawn


def has_grammar(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for structured output."""
    asked = {name: value for name, value in _fields(body).items() if name in GRAMMARS}
    return bool(asked) and asked != {"response_format": {"type": "text"}}


def may_leave_nothing(body: Mapping[str, Any]) -> bool:
    """Whether a request has a grammar, and beside it what can forbid every token that the grammar allows."""
    return has_grammar(body) and not _fields(body).keys().isdisjoint(FORBIDDING)


def _fields(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**body, **body.get("sampling_params", {})}
