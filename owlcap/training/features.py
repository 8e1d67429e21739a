"""Features of clips under a frozen vision tower: computed once, found again in later epochs, runs and processes.

    folder/<key>.safetensors    one clip: features [N, hidden], grid, timing, checksum

A key is a hash of everything the features depend on and of nothing else: the tower's weights, dtype and configuration
(`tower_fingerprint`), and the clip's patches (`patches_key`) or, where decoding is to be saved too, the bytes of its
file, its segment and how frames are taken from it (`clip_key`). So an entry is never wrong, only unused.

Any number of processes may share a folder. A file appears whole or not at all; one that was damaged since counts as
absent. After each write the cache's files that were not used for the longest time are removed, until they are within
their bound; other files and subfolders are neither counted nor touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from owlcap.config import FeaturesSection, MotionSection, Run, VideoSection
from owlcap.logging import get_logger
from owlcap.types import OverlayInputs, Sample, VisionInputs

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

logger = get_logger(__name__)
SHARE_OF_DISK = 0.5  # of what is free or the cache's own, whatever the bound
DIGEST_BYTES = 16
OWN_FILE = re.compile(r"[0-9a-f]{32}\.(safetensors|[0-9a-f]{16}\.tmp)")  # the latter is not yet whole


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """What training needs of one clip once the vision tower has seen it."""

    features: torch.Tensor  # [N, hidden], on the CPU
    grid_thw: tuple[int, int, int]
    second_per_grid_ts: float
    overlay_grids: tuple[tuple[int, int, int], ...] = ()  # of the overlays, whose features come before the video's

    @classmethod
    def of(cls, features: torch.Tensor, vision: VisionInputs) -> ClipFeatures:
        """Features that the tower made of `vision`."""
        return cls(features.cpu(), vision.video_grid_thw, vision.second_per_grid_ts, vision.grids[:-1])


class FeatureCache:
    """Clip features of one vision tower in a folder that other towers and processes use too.

    Args:
        tower: `tower_fingerprint` of the model.
        max_bytes: of the cache's files in the folder together.
    """

    def __init__(self, folder: Path, tower: str, max_bytes: int) -> None:
        self.folder, self.tower, self.max_bytes = folder, tower, max_bytes
        self.num_bytes = sum(size for _, _, size in self._files())  # of the cache's files, after the last write
        self._can_write = True

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def read(self, key: str) -> ClipFeatures | None:
        """The clip of that key, which is thereby the one used last; None if it is not there or damaged."""
        path = self._path(key)
        try:
            clip = _decoded(path.read_bytes())
        except OSError:
            return None
        except (SafetensorError, KeyError, ValueError):
            with suppress(OSError):  # another user's, or gone already
                path.unlink()  # so that it is made anew
            return None
        with suppress(OSError):
            os.utime(path)
        return clip

    def write(self, clips: Mapping[str, ClipFeatures]) -> int:
        """Keep clips under their keys; the bytes written. A disk that cannot be written is a warning, once."""
        num_bytes = 0
        try:
            for key, clip in clips.items() if self._can_write else ():
                with suppress(FileNotFoundError):  # another process needed the room before the file was whole
                    num_bytes += self._write(self._path(key), clip)
            if num_bytes:
                self._evict()
        except OSError as error:
            self._can_write = False
            logger.warning("clip features are not kept any more, %s cannot be written: %s", self.folder, error)
        return num_bytes

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(f"{self.tower} {key}".encode(), digest_size=DIGEST_BYTES).hexdigest()
        return self.folder / f"{name}.safetensors"

    def _write(self, path: Path, clip: ClipFeatures) -> int:
        tensors = {
            "features": clip.features.cpu().contiguous(),
            "grid": torch.tensor(clip.grid_thw),
            "seconds": torch.tensor(clip.second_per_grid_ts, dtype=torch.float64),
            "overlays": torch.tensor([grid[1:] for grid in clip.overlay_grids], dtype=torch.long).view(-1, 2),
        }
        content = save(tensors | {"checksum": torch.tensor(_checksum(tensors))})
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return len(content)

    def _evict(self) -> None:
        """Remove what was used longest ago; half-written files of processes that died go the same way."""
        files = self._files()
        total = sum(size for _, _, size in files)
        limit = min(self.max_bytes, room(self.folder, total))
        for _, path, size in sorted(files):
            if total <= limit:
                break
            path.unlink(missing_ok=True)
            total -= size
        self.num_bytes = total

    def _files(self) -> list[tuple[int, Path, int]]:
        """The cache's own files: when each was used last, and its size."""
        files = []
        for path in self.folder.glob("*"):
            if not OWN_FILE.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):  # another process evicts too
                status = path.stat()
                files.append((status.st_mtime_ns, path, status.st_size))
        return files


