"""What an adapter reads of its host's internals stands in a row of the hook table, whichever host is installed here.

By names: of what an adapter writes as `something.name`, what neither we, nor Python and its libraries, nor the host's
own settings define has to be named by a row.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastapi
import msgspec
import numpy
import pydantic
import starlette.middleware
import torch
import transformers

HOST = "vllm" if find_spec("vllm") is not None else "sglang"
ROOT = Path(__file__).parents[2]
hooks = import_module(f"multiverse_{HOST}.hooks")
LIBRARIES: tuple[Any, ...] = (
    *(torch, torch.Tensor, torch.nn.Module, torch.distributed, torch.distributed.distributed_c10d, torch.cuda.Stream),
    *(numpy, numpy.ndarray, pydantic.BaseModel, msgspec, transformers.PreTrainedTokenizerBase, torch.cuda),
    *(fastapi.FastAPI(), starlette.middleware.Middleware(object)),
)
ELSEWHERE = {
    *("BatchPrefillWithPagedKVCacheWrapper", "multi_processor_count"),  # FlashInfer has rows of its own; of CUDA
    *("deterministic", "tp_rank", "dp_rank"),  # of SGLang's settings and ranks, by name at run time
    "held_token_counters",  # what a patch of ours adds, looked for as `native`
}


def trees(*packages: str) -> Iterator[ast.AST]:
    for package in packages:
        yield from (ast.parse(file.read_text()) for file in sorted((ROOT / package).rglob("*.py")))


def defined(parts: Iterable[ast.AST]) -> set[str]:
    """Names that our own code gives to something."""
    names: set[str] = set()
    for node in (node for part in parts for node in ast.walk(part)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def of_libraries() -> set[str]:
    """Names of Python's own modules and types as far as they are loaded, and of public classes of libraries."""
    standard = [module for name, module in sys.modules.items() if name.partition(".")[0] in sys.stdlib_module_names]
    places = [*standard, *LIBRARIES, *vars(builtins).values()]
    kinds = [kind for module in standard for kind in vars(module).values() if isinstance(kind, type)]
    return {name for place in [*places, *kinds] for name in dir(place)}


def of_settings() -> set[str]:
    """What users set: the host's arguments, and parameters of requests."""
    if HOST == "sglang":
        from sglang.srt.sampling.sampling_params import SamplingParams
        from sglang.srt.server_args import ServerArgs

        return set(ServerArgs.__annotations__) | set(vars(SamplingParams)) | set(SamplingParams.__struct_fields__)
    import vllm.config
    from vllm import SamplingParams

    kinds = [kind for kind in vars(vllm.config).values() if isinstance(kind, type) and is_dataclass(kind)]
    names = {field.name for kind in kinds for field in fields(kind)}
    return names | set(SamplingParams.__struct_fields__) | {name for kind in kinds for name in vars(kind)}


def of_rows() -> set[str]:
    rows = hooks.EVERY
    paths = (part for row in rows for part in row.target.partition(":")[2].split("."))
    return {*paths, *(name for row in rows for name in row.parameters)}


def test_what_is_read_of_the_host_stands_in_a_row() -> None:
    adapter = list(trees(f"multiverse_{HOST}"))
    read = {node.attr for part in adapter for node in ast.walk(part) if isinstance(node, ast.Attribute)}
    known = defined([*adapter, *trees("multiverse")]) | of_libraries() | of_settings() | of_rows() | ELSEWHERE
    assert sorted(read - known) == []
