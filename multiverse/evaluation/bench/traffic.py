"""Requests of forced shapes and lengths to a server, in the three ways to the same tokens. Prompts are random ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import openai

from multiverse.errors import RunError
from multiverse.evaluation.bench.workloads import Workload, labels
from multiverse.structure.binding import Binding
from multiverse.wire.responses import FIELD

Ids = Sequence[int]
PLAIN = {FIELD: {"enabled": False}}
"""Asks a server with the plugin for a request without it."""


@dataclass(frozen=True)
class Words:
    """What a model's tokenizer has: ordinary tokens for prompts, and those that must not be sampled."""

    binding: Binding
    ordinary: list[int]
    banned: list[int]

    @classmethod
    def of(cls, tokenizer: Any, binding: Binding) -> Words:
        """Sort the vocabulary."""
        banned = {*binding.tags, *binding.eos, *tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        return cls(binding, [token for token in range(len(tokenizer)) if token not in banned], sorted(banned))


class Traffic:
    """A client of one server. Use it within one event loop, and close it there.

    Args:
        url: of the server, without `/v1`.
        model: as the server calls it.
        clock: what time is measured with, in seconds.
    """

    def __init__(
        self, url: str, model: str, words: Words, clock: Callable[[], float] = time.perf_counter, seed: int = 0
    ) -> None:
        self.url, self.model, self.words, self.clock = url, model, words, clock
        self._random = Random(seed)
        self._bias = {str(token): -100.0 for token in words.banned}
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            timeout=3600,
            max_retries=0,  # a request that is made twice is not the one that was timed
            default_headers={"Connection": "close"},  # one left idle may be closed by the server as we use it again
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def prompts(self, number: int, length: int) -> list[Ids]:
        """New prompts, already in the server's prefix cache."""
        made = self.new_prompts(number, length)
        await asyncio.gather(*(self.plain(prompt, 1) for prompt in made))
        return made

    def new_prompts(self, number: int, length: int) -> list[Ids]:
        """New prompts that the server has never seen."""
        words = self.words.ordinary
        return [[self._random.choice(words) for _ in range(length)] for _ in range(number)]

    async def plain(self, prompt: Ids, tokens: int, **more: Any) -> Any:
        """`tokens` tokens, one after the other. `more` goes into the body."""
        answer = await self._ask(prompt, tokens, more)
        if answer.usage.completion_tokens != tokens:
            raise RunError(f"{self.url}: gave {answer.usage.completion_tokens} tokens where {tokens} were asked for")
        return answer

    async def splice(self, prompt: Ids, workload: Workload) -> None:
        """An answer of a shape: the server forks, decodes in parallel and joins."""
        answer = await self._ask(prompt, workload.tokens + workload.goals + 1, {FIELD: {"shape": workload.shape}})
        self._check(answer.usage, workload)

    async def streamed(self, prompt: Ids, workload: Workload) -> tuple[float, float]:
        """An answer of a shape, as a stream: when its first token was there by `time.perf_counter`, and its last."""
        body = {FIELD: {"shape": workload.shape}} if workload.branches else {}
        tokens = workload.tokens + workload.goals + bool(workload.branches)
        events = await self._ask(prompt, tokens, body, stream=True, stream_options={"include_usage": True})
        times, usage = [], None
        async for event in events:
            usage = event.usage or usage
            if event.choices:
                times.append(time.perf_counter())
        self._check(usage, workload)
        return times[0], times[-1]

    def _check(self, usage: Any, workload: Workload) -> None:
        """Refuse an answer that is not of the shape that was asked for."""
        wanted = workload.tokens + workload.goals, workload.branches
        told = (usage.model_extra or {}).get(FIELD) or {}
        found = (told.get("tokens"), told.get("branches")) if workload.branches else (usage.completion_tokens, 0)
        if found != wanted:
            reasons = ", ".join(told.get("fallbacks") or {}) or "no reason given"
            raise RunError(
                f"{self.url}: an answer of {wanted[0]} tokens with {wanted[1]} branches was asked for, got"
                f" {found[0]} with {found[1]} ({reasons}); is the plugin on, and are context and KV cache large enough?"
            )

    async def sequential(self, prompt: Ids, workload: Workload) -> None:
        """As many tokens, one after the other."""
        await self.plain(prompt, workload.tokens, **PLAIN)

    async def client(self, prompt: Ids, workload: Workload) -> None:
        """The same block forked by the client: a plain request for the plan and for each branch; then one with the
        joined text as prompt, of which the prefix cache has the beginning up to the end of the first branch."""
        binding, (before, branches, after) = self.words.binding, workload.shape
        plan = await self._sampled(prompt, before)
        names = labels(len(branches))
        prefix = [*prompt, *plan, *binding.goal(names), *binding.goal_separator]
        headers = [binding.path_header(name) for name in names]
        asked = [self._sampled([*prefix, *h], branch[0]) for h, branch in zip(headers, branches, strict=True)]
        joined = prefix
        for header, branch in zip(headers, await asyncio.gather(*asked), strict=True):
            joined = [*joined, *header, *branch, *binding.forced_close, *binding.separator_after(header is headers[-1])]
        await self._sampled([*joined, *binding.conclusion_header], after)

    async def _sampled(self, prompt: Ids, tokens: int) -> list[int]:
        """The ids of `tokens` tokens behind `prompt`."""
        answer = await self.plain(prompt, tokens, return_token_ids=True, **PLAIN)
        ids: list[int] | None = (answer.choices[0].model_extra or {}).get("token_ids")
        if ids is None:
            raise RunError(f"{self.url}: gives no token ids (`return_token_ids`), so a client can't fork there")
        return ids

    async def answered(self, question: str, tokens: int, field: Mapping[str, Any]) -> None:
        """What the model says by itself, at most `tokens` tokens; `field` is the request's `multiverse`."""
        messages = [{"role": "user", "content": question}]
        how = {"temperature": 0, "extra_body": {FIELD: field}}
        await self._made(self._client.chat.completions, messages=messages, max_tokens=tokens, **how)

    async def _ask(self, prompt: Ids, tokens: int, body: dict[str, Any], **how: Any) -> Any:
        how |= {"temperature": 0, "logit_bias": self._bias, "extra_body": {"ignore_eos": True, **body}}
        return await self._made(self._client.completions, prompt=list(prompt), max_tokens=tokens, **how)

    async def _made(self, kind: Any, **how: Any) -> Any:
        try:
            return await kind.create(model=self.model, **how)
        except openai.APIConnectionError as error:
            raise RunError(f"{self.url}: does not answer ({error.__cause__ or error!r})") from error
        except openai.APIStatusError as error:
            raise RunError(f"{self.url}: refuses a request: {error}") from error
