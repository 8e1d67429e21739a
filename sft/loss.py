"""The cross-entropy of captions: one forward pass of the policy over a padded batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sft.collate import IGNORE, SftBatch

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

CHUNK_ELEMENTS = 32 * 2**20  # logits held at once: 128 MiB in fp32


def caption_loss(model: Qwen2_5_VLForConditionalGeneration, batch: SftBatch) -> torch.Tensor:
    """Sum of -log p(token) over the batch's target tokens, in fp32, differentiable.

    Logits exist for target positions only, a chunk at a time; chunks are computed again in the backward pass.
    """
    embeddings = model.get_input_embeddings()(batch.input_ids)
    video = batch.video if batch.features else video_features(model, batch.video, batch.grid_thw)
    flat = embeddings.flatten(0, 1).index_copy(0, batch.video_index, video.to(embeddings.dtype))
    hidden = model.model.language_model(
        inputs_embeds=flat.view_as(embeddings), position_ids=batch.position_ids, attention_mask=None, use_cache=False
    ).last_hidden_state
    labels = batch.labels.flatten()
    (places,) = torch.nonzero(labels != IGNORE, as_tuple=True)
    rows, targets = hidden.flatten(0, 1)[places], labels[places]
    size = max(1, CHUNK_ELEMENTS // model.config.get_text_config().vocab_size)
    if len(places) <= size:
        return _cross_entropy(model.lm_head, rows, targets)
    sums = [
        checkpoint(_cross_entropy, model.lm_head, part, wanted, use_reentrant=False)
        for part, wanted in zip(rows.split(size), targets.split(size), strict=True)
    ]
    return torch.stack(sums).sum()  # type: ignore[arg-type]


def _cross_entropy(head: torch.nn.Module, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(rows).float(), targets, reduction="sum")


def video_features(
    model: Qwen2_5_VLForConditionalGeneration, patches: torch.Tensor, grid_thw: torch.Tensor
) -> torch.Tensor:
    """Features [N / merge^2, hidden] of several videos' patches [N, D], in the order of the rows of `grid_thw`."""
    vision = model.model.visual
    return vision(patches.to(vision.dtype), grid_thw=grid_thw).pooler_output
