"""From samples to padded batches: which clips share a step, which of them a rank takes, what is imitated.

Sequences (prompt, then caption) are padded on the right under a causal mask, so no real token ever attends to
padding and no mask is built. Batches hold captions of similar length, so little is padded. Everything here is a
function of the data, the seed and the epoch: all ranks compute the same plan, and a resumed run computes it again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from owlcap.models.logprobs import completion_logprobs
from owlcap.models.packing import PackedBatch, pack_groups
from owlcap.types import Prompt

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

BATCHES_PER_BUCKET = 16  # captions are sorted by length within this many batches, and batches then shuffled


@dataclass(frozen=True, slots=True)
class SftItem:
    """One encoded sample."""

    prompt: Prompt  # its pixel values are empty when `features` are known
    caption_ids: tuple[int, ...]  # the end-of-turn token last
    features: torch.Tensor | None = None  # [vision tokens, hidden], from a frozen vision tower

    @property
    def length(self) -> int:
        """Tokens of prompt and caption."""
        return len(self.prompt.token_ids) + len(self.caption_ids)


@dataclass(frozen=True, slots=True)
class SftBatch:
    """One micro batch: a row a sample, and which of the captions' N tokens are trained on."""

    rows: PackedBatch
    trained: torch.Tensor  # float32 [N], 1 or 0
    features: tuple[torch.Tensor, ...] | None
    num_targets: int  # tokens that are trained on

    def to(self, device: torch.device) -> SftBatch:
        """The same batch on another device."""
        features = self.features and tuple(f.to(device, non_blocking=True) for f in self.features)
        return SftBatch(self.rows.to(device), self.trained.to(device), features, self.num_targets)


def collate(items: Sequence[SftItem], config: Qwen2_5_VLConfig, masked_ids: Collection[int]) -> SftBatch:
    """Stack items. Trained are the caption's tokens and the end of the assistant's turn, and nothing else.

    Args:
        items: all with features, or all without.
        config: the policy's.
        masked_ids: tokens that are not trained on even inside a caption (vision placeholders).
    """
    rows = pack_groups([(item.prompt, [item.caption_ids]) for item in items], config)
    trained = ~torch.isin(rows.targets, torch.tensor(sorted(masked_ids), dtype=torch.long))
    features = tuple(item.features for item in items if item.features is not None)
    assert len(features) in (0, len(items))
    return SftBatch(rows, trained.float(), features or None, int(trained.sum()))


def caption_loss(model: Qwen2_5_VLForConditionalGeneration, batch: SftBatch) -> torch.Tensor:
    """Sum of -log p(token) over the batch's trained tokens, in fp32, differentiable."""
    return -(completion_logprobs(model, batch.rows, features=batch.features) * batch.trained).sum()


def epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Sample indices of every batch of one epoch: each sample once, similar lengths together, order random.

    Args:
        lengths: of each sample's caption, in any unit.
        batch_size: sequences of one optimizer step over all ranks.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    sizes = np.asarray(lengths)
    bucket = BATCHES_PER_BUCKET * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket):
        part = order[start : start + bucket]
        part = part[np.argsort(sizes[part], kind="stable")]
        batches += [part[i : i + batch_size].tolist() for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def rank_share(batch: Sequence[int], lengths: Sequence[int], rank: int, world_size: int) -> list[int]:
    """The sequences of a batch that one rank takes: counts differ by at most one, token counts by little.

    Longest first, dealt out in turns that change direction (0 1 2 2 1 0 ...).
    """
    dealt = sorted(batch, key=lambda i: (-lengths[i], i))
    return [sample for place, sample in enumerate(dealt) if _dealt_to(place, world_size) == rank]


def _dealt_to(place: int, world_size: int) -> int:
    turn, seat = divmod(place, world_size)
    return seat if turn % 2 == 0 else world_size - 1 - seat


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split sequences (given by length) into micro batches of at most `max_tokens` padded tokens.

    A sequence longer than that stands alone. Returns indices into `lengths`, shortest sequences first.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Sorted: this one is the longest so far, so it sets the padded length of the batch it joins.
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
