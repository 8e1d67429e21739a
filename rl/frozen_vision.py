"""Vision features of a step's clips where nothing of the tower is trained: from the cache, else from the tower.

The tower runs over one clip at a time, so that a clip's features are the same bits whatever else was in the step and
whatever the cache held: a resumed run, which finds more in it, goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import nn

from owlcap.models.logprobs import vision_features
from owlcap.training.engine import TrainingEngine
from owlcap.training.features import ClipFeatures, FeatureCache, patches_key
from owlcap.types import VisionInputs
from rl.microbatch import LoadedBatch
from rl.stats import RankStats

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration


@torch.no_grad()
def load_features(
    batches: Sequence[LoadedBatch], engine: TrainingEngine, cache: FeatureCache | None, stats: RankStats
) -> None:
    """Give every micro batch the features of its clips; all ranks call it."""
    rows = [[(patches_key(vision), vision) for vision in batch.packed.visions] for batch in batches]
    visions = dict(pair for row in rows for pair in row)
    clips = {} if cache is None else {key: cache.read(key) for key in visions}
    found = {key: clip.features.to(engine.device) for key, clip in clips.items() if clip is not None}
    missing = [key for key in visions if key not in found]
    stats.feature_hits, stats.feature_misses = len(found), len(missing)
    for turn in range(_most(len(missing), engine.device)):
        # Ranks gather a partitioned tower together: one that misses nothing runs it too.
        key = missing[turn] if turn < len(missing) else next(iter(visions))
        (features,) = engine.run(partial(_forward, visions=[visions[key]]))
        found.setdefault(key, features)
    for batch, row in zip(batches, rows, strict=True):
        batch.features = tuple(found[key] for key, _ in row)
    if cache is not None:
        cache.write({key: ClipFeatures.of(found[key], visions[key]) for key in missing})
        stats.feature_bytes = cache.num_bytes


def _most(count: int, device: torch.device) -> int:
    """The largest count of any rank."""
    counts = torch.tensor(count, device=device)
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    return int(counts)


def _forward(model: nn.Module, visions: Sequence[VisionInputs]) -> tuple[torch.Tensor, ...]:
    return vision_features(cast("Qwen2_5_VLForConditionalGeneration", model), visions)
