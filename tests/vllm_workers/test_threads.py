"""How many threads a worker computes with."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import torch
from multiverse_vllm import enable
enable()
from vllm.v1.spec_decode import ngram_proposer
import numba, numpy
@numba.njit(parallel=True)
def total(numbers):
    found = 0
    for i in numba.prange(len(numbers)):
        found += numbers[i]
    return found
total(numpy.arange(9))
print(numba.config.NUMBA_NUM_THREADS, torch.get_num_threads())
"""


def test_n_gram_drafts_leave_torch_the_thread_that_openmp_was_told_to_have() -> None:
    """numba, by which vLLM drafts, sets torch's to its own (findings/numba_sets_the_threads_of_torch.sh)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == ["1", "1"]
