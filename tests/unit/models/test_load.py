"""Loading refuses what is not a policy; saving is all or nothing."""

import errno
import json
import shutil

import pytest
import torch

from owlcap.config import ModelSection, VideoSection
from owlcap.errors import CheckpointError, ModelError
from owlcap.models import flex_attention, prefix_attention
from owlcap.models.load import load_policy, load_processor, policy_state_dict, save_policy
from owlcap.models.tiny import make_tiny_model


def section(path, **changes) -> ModelSection:
    return ModelSection(path=str(path), **{"dtype": "fp32", "gradient_checkpointing": False, **changes})


@pytest.fixture
def copied(tiny_policy, tmp_path):
    return shutil.copytree(tiny_policy, tmp_path / "copied")


# Loading.


def trainable(model) -> set[str]:
    parts = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            visual = "merger" if ".merger." in name else "vision"
            parts.add(visual if ".visual." in name else "language")
    return parts


@pytest.mark.parametrize(
    ("freeze_vision", "freeze_projector", "expected"),
    [
        (True, True, {"language"}),
        (True, False, {"language", "merger"}),
        (False, True, {"language", "vision"}),
        (False, False, {"language", "vision", "merger"}),
    ],
)
def test_vision_blocks_and_projector_freeze_apart(tiny_policy, freeze_vision, freeze_projector, expected):
    model = load_policy(section(tiny_policy, freeze_vision=freeze_vision, freeze_projector=freeze_projector))
    assert trainable(model) == expected


def test_dtype_and_gradient_checkpointing_are_the_settings(tiny_policy):
    model = load_policy(section(tiny_policy, dtype="bf16", gradient_checkpointing=True))
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("auto", prefix_attention.NAME), ("sdpa", prefix_attention.NAME), ("flex", flex_attention.NAME)],
)
def test_attention_is_the_setting_and_auto_is_sdpa_on_a_cpu(tiny_policy, setting, expected):
    model = load_policy(section(tiny_policy, attention=setting))
    assert model.model.language_model.config._attn_implementation == expected
    assert model.model.visual.config._attn_implementation == "sdpa"


def test_flash_attention_without_its_package_is_refused_with_the_cure(tiny_policy):
    with pytest.raises(ModelError, match=r"model\.attention is flash_attention_2") as caught:
        load_policy(section(tiny_policy, attention="flash_attention_2"))
    assert "model.attention=auto" in str(caught.value)


def test_a_missing_folder_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="no such model folder") as caught:
        load_policy(section(tmp_path / "nothing"))
    assert caught.value.where == str(tmp_path / "nothing")


def test_another_kind_of_model_is_a_model_error(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_vl"}))
    with pytest.raises(ModelError, match="qwen2_vl") as caught:
        load_policy(section(copied))
    assert caught.value.allowed == "qwen2_5_vl"


def test_a_broken_config_is_a_model_error(copied):
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        load_policy(section(copied))


def test_a_folder_without_weights_is_a_model_error(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_policy(section(copied))


def test_a_checkpoint_that_lacks_a_weight_is_a_model_error(copied):
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["visual.merger.mlp.0.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first model\.visual\.merger"):
        load_policy(section(copied))


def test_a_processor_without_a_chat_template_is_a_model_error(copied):
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_processor(copied)


def test_a_folder_without_processor_files_is_a_model_error(copied):
    (copied / "processor_config.json").unlink()
    with pytest.raises(ModelError, match="processor"):
        load_processor(copied)


# Saving.


def test_a_saved_policy_loads_with_the_same_weights_and_video_settings(tiny_policy, tmp_path):
    model = load_policy(section(tiny_policy))
    video = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
    save_policy(model, load_processor(tiny_policy, video), tmp_path / "saved")
    again = load_policy(section(tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    settings = load_processor(tmp_path / "saved").video_processor
    assert (settings.fps, settings.min_frames, settings.max_frames) == (6, 4, 12)
    assert (settings.size.shortest_edge, settings.size.longest_edge) == (784, 3136)
    assert (tmp_path / "saved" / "generation_config.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_a_given_state_dict_is_what_is_written(tiny_policy, tmp_path):
    model = load_policy(section(tiny_policy))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in policy_state_dict(model)}
    save_policy(model, load_processor(tiny_policy), tmp_path / "saved", zeros)
    assert not load_policy(section(tmp_path / "saved")).lm_head.weight.any()


def test_a_full_disk_leaves_the_old_folder_and_no_debris(tiny_policy, tmp_path, monkeypatch):
    model, processor = load_policy(section(tiny_policy)), load_processor(tiny_policy)
    save_policy(model, processor, tmp_path / "saved")
    before = (tmp_path / "saved" / "model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(processor), "save_pretrained", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save_policy(model, processor, tmp_path / "saved")
    assert caught.value.where == str(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_the_state_dict_has_the_output_layer_even_when_it_is_tied(tmp_path):
    model = load_policy(section(make_tiny_model(tmp_path / "tied", ["red blue"], seed=0, tied=True)))
    names = dict(policy_state_dict(model))
    assert torch.equal(names["lm_head.weight"], names["model.language_model.embed_tokens.weight"])
    assert not any(tensor.requires_grad for tensor in names.values())
