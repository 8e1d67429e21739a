"""A micro batch on the learner's device: packed rows, advantages, the sampler's logprobs and a mask.

Shapes: B sequences and T tokens of the longest completion of the micro batch; N completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import ray
import torch
from torch.nn.utils.rnn import pad_sequence

from owlcap.models.packing import PackedBatch, pack_groups
from owlcap.types import LearnerGroup, Prompt
from rl.batching import MicroBatch

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig


@dataclass(slots=True)
class LoadedBatch:
    """A micro batch, with what is computed for it once a step."""

    packed: PackedBatch
    sequences: tuple[tuple[int, int], ...]  # each row's group and completion
    advantages_B: torch.Tensor
    rollout_N: torch.Tensor  # the sampler's logprobs
    mask_BT: torch.Tensor  # 1 on completion tokens; all 0 in a batch that counts for nothing
    num_tokens: int  # that count
    features: tuple[torch.Tensor, ...] | None = None  # of each group's video, where the tower is frozen
    reference_BT: torch.Tensor | None = None
    old_BT: torch.Tensor | None = None

    def rows(self, values_N: torch.Tensor) -> torch.Tensor:
        """Values of completion tokens as [B, T], padded with 0."""
        return pad_sequence(list(self.packed.split(values_N)), batch_first=True)


def fetch_prompts(groups: Mapping[int, LearnerGroup]) -> dict[int, Prompt]:
    """The groups' prompts, out of the object store in one request."""
    refs = {g: group.prompt for g, group in groups.items() if isinstance(group.prompt, ray.ObjectRef)}
    fetched = dict(zip(refs, ray.get(list(refs.values())), strict=True))
    return {g: cast(Prompt, fetched.get(g, group.prompt)) for g, group in groups.items()}


def load_batch(
    micro: MicroBatch,
    groups: Mapping[int, LearnerGroup],
    prompts: Mapping[int, Prompt],
    config: Qwen2_5_VLConfig,
    device: torch.device,
) -> LoadedBatch:
    """Lay a micro batch out: each piece a shared-prefix row."""
    sequences = tuple((piece.group, i) for piece in micro.pieces for i in piece.completions)
    rows = [
        (prompts[piece.group], [groups[piece.group].completions[i] for i in piece.completions])
        for piece in micro.pieces
    ]
    packed = pack_groups(rows, config).to(device)
    lengths = torch.tensor(packed.lengths, device=device)
    mask_BT = (torch.arange(int(lengths.max()), device=device)[None, :] < lengths[:, None]).float() * micro.weight
    rollout = [logprob for g, i in sequences for logprob in groups[g].rollout_logprobs[i]]
    return LoadedBatch(
        packed=packed,
        sequences=sequences,
        advantages_B=torch.tensor([groups[g].advantages[i] for g, i in sequences], device=device),
        rollout_N=torch.tensor(rollout, device=device),
        mask_BT=mask_BT,
        num_tokens=sum(packed.lengths) * micro.weight,
    )
