#!/usr/bin/env bash
# lm-eval 0.4.13 with its model `local-chat-completions`: a task with `repeats: 4`, sampled at temperature 1.
#
# One would guess: four samples of each answer, as self-consistency and pass@k need: requests that differ at least in their seed,
#   or have none.
# What happens: the four requests are alike to the last byte, `"seed": 1234` included, which nobody asked for; `seed=` in
#   --model_args is another one, but the same for all. A server that keeps seeds (vLLM does, whatever else it computes)
#   answers all four alike, so what is averaged over repeats is one sample counted four times. One that ignores seeds
#   (SGLang without deterministic inference does) gives four, so the same command measures other things on the two.
# Whom it meets: whoever reports pass@1 over k repeats, or a majority of k, of an answer that was sampled over HTTP.
# What this project does: `multiverse eval` sends a seed per sample and asks one question twice; docs/evaluation.md says so.
# Seen 2026-11-29; lm-eval's guide to tasks calls `repeats` the number of runs through the model, for self-consistency.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/python -m pip install -q --disable-pip-version-check uv==0.13.9
tools/bin/uv venv -q env
tools/bin/uv pip install -q --python env "lm-eval[api]==0.4.13" datasets==5.2.0 transformers==5.24.0
cat >look.py <<'PYTHON'
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

asked = []


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}
        content = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


Path("questions.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
Path("sums.yaml").write_text("""
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], do_sample: true, temperature: 1.0}
repeats: 4
metric_list: [{metric: exact_match}]
""")
server = HTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
settings = f"model=m,base_url={url},num_concurrent=1,tokenizer_backend=none"
command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions", "--model_args", settings]
command += ["--tasks", "sums", "--include_path", ".", "--apply_chat_template"]
done = subprocess.run(command, capture_output=True, text=True)
assert done.returncode == 0, done.stderr[-3000:]
seeds = [body["seed"] for body in asked]
print("lm-eval", version("lm-eval"), "sent", len(asked), "requests with seeds", seeds)
print("temperatures", {body["temperature"] for body in asked}, "alike:", all(body == asked[0] for body in asked))
assert seeds == [1234] * 4
assert all(body == asked[0] for body in asked)
PYTHON
env -u http_proxy -u HTTP_PROXY -u all_proxy -u ALL_PROXY HF_HUB_OFFLINE=1 HF_HOME="$work/hf" env/bin/python look.py
