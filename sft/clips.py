"""Loading samples on one rank: decode, encode, and (with a frozen vision tower) take features from the cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from owlcap.config import DataSection, VideoSection
from owlcap.data.prompts import encode_completion, encode_prompt, encode_prompts, expected_token_ids, render_prompt
from owlcap.data.video import VideoLoader
from owlcap.errors import DataError, PromptError
from owlcap.models.logprobs import vision_features
from owlcap.types import Prompt, Sample, VideoClip, VisionInputs
from sft.collate import SftItem
from sft.features import ClipFeatures, FeatureCache, clip_key
from sft.unusable import BadClip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

CLIPS_PER_FORWARD = 8  # of the vision tower while features are computed; more only overflow the CPU's caches
NO_PATCHES = np.zeros((0, 0), dtype=np.float32)


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
    ) -> None:
        self.samples, self.processor, self.data, self.cache = samples, processor, data, cache
        self._loader = VideoLoader(video)
        self._threads = ThreadPoolExecutor(2 * video.num_workers)
        self._pending: dict[int, Future[SftItem | BadClip]] = {}
        self._ready: dict[int, SftItem | BadClip] = {}  # cached items are small: kept for all epochs
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
        if index not in self._ready:
            self._ready[index] = self._from_cache(index, self.cache)
        return self._ready[index]

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
        sample = self.samples[index]
        key = clip_key(sample)
        if key not in cache:
            return BadClip(sample.id, "its features could not be computed")
        clip = cache[key]
        ids = expected_token_ids(self.processor, render_prompt(self.processor, sample), clip.grid_thw)
        prompt = Prompt(ids, VisionInputs(NO_PATCHES, clip.grid_thw, clip.second_per_grid_ts))
        return SftItem(prompt, encode_completion(self.processor, sample.caption), clip.features)

    def compute_features(
        self, model: Qwen2_5_VLForConditionalGeneration, indices: Sequence[int]
    ) -> tuple[list[BadClip], int]:
        """Add the features of those clips to the cache that it does not have.

        Returns the clips that cannot be used, and the bytes written.
        """
        assert self.cache is not None
        missing = {clip_key(self.samples[i]): i for i in indices}
        missing = {key: i for key, i in missing.items() if key not in self.cache}
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
        return bad, self.cache.write(keys, features) if keys else 0

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
        ClipFeatures(rows.cpu(), vision.video_grid_thw, vision.second_per_grid_ts)
        for rows, vision in zip(vision_features(model, visions), visions, strict=True)
    ]
