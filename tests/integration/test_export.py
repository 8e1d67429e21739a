"""Export end to end on the tiny policy: written, checked in transformers and vLLM, served; never half, never wrong."""

from __future__ import annotations

import base64
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from owlcap.config import MotionSection, VideoSection
from owlcap.errors import ExportError
from owlcap.export import ExportReport, export
from owlcap.export.probe import write_probe_clip, write_probe_overlay
from owlcap.export.serve import chat_request
from owlcap.inference.settings import PolicySettings, find_settings, write_settings
from owlcap.models.tiny import make_tiny_model
from owlcap.types import Sample
from tests.conftest import TEXTS
from tests.ports import free_port

pytestmark = pytest.mark.slow

# All frames of the probe clip: then the server's sampling cannot differ from ours.
VIDEO = VideoSection(fps=12, min_frames=2, max_frames=24, min_pixels=28 * 28, max_pixels=112 * 112)
MOTION = MotionSection(enabled=True, max_overlays=4, min_pixels=28 * 28, max_pixels=112 * 112)
PROMPT = "Describe the video."


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """Of a policy with the motion pathway, which takes all that a plain one does, and overlays."""
    folder = tmp_path_factory.mktemp("policy")
    make_tiny_model(folder, TEXTS, seed=6, motion=True)  # whose captions with and without overlays differ
    write_settings(folder, PolicySettings(VIDEO, PROMPT, motion=MOTION))
    return export(folder, tmp_path_factory.mktemp("export") / "owl")


def test_the_folder_reproduces_the_policy_in_transformers_and_in_vllm(exported: ExportReport) -> None:
    figures = exported.figures
    assert figures.dtype == "fp32"
    assert figures.num_tokens > 32  # the greedy caption and the drawn ones
    assert figures.source_max <= 1e-5
    assert figures.vllm_max <= 1e-4


def test_the_folder_is_complete_and_nothing_else_is_left(exported: ExportReport) -> None:
    names = {path.name for path in exported.folder.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names >= {"processor_config.json", "chat_template.jinja", "owlcap.json", "README.md"}
    assert [path.name for path in exported.folder.parent.iterdir()] == ["owl"]
    assert find_settings(exported.folder) == PolicySettings(VIDEO, PROMPT, name="owl", motion=MOTION)


def test_the_card_tells_the_checks_figures(exported: ExportReport) -> None:
    card = (exported.folder / "README.md").read_text()
    assert f"over {exported.figures.num_tokens} caption tokens" in card
    assert str(exported.folder.parent) not in card


def test_weights_that_changed_on_the_way_are_refused(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from owlcap.models import load

    save_policy = load.save_policy

    def save_changed(model, processor, folder) -> None:  # type: ignore[no-untyped-def]
        model.model.language_model.layers[1].mlp.down_proj.weight.data.mul_(1.01)
        save_policy(model, processor, folder)

    monkeypatch.setattr(load, "save_policy", save_changed)
    with pytest.raises(ExportError, match=r"not the source's: logprobs differ by up to \d") as error:
        export(tiny_policy, tmp_path / "owl", video=VIDEO, prompt=PROMPT)
    assert str(tiny_policy) in (error.value.where or "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_checked_is_not_kept(tiny_policy: Path, tmp_path: Path) -> None:
    missing = Sample("probe", str(tmp_path / "no-such-clip.mp4"), PROMPT, "", "")
    with pytest.raises(ExportError, match="could not be checked") as error:
        export(tiny_policy, tmp_path / "owl", video=VIDEO, sample=missing)
    assert error.value.where == missing.video
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(self, folder, **_) -> None:  # type: ignore[no-untyped-def]
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", write_half)
    with pytest.raises(ExportError, match=r"cannot be written: .*No space left on device"):
        export(tiny_policy, tmp_path / "owl", video=VIDEO, prompt=PROMPT)
    assert list(tmp_path.iterdir()) == []


def test_the_printed_line_serves_the_policys_own_caption(exported: ExportReport, tmp_path: Path) -> None:
    clip, overlay = write_probe_clip(tmp_path / "probe.mp4"), write_probe_overlay(tmp_path / "probe.png")
    port = free_port()
    line = f"exec {exported.serve_line} --host 127.0.0.1 --port {port}"
    with server(line) as log:
        reply = ask(port, exported.settings, "owl", clip, overlay)
        alone = ask(port, exported.settings, "owl", clip)
    assert reply["choices"][0]["message"]["content"].strip() == exported.figures.caption, "".join(log[-30:])
    assert alone["choices"][0]["message"]["content"].strip() != exported.figures.caption


@contextmanager
def server(line: str) -> Iterator[list[str]]:
    """A shell's child running `line`, from the moment it is ready; gives the lines it has logged."""
    ours = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_KVCACHE_SPACE")  # set for engines inside the tests
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    process = subprocess.Popen(
        line, shell=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    log: list[str] = []
    try:
        for text in process.stdout:
            log.append(text)
            if "Application startup complete" in text:
                break
        else:
            pytest.fail("the server ended before it was ready:\n" + "".join(log[-30:]))
        threading.Thread(target=log.extend, args=(process.stdout,), daemon=True).start()  # or the pipe fills up
        yield log
        process.terminate()
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the server and its engine only
            process.wait()


def ask(port: int, settings: PolicySettings, name: str, clip: Path, *overlays: Path) -> dict:
    """The server's greedy answer to one chat request with the bytes of the clip and its overlays in it."""
    url, *pictures = (
        f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()
        for path, kind in [(clip, "video/mp4"), *((path, "image/png") for path in overlays)]
    )
    body = chat_request(settings, name, url, pictures) | {"max_tokens": 32}
    # The server says that it is ready a moment before its port listens.
    with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=300) as client:
        reply = client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()
