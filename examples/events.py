"""Branches as they grow: every event, and the answer that they add up to. Usage: events.py [URL]"""

from __future__ import annotations

import sys

from multiverse.client import Client

URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."

with Client(f"{URL}/v1") as client:
    stream = client.stream(QUESTION, {"return_tree": True}, temperature=0, max_tokens=400)
    for event in stream:
        who = f"branch {event.label}" if event.key else "answer"
        match event.kind:
            case "delta":
                print(f"{who:>9} says {event.text!r}")
            case "fork":
                print(f"{who:>9} forks into {', '.join(label for _, label in event.branches)}")
            case "fallback":
                print(f"{who:>9} does not fork: {event.reason}")
            case "close" | "finish":
                print(f"{who:>9} ends: {event.reason}")
            case "join":
                print(f"{who:>9} goes on behind its branches")

    print("\nthe answer, in document order:\n" + stream.text)
    for branch in stream.branches:
        print(f"{'branch ' + branch.label if branch.key else 'answer'}: {branch.tokens} tokens")
    print(f"critical path {stream.figures['critical_path_tokens']} of {stream.usage['completion_tokens']} tokens")
