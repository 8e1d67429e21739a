"""The KL to the reference taken from the reward: r' = r - kl_beta * sum over tokens of KL, then the advantages anew.

A group may be cut over ranks and an estimator may look at the whole step, so the ranks tell one another what each
caption's reward has become, and each works out all advantages by itself. They come to the same ones.

The KL is of the policy that drew the captions: its logprobs came with them, and need no forward of the learner.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed

from owlcap.config import AlgorithmSection
from rl.advantages import batch_advantages
from rl.losses import sequence_kl

if TYPE_CHECKING:
    from owlcap.types import LearnerGroup
    from rl.microbatch import LoadedBatch

Place = tuple[int, int]  # group and completion


def subtract_kl(batches: Sequence[LoadedBatch], groups: Mapping[int, LearnerGroup], cfg: AlgorithmSection) -> None:
    """Replace the advantages of a rank's micro batches; every rank of the learner takes part.

    Args:
        batches: all of a step on this rank, with reference logprobs.
        groups: that they are cut from, with rewards.
    """
    own: dict[Place, tuple[float, int]] = {}  # reward after the KL, and tokens
    for batch in batches:
        assert batch.reference_BT is not None
        if not batch.num_tokens:  # repeats another's captions to keep ranks in step
            continue
        rollout_BT = batch.rows(batch.rollout_N)
        kls = sequence_kl(rollout_BT, batch.reference_BT, batch.mask_BT, cfg.kl_estimator).tolist()
        for (g, i), kl, length in zip(batch.sequences, kls, batch.packed.lengths, strict=True):
            own[g, i] = (groups[g].rewards[i] - cfg.kl_beta * kl, length)
    everyone: list[dict[Place, tuple[float, int]]] = [own]
    if torch.distributed.is_initialized():
        everyone = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyone, own)
    advantages = _advantages({place: found for rank in everyone for place, found in rank.items()}, cfg)
    for batch in batches:
        values = [advantages[place] for place in batch.sequences]
        batch.advantages_B = torch.tensor(values, device=batch.advantages_B.device)


def _advantages(rewards: Mapping[Place, tuple[float, int]], cfg: AlgorithmSection) -> dict[Place, float]:
    by_group = [list(places) for _, places in itertools.groupby(sorted(rewards), key=lambda place: place[0])]
    found = batch_advantages(
        [[rewards[place][0] for place in places] for places in by_group],
        [[rewards[place][1] for place in places] for places in by_group],
        cfg,
    )
    return {
        place: value or 0.0
        for places, values in zip(by_group, found.values, strict=True)
        for place, value in zip(places, values, strict=True)
    }
