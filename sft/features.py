"""Features of clips under a frozen vision tower: computed once, kept on disk, read back in every epoch.

    folder/<fingerprint>/<shard>.safetensors    features [N, hidden] of many clips, one after another,
                                                with each clip's rows, grid and timing

The fingerprint is of the vision weights and the video settings; a clip's key is of its file (path, size, time of
change) and segment. Either changing makes new entries, so an old cache is never wrong, only unused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from owlcap.config import VideoSection
from owlcap.types import Sample

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """What SFT needs of one clip once the vision tower has seen it."""

    features: torch.Tensor  # [N, hidden]
    grid_thw: tuple[int, int, int]
    second_per_grid_ts: float


class FeatureCache:
    """The features of one run's clips. Every rank writes shards of its own and reads all."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint
        self._clips: dict[str, ClipFeatures] = {}
        self._read: set[str] = set()

    def refresh(self) -> None:
        """Open the shards that have appeared since the last call; tensors stay on disk until used."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            with safe_open(str(path), framework="pt") as shard:
                keys = json.loads(shard.metadata()["keys"])
                features, grids = shard.get_tensor("features"), shard.get_tensor("grids").tolist()
                ends, seconds = shard.get_tensor("ends").tolist(), shard.get_tensor("seconds").tolist()
            starts = [0, *ends[:-1]]
            for key, start, end, (t, h, w), second in zip(keys, starts, ends, grids, seconds, strict=True):
                self._clips[key] = ClipFeatures(features[start:end], (t, h, w), second)

    def __contains__(self, key: str) -> bool:
        return key in self._clips

    def __getitem__(self, key: str) -> ClipFeatures:
        return self._clips[key]

    def write(self, keys: Sequence[str], clips: Sequence[ClipFeatures]) -> int:
        """Write one shard, named after its clips (all or nothing), and return its size in bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b("".join(keys).encode(), digest_size=16).hexdigest()
        path = self.folder / f"{name}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        tensors = {
            "features": torch.cat([clip.features for clip in clips]).cpu().contiguous(),
            "ends": torch.tensor(np.cumsum([len(clip.features) for clip in clips])),
            "grids": torch.tensor([clip.grid_thw for clip in clips]),
            "seconds": torch.tensor([clip.second_per_grid_ts for clip in clips], dtype=torch.float64),
        }
        save_file(tensors, str(temporary), metadata={"keys": json.dumps(list(keys))})
        temporary.replace(path)
        return path.stat().st_size


def clip_key(sample: Sample) -> str:
    """Name of a clip in the cache; a file that changes gets another one. A missing file has a name too."""
    path = os.path.realpath(sample.video)
    try:
        status = os.stat(path)
        version = (status.st_size, status.st_mtime_ns)
    except OSError:
        version = (0, 0)  # decoding it will say what is wrong
    text = json.dumps([path, *version, sample.start_s, sample.end_s])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def vision_fingerprint(model: Qwen2_5_VLForConditionalGeneration, video: VideoSection) -> str:
    """Name of everything but the clip that features depend on: vision weights and configuration, video settings."""
    digest = hashlib.blake2b(digest_size=16)
    settings = video.model_dump(exclude={"deadline_s", "num_workers"})
    digest.update(json.dumps([settings, model.model.visual.config.to_dict()], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.model.visual.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
