"""examples/scaling: files that parse, whose flags exist, and that the page names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("vllm", reason="they start vLLM's server")

from test_arguments import arguments

from multiverse.serving.options import FLAGS, flag

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples/scaling").iterdir())


def objects() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "examples/scaling/kubernetes.yaml").read_text())}


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_every_flag_is_one_of_ours_or_of_the_host_and_the_page_names_the_file(file: Path) -> None:
    text = file.read_text()
    assert "multiverse" in re.findall(r"--plugin\W+(\w+)", text)
    named = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--plugin"}
    ours = {flag(name) for name in FLAGS}
    assert named & ours
    assert named - ours <= {name for names in arguments() for name in names}
    assert f"../examples/scaling/{file.name}" in (ROOT / "docs/scaling.md").read_text()


def test_the_service_finds_its_pods() -> None:
    pod, service = objects()["Deployment"]["spec"], objects()["Service"]["spec"]
    (container,) = pod["template"]["spec"]["containers"]
    assert service["selector"] == pod["selector"]["matchLabels"] == pod["template"]["metadata"]["labels"]
    assert service["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    (given,) = [one for one in container["args"] if one.startswith("--port=")]
    assert int(given.partition("=")[2]) == container["ports"][0]["containerPort"]
    grace = pod["template"]["spec"]["terminationGracePeriodSeconds"]
    (drain,) = [one for one in container["args"] if one.startswith("--shutdown-timeout=")]
    assert int(drain.partition("=")[2]) < grace


def test_the_program_parses() -> None:
    tree = ast.parse((ROOT / "examples/scaling/ray_serve.py").read_text())
    assert "app" in {target.id for one in tree.body if isinstance(one, ast.Assign) for target in one.targets}  # type: ignore[attr-defined]
