"""Set-up: uv is told what pip is told, locks name what pyproject.toml asks for, nothing half there is trusted."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from environment import Environment  # noqa: E402
from pip_settings import pip_settings, uv_flags, uv_variables  # noqa: E402
from steps import STEPS  # noqa: E402

CONFIG = """
[global]
index-url = https://mirror.example/simple
cert = /etc/mirror.pem
timeout = 7
[install]
find-links =
    /opt/wheels
    https://mirror.example/files
trusted-host = mirror.example other.example
constraint = /etc/pins.txt
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose pip is set up by a file, as in a closed network."""
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "CERT", "FIND_LINKS", "DEFAULT_TIMEOUT", "TIMEOUT", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text(CONFIG)
    return tmp_path


@pytest.mark.usefixtures("configured")
class TestWhatPipIsToldUvIsTold:
    def test_by_a_file(self) -> None:
        assert (
            uv_variables(pip_settings(sys.executable)).items()
            >= {
                "UV_DEFAULT_INDEX": "https://mirror.example/simple",
                "UV_FIND_LINKS": "/opt/wheels,https://mirror.example/files",
                "UV_HTTP_TIMEOUT": "7",
                "UV_INSECURE_HOST": "mirror.example other.example",
                "SSL_CERT_FILE": "/etc/mirror.pem",
            }.items()
        )

    def test_by_the_environment_which_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "https://else.example/simple")
        monkeypatch.setenv("PIP_FIND_LINKS", "/here")
        variables = uv_variables(pip_settings(sys.executable))
        assert variables["UV_DEFAULT_INDEX"] == "https://else.example/simple"
        assert variables["UV_FIND_LINKS"] == "/here"

    def test_without_pip_by_the_environment_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "https://else.example/simple")
        monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "9")
        (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "python").chmod(0o755)
        variables = uv_variables(pip_settings(str(tmp_path / "python")))
        assert (variables["UV_DEFAULT_INDEX"], variables["UV_HTTP_TIMEOUT"]) == ("https://else.example/simple", "9")

    def test_the_main_index_before_the_extra_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example https://b.example")
        variables = uv_variables(pip_settings(sys.executable))
        assert variables["UV_INDEX"] == "https://mirror.example/simple https://a.example https://b.example"

    def test_no_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert uv_flags(pip_settings(sys.executable)) == []
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        assert uv_flags(pip_settings(sys.executable)) == ["--no-index"]


def project(line: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s=<>!~;\[]", line, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("name", STEPS)
def test_a_lock_pins_what_pyproject_asks_for_and_names_no_host(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = (ROOT / f"tools/locks/{STEPS[name].lock or name}.txt").read_text().splitlines()
    assert all("==" in line and "/" not in line and "+" not in line for line in locked)
    asked = {project(line) for extra in STEPS[name].extras.split(",") for line in extras[extra]} - {"multiverse-engine"}
    assert asked <= {project(line) for line in locked}


class TestWhatIsThere:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> Environment:
        """An environment with one package of two files, finished for one step."""
        environment = Environment("some")
        environment.path = tmp_path / "some"
        site = environment.path / "lib/python3.11/site-packages"
        with environment.changing():
            (site / "a-1.dist-info").mkdir(parents=True)
            (site / "a.py").touch()
            (site / "a-1.dist-info/RECORD").write_text("a.py,sha256=x,0\na-1.dist-info/RECORD,,\n../../../bin/a,,\n")
            environment.finish("core", "all of it")
        return environment

    def test_is_trusted_if_it_was_finished_as_wanted(self, environment: Environment) -> None:
        assert environment.finished("core", "all of it")
        assert not environment.finished("core", "more of it")
        assert not environment.finished("oracle", "all of it")

    def test_is_not_trusted_if_a_file_is_gone(self, environment: Environment) -> None:
        (environment.path / "lib/python3.11/site-packages/a.py").unlink()
        assert not environment.finished("core", "all of it")

    def test_is_made_anew_after_an_interruption(self, environment: Environment) -> None:
        with pytest.raises(KeyboardInterrupt), environment.changing():
            raise KeyboardInterrupt
        assert not environment.finished("core", "all of it")
        with environment.changing():
            assert not list(environment.path.glob("lib"))
