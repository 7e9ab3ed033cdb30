#!/usr/bin/env bash
# openai 2.8.0 and 3.57.0, the Python client, with a server that answers 429 and `Retry-After: 121` once, then 200.
#
# One would guess: `max_retries=2` means that a request which failed is sent again, whatever the wait; a newer release waits as
#   told or longer. A header that asks for more patience than the client has costs no retries.
# What happens: 2.8.0 does not heed a wait above 60 s: it asks again after its own, about half a second. 3.57.0 heeds up to 120 s;
#   above that it does not ask again at all and raises RateLimitError at the first answer, however many retries are set.
# Whom it meets: runs of hours against an endpoint with limits per minute, or an engine that asks for minutes while it
#   loads: after an upgrade they end at the first 429 where they went through before.
# What this project does: multiverse/harness/retries.py reads the header itself and asks again.
# Seen 2026-11-29; the client's README says that 429 is retried twice by default, and tells no bound.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >look.py <<'PYTHON'
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai


class Busy(BaseHTTPRequestHandler):
    asked = 0

    def do_POST(self):
        Busy.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "here"}}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        content = json.dumps({"error": {"message": "busy"}} if Busy.asked == 1 else body).encode()
        self.send_response(429 if Busy.asked == 1 else 200)
        if Busy.asked == 1:
            self.send_header("Retry-After", "121")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Busy)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=2)
begun = time.monotonic()
try:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    outcome = answer.choices[0].message.content
except openai.RateLimitError as error:
    outcome = type(error).__name__
assert time.monotonic() - begun < 30
print(openai.__version__, "asked", Busy.asked, "times:", outcome)
PYTHON
for release in 2.8.0 3.57.0; do
  python3 -m venv "$release"
  "$release/bin/python" -m pip install -q --disable-pip-version-check "openai==$release"
  env -u http_proxy -u HTTP_PROXY -u all_proxy -u ALL_PROXY "$release/bin/python" look.py | tee -a seen
done
diff seen - <<'SEEN'
2.8.0 asked 2 times: here
3.57.0 asked 1 times: RateLimitError
SEEN
