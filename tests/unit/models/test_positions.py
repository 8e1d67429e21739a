"""Positions: worked out by hand, and equal to vLLM's own method over random layouts."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from owlcap.errors import PromptError
from owlcap.models.positions import mrope_positions

TEXT = 7


@pytest.fixture(scope="module")
def config(tiny_policy):
    config = AutoConfig.from_pretrained(tiny_policy)
    config.vision_config.tokens_per_second = 4  # the numbers below are worked out for it
    return config


def positions(config, ids, grids, seconds) -> list[list[int]]:
    return mrope_positions(torch.tensor(ids), grids, seconds, config).tolist()


def test_text_counts_up_in_all_three_rows(config):
    assert positions(config, [TEXT] * 4, [], []) == [[0, 1, 2, 3]] * 3


def test_a_video_counts_cells_and_text_resumes_after_its_largest_position(config):
    # Grid 3 x 2 x 4 patches = 3 x 1 x 2 cells; 0.5 s a grid at 4 positions a second = steps of 2.
    ids = [TEXT, TEXT, *[config.video_token_id] * 6, TEXT, TEXT]
    assert positions(config, ids, [(3, 2, 4)], [0.5]) == [
        [0, 1, 2, 2, 4, 4, 6, 6, 7, 8],
        [0, 1, 2, 2, 2, 2, 2, 2, 7, 8],
        [0, 1, 2, 3, 2, 3, 2, 3, 7, 8],
    ]


def test_a_grid_under_one_second_still_tells_frames_apart(config):
    ids = [config.video_token_id] * 4
    # 0.4 s * 4 = 1.6 a grid, truncated after the multiplication: 0, 1, 3, 4.
    assert positions(config, ids, [(4, 2, 2)], [0.4])[0] == [0, 1, 3, 4]


def test_images_have_no_seconds(config):
    ids = [config.image_token_id, TEXT, *[config.video_token_id] * 2]
    assert positions(config, ids, [(1, 2, 2), (2, 2, 2)], [1.0])[0] == [0, 1, 2, 6]


@pytest.mark.parametrize("num_tokens", [0, 5, 7])
def test_placeholders_that_do_not_fit_the_grids_are_an_error(config, num_tokens):
    ids = [TEXT, *[config.video_token_id] * num_tokens, TEXT]
    with pytest.raises(PromptError, match=f"has {num_tokens} vision tokens, its 1 images and videos take 6"):
        positions(config, ids, [(3, 2, 4)], [0.5])


def test_vision_tokens_without_a_grid_are_an_error(config):
    with pytest.raises(PromptError, match="has 1 vision tokens"):
        positions(config, [TEXT, config.video_token_id], [], [])


def test_a_video_without_its_seconds_is_an_error(config):
    with pytest.raises(PromptError, match="more videos than second_per_grid_ts"):
        positions(config, [config.video_token_id], [(1, 2, 2)], [])


# vLLM's own arithmetic.


def vllm_positions(config, ids, items) -> torch.Tensor:
    """vLLM's `get_mrope_input_positions` on (modality, offset, num_tokens, grid, seconds) items."""
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model
    from vllm.multimodal.inputs import (
        MultiModalFeatureSpec,
        MultiModalFieldConfig,
        MultiModalKwargsItem,
        PlaceholderRange,
    )

    features = []
    for modality, offset, num_tokens, grid, seconds in items:
        fields = {f"{modality}_grid_thw": torch.tensor([grid])}
        if modality == "video":
            fields["second_per_grid_ts"] = torch.tensor([seconds])
        elements = {k: MultiModalFieldConfig.batched(modality).build_elems(k, v)[0] for k, v in fields.items()}
        place = PlaceholderRange(offset=offset, length=num_tokens)
        item = MultiModalKwargsItem(elements)
        features.append(MultiModalFeatureSpec(data=item, modality=modality, identifier=str(offset), mm_position=place))
    model = SimpleNamespace(config=config)
    model.iter_mm_grid_thw = lambda found: Model.iter_mm_grid_thw(model, found)  # type: ignore[arg-type]
    return Model.get_mrope_input_positions(model, ids, features)[0]  # type: ignore[arg-type]


def random_layout(config, seed: int):
    """Token ids with 0 to 4 images and videos of random grids and rates between random runs of text."""
    rng = random.Random(seed)
    ids, items = [TEXT] * rng.randint(0, 9), []
    for _ in range(rng.randint(0, 4)):
        modality = rng.choice(["image", "video", "video"])
        grid = (1 if modality == "image" else rng.randint(1, 9), 2 * rng.randint(1, 6), 2 * rng.randint(1, 6))
        num_tokens = grid[0] * grid[1] * grid[2] // 4
        seconds = rng.choice([0.1, 0.25, 1 / 3, 0.5, 2 / 3, 1.0, 1.2, 2.0, rng.uniform(0.05, 3)])
        items.append((modality, len(ids), num_tokens, grid, float(np.float32(seconds))))
        ids += [config.image_token_id if modality == "image" else config.video_token_id] * num_tokens
        ids += [TEXT] * rng.randint(1, 6)
    return ids, items


def test_positions_equal_vllms_over_random_layouts(config):
    kinds = set()
    for seed in range(300):
        ids, items = random_layout(config, seed)
        if not ids:
            continue
        grids = [grid for *_, grid, _ in items]
        seconds = [s for modality, *_, s in items if modality == "video"]
        ours = mrope_positions(torch.tensor(ids), grids, seconds, config)
        assert torch.equal(ours, vllm_positions(config, ids, items)), f"layout {seed}: {items}"
        kinds.add(tuple(modality for modality, *_ in items))
    assert {(), ("video",), ("image", "video"), ("video", "video")} <= kinds


def test_transformers_own_positions_differ_which_is_why_they_are_not_used(config, tiny_policy):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_policy, config=config)
    ids = torch.tensor([TEXT, *[config.video_token_id] * 6, TEXT])
    theirs, _ = model.model.get_rope_index(
        ids[None],
        video_grid_thw=torch.tensor([[3, 2, 4]]),
        second_per_grid_ts=torch.tensor([0.5]),
        mm_token_type_ids=(ids[None] == config.video_token_id) * 2,
    )
    assert not torch.equal(theirs[:, 0], mrope_positions(ids, [(3, 2, 4)], [0.5], config))
