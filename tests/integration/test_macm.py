"""The motion pathway in a real vLLM engine: one video and four overlays, against the learner's own path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from owlcap.config import ModelSection, MotionSection, RolloutSection, VideoSection
from owlcap.data.prompts import encode_prompt
from owlcap.data.video import VideoLoader
from owlcap.models.load import load_policy, load_processor, policy_state_dict
from owlcap.models.logprobs import completion_logprobs
from owlcap.models.macm import add_motion
from owlcap.models.packing import pack_group, pad_group
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rollout.settings import GenerationRequest, RolloutEngineSettings

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
VIDEO = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
MOTION = MotionSection(enabled=True, max_overlays=4, min_pixels=784, max_pixels=84 * 84)
ROLLOUT = RolloutSection(max_model_len=256, max_num_seqs=16, kv_cache_gib=0.0625, max_new_tokens=24)
SAMPLED = SamplingSettings(num_completions=4, max_new_tokens=24, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tiny_policy: Path, tmp_path_factory) -> Path:
    """The tiny policy with a motion merger that is no longer a copy of its merger."""
    from owlcap.models.load import save_policy

    folder = add_motion(tiny_policy, tmp_path_factory.mktemp("macm") / "converted")
    policy = load(folder)
    with torch.no_grad():
        policy.model.visual.motion_merger.mlp[2].weight.mul_(-1.0)
    save_policy(policy, load_processor(folder), folder.with_name("motion"))
    return folder.with_name("motion")


def load(folder: Path):
    return load_policy(ModelSection(path=str(folder), dtype="fp32", gradient_checkpointing=False))


@pytest.fixture(scope="module")
def engine(checkpoint: Path):
    """One engine for this module. A test that changes its weights puts them back."""
    from rollout.engine import VllmEngine

    settings = RolloutEngineSettings(str(checkpoint), VIDEO, MOTION, ROLLOUT, dtype="fp32", max_prompt_tokens=128)
    engine = VllmEngine(settings)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def sample(toy_clips: tuple[Path, ...], tmp_path_factory) -> Sample:
    """A clip with four overlays: of two sizes that stay, one that shrinks, and one that grows."""
    folder, files = tmp_path_factory.mktemp("overlays"), []
    for number, (height, width) in enumerate([(56, 56), (84, 56), (200, 220), (20, 20)]):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        files.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(files[-1])
    question = "Describe the video."
    return Sample("clip", str(toy_clips[0]), question, "A caption.", "A caption.", overlays=tuple(files))


def ask(engine, *samples: Sample) -> list:
    return engine.generate([GenerationRequest(one, SAMPLED) for one in samples])


def largest_difference(policy, group: RolloutGroup, pack=pack_group) -> float:
    completions = [completion.token_ids for completion in group.completions]
    ours = torch.tensor([value for completion in group.completions for value in completion.logprobs])
    with torch.no_grad():
        return float((completion_logprobs(policy, pack(group.prompt, completions, policy.config)) - ours).abs().max())


@pytest.mark.parametrize("pack", [pack_group, pad_group], ids=["shared prefix", "padded"])
def test_the_learner_computes_the_logprobs_that_vllm_sampled_with(engine, sample, checkpoint, pack):
    (group,) = ask(engine, sample)
    assert len({completion.token_ids for completion in group.completions}) == 4
    assert largest_difference(load(checkpoint), group, pack) < TOLERANCE


def test_the_motion_merger_matters_or_this_file_would_show_nothing(engine, sample, tiny_policy, tmp_path):
    (group,) = ask(engine, sample)
    assert largest_difference(load(add_motion(tiny_policy, tmp_path / "copy")), group) > 100 * TOLERANCE


def test_groups_with_and_without_overlays_pack_together(engine, sample, checkpoint):
    from owlcap.models.packing import pack_groups

    (group,) = ask(engine, sample)
    with VideoLoader(VIDEO) as loader:
        alone = encode_prompt(load_processor(checkpoint), loader.load(sample), sample, 128)
    completions = [completion.token_ids for completion in group.completions]
    policy = load(checkpoint)
    with torch.no_grad():
        together = completion_logprobs(
            policy, pack_groups([(alone, completions), (group.prompt, completions)], policy.config)
        )
        apart = [completion_logprobs(policy, pack_group(p, completions, policy.config)) for p in (alone, group.prompt)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=0)


def test_the_learners_prompt_is_the_processors_with_overlays_before_the_video(engine, sample, checkpoint):
    (group,) = ask(engine, sample)
    processor = load_processor(checkpoint)
    with VideoLoader(VIDEO, MOTION) as loader:
        expected = encode_prompt(processor, loader.load(sample), sample, 128)
    assert group.prompt.token_ids == expected.token_ids
    assert group.prompt.vision.overlays.grids_thw == ((1, 4, 4), (1, 6, 4), (1, 4, 6), (1, 2, 2))
    assert np.array_equal(group.prompt.vision.overlays.pixel_values, expected.vision.overlays.pixel_values)
    image, video = (expected.token_ids.index(i) for i in (processor.image_token_id, processor.video_token_id))
    assert image < video


def test_video_and_overlays_are_submitted_once_a_group(engine, sample):
    before = engine.counters
    ask(engine, sample, replace(sample, id="again"))
    assert engine.counters.num_processed - before.num_processed == 2


def test_a_sample_without_overlays_is_a_stated_failure_and_others_go_on(engine, sample):
    without, group = ask(engine, replace(sample, id="bare", overlays=()), sample)
    assert isinstance(without, RolloutFailure)
    assert without.error == "DataError"
    assert "motion.missing=visual" in without.reason
    assert isinstance(group, RolloutGroup)


def test_a_sync_of_other_weights_reaches_the_motion_merger(engine, sample, checkpoint):
    policy = load(checkpoint)
    original = [(name, tensor.numpy().copy()) for name, tensor in policy_state_dict(policy)]
    with torch.no_grad():
        policy.model.visual.motion_merger.mlp[0].weight.normal_(generator=torch.Generator().manual_seed(0))
    engine.load_weights([[(name, tensor.numpy()) for name, tensor in policy_state_dict(policy)]], 1)
    try:
        (group,) = ask(engine, sample)
        assert largest_difference(policy, group) < TOLERANCE
        assert largest_difference(load(checkpoint), group) > 100 * TOLERANCE
    finally:
        engine.load_weights([original], 0)
