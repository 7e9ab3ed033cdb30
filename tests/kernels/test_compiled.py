"""Our Triton kernels compile for GPUs that are not here: to machine code, without spilling registers.

In another process: this one has Triton's interpreter in place of its compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMPILE = """
import subprocess, sys, tempfile
import torch, triton
from pathlib import Path
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from multiverse.attention.triton_kernels import attend_chunk, merge_parts
from multiverse.attention.triton_decode import NARROW, STEP, WIDE

def stack(kernel, types, constants, arch):
    signature = {name: types.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    odd = (*constants, "scale", "table_row")
    even = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(kernel.arg_names) if name not in odd}
    made = triton.compile(ASTSource(kernel, signature, constants, even), target=GPUTarget("cuda", arch, 32))
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        usage = subprocess.check_output([tools / "cuobjdump", "-res-usage", file.name], text=True)
    assert f"sm_{arch}" in made.asm["ptx"]
    (line,) = [line for line in usage.splitlines() if "REG:" in line]
    return line.split("STACK:")[1].split()[0]

arch, kind = int(sys.argv[1]), sys.argv[2]
lists = dict.fromkeys(["chunks", "queries", "table", "starts", "parts"], "*i32")
floats = dict.fromkeys(["query", "key", "value"], f"*{kind}") | {"found": "*fp32", "lse": "*fp32", "scale": "fp32"}
types = lists | floats | {"rows": "*i64", "output": f"*{kind}"}
for page in (1, 16):
    for lines in (NARROW, WIDE):
        constants = dict(SHARE=5, WIDTH=128, PAGE=page, BLOCK_M=lines, BLOCK_N=STEP, BLOCK_D=128)
        print("attend", arch, kind, page, lines, stack(attend_chunk, types, constants, arch))
print("merge", arch, kind, 0, 0, stack(merge_parts, types, dict(WIDTH=128, BLOCK_D=128), arch))
"""


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("kind", ["bf16", pytest.param("fp16", marks=pytest.mark.long)])
def test_compiled_for(arch: int, kind: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, str(arch), kind], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == 5
    assert all(line[-1] == "0" for line in lines), f"registers are spilled: {run.stdout}"
