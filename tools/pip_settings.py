"""What pip is set up to use on this machine, and the same in uv's words."""

from __future__ import annotations

import ast
import os
import subprocess

PYPI = "https://pypi.org/simple"
AS_THEY_ARE = {"cert": "SSL_CERT_FILE", "client-cert": "SSL_CLIENT_CERT", "proxy": "ALL_PROXY"}
"""Settings of pip whose value uv, too, takes as it is, from these variables."""


def pip_settings(python: str) -> dict[str, str]:
    """pip's settings by their long names, from its files and the environment; the later source wins, as in pip.

    Args:
        python: the interpreter whose pip is asked. Without a pip only the environment speaks.
    """
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        found.setdefault(section, {})[name.removeprefix("default-")] = str(ast.literal_eval(value))
    if listed.returncode:
        for key, value in os.environ.items():
            if key.startswith("PIP_") and value:
                found[":env:"][key[4:].lower().replace("_", "-").removeprefix("default-")] = value
    return {**found["global"], **found["install"], **found[":env:"]}


def uv_variables(settings: dict[str, str]) -> dict[str, str]:
    """The environment variables that tell uv what `settings` tell pip.

    Of a release that several indexes have, uv 0.13 sees the files of the first index only, where pip sees all of them.
    So the main index, which has files for every platform, is named before the extra ones.
    """
    variables = {variable: settings[name] for name, variable in AS_THEY_ARE.items() if name in settings}
    index = settings.get("index-url", PYPI)
    variables["UV_DEFAULT_INDEX"] = index
    if extra := settings.get("extra-index-url", "").split():
        variables["UV_INDEX"] = " ".join([index, *extra])
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := settings.get("find-links", "").split():
        variables["UV_FIND_LINKS"] = ",".join(os.path.expanduser(link) for link in links)
    if timeout := settings.get("timeout"):
        variables["UV_HTTP_TIMEOUT"] = str(round(float(timeout)))
    if hosts := settings.get("trusted-host", "").split():
        variables["UV_INSECURE_HOST"] = " ".join(hosts)
    if constraints := settings.get("constraint", "").split():
        variables["UV_CONSTRAINT"] = " ".join(os.path.expanduser(path) for path in constraints)
    return variables


def uv_flags(settings: dict[str, str]) -> list[str]:
    """What uv takes as a flag only."""
    return ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
