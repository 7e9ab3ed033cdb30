"""A mix as a program that repeats it, with nothing but Python's own library."""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.stress.asks import Ask
from multiverse.stress.fields import encode

_PROGRAM = '''#!/usr/bin/env python3
"""Sends what {name} had on its way when it failed: {problem}"""

import sys, threading, time, urllib.error, urllib.request

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
ASKS = {asks}


def send(path, body):
    request = urllib.request.Request(URL + path, body.encode(), {{"Content-Type": "application/json"}})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            print(answer.status, path, answer.read()[:200])
    except urllib.error.HTTPError as error:
        print(error.code, path, error.read()[:200])
    except OSError as error:
        print("failed", path, error)


threads = [threading.Thread(target=send, args=ask) for ask in ASKS]
for thread in threads:
    thread.start()
    time.sleep(0.05)
for thread in threads:
    thread.join()
'''


def script(name: str, problem: str, asks: Sequence[Ask]) -> str:
    """A program that sends these requests at once."""
    sent = [
        (ask.path or ("/v1/chat/completions" if "messages" in ask.body else "/v1/completions"), encode(ask.body))
        for ask in asks
    ]
    return _PROGRAM.format(
        name=name,
        problem=problem.splitlines()[0][:90].replace('"', "'"),
        asks="[\n    " + "\n    ".join(f"{ask!r}," for ask in sent) + "\n]",
    )
