"""From a request to vLLM's input, once a group: one decode, one run of the video processor, G completions.

vLLM's own renderer processes the clip. Its output is given to the engine as it is, and its pixel values and token
ids become the learner's `Prompt`, so that rollout and learner see the same numbers and nothing is processed twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from owlcap.data.prompts import (
    PROCESSOR_KWARGS,
    check_length,
    check_prompt_ids,
    expected_token_ids,
    render_prompt,
    video_item,
)
from owlcap.errors import DataError, PromptError
from owlcap.types import OverlayInputs, Prompt, RolloutFailure, Sample, VideoClip, VisionInputs
from rollout.settings import GenerationRequest

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLProcessor
    from vllm.inputs import MultiModalInput
    from vllm.renderers import BaseRenderer


class ClipSource(Protocol):
    """Where frames come from; `owlcap.data.video.VideoLoader` outside of tests."""

    def load(self, sample: Sample) -> VideoClip: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request ready for the engine: what vLLM takes, and the same content for the learner."""

    request: GenerationRequest
    engine_input: MultiModalInput
    prompt: Prompt
    decode_s: float


class RequestPreparer:
    """Turns requests into engine inputs in background threads, in order, a bounded number ahead.

    Clips decode in parallel (as many as the source has workers); text and pixels are processed one at a time,
    since tokenizers and processors are not made for several threads.
    """

    def __init__(
        self,
        renderer: BaseRenderer,
        processor: Qwen2_5_VLProcessor,
        clips: ClipSource,
        max_prompt_tokens: int,
        num_threads: int,
    ) -> None:
        self._renderer, self._processor, self._clips = renderer, processor, clips
        self._max_prompt_tokens = max_prompt_tokens
        self._one_at_a_time = threading.Lock()
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="prepare")
        self._ahead = num_threads + 1
        self.num_decoded = 0
        self.num_processed = 0

    def prepare_all(self, requests: Sequence[GenerationRequest]) -> PreparedQueue:
        """Start preparing `requests`; take them from the returned queue in their order."""
        return PreparedQueue(requests, self._submit, self._ahead)

    def prepare(self, request: GenerationRequest) -> PreparedRequest | RolloutFailure:
        """Decode and process one request. A clip or prompt that cannot be used gives a failure, not an exception.

        Raises:
            ModelError: the checkpoint has no chat template.
        """
        try:
            started = time.perf_counter()
            clip = self._clips.load(request.sample)
            decode_s = time.perf_counter() - started
            with self._one_at_a_time:
                self.num_decoded += 1
                return self.process(request, clip, decode_s)
        except DataError as error:
            return RolloutFailure(request.sample, type(error).__name__, str(error))

    def close(self) -> None:
        """End the threads and the decoder processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._clips.close()

    def _submit(self, request: GenerationRequest) -> Future[PreparedRequest | RolloutFailure]:
        return self._threads.submit(self.prepare, request)

    def process(self, request: GenerationRequest, clip: VideoClip, decode_s: float = 0.0) -> PreparedRequest:
        """Process one request whose clip is decoded. One at a time.

        Raises:
            PromptError: the prompt does not fit, or vLLM and the processor built different ones.
            ModelError: the checkpoint has no chat template.
        """
        from vllm.exceptions import VLLMValidationError

        sample = request.sample
        text = render_prompt(self._processor, sample, len(clip.overlays))
        media: dict[str, list[Any]] = {"video": [video_item(clip)]}
        if clip.overlays:
            media["image"] = list(clip.overlays)
        prompt: Any = {
            "prompt": text,
            "multi_modal_data": media,
            "mm_processor_kwargs": dict(PROCESSOR_KWARGS),
        }
        try:
            engine_input = cast("MultiModalInput", self._renderer.render_cmpl([prompt])[0])
        except VLLMValidationError as error:  # the text alone is longer than the model
            raise PromptError(str(error), where=sample.id, cure="shorten the row's prompt") from error
        self.num_processed += 1
        token_ids = tuple(engine_input["prompt_token_ids"])
        vision = _vision_inputs(engine_input)
        expected = expected_token_ids(self._processor, text, vision.grids[-1], vision.grids[:-1])
        check_prompt_ids(expected, token_ids, sample)
        check_length(token_ids, sample, self._max_prompt_tokens)
        return PreparedRequest(request, engine_input, Prompt(token_ids, vision), decode_s)


def _vision_inputs(engine_input: MultiModalInput) -> VisionInputs:
    """The processed pixels inside vLLM's input, shared with it where the data type allows."""
    (fields,) = _items(engine_input, "video")
    t, h, w = fields["video_grid_thw"].tolist()
    return VisionInputs(
        pixel_values_videos=fields["pixel_values_videos"].float().numpy(),
        video_grid_thw=(t, h, w),
        second_per_grid_ts=fields["second_per_grid_ts"].float().item(),
        overlays=_overlay_inputs(_items(engine_input, "image")),
    )


def _items(engine_input: MultiModalInput, modality: str) -> list[dict[str, torch.Tensor]]:
    """The fields of every item of a modality."""
    items = engine_input["mm_kwargs"].get(modality, ())
    assert None not in items  # vLLM leaves an item out only when its processor cache is on
    return [{name: cast("torch.Tensor", item[name].data) for name in item} for item in items if item is not None]


def _overlay_inputs(pictures: Sequence[Mapping[str, torch.Tensor]]) -> OverlayInputs | None:
    if not pictures:
        return None
    pixels = np.concatenate([picture["pixel_values"].float().numpy() for picture in pictures])
    return OverlayInputs(pixels, tuple((t, h, w) for t, h, w in (p["image_grid_thw"].tolist() for p in pictures)))


class PreparedQueue:
    """Prepared requests in submission order, with only a few under way at any time."""

    def __init__(
        self,
        requests: Sequence[GenerationRequest],
        submit: Callable[[GenerationRequest], Future[PreparedRequest | RolloutFailure]],
        ahead: int,
    ) -> None:
        self._waiting: Iterator[GenerationRequest] = iter(requests)
        self._submit = submit
        self._under_way: list[Future[PreparedRequest | RolloutFailure]] = []
        self._num_left = len(requests)
        for _ in range(ahead):
            self._refill()

    def __len__(self) -> int:
        return self._num_left

    @property
    def next_is_ready(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self._under_way) and self._under_way[0].done()

    def take(self) -> PreparedRequest | RolloutFailure:
        """The next request, waiting for it if need be. Call only while `len(self)` is positive."""
        prepared = self._under_way.pop(0).result()
        self._num_left -= 1
        self._refill()
        return prepared

    def cancel(self) -> None:
        """Drop what has not started."""
        for future in self._under_way:
            future.cancel()

    def _refill(self) -> None:
        request = next(self._waiting, None)
        if request is not None:
            self._under_way.append(self._submit(request))
