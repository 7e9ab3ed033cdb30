#!/usr/bin/env bash
# Plain JSON over HTTP: no library knows of blocks here. Usage: examples/curl.sh [URL]
set -euo pipefail
url=${1:-http://localhost:8000}
model=$(curl -sf "$url/v1/models" | sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')

ask() { # ask 'fields of the request, as JSON'
  curl -s "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{
    "model": "'"$model"'", "temperature": 0, "max_tokens": 400, '"$1"',
    "messages": [{"role": "user", "content": "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."}]}'
  echo
}

echo "== an answer as any, with figures in usage.multiverse =="
ask '"stream": false'
echo "== the same with its tree =="
ask '"multiverse": {"return_tree": true}'
echo "== the same without blocks =="
ask '"multiverse": {"enabled": false}'
echo "== branches as they grow: the first chunks of a stream =="
ask '"multiverse": {"stream": "events"}, "stream": true' | grep '"events"' | sed 5q || true
echo "== a mistake, and what is allowed =="
ask '"multiverse": {"max_branches": 0}'
