"""The line that serves an exported policy: vLLM's OpenAI-compatible server, sampling videos as the policy does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from owlcap.config import VideoSection
from owlcap.data.prompts import message_parts
from owlcap.inference.engine import engine_settings
from owlcap.inference.settings import PolicySettings, find_settings
from rollout.settings import RolloutEngineSettings, media_limits


def serve_arguments(folder: Path) -> list[str]:
    """Program and arguments that serve an exported folder on this machine."""
    settings = find_settings(folder) or PolicySettings()
    engine = engine_settings(folder, settings)
    return server_arguments(str(folder), engine, name=settings.name or folder.name, python=_python())


def server_arguments(folder: str, engine: RolloutEngineSettings, *, name: str, python: str = "python") -> list[str]:
    """Program and arguments that serve a policy with the lengths and the video sampling of `engine`.

    `vllm serve` looks for a distribution named vllm, which the CPU build is not: there the server's module is run.
    """
    on_cpu = engine.device == "cpu"
    start = [python, "-m", "vllm.entrypoints.openai.api_server", "--model"] if on_cpu else ["vllm", "serve"]
    arguments = [*start, folder, "--served-model-name", name]
    arguments += ["--dtype", "float32" if engine.dtype == "fp32" else "bfloat16"]
    arguments += ["--max-model-len", str(engine.rollout.max_model_len)]
    arguments += ["--limit-mm-per-prompt", _json(media_limits(engine.motion))]
    arguments += ["--media-io-kwargs", _json({"video": video_sampling(engine.video)})]
    if on_cpu:  # without a stated cache vLLM would take most of the machine's memory
        cache_bytes = int((engine.rollout.kv_cache_gib or 1) * 2**30)
        arguments += ["--enforce-eager", "--kv-cache-memory-bytes", str(cache_bytes)]
    return arguments


def serve_line(arguments: Sequence[str]) -> str:
    """The arguments as one line for a POSIX shell."""
    return shlex.join(arguments)


VIDEO_URL = "data:video/mp4;base64,..."  # in an example request
OVERLAY_URL = "data:image/png;base64,..."


def chat_request(
    settings: PolicySettings, name: str, video_url: str, overlay_urls: Sequence[str] = ()
) -> dict[str, Any]:
    """The body that asks a served policy for a video's caption, its parts in the order it was trained on.

    Args:
        video_url: an address that the server may fetch, or "data:video/mp4;base64,...".
        overlay_urls: the same for each overlay, in order of time.
    """
    overlays = [{"type": "image_url", "image_url": {"url": url}} for url in overlay_urls]
    content = message_parts(settings.prompt, {"type": "video_url", "video_url": {"url": video_url}}, overlays)
    messages = [{"role": "user", "content": content}]
    return {"model": name, "messages": messages, "temperature": 0, "max_tokens": settings.max_new_tokens}


def video_sampling(video: VideoSection) -> dict[str, str | float | int]:
    """Settings of vLLM's own video loader under which it takes the frames that the policy was trained on."""
    return {
        "video_backend": "qwen2_vl",
        "fps": video.fps,
        "min_frames": video.min_frames,
        "max_frames": video.max_frames,
    }


def _json(values: dict) -> str:
    return json.dumps(values, separators=(",", ":"))


def _python() -> str:
    """`python` where that starts this environment, else this interpreter's path."""
    found = shutil.which("python")
    same = found is not None and os.path.samefile(Path(found).parent, Path(sys.executable).parent)
    return "python" if same else sys.executable
