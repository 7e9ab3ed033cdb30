"""What each limit does to one answer. Usage: budgets.py [URL]"""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI

URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
QUESTION = "A = sum 3 5 2 7 1 9; B = max 4 1 9 2 6 8; C = min 8 6 7 9 5 4. Find sum A B C."
REQUESTS: list[tuple[str, int, dict[str, Any]]] = [
    ("no limit", 600, {"return_tree": True}),
    ("max_parallel 1: branches one by one, same answer", 600, {"max_parallel": 1, "return_tree": True}),
    ("max_critical_path 90: less waiting", 600, {"max_critical_path": 90, "return_tree": True}),
    ("max_branches 2: three are too many", 600, {"max_branches": 2, "return_tree": True}),
    ("max_tokens 150: over all branches", 150, {"return_tree": True}),
]

with OpenAI(base_url=f"{URL}/v1", api_key="none") as client:
    model = client.models.list().data[0].id
    for name, max_tokens, options in REQUESTS:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=max_tokens,
            extra_body={"multiverse": options},
        )
        choice, figures = answer.choices[0], answer.usage.multiverse
        ends = [strand["finish_reason"] for strand in choice.multiverse["tree"][1:]]
        print(f"{name}\n  answer {choice.message.content.rpartition('Answer:')[2].strip()!r}, {choice.finish_reason}")
        print(f"  {answer.usage.completion_tokens} tokens on {figures['critical_path_tokens']} positions", end=", ")
        print(f"{figures['branches']} branches ({', '.join(ends) or 'none'}), not forked: {figures['fallbacks']}")
