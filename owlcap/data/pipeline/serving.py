"""Models of a pipeline: behind servers that run already, or served here by vLLM for as long as the pipeline runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from owlcap.config_data import AskedModelSection
from owlcap.errors import ModelError

ASK_EVERY_S = 1.0  # whether the server is up
END_S = 30.0  # for it to end by itself

T = TypeVar("T")


@contextmanager
def served(models: Mapping[str, AskedModelSection], logs: Path) -> Iterator[dict[str, AskedModelSection]]:
    """The models with the addresses at which they can be asked; those with `serve` run for as long as the block.

    A folder that several models name is served once.

    Raises:
        ModelError: a server ended, or was not up within its deadline; its log is named.
    """
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for name, model in models.items():
            if model.serve is not None and model.serve not in urls:
                urls[model.serve] = stack.enter_context(_server(model, logs / f"{name}.txt"))
        yield {
            name: model.model_copy(update={"base_urls": (urls[model.serve],), "model": model.model or model.serve})
            if model.serve is not None
            else model
            for name, model in models.items()
        }


@contextmanager
def _server(model: AskedModelSection, log: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model.serve)]
    command += ["--served-model-name", model.model, "--host", "127.0.0.1", "--port", str(port), *model.serve_arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", model, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, model: AskedModelSection, log: Path) -> None:
    deadline = time.monotonic() + model.serve_deadline_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ModelError(
                f"vLLM ended (exit status {process.returncode}) before it served {model.serve}",
                where=str(log),
                cure="read its log; serve_arguments go to it as they are",
            )
        try:
            with urllib.request.urlopen(url, timeout=ASK_EVERY_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(ASK_EVERY_S)
    raise ModelError(
        f"vLLM did not serve {model.serve} within {model.serve_deadline_s:g} s",
        where=str(log),
        cure="raise serve_deadline_s, or start the server yourself and name it in base_urls",
    )
