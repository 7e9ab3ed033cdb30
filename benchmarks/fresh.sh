#!/usr/bin/env bash
# Times what a newcomer does, at two commits in turns, and prints the ratios NEW / OLD.
#   benchmarks/fresh.sh OLD NEW                          all steps; two hours on two cores when OLD is 400bb11
#   STEPS="setup_vllm demo" benchmarks/fresh.sh OLD NEW  some of: setup_vllm setup_sglang demo demo_again core disk test
#   RECORD=1 benchmarks/fresh.sh OLD NEW                 also writes benchmarks/results/figures.json
# Each step starts from a clone of its own in an empty directory, with empty caches of pip and uv. The load of the machine
# is printed beside each time: ratios count if it is that of the step alone.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
old=${1:?usage: benchmarks/fresh.sh OLD NEW} new=${2:?usage: benchmarks/fresh.sh OLD NEW}
steps=${STEPS:-setup_vllm setup_sglang demo demo_again core disk test}
work=$(mktemp -d "${TMPDIR:-/tmp}/fresh.XXXXXX")
trap 'rm -rf "$work"' EXIT

command_of() {
  case $1 in
    setup_vllm) echo "tools/setup vllm" ;;
    setup_sglang) echo "tools/setup sglang" ;;
    demo | demo_again) echo "make demo" ;;
    core) echo "make test-core" ;;
    disk) echo "for step in core browser oracle train curate eval vllm sglang; do tools/setup \$step; done; tools/setup vllm-tests; tools/setup sglang-tests; true" ;;
    test) echo "make test" ;;
    *) echo "fresh.sh: unknown step '$1'" >&2; return 2 ;;
  esac
}

seconds_of() { # runs a command in the directory that it is called in; prints its seconds
  local begun=$EPOCHREALTIME
  bash -c "$1" >"$2" 2>&1 || { tail -30 "$2" >&2; echo "fresh.sh: '$1' failed in $PWD" >&2; return 1; }
  awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

measure() { # COMMIT STEP: prints seconds, or kilobytes of all environments
  local place=$work/$2-$1 command
  command=$(command_of "$2")
  if [ "$2" = demo_again ] && [ -d "$work/demo-$1" ]; then
    place=$work/demo-$1
  else
    git clone -q "$repository" "$place" && git -C "$place" checkout -q "$1"
  fi
  export XDG_CACHE_HOME=$place/caches PIP_CACHE_DIR=$place/caches/pip UV_CACHE_DIR=$place/caches/uv
  cd "$place"
  local value
  value=$(seconds_of "$command" "$work/log")
  [ "$2" != disk ] || value=$(du -sk .venvs | cut -f1)
  cd "$work"
  [ "$2" = demo ] || rm -rf "$place"
  echo "$value"
}

for step in $steps; do
  before=$(measure "$old" "$step")
  after=$(measure "$new" "$step")
  ratio=$(awk -v a="$before" -v b="$after" 'BEGIN { printf "%.3f", b / a }')
  printf '%-13s %s %10s   %s %10s   ratio %s   load now %s\n' "$step" "$old" "$before" "$new" "$after" "$ratio" "$(cut -d' ' -f1 /proc/loadavg)"
  case $step in disk) name=environments_disk_ratio ;; core | demo_again) name= ;; *) name=${step}_ratio ;; esac
  [ -z "${RECORD:-}" ] || [ -z "$name" ] || (cd "$repository/benchmarks" && python3 -B -c \
    "import sys; from figures import record; record(sys.argv[1], float(sys.argv[2]), sys.argv[3])" \
    "$name" "$ratio" "STEPS=$step benchmarks/fresh.sh $old $new")
done
