"""How the tests of this folder ask for an answer of the embedded model."""

from __future__ import annotations

from typing import Any

from openai import OpenAI

from multiverse.models.task import Problem


def ask(client: OpenAI, problem: Problem, multiverse: Any = None, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem.prompt}]
    extra = {} if multiverse is None else {"extra_body": {"multiverse": multiverse}}
    options = {"temperature": 0, "max_tokens": 900, **options}
    return client.chat.completions.create(model="tiny", messages=messages, **options, **extra)


def complete(client: OpenAI, prompt: str | list[str], multiverse: Any, **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 900, **options}
    return client.completions.create(model="tiny", prompt=prompt, extra_body={"multiverse": multiverse}, **options)


def templated(problem: Problem) -> str:
    return f"<|im_start|>user\n{problem.prompt}<|im_end|>\n<|im_start|>assistant\n"
