"""Before a run asks anything: is the server there, does it serve the model, does the model know the tags?"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai

from multiverse.errors import RunError
from multiverse.evaluation.config import Config, Serve
from multiverse.harness.settings import Endpoint
from multiverse.structure.dialects import registry


def check_server(config: Config) -> None:
    """Ask the server the least that tells whether the run can succeed.

    Raises:
        RunError: saying what is wrong and where to look.
    """
    endpoint = config.endpoint
    try:
        with _client(endpoint) as client:
            served = [model.id for model in client.models.list()]
    except openai.APIConnectionError as error:
        raise RunError(
            f"no server answers at {endpoint.base_url or 'api.openai.com'} ({error.__cause__ or error}): is it running,"
            " and is `endpoint.base_url` right?"
        ) from error
    except openai.NotFoundError as error:
        raise RunError(f"{endpoint.base_url}: there is no OpenAI API; `endpoint.base_url` often ends in /v1") from error
    except openai.OpenAIError as error:
        raise RunError(f"{endpoint.base_url}: refuses to say which models it serves: {error}") from error
    if config.model not in served:
        raise RunError(f"{endpoint.base_url} serves {', '.join(served[:10])}, not {config.model!r} (`model`)")
    if config.mode == "parallel" and endpoint.base_url:
        _check_tags(config, endpoint.base_url)


def _check_tags(config: Config, base_url: str) -> None:
    """Refuse a model whose tokenizer cuts tags into pieces. Servers that can't tokenize can't be asked."""
    address = base_url.rstrip("/").removesuffix("/v1") + "/tokenize"
    headers = {"Authorization": f"Bearer {config.endpoint.api_key}", "Content-Type": "application/json"}
    for tag in registry.get(config.dialect).tags.values():
        body = json.dumps({"model": config.model, "prompt": tag, "add_special_tokens": False}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
                count = json.load(answer)["count"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if count != 1:
            raise RunError(
                f"{config.model} has no tag {tag}: its tokenizer makes {count} tokens of it, so it can't fork in the"
                f" dialect {config.dialect}. Name another `dialect`, or use `mode: plain`"
            )


@contextmanager
def serving(serve: Serve | None, endpoint: Endpoint, log: Path) -> Iterator[None]:
    """Start the server of a run, wait until it answers, and end it with everything it started.

    Raises:
        RunError: if it ends or does not answer in time, with the end of its log.
    """
    if serve is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | serve.environment
    with log.open("w") as output:
        process = subprocess.Popen(
            shlex.split(serve.command), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(process, serve, endpoint, log)
        yield
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], serve: Serve, endpoint: Endpoint, log: Path) -> None:
    until = time.monotonic() + serve.wait
    with _client(endpoint) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RunError(f"the server ended with status {process.returncode}; {log} ends with:\n{tail}")
            try:
                client.models.list()
                return
            except openai.OpenAIError:
                time.sleep(0.5)
    raise RunError(f"the server does not answer at {endpoint.base_url} after {serve.wait:.0f} s; see {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(30)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _client(endpoint: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=30, max_retries=0)
