"""The serve line: program and options of each build, and a shell that gives back exactly these arguments."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

from owlcap.config import MotionSection, RolloutSection, VideoSection
from owlcap.export.serve import chat_request, serve_arguments, serve_line, server_arguments
from owlcap.inference.settings import PolicySettings, write_settings
from rollout.settings import RolloutEngineSettings

CPU = RolloutEngineSettings(
    model="unused",
    video=VideoSection(fps=6, min_frames=2, max_frames=12),
    rollout=RolloutSection(max_model_len=512, max_new_tokens=56, kv_cache_gib=0.25),
    dtype="fp32",
    max_prompt_tokens=400,
)
GPU = RolloutEngineSettings(model="unused", device="cuda")


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_cpu_build_is_started_by_its_module_with_a_bounded_cache() -> None:
    arguments = server_arguments("out dir", CPU, name="owl")
    assert arguments[:5] == ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "out dir"]
    assert option(arguments, "--dtype") == "float32"
    assert option(arguments, "--max-model-len") == "512"
    assert option(arguments, "--kv-cache-memory-bytes") == str(2**28)


def test_the_gpu_build_is_started_by_vllm_serve() -> None:
    arguments = server_arguments("out", GPU, name="owl")
    assert arguments[:3] == ["vllm", "serve", "out"]
    assert option(arguments, "--dtype") == "bfloat16"
    assert "--enforce-eager" not in arguments


def test_videos_are_sampled_with_the_policys_own_settings() -> None:
    video = json.loads(option(server_arguments("out", CPU, name="owl"), "--media-io-kwargs"))["video"]
    assert video == {"video_backend": "qwen2_vl", "fps": 6.0, "min_frames": 2, "max_frames": 12}


def test_overlays_are_allowed_where_the_policy_takes_them() -> None:
    motion = MotionSection(enabled=True, max_overlays=4, max_pixels=112 * 112)
    limits = option(server_arguments("out", replace(CPU, motion=motion), name="owl"), "--limit-mm-per-prompt")
    assert json.loads(limits) == {"image": {"count": 4, "width": 112, "height": 112}, "video": 1}
    assert json.loads(option(server_arguments("out", CPU, name="owl"), "--limit-mm-per-prompt")) == {
        "image": 0,
        "video": 1,
    }


def test_a_request_shows_overlays_before_the_video() -> None:
    (message,) = chat_request(PolicySettings(prompt="What?"), "owl", "VIDEO", ["FIRST", "SECOND"])["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "image_url", "video_url"]
    assert [part["image_url"]["url"] for part in message["content"][1:3]] == ["FIRST", "SECOND"]


def test_a_shell_splits_the_line_into_the_arguments() -> None:
    arguments = server_arguments("it's an out dir", CPU, name="owl")
    assert shlex.split(serve_line(arguments)) == arguments


def test_an_exported_folder_is_served_under_its_own_name_and_lengths(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 3, "num_key_value_heads": 2, "num_attention_heads": 4, "hidden_size": 128}
    config = {"model_type": "qwen2_5_vl", "dtype": "float32", **sizes, "max_position_embeddings": 2048}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    write_settings(tmp_path, PolicySettings(VideoSection(fps=3), "What?", 56, "owl"))
    arguments = serve_arguments(tmp_path)
    assert str(tmp_path) in arguments
    assert option(arguments, "--served-model-name") == "owl"
    assert option(arguments, "--max-model-len") == "2048"
    assert json.loads(option(arguments, "--media-io-kwargs"))["video"]["fps"] == 3.0
