"""A development aid: lets SGLang start on a machine that has neither CUDA nor its kernels. No part of the adapter.

SGLang imports `sgl_kernel`, `triton` and `torchvision` wherever it runs, also where it calls none of them: a text model
on a CPU with `--attention-backend torch_native`. `tools/setup sglang` leaves these packages out (CUDA, 9 GB) and puts
this directory on the path of its environment by a `.pth` file, because every process that SGLang starts imports them
before plugins are loaded. What is really installed is never replaced. A kernel that isn't there fails when called.
"""

from __future__ import annotations

import enum
import importlib.abc
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any

PACKAGES = {"sgl_kernel": "0.4.10", "triton": "3.0.0", "torchvision": "0.0.0"}
"""What may stand in for what is absent, with the version that SGLang is told."""


class InterpolationMode(enum.Enum):
    """The one thing of torchvision that is read while modules are imported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class constexpr:  # noqa: N801
    """`tl.constexpr` is used as a value while modules are imported."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


KNOWN: dict[str, dict[str, Any]] = {
    "triton": {
        "cdiv": lambda a, b: -(-a // b),
        "next_power_of_2": lambda n: 1 << max(0, n - 1).bit_length(),
    },
    "triton.language": {"constexpr": constexpr},
    "torchvision.transforms": {"InterpolationMode": InterpolationMode},
    "torchvision.transforms.functional": {"InterpolationMode": InterpolationMode},
}


class Absent(ModuleType):
    """A module that isn't there: imports of and from it work, its decorators leave functions alone."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = PACKAGES.get(name, "0")
        vars(self).update(KNOWN.get(name, {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if name[:1].isupper():  # a class: to inherit from, to annotate with
            value: Any = type(name, (), {"__module__": self.__name__, "__init__": lambda *_, **__: None})
        else:
            value = sys.modules.setdefault(full, Absent(full))
        setattr(self, name, value)
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]) and self.__name__.startswith("triton"):
            return args[0]  # @triton.jit
        if self.__name__.startswith("triton"):
            return lambda function: function  # @triton.autotune(...)
        raise NotImplementedError(f"{self.__name__} is not installed here (tools/sglang_cpu stands in for it)")

    def __bool__(self) -> bool:
        return False

    def __or__(self, other: Any) -> Any:
        return object

    __ror__ = __or__


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of absent packages."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return sys.modules.get(spec.name) or Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        parent, _, child = module.__name__.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)
        if module.__name__.startswith("sgl_kernel"):
            _define(module)


def _define(module: ModuleType) -> None:
    """Put what is called on a CPU into a module of `sgl_kernel`."""
    import draft_ops
    import ops

    vars(module).update(draft_ops.FUNCTIONS.get(module.__name__, {}))
    if module.__name__ == "sgl_kernel":
        ops.define()


def install() -> None:
    """Stand in for what is absent. Without kernels SGLang also has to be told that it runs on a CPU."""
    absent = {name for name in PACKAGES if importlib.machinery.PathFinder.find_spec(name) is None}
    if absent:
        sys.meta_path.append(Finder(absent))
    if "sgl_kernel" in absent:
        os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    if "triton" in absent:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # or torch.compile asks the stand-in what it can do
