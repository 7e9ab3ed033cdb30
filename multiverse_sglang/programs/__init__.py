"""The process of a program (`sgl.function`): a backend that joins on KV; helpers to read what a model wrote."""

from multiverse_sglang.programs.endpoint import RuntimeEndpoint
from multiverse_sglang.programs.reading import record, transcript

__all__ = ["RuntimeEndpoint", "record", "transcript"]
