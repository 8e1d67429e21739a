"""Loading samples on one rank: decode, encode, and (with a frozen vision tower) take features from the cache."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from owlcap.config import DataSection, MotionSection, VideoSection
from owlcap.data.prompts import encode_completion, encode_prompt, encode_prompts, expected_token_ids, render_prompt
from owlcap.data.video import VideoLoader
from owlcap.errors import DataError, PromptError, TrainingError
from owlcap.models.logprobs import vision_features
from owlcap.training.features import ClipFeatures, FeatureCache, clip_key, file_digest, frames_fingerprint
from owlcap.types import OverlayInputs, Prompt, Sample, VideoClip, VisionInputs
from sft.collate import SftItem
from sft.unusable import BadClip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

CLIPS_PER_FORWARD = 8  # of the vision tower while features are computed; more only overflow the CPU's caches
NO_PATCHES = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one rank did of a slice of clips."""

    bad: tuple[BadClip, ...]
    num_bytes: int  # written to the cache
    all_kept: bool  # whether the features of all clips so far are in the cache


class ClipSource:
    """Encoded samples by index, loaded ahead in threads over killable decoder processes.

    Args:
        samples: the data; indices count into it.
        cache: finished features, or None to hand out patches for the vision tower.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Qwen2_5_VLProcessor,
        video: VideoSection,
        data: DataSection,
        cache: FeatureCache | None,
        motion: MotionSection,
    ) -> None:
        self.samples, self.processor, self.data, self.cache = samples, processor, data, cache
        self._motion = motion
        self._loader = VideoLoader(video, motion)
        self._threads = ThreadPoolExecutor(2 * video.num_workers)
        self._pending: dict[int, Future[SftItem | BadClip]] = {}
        self._encoded: dict[int, SftItem | BadClip] = {}  # without features, which are too large to be kept in memory
        self._prepared: set[str] = set()  # clips that have features
        self._frames = frames_fingerprint(video, processor, motion)
        self._file_digest = functools.cache(file_digest)
        self._processor_lock = threading.Lock()  # tokenizers refuse to be borrowed by two threads

    def ahead(self, indices: Sequence[int]) -> None:
        """Start loading samples that will be asked for soon."""
        if self.cache is None:
            for index in indices:
                if index not in self._pending:
                    self._pending[index] = self._threads.submit(self._load, index)

    def take(self, indices: Sequence[int]) -> tuple[list[SftItem], list[BadClip]]:
        """The samples at `indices` that can be used, and those that cannot."""
        self.ahead(indices)
        loaded = [self._take(index) for index in indices]
        return [x for x in loaded if isinstance(x, SftItem)], [x for x in loaded if isinstance(x, BadClip)]

    def _take(self, index: int) -> SftItem | BadClip:
        if self.cache is None:
            return self._pending.pop(index).result()
        return self._from_cache(index, self.cache)

    def _load(self, index: int) -> SftItem | BadClip:
        sample = self.samples[index]
        clip = self._decode(sample)
        if isinstance(clip, BadClip):
            return clip
        try:
            with self._processor_lock:
                prompt = encode_prompt(self.processor, clip, sample, self.data.max_prompt_tokens)
                return SftItem(prompt, encode_completion(self.processor, sample.caption))
        except PromptError as error:
            return BadClip(sample.id, str(error))

    def _from_cache(self, index: int, cache: FeatureCache) -> SftItem | BadClip:
        sample, item = self.samples[index], self._encoded.get(index)
        if isinstance(item, BadClip):
            return item
        clip = cache.read(self._key(sample))
        if clip is None:
            return self._encoded.setdefault(index, self._bad(index, cache))
        if item is None:
            text = render_prompt(self.processor, sample, len(clip.overlay_grids))
            ids = expected_token_ids(self.processor, text, clip.grid_thw, clip.overlay_grids)
            overlays = OverlayInputs(NO_PATCHES, clip.overlay_grids) if clip.overlay_grids else None
            prompt = Prompt(ids, VisionInputs(NO_PATCHES, clip.grid_thw, clip.second_per_grid_ts, overlays))
            item = self._encoded[index] = SftItem(prompt, encode_completion(self.processor, sample.caption))
        return replace(item, features=clip.features)

    def _bad(self, index: int, cache: FeatureCache) -> BadClip:
        """Why a clip has no features.

        Raises:
            TrainingError: it had.
        """
        loaded = self._load(index)
        if isinstance(loaded, BadClip):
            return loaded
        raise TrainingError(
            f"the features of clip {self.samples[index].id} are not in the cache any more",
            where=str(cache.folder),
            cure="other runs needed the room, or the disk is full: raise features.max_gib, choose another "
            "features.folder or free space, then go on with --resume",
        )

    def _key(self, sample: Sample) -> str:
        overlays = [self._file_digest(path) for path in sample.overlays] if self._motion.enabled else ()
        return clip_key(sample, self._file_digest(sample.video), self._frames, overlays)

    def compute_features(self, model: Qwen2_5_VLForConditionalGeneration, indices: Sequence[int]) -> Prepared:
        """Add the features of those clips to the cache that it does not have."""
        assert self.cache is not None
        wanted = {self._key(self.samples[i]): i for i in indices}
        missing = {key: i for key, i in wanted.items() if key not in self.cache}
        bad: list[BadClip] = []
        keys: list[str] = []
        features: list[ClipFeatures] = []
        for part in self._decoded(list(missing.items())):
            bad += [clip for _, _, clip in part if isinstance(clip, BadClip)]
            part = [(key, sample, clip) for key, sample, clip in part if isinstance(clip, VideoClip)]
            samples = [sample for _, sample, _ in part]
            clips = [clip for _, _, clip in part]
            prompts = encode_prompts(self.processor, clips, samples, self.data.max_prompt_tokens)
            bad += [BadClip(s.id, str(p)) for s, p in zip(samples, prompts, strict=True) if isinstance(p, PromptError)]
            keys += [key for (key, _, _), p in zip(part, prompts, strict=True) if isinstance(p, Prompt)]
            features += _forward(model, [p for p in prompts if isinstance(p, Prompt)])
        num_bytes = self.cache.write(dict(zip(keys, features, strict=True)))
        self._prepared |= wanted.keys() - (missing.keys() - set(keys))
        return Prepared(tuple(bad), num_bytes, all(key in self.cache for key in self._prepared))

    def _decoded(self, wanted: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, Sample, VideoClip | BadClip]]]:
        """Clips in parts of CLIPS_PER_FORWARD; while one part is used, the next is being decoded."""
        parts = [wanted[i : i + CLIPS_PER_FORWARD] for i in range(0, len(wanted), CLIPS_PER_FORWARD)]
        coming: list[list[Future[VideoClip | BadClip]]] = []
        for number, part in enumerate(parts):
            for ahead in parts[number + len(coming) : number + 2]:
                coming.append([self._threads.submit(self._decode, self.samples[index]) for _, index in ahead])
            clips = [future.result() for future in coming.pop(0)]
            yield [(key, self.samples[index], clip) for (key, index), clip in zip(part, clips, strict=True)]

    def _decode(self, sample: Sample) -> VideoClip | BadClip:
        try:
            return self._loader.load(sample)
        except DataError as error:
            return BadClip(sample.id, str(error))

    def close(self) -> None:
        """End the decoder processes and threads."""
        self._threads.shutdown(cancel_futures=True)
        self._loader.close()


@torch.no_grad()
def _forward(model: Qwen2_5_VLForConditionalGeneration, prompts: Sequence[Prompt]) -> list[ClipFeatures]:
    """Features of several prompts' videos in one forward pass of the vision tower."""
    if not prompts:
        return []
    visions = [prompt.vision for prompt in prompts]
    return [
        ClipFeatures.of(rows, vision) for rows, vision in zip(vision_features(model, visions), visions, strict=True)
    ]
