"""An OpenAI client that knows nothing of blocks reads one answer, in document order. Usage: openai_stream.py [URL]"""

from __future__ import annotations

import sys

from openai import OpenAI

URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."

with OpenAI(base_url=f"{URL}/v1", api_key="none") as client:
    stream = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=400,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f"\n\n{chunk.usage.completion_tokens} tokens, and what the server adds to them:")
            for name, value in chunk.usage.multiverse.items():
                print(f"  {name}: {value}")
