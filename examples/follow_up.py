"""A second turn: the first answer goes back as it came, and the server has its KV still. Usage: follow_up.py [URL]

The embedded model was trained on single questions, so its second answer is often wrong; the KV is what is shown here.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from typing import Any

from openai import OpenAI

URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
TURNS = [
    "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.",
    "C = min 8 6 7 9 5; D = sum 1 2 3 4 5. Find max C D.",
]


def cached_tokens() -> float:
    """Tokens of prompts with blocks that the prefix cache had."""
    with urllib.request.urlopen(f"{URL}/metrics") as response:
        found = re.findall(r"^multiverse:cached_tokens_total\{.*\} (\S+)$", response.read().decode(), re.M)
    return sum(map(float, found))


messages: list[Any] = []
with OpenAI(base_url=f"{URL}/v1", api_key="none") as client:
    model = client.models.list().data[0].id
    for question in TURNS:
        messages.append({"role": "user", "content": question})
        before = cached_tokens()
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=400)
        content = answer.choices[0].message.content
        messages.append({"role": "assistant", "content": content})
        print(
            f"{question}\n  {content.rpartition('Answer:')[2].strip()}, {answer.usage.multiverse['branches']} branches"
        )
        print(
            f"  prompt of {answer.usage.prompt_tokens} tokens, {cached_tokens() - before:.0f} of them with KV at hand"
        )
