"""From samples to padded batches: which clips share a step, which of them a rank takes, what is imitated.

Letters: B sequences, S padded length, P prompt tokens, C caption tokens, N video rows.

Sequences are padded on the right under a causal mask, so no real token ever attends to padding and no mask is
built. Batches hold captions of similar length, so little is padded. Everything here is a function of the data,
the seed and the epoch: all ranks compute the same plan, and a resumed run computes it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from owlcap.models.positions import mrope_positions
from owlcap.types import Prompt

IGNORE = -100  # label of a position that is not trained on
BATCHES_PER_BUCKET = 16  # captions are sorted by length within this many batches, and batches then shuffled


@dataclass(frozen=True, slots=True)
class SftItem:
    """One encoded sample.

    `video` holds finished features [N, hidden] when `features` is set, else patches [N, D] for the vision tower.
    """

    token_ids: np.ndarray  # int64 [P + C], the caption ends with the end-of-turn token
    position_ids: np.ndarray  # int64 [3, P + C]
    num_prompt: int  # P
    video: torch.Tensor
    grid_thw: tuple[int, int, int]
    features: bool

    @property
    def length(self) -> int:
        """Tokens of prompt and caption."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class SftBatch:
    """Padded tensors of one micro batch."""

    input_ids: torch.Tensor  # [B, S]
    position_ids: torch.Tensor  # [3, B, S]
    labels: torch.Tensor  # [B, S]; labels[b, s] is the token to predict AT s (already shifted), or IGNORE
    video_index: torch.Tensor  # positions of video tokens in the flattened [B * S], in order
    video: torch.Tensor  # [N, hidden] features or [N, D] patches of all sequences
    grid_thw: torch.Tensor  # [B, 3]
    features: bool

    def to(self, device: torch.device) -> SftBatch:
        """The same batch on another device."""
        return SftBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.labels.to(device),
            self.video_index.to(device),
            self.video.to(device),
            self.grid_thw.to(device),
            self.features,
        )

    @property
    def num_targets(self) -> int:
        """Tokens that count in the loss."""
        return int((self.labels != IGNORE).sum())


def num_batches(num_samples: int, batch_size: int) -> int:
    """Optimizer steps of one epoch; the last batch may be smaller."""
    return math.ceil(num_samples / batch_size)


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


def encode_item(prompt: Prompt, caption_ids: Sequence[int], config, features: torch.Tensor | None = None) -> SftItem:
    """Join a prompt and the caption that follows it.

    Args:
        caption_ids: tokens of the caption, the end-of-turn token last.
        config: the policy's configuration (transformers.Qwen2_5_VLConfig).
        features: the video's finished features, if the vision tower need not run.
    """
    num_prompt = len(prompt.token_ids)
    ids = np.asarray(prompt.token_ids, dtype=np.int64)
    positions = mrope_positions(
        torch.from_numpy(ids), [prompt.vision.video_grid_thw], [prompt.vision.second_per_grid_ts], config
    ).numpy()
    # Text goes on after the prompt's last position, whatever tokens a caption may hold.
    following = positions.max() + 1 + np.arange(len(caption_ids))
    return SftItem(
        token_ids=np.concatenate([ids, np.asarray(caption_ids, dtype=np.int64)]),
        position_ids=np.concatenate([positions, np.broadcast_to(following, (3, len(caption_ids)))], axis=1),
        num_prompt=num_prompt,
        video=torch.from_numpy(prompt.vision.pixel_values_videos) if features is None else features,
        grid_thw=prompt.vision.video_grid_thw,
        features=features is not None,
    )


def caption_labels(item: SftItem, never: frozenset[int]) -> np.ndarray:
    """What each position must predict, [P + C]: the caption with its end of turn, and IGNORE everywhere else.

    Args:
        never: tokens that are not trained on even inside a caption (vision placeholders).
    """
    labels = np.full(item.length, IGNORE, dtype=np.int64)
    labels[item.num_prompt - 1 : -1] = item.token_ids[item.num_prompt :]
    labels[np.isin(labels, list(never))] = IGNORE
    return labels


def collate(items: Sequence[SftItem], *, pad_id: int, video_id: int, never: frozenset[int]) -> SftBatch:
    """Pad items on the right and stack them.

    Args:
        pad_id: fills the padding; nothing attends to it.
        video_id: the token whose embedding a video row replaces (in prompts only).
        never: see `caption_labels`.
    """
    length = max(item.length for item in items)
    input_ids = np.full((len(items), length), pad_id, dtype=np.int64)
    labels = np.full((len(items), length), IGNORE, dtype=np.int64)
    positions = np.zeros((3, len(items), length), dtype=np.int64)
    places = []
    for row, item in enumerate(items):
        input_ids[row, : item.length] = item.token_ids
        labels[row, : item.length] = caption_labels(item, never)
        positions[:, row, : item.length] = item.position_ids
        places.append(row * length + np.flatnonzero(item.token_ids[: item.num_prompt] == video_id))
    return SftBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(positions),
        labels=torch.from_numpy(labels),
        video_index=torch.from_numpy(np.concatenate(places)),
        video=torch.cat([item.video for item in items]),
        grid_thw=torch.tensor([item.grid_thw for item in items]),
        features=items[0].features,
    )
