"""Which samples share a step, how ranks divide them, and exactly which tokens are imitated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from owlcap.config import ModelSection
from owlcap.models.load import load_policy
from owlcap.types import Prompt, VisionInputs
from sft.collate import SftItem, caption_loss, collate, epoch_batches, micro_batches, rank_share

LENGTHS = [17 * i % 40 + 5 for i in range(103)]


def test_every_sample_comes_once_an_epoch() -> None:
    batches = epoch_batches(LENGTHS, 8, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    assert sorted(len(batch) for batch in batches) == [7] + [8] * 12
    assert len(batches) == 13


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert epoch_batches(LENGTHS, 8, seed=1, epoch=2) == epoch_batches(LENGTHS, 8, seed=1, epoch=2)
    assert epoch_batches(LENGTHS, 8, seed=1, epoch=2) != epoch_batches(LENGTHS, 8, seed=1, epoch=3)
    assert epoch_batches(LENGTHS, 8, seed=1, epoch=2) != epoch_batches(LENGTHS, 8, seed=2, epoch=2)


def test_a_batch_holds_similar_lengths() -> None:
    spread = [
        max(LENGTHS[i] for i in b) - min(LENGTHS[i] for i in b) for b in epoch_batches(LENGTHS, 8, seed=0, epoch=0)
    ]
    assert np.mean(spread) < 6  # of 40


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_divide_a_batch_evenly(world_size: int) -> None:
    batch = list(range(12))
    shares = [rank_share(batch, LENGTHS, rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in shares for i in share) == batch
    assert {len(share) for share in shares} == {12 // world_size}
    tokens = [sum(LENGTHS[i] for i in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(LENGTHS[i] for i in batch)


def test_dealing_by_hand() -> None:
    lengths = [10, 40, 20, 30]  # longest first: 1, 3, 2, 0, dealt to ranks 0 1 1 0
    assert rank_share([0, 1, 2, 3], lengths, 0, 2) == [1, 0]
    assert rank_share([0, 1, 2, 3], lengths, 1, 2) == [3, 2]


def test_micro_batches_keep_to_the_padded_budget() -> None:
    assert micro_batches([5, 9, 4, 2, 50], max_tokens=18) == [[3, 2, 0], [1], [4]]
    assert micro_batches([], max_tokens=18) == []


def item(config, caption: tuple[int, ...], text: int = 3) -> SftItem:
    pixels = np.random.default_rng(text).standard_normal((8, 1176)).astype(np.float32)
    ids = (*range(20, 20 + text), *[config.video_token_id] * 2, 30)
    return SftItem(Prompt(ids, VisionInputs(pixels, (2, 2, 2), 0.5)), caption)


def test_only_the_caption_and_its_end_of_turn_are_trained_on(tiny_policy: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_policy)
    end, pad = 2, config.video_token_id
    batch = collate([item(config, (40, 41, end)), item(config, (50, pad, 51, 52, end), text=5)], config, {pad, 999})
    # rows: [20 21 22 V V 30 | 40 41 end] and [20 .. 24 V V 30 | 50 V 51 52 end], 13 tokens long
    assert batch.rows.input_ids.shape == (2, 13)
    assert batch.rows.targets.tolist() == [40, 41, end, 50, pad, 51, 52, end]
    assert batch.trained.tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert batch.num_targets == 7
    # each target is predicted from the position before it, the first from the prompt's last token
    assert batch.rows.predict_index.tolist() == [5, 6, 7, 13 + 7, 13 + 8, 13 + 9, 13 + 10, 13 + 11]
    # video features go to the prompt's placeholders, never to one that a caption holds
    assert batch.rows.feature_index.tolist() == [3, 4, 13 + 5, 13 + 6]


def test_loss_is_the_cross_entropy_of_each_caption_alone(tiny_policy: Path) -> None:
    model = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    items = [item(model.config, (40, 41, 2)), item(model.config, (50, 51, 52, 53, 2), text=5)]
    with torch.no_grad():
        together = float(caption_loss(model, collate(items, model.config, ())))
        alone = 0.0
        for one in items:
            batch = collate([one], model.config, ())
            embeddings = model.get_input_embeddings()(batch.rows.input_ids)
            pixels = torch.from_numpy(one.prompt.vision.pixel_values_videos)
            features = model.model.visual(pixels, grid_thw=torch.tensor([[2, 2, 2]])).pooler_output
            embeddings[0, batch.rows.feature_index] = features
            logits = model(inputs_embeds=embeddings, position_ids=batch.rows.position_ids).logits[0].log_softmax(-1)
            first = len(one.prompt.token_ids) - 1
            alone -= sum(float(logits[first + i, token]) for i, token in enumerate(one.caption_ids))
    assert together == pytest.approx(alone, abs=1e-3)


def test_known_features_replace_the_vision_tower(tiny_policy: Path) -> None:
    model = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    plain = item(model.config, (40, 41, 2))
    with torch.no_grad():
        pixels = torch.from_numpy(plain.prompt.vision.pixel_values_videos)
        features = model.model.visual(pixels, grid_thw=torch.tensor([[2, 2, 2]])).pooler_output
        empty = VisionInputs(np.zeros((0, 0), np.float32), (2, 2, 2), 0.5)
        known = SftItem(Prompt(plain.prompt.token_ids, empty), plain.caption_ids, features)
        losses = [float(caption_loss(model, collate([x], model.config, ()))) for x in (plain, known)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