def _decoded(content: bytes) -> ClipFeatures:
    tensors = load(content)
    if int(tensors.pop("checksum")) != _checksum(tensors):
        raise ValueError("damaged")
    features, (t, h, w) = tensors["features"], tensors["grid"].tolist()
    overlays = tuple((1, rows, columns) for rows, columns in tensors["overlays"].tolist())
    return ClipFeatures(features, (t, h, w), float(tensors["seconds"]), overlays)


def room(folder: Path, num_held: int = 0) -> int:
    """Bytes that the cache may take of the disk that `folder` is or will be on; it holds `num_held` already."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    disk = os.statvfs(existing)
    return int(SHARE_OF_DISK * (disk.f_bavail * disk.f_frsize + num_held))


def is_frozen(model: Qwen2_5_VLForConditionalGeneration) -> bool:
    """Whether nothing of the vision tower is trained, so that a clip's features never change."""
    return not any(parameter.requires_grad for parameter in model.model.visual.parameters())


def open_cache(section: FeaturesSection | None, model: Qwen2_5_VLForConditionalGeneration) -> FeatureCache | None:
    """The cache for a model that is not yet partitioned; None where it is off, or the tower is trained.

    Args:
        section: with a folder (`located`).
    """
    if section is None or not section.max_gib or not is_frozen(model):
        return None
    assert section.folder is not None
    return FeatureCache(Path(section.folder), tower_fingerprint(model), int(section.max_gib * 2**30))


def located(cfg: Run) -> FeaturesSection:
    """The run's settings of the cache with an absolute folder, by default one that all runs of `run_dir` share."""
    folder = Path(cfg.features.folder or Path(cfg.run_dir) / "features")
    return cfg.features.model_copy(update={"folder": str(folder.absolute())})


def patches_key(vision: VisionInputs) -> str:
    """Name of a clip by what the tower takes."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    _add_fields(digest, vision)
    return digest.hexdigest()


def _add_fields(digest: hashlib.blake2b, values: VisionInputs | OverlayInputs) -> None:
    for field in fields(values):  # all of them: one that is added later must not be forgotten here
        value = getattr(values, field.name)
        if isinstance(value, np.ndarray):
            digest.update(f"{field.name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        elif isinstance(value, OverlayInputs):
            _add_fields(digest, value)
        else:
            digest.update(f"{field.name} {value!r}".encode())


def clip_key(sample: Sample, file: str, frames: str, overlays: Sequence[str] = ()) -> str:
    """Name of a clip that is not decoded.

    Args:
        file: `file_digest` of its video.
        frames: `frames_fingerprint` of the run.
        overlays: `file_digest` of each overlay.
    """
    text = json.dumps([file, sample.start_s, sample.end_s, frames, *overlays])
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def file_digest(path: str) -> str:
    """Hash of a file's bytes; one that cannot be read has a name too, as decoding it will say what is wrong."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        return f"unreadable: {error}"


def frames_fingerprint(video: VideoSection, processor: Qwen2_5_VLProcessor, motion: MotionSection | None = None) -> str:
    """Name of how patches are made of a file: the settings of sampling and decoding, and the processor's."""
    settings: list[object] = [video.model_dump(exclude={"deadline_s", "num_workers"})]
    settings.append(processor.video_processor.to_dict())
    if motion is not None and motion.enabled:
        settings += [motion.min_pixels, motion.max_pixels]
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def tower_fingerprint(model: Qwen2_5_VLForConditionalGeneration) -> str:
    """Name of a vision tower with its merger: weights, dtype, configuration."""
    visual = model.model.visual
    config = json.dumps(visual.config.to_dict(), sort_keys=True, default=str)
    digest = hashlib.blake2b(config.encode(), digest_size=DIGEST_BYTES)
    for name, tensor in sorted(visual.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor.detach().cpu()))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    checksum = 0
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(_bytes(tensor), checksum)
    return checksum
