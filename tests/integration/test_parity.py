"""The learner computes the logprobs that vLLM sampled with: video, image beside video, several videos, text only."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from owlcap.config import ModelSection
from owlcap.data.prompts import PROCESSOR_KWARGS, check_prompt_ids, encode_prompt, render_prompt, video_item
from owlcap.models.load import load_policy, load_processor
from owlcap.models.logprobs import completion_logprobs, vision_features
from owlcap.models.packing import Row, collate, pack_group, pad_group
from owlcap.models.positions import mrope_positions
from owlcap.types import Prompt, Sample, VideoClip, VisionInputs
from tests.conftest import moving_square

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # measured: 2e-6
SAMPLE = Sample("clip", "clip.mp4", "Describe the video.", "A caption.", "A caption.")
VIDEO, IMAGE = "<|vision_start|><|video_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def engine(tiny_policy) -> Iterator:
    """vLLM in this process, fp32."""
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    from vllm import LLM

    llm = LLM(
        str(tiny_policy),
        dtype="float32",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=8,
        kv_cache_memory_bytes=64 * 2**20,
        limit_mm_per_prompt={"video": 2, "image": 1},
        mm_processor_kwargs=dict(PROCESSOR_KWARGS),
        seed=0,
    )
    yield llm
    llm.llm_engine.engine_core.shutdown()


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))


@pytest.fixture(scope="module")
def processor(tiny_policy):
    return load_processor(tiny_policy)


def make_clip(seed: int, *, num_frames: int, width: int = 56, fps: float = 6.0, total: int | None = None) -> VideoClip:
    frames = moving_square(seed, num_frames, 56, width)
    total = total or num_frames
    return VideoClip(frames, fps, total / fps, total, tuple(range(num_frames)))


def sample_from(engine, text: str, media: dict) -> tuple[list[int], list[list[int]], torch.Tensor]:
    """vLLM's prompt ids, four completions of different lengths, and their tokens' logprobs [N]."""
    from vllm import SamplingParams

    request = {"prompt": text, "multi_modal_data": media} if media else {"prompt": text}
    sampling = SamplingParams(n=4, temperature=1.0, max_tokens=24, logprobs=0, seed=1)
    (answer,) = engine.generate([request], sampling, use_tqdm=False)
    completions = [list(output.token_ids) for output in answer.outputs]
    logprobs = [
        entry[token].logprob
        for output in answer.outputs
        for token, entry in zip(output.token_ids, output.logprobs, strict=True)
    ]
    return list(answer.prompt_token_ids), completions, torch.tensor(logprobs)


def differences(policy, batch, logprobs, features=None) -> float:
    with torch.no_grad():
        return float((completion_logprobs(policy, batch, features=features) - logprobs).abs().max())


@pytest.mark.parametrize(
    "clip",
    [
        make_clip(0, num_frames=12),  # 1/3 s between temporal patches
        make_clip(1, num_frames=8, width=112, fps=25.0, total=100),
        make_clip(2, num_frames=4, fps=1.0),  # 2 s: eight positions a patch
        make_clip(3, num_frames=2, width=28),
    ],
    ids=["a third of a second", "wide", "slow", "one patch"],
)
def test_video(engine, policy, processor, clip):
    ids, completions, logprobs = sample_from(engine, render_prompt(processor, SAMPLE), {"video": [video_item(clip)]})
    prompt = encode_prompt(processor, clip, SAMPLE, 512)
    check_prompt_ids(prompt.token_ids, ids, SAMPLE)
    assert len({tuple(completion) for completion in completions}) == 4
    assert differences(policy, pack_group(prompt, completions, policy.config), logprobs) < TOLERANCE
    assert differences(policy, pad_group(prompt, completions, policy.config), logprobs) < TOLERANCE


def test_positions_matter_or_this_file_would_show_nothing(engine, policy, processor):
    clip = make_clip(0, num_frames=12)
    _, completions, logprobs = sample_from(engine, render_prompt(processor, SAMPLE), {"video": [video_item(clip)]})
    prompt = encode_prompt(processor, clip, SAMPLE, 512)
    wrong = VisionInputs(prompt.vision.pixel_values_videos, prompt.vision.video_grid_thw, second_per_grid_ts=1.0)
    batch = pack_group(Prompt(prompt.token_ids, wrong), completions, policy.config)
    assert differences(policy, batch, logprobs) > 10 * TOLERANCE


def general_batch(policy, ids: list[int], grids, seconds, completions):
    """A packed batch of a prompt with any images and videos."""
    config, tokens = policy.config, torch.tensor(ids)
    is_vision = (tokens == config.video_token_id) | (tokens == config.image_token_id)
    positions = mrope_positions(tokens, grids, seconds, config)
    return collate([Row(tokens, positions, tuple(map(tuple, completions)), is_vision, 0)], [])


def turn(content: str) -> str:
    return f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def test_text_only(engine, policy):
    ids, completions, logprobs = sample_from(engine, turn("Describe a red ball, then a blue box."), {})
    assert differences(policy, general_batch(policy, ids, [], [], completions), logprobs) < TOLERANCE


def test_an_image_before_a_video(engine, policy, processor):
    image = np.random.default_rng(0).integers(0, 256, (84, 56, 3), np.uint8)
    clip = make_clip(4, num_frames=6)
    text = turn(f"Compare {IMAGE} with {VIDEO}")
    ids, completions, logprobs = sample_from(engine, text, {"image": [image], "video": [video_item(clip)]})
    encoded = processor.image_processor([image], return_tensors="pt")
    vision = encode_prompt(processor, clip, SAMPLE, 512).vision
    with torch.no_grad():
        picture = policy.model.visual(encoded["pixel_values"], grid_thw=encoded["image_grid_thw"]).pooler_output
        features = [picture, *vision_features(policy, [vision])]
    grids = [tuple(encoded["image_grid_thw"][0].tolist()), vision.video_grid_thw]
    batch = general_batch(policy, ids, grids, [vision.second_per_grid_ts], completions)
    assert differences(policy, batch, logprobs, features) < TOLERANCE


def test_two_videos_of_different_rates(engine, policy, processor):
    clips = [make_clip(5, num_frames=8, fps=4.0), make_clip(6, num_frames=4, width=84, fps=10.0)]
    text = turn(f"First {VIDEO} and then {VIDEO}")
    ids, completions, logprobs = sample_from(engine, text, {"video": [video_item(clip) for clip in clips]})
    visions = [encode_prompt(processor, clip, SAMPLE, 512).vision for clip in clips]
    with torch.no_grad():
        features = vision_features(policy, visions)
    grids, seconds = [v.video_grid_thw for v in visions], [v.second_per_grid_ts for v in visions]
    assert differences(policy, general_batch(policy, ids, grids, seconds, completions), logprobs, features) < TOLERANCE
