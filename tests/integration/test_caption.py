"""`owlcap caption`: one video in, one caption out; bad input is told before an engine starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import VideoSection
from owlcap.errors import ConfigError, ModelError, PromptError, VideoError
from owlcap.inference import caption_video

VIDEO = VideoSection(fps=6, min_frames=2, max_frames=12, min_pixels=28 * 28, max_pixels=56 * 56)


@pytest.mark.slow
def test_a_video_gives_the_caption_that_transformers_finds_most_likely(
    tiny_policy: Path, toy_clips: tuple[Path, ...]
) -> None:
    prompt = "What does the man do?"
    caption = caption_video(tiny_policy, toy_clips[1], prompt=prompt, max_new_tokens=8, video_section=VIDEO)
    assert caption == greedy_in_transformers(tiny_policy, toy_clips[1], prompt, num_tokens=8)


def greedy_in_transformers(folder: Path, clip: Path, prompt: str, num_tokens: int) -> str:
    """Token after token from the model's own forward pass, without a cache, with the project's positions."""
    import torch

    from owlcap.config import ModelSection
    from owlcap.data.prompts import encode_prompt, vision_token_ids
    from owlcap.data.video import decode
    from owlcap.models.load import load_policy, load_processor
    from owlcap.models.positions import mrope_positions
    from owlcap.types import Sample

    model = load_policy(ModelSection(path=str(folder), dtype="fp32", gradient_checkpointing=False))
    processor = load_processor(folder, VIDEO)
    encoded = encode_prompt(processor, decode(clip, VIDEO), Sample("a", str(clip), prompt, "", ""), 512)
    vision, ids = encoded.vision, list(encoded.token_ids)
    ends = (processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id)
    for _ in range(num_tokens):
        tokens = torch.tensor([ids])
        positions = mrope_positions(tokens[0], [vision.video_grid_thw], [vision.second_per_grid_ts], model.config)
        with torch.no_grad():
            logits = model(
                input_ids=tokens,
                position_ids=positions[:, None],
                pixel_values_videos=torch.from_numpy(vision.pixel_values_videos),
                video_grid_thw=torch.tensor([vision.video_grid_thw]),
                mm_token_type_ids=(tokens == model.config.video_token_id).int() * 2,
            ).logits[0, -1]
        logits[list(vision_token_ids(processor))] = float("-inf")
        ids.append(int(logits.argmax()))
        if ids[-1] in ends:
            break
    return processor.tokenizer.decode(ids[len(encoded.token_ids) :], skip_special_tokens=True).strip()


@pytest.mark.slow
def test_a_question_too_long_for_the_model_is_told(tiny_policy: Path, toy_clips: tuple[Path, ...]) -> None:
    with pytest.raises(PromptError, match="maximum context length is 2048"):
        caption_video(tiny_policy, toy_clips[0], prompt="word " * 3000, video_section=VIDEO)


@pytest.mark.parametrize(
    ("content", "what"), [(None, "cannot be opened"), (b"", "empty"), (b"not a video at all" * 99, "video")]
)
def test_a_file_that_is_no_video_is_told(tiny_policy: Path, tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=what) as error:
        caption_video(tiny_policy, path, video_section=VIDEO)
    assert error.value.where == str(path)


def test_a_folder_that_does_not_exist_is_told(toy_clips: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder") as error:
        caption_video(tmp_path / "nowhere", toy_clips[0])
    assert error.value.where == str(tmp_path / "nowhere")


def test_a_model_of_another_kind_is_told(toy_clips: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="type 'llama'") as error:
        caption_video(tmp_path, toy_clips[0])
    assert error.value.allowed == "qwen2_5_vl"


def test_an_answer_of_no_tokens_is_refused(tiny_policy: Path, toy_clips: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        caption_video(tiny_policy, toy_clips[0], max_new_tokens=0)
