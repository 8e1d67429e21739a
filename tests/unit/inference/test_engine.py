"""Engine sizes that follow from a model's config, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import VideoSection
from owlcap.errors import ModelError
from owlcap.inference.engine import engine_settings, kv_cache_gib, read_model_config, stored_dtype
from owlcap.inference.settings import PolicySettings

QWEN_7B = {
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "num_attention_heads": 28,
    "hidden_size": 3584,
    "max_position_embeddings": 128000,
}


def write_config(folder: Path, **values: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **values}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_the_cache_of_a_7b_model_for_ten_thousand_tokens() -> None:
    # 2 * 28 layers * 4 heads * 128 * 2 bytes = 57,344 bytes a token; 10,240 of them 0.547 GiB, in quarters 0.75
    assert kv_cache_gib(QWEN_7B, "bf16", 10240) == 0.75
    assert kv_cache_gib({"text_config": QWEN_7B}, "fp32", 10240) == 1.25


def test_weights_stored_in_fp32_run_in_fp32_and_all_others_in_bf16() -> None:
    stored = [{"dtype": "float32"}, {"torch_dtype": "float32"}, {"dtype": "bfloat16"}, {"torch_dtype": "float16"}, {}]
    assert [stored_dtype(config) for config in stored] == ["fp32", "fp32", "bf16", "bf16", "bf16"]


def test_a_long_model_is_cut_to_a_runs_default_length(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "long", text_config=QWEN_7B, dtype="bfloat16")
    settings = engine_settings(folder, PolicySettings(VideoSection(fps=1), "What?", 1024))
    assert settings.rollout.max_model_len == 10240
    assert (settings.rollout.max_new_tokens, settings.max_prompt_tokens) == (1024, 9216)
    assert (settings.dtype, settings.video.fps, settings.model) == ("bf16", 1, str(folder))


def test_an_answer_takes_at_most_half_of_a_short_model(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "short", **QWEN_7B | {"max_position_embeddings": 512})
    settings = engine_settings(folder, PolicySettings())
    assert (settings.rollout.max_new_tokens, settings.max_prompt_tokens) == (256, 256)
    assert engine_settings(folder, PolicySettings(), max_new_tokens=20).max_prompt_tokens == 492


def test_a_config_without_the_language_models_sizes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks max_position_embeddings, num_hidden_layers, num_key_value_heads"):
        read_model_config(write_config(tmp_path / "bare", text_config={"hidden_size": 8}))
