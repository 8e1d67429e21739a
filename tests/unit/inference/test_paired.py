"""Pairs decoded in one batch with one cache are what two separate runs of the model, combined by hand, would say."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from motion.decoding import pair_scores
from owlcap.config import ModelSection
from owlcap.config_motion import DecodingSection
from owlcap.data.prompts import encode_prompt, vision_token_ids
from owlcap.inference.paired import PairPrompt, SynergyProcessor, decode_pairs, end_token_ids
from owlcap.models.load import load_policy, load_processor
from owlcap.models.positions import mrope_positions
from owlcap.models.tiny import make_tiny_model
from owlcap.types import Sample, VideoClip
from tests.conftest import TEXTS, moving_square

DEFAULT = DecodingSection()
QUESTION = Sample("a", "a.mp4", "Describe the video.", "", "")
TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", TEXTS, seed=3, motion=True)


@pytest.fixture(scope="module")
def policy(folder):
    return load_policy(ModelSection(path=str(folder), dtype="fp32", gradient_checkpointing=False))


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


def make_pair(processor, seed: int, num_frames: int, num_overlays: int) -> PairPrompt:
    frames = moving_square(seed, num_frames, 56, 56)
    overlays = tuple(moving_square(100 + seed + i, 1, 28, 56)[0] for i in range(num_overlays))
    clip = VideoClip(frames, 6.0, num_frames / 6, num_frames, tuple(range(num_frames)))
    with_overlays = VideoClip(frames, 6.0, num_frames / 6, num_frames, tuple(range(num_frames)), overlays)
    return PairPrompt(*(encode_prompt(processor, one, QUESTION, 512) for one in (clip, with_overlays)))


@pytest.fixture(scope="module")
def pairs(processor) -> list[PairPrompt]:
    """Three clips of different lengths and numbers of overlays: six rows, no two prompts as long as each other."""
    return [make_pair(processor, 0, 8, 2), make_pair(processor, 1, 4, 3), make_pair(processor, 2, 12, 1)]


def two_cache_reference(policy, pair: PairPrompt, banned, settings=DEFAULT, **sampling) -> list[int]:
    """One branch after the other through the whole model, a cache each, the score of both taken in between."""
    caches, logits, positions = [None, None], [], []
    for number, prompt in enumerate((pair.visual, pair.motion)):
        ids, vision = torch.tensor([prompt.token_ids]), prompt.vision
        place = mrope_positions(ids[0], vision.grids, [vision.second_per_grid_ts], policy.config)
        inputs: dict = {
            "pixel_values_videos": torch.from_numpy(vision.pixel_values_videos),
            "video_grid_thw": torch.tensor([vision.video_grid_thw]),
            "mm_token_type_ids": (ids == policy.config.video_token_id).int() * 2
            + (ids == policy.config.image_token_id).int(),
        }
        if vision.overlays:
            inputs["pixel_values"] = torch.from_numpy(vision.overlays.pixel_values)
            inputs["image_grid_thw"] = torch.tensor(vision.overlays.grids_thw)
        answer = policy(input_ids=ids, position_ids=place[:, None], use_cache=True, **inputs)
        caches[number] = answer.past_key_values
        logits.append(answer.logits[:, -1])
        positions.append(int(place.max()))
    tokens: list[int] = []
    seeds = (sampling["seed"],) if "seed" in sampling else ()
    while len(tokens) < TOKENS:
        for one in logits:
            one[:, list(banned)] = float("-inf")
        temperature = sampling.get("temperature", 0.0)
        steps = (len(tokens),) * len(seeds)
        _, scores = pair_scores(*logits, settings, temperature=temperature, seeds=seeds, steps=steps)
        tokens.append(int(scores.argmax()))
        if tokens[-1] in end_token_ids(policy):
            break
        for number in range(2):
            answer = policy(
                input_ids=torch.tensor([[tokens[-1]]]),
                position_ids=torch.full((3, 1, 1), positions[number] + len(tokens)),
                past_key_values=caches[number],
                use_cache=True,
            )
            logits[number] = answer.logits[:, -1]
    return tokens


@pytest.mark.parametrize("prune", ["relative", "literal", "union"])
def test_a_batch_of_pairs_says_what_two_separate_caches_say(policy, processor, pairs, prune) -> None:
    banned, settings = vision_token_ids(processor), DecodingSection.model_validate({"prune": prune})
    rows = decode_pairs(policy, pairs, SynergyProcessor(settings), [TOKENS] * 3, banned_ids=banned)
    with torch.no_grad():
        assert rows == [two_cache_reference(policy, pair, banned, settings) for pair in pairs]
    assert len({tuple(row) for row in rows}) == 3


def test_both_branches_have_a_say(policy, pairs) -> None:
    together = decode_pairs(policy, pairs, SynergyProcessor(DEFAULT), [TOKENS] * 3)
    visual = [PairPrompt(pair.visual, pair.visual) for pair in pairs]
    motion = [PairPrompt(pair.motion, pair.motion) for pair in pairs]
    for alone in (visual, motion):
        assert decode_pairs(policy, alone, SynergyProcessor(DEFAULT), [TOKENS] * 3) != together


def test_sampled_pairs_draw_the_same_whatever_they_are_batched_with(policy, processor, pairs) -> None:
    banned = vision_token_ids(processor)
    sampled = SynergyProcessor(DEFAULT, temperature=1.0, seeds=(7, 8, 7))
    rows = decode_pairs(policy, pairs, sampled, [TOKENS] * 3, banned_ids=banned)
    with torch.no_grad():
        for pair, seed, row in zip(pairs, (7, 8, 7), rows, strict=True):
            assert row == two_cache_reference(policy, pair, banned, temperature=1.0, seed=seed)


def test_a_pair_ends_at_its_own_length(policy, pairs) -> None:
    rows = decode_pairs(policy, pairs, SynergyProcessor(DEFAULT), [2, 5, 3])
    ends = end_token_ids(policy)
    assert all(len(row) == limit or row[-1] in ends for row, limit in zip(rows, (2, 5, 3), strict=True))


def test_every_step_is_observed_with_the_token_that_was_chosen(policy, pairs) -> None:
    seen: list[torch.Tensor] = []
    watched = SynergyProcessor(DEFAULT, observe=lambda scored, chosen: seen.append(chosen))
    rows = decode_pairs(policy, pairs[:1], watched, [4])
    assert torch.stack(seen)[:, 0].tolist() == rows[0]


def test_the_processor_keeps_pairs_together_in_generate_of_transformers(policy, processor) -> None:
    prompts = ["A person in red", "Describe the person in the red shirt", "The man sits", "Someone walks and jumps"]
    processor.tokenizer.padding_side = "left"
    encoded = processor.tokenizer(prompts, return_tensors="pt", padding=True)
    policy.generation_config.use_cache = True
    answer = policy.generate(
        **encoded,
        do_sample=False,
        max_new_tokens=TOKENS,
        logits_processor=LogitsProcessorList([SynergyProcessor(DEFAULT)]),
    )
    new = answer[:, encoded["input_ids"].shape[1] :]
    assert torch.equal(new[0::2], new[1::2])
    assert not torch.equal(new[0], new[2])


def test_a_pair_of_equal_prompts_agrees_with_itself(policy, pairs) -> None:
    seen = []
    watched = SynergyProcessor(DEFAULT, observe=lambda scored, chosen: seen.append(scored))
    decode_pairs(policy, [PairPrompt(pairs[0].visual, pairs[0].visual)], watched, [3])
    for scored in seen:
        torch.testing.assert_close(scored.visual, scored.motion)
