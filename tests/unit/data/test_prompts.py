"""Prompts: text before the video, every placeholder expanded, and errors before a bad prompt reaches a model."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoProcessor

from owlcap.config import VideoSection
from owlcap.data.prompts import (
    check_prompt_ids,
    encode_completion,
    encode_prompt,
    encode_prompts,
    expected_token_ids,
    render_prompt,
    vision_token_ids,
)
from owlcap.data.video import decode
from owlcap.errors import ModelError, PromptError
from owlcap.types import Prompt, Sample, VideoClip

SAMPLE = Sample("clip-7", "clip.mp4", "Describe the video.", "A caption.", "A caption.")


@pytest.fixture
def processor(tiny_policy):
    return AutoProcessor.from_pretrained(tiny_policy)


def clip(num_frames: int = 12, height: int = 56, width: int = 56, fps: float = 6.0, total: int = 12) -> VideoClip:
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    return VideoClip(frames, fps, total / fps, total, tuple(range(num_frames)))


def test_the_text_comes_before_the_one_video_placeholder(processor):
    assert render_prompt(processor, SAMPLE) == (
        "<|im_start|>user\nDescribe the video.<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("prompt", "turn"),
    [
        ("<video>Describe the video.", "VIDEODescribe the video."),
        ("First: <video> what happens?", "First:VIDEOwhat happens?"),
        ("Describe the video.<video>", "Describe the video.VIDEO"),
    ],
)
def test_a_mark_in_the_question_places_the_video(processor, prompt, turn):
    text = render_prompt(processor, replace(SAMPLE, prompt=prompt))
    turn = turn.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>")
    assert text.startswith(f"<|im_start|>user\n{turn}<|im_end|>")


def test_the_placeholder_becomes_one_token_for_two_frames_of_28_by_28_pixels(processor):
    prompt = encode_prompt(processor, clip(), SAMPLE, max_tokens=100)
    assert prompt.token_ids.count(processor.video_token_id) == 6 * 2 * 2
    assert prompt.vision.video_grid_thw == (6, 4, 4)
    assert prompt.vision.pixel_values_videos.shape == (6 * 4 * 4, 3 * 2 * 14 * 14)
    assert prompt.vision.pixel_values_videos.dtype == np.float32


def test_expected_ids_are_the_processors_ids(processor):
    prompt = encode_prompt(processor, clip(8, 84, 56), SAMPLE, max_tokens=100)
    expected = expected_token_ids(processor, render_prompt(processor, SAMPLE), prompt.vision.video_grid_thw)
    assert prompt.token_ids == expected


def test_seconds_between_temporal_patches_follow_from_the_sampled_rate(processor):
    # 12 frames at 6 a second, of which 8 were kept: 4 frames a second, 2 frames a patch.
    prompt = encode_prompt(processor, clip(8, total=12), SAMPLE, max_tokens=100)
    assert prompt.vision.second_per_grid_ts == 0.5
    prompt = encode_prompt(processor, clip(12), SAMPLE, max_tokens=100)
    assert prompt.vision.second_per_grid_ts == np.float32(1 / 3)


def test_frames_outside_of_the_processors_own_pixel_bounds_are_not_resized_again(processor):
    assert encode_prompt(processor, clip(2, 196, 196), SAMPLE, 100).vision.video_grid_thw == (1, 14, 14)


def test_a_real_clip_gives_the_same_prompt_each_time(processor, toy_clips):
    video = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
    first, second = (encode_prompt(processor, decode(toy_clips[0], video), SAMPLE, 100) for _ in range(2))
    assert first.token_ids == second.token_ids
    assert np.array_equal(first.vision.pixel_values_videos, second.vision.pixel_values_videos)


def test_a_completion_ends_with_the_end_of_turn(processor):
    ids = encode_completion(processor, "A caption.")
    assert processor.tokenizer.decode(ids) == "A caption.<|im_end|>"
    assert ids[-1] == processor.tokenizer.eos_token_id


def test_vision_tokens_are_named_for_banning(processor):
    names = set(processor.tokenizer.convert_ids_to_tokens(vision_token_ids(processor)))
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"} <= names


# What must not reach a model.


def test_a_model_without_a_chat_template_is_a_model_error_with_a_cure(processor):
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template") as caught:
        encode_prompt(processor, clip(), SAMPLE, 100)
    assert caught.value.cure


def test_a_template_that_drops_the_video_is_a_prompt_error(processor):
    processor.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    with pytest.raises(PromptError, match="no video tokens") as caught:
        encode_prompt(processor, clip(), SAMPLE, 100)
    assert caught.value.where == "clip-7"


def test_a_prompt_that_smuggles_in_a_placeholder_is_a_prompt_error(processor):
    sample = Sample("x", "clip.mp4", "What is <|video_pad|>?", "a", "a")
    with pytest.raises(PromptError, match="2 video tokens"):
        render_prompt(processor, sample)


def test_a_prompt_that_is_too_long_says_by_how_much_and_what_to_change(processor):
    length = len(encode_prompt(processor, clip(), SAMPLE, 100).token_ids)
    assert len(encode_prompt(processor, clip(), SAMPLE, length).token_ids) == length
    with pytest.raises(PromptError, match=rf"has {length} tokens, more than data\.max_prompt_tokens \({length - 1}\)"):
        encode_prompt(processor, clip(), SAMPLE, length - 1)


def test_differing_prompt_ids_are_named_by_their_first_difference():
    check_prompt_ids((1, 2, 3), [1, 2, 3], SAMPLE)
    with pytest.raises(PromptError, match="first difference at token 1"):
        check_prompt_ids((1, 2, 3), (1, 4, 3), SAMPLE)
    with pytest.raises(PromptError, match="first difference at token 2"):
        check_prompt_ids((1, 2, 3), (1, 2), SAMPLE)


# Overlays of the motion pathway.


def with_overlays(*sizes: tuple[int, int]) -> VideoClip:
    rng = np.random.default_rng(1)
    return replace(clip(), overlays=tuple(rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes))


@pytest.mark.parametrize(
    ("prompt", "turn"),
    [
        ("Describe the video.", "Describe the video.IMAGEIMAGEVIDEO"),
        ("First: <video> what happens?", "First:IMAGEIMAGEVIDEOwhat happens?"),
    ],
)
def test_overlays_stand_directly_before_the_video(processor, prompt, turn):
    text = render_prompt(processor, replace(SAMPLE, prompt=prompt), num_overlays=2)
    turn = turn.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>")
    turn = turn.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    assert text.startswith(f"<|im_start|>user\n{turn}<|im_end|>")


def test_each_overlay_becomes_tokens_of_its_own_size(processor):
    prompt = encode_prompt(processor, with_overlays((56, 56), (28, 84)), SAMPLE, max_tokens=100)
    assert prompt.token_ids.count(processor.image_token_id) == 2 * 2 + 1 * 3
    assert prompt.vision.grids == ((1, 4, 4), (1, 2, 6), (6, 4, 4))
    assert prompt.vision.overlays is not None
    assert prompt.vision.overlays.pixel_values.shape == (4 * 4 + 2 * 6, 3 * 2 * 14 * 14)
    text = render_prompt(processor, SAMPLE, num_overlays=2)
    assert prompt.token_ids == expected_token_ids(processor, text, (6, 4, 4), ((1, 4, 4), (1, 2, 6)))


def test_several_samples_keep_their_own_overlays(processor):
    clips = [with_overlays((28, 28)), clip(), with_overlays((56, 28), (28, 56))]
    together = encode_prompts(processor, clips, [SAMPLE] * 3, max_tokens=100)
    for prompt, one in zip(together, clips, strict=True):
        assert isinstance(prompt, Prompt)
        alone = encode_prompt(processor, one, SAMPLE, max_tokens=100)
        assert prompt.token_ids == alone.token_ids
        assert prompt.vision.grids == alone.vision.grids
        pair = prompt.vision.overlays, alone.vision.overlays
        assert (pair[0] is None) == (pair[1] is None) == (not one.overlays)
        if pair[0] and pair[1]:
            assert np.array_equal(pair[0].pixel_values, pair[1].pixel_values)


def test_a_question_that_types_an_image_token_is_refused(processor):
    with pytest.raises(PromptError, match="image tokens"):
        render_prompt(processor, replace(SAMPLE, prompt="What is <|image_pad|>?"))
