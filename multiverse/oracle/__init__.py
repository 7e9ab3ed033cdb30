"""The oracle: what a block means, in plain transformers. Hosts and training are checked against it.

Two independent computations that have to agree: `generate` decodes with forked and spliced caches, `check` runs one
forward over the finished text with a dense mask and explicit positions.
"""

from multiverse.oracle.check import CheckResult, causal, check, rate
from multiverse.oracle.decoder import Decoder
from multiverse.oracle.generation import Generation, generate
from multiverse.oracle.loading import load
from multiverse.oracle.rows import Request, Step
from multiverse.oracle.sampling import Sampling

__all__ = [
    "CheckResult",
    "Decoder",
    "Generation",
    "Request",
    "Sampling",
    "Step",
    "causal",
    "check",
    "generate",
    "load",
    "rate",
]
