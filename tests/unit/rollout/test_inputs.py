"""Preparing requests ahead of the engine: in order, few at a time, failures as values."""

from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from owlcap.data.prompts import expected_token_ids
from owlcap.errors import VideoError
from owlcap.types import RolloutFailure, Sample, SamplingSettings, VideoClip
from rollout.inputs import PreparedQueue, PreparedRequest, RequestPreparer
from rollout.settings import GenerationRequest

GRID = (2, 4, 4)


def request(name: str) -> GenerationRequest:
    return GenerationRequest(Sample(name, f"{name}.mp4", "Describe the video.", "c", "c"), SamplingSettings())


class Clips:
    """Frames for every sample but those named bad."""

    def load(self, sample: Sample) -> VideoClip:
        if sample.id.startswith("bad"):
            raise VideoError("the video file is empty", where=sample.video)
        return VideoClip(np.zeros((4, 56, 56, 3), np.uint8), 4.0, 1.0, 4, (0, 1, 2, 3))

    def close(self) -> None: ...


class Renderer:
    """vLLM's renderer as far as the preparer knows it: token ids, and a processed item a video."""

    def __init__(self, processor, extra: tuple[int, ...] = ()) -> None:
        self.processor, self.extra = processor, extra

    def render_cmpl(self, prompts: list[dict]) -> list[dict]:
        (prompt,) = prompts
        fields = {
            "pixel_values_videos": torch.ones(32, 1176, dtype=torch.bfloat16),
            "video_grid_thw": torch.tensor(GRID),
            "second_per_grid_ts": torch.tensor(0.5),
        }
        item = {name: SimpleNamespace(data=value) for name, value in fields.items()}
        ids = [*expected_token_ids(self.processor, prompt["prompt"], GRID), *self.extra]
        return [{"prompt_token_ids": ids, "mm_kwargs": {"video": [item]}}]


@pytest.fixture
def processor(tiny_policy):
    return AutoProcessor.from_pretrained(tiny_policy)


def preparer(processor, max_prompt_tokens: int = 100, extra: tuple[int, ...] = ()) -> RequestPreparer:
    renderer = Renderer(processor, extra)
    return RequestPreparer(renderer, processor, Clips(), max_prompt_tokens, num_threads=2)  # type: ignore[arg-type]


def test_requests_come_back_in_their_order_each_decoded_and_processed_once(processor):
    prepare = preparer(processor)
    queue = prepare.prepare_all([request(f"clip-{i}") for i in range(7)])
    taken = [queue.take() for _ in range(len(queue))]
    assert [item.request.sample.id for item in taken if isinstance(item, PreparedRequest)] == [
        f"clip-{i}" for i in range(7)
    ]
    assert (prepare.num_decoded, prepare.num_processed) == (7, 7)
    prepare.close()


def test_the_learners_prompt_holds_what_vllm_processed(processor):
    prepared = preparer(processor).prepare(request("clip"))
    assert isinstance(prepared, PreparedRequest)
    assert prepared.prompt.token_ids.count(processor.video_token_id) == 2 * 2 * 2
    assert prepared.prompt.vision.video_grid_thw == GRID
    assert prepared.prompt.vision.second_per_grid_ts == 0.5
    assert prepared.prompt.vision.pixel_values_videos.dtype == np.float32
    assert prepared.prompt.vision.pixel_values_videos.shape == (32, 1176)


def test_a_bad_clip_is_a_failure_that_names_it(processor):
    failure = preparer(processor).prepare(request("bad"))
    assert isinstance(failure, RolloutFailure)
    assert (failure.sample.id, failure.error) == ("bad", "VideoError")
    assert "bad.mp4" in failure.reason


def test_a_prompt_that_vllm_built_otherwise_is_a_failure(processor):
    failure = preparer(processor, extra=(5,)).prepare(request("clip"))
    assert isinstance(failure, RolloutFailure)
    assert failure.error == "PromptError"
    assert "different prompts" in failure.reason


def test_a_prompt_that_is_too_long_is_a_failure(processor):
    failure = preparer(processor, max_prompt_tokens=10).prepare(request("clip"))
    assert isinstance(failure, RolloutFailure)
    assert "max_prompt_tokens (10)" in failure.reason


def test_only_a_few_requests_are_under_way_at_a_time():
    submitted: list[Future] = []

    def submit(_: GenerationRequest) -> Future:
        submitted.append(Future())
        return submitted[-1]

    queue = PreparedQueue([request(str(i)) for i in range(6)], submit, ahead=2)
    assert (len(submitted), len(queue), queue.next_is_ready) == (2, 6, False)
    submitted[1].set_result("second")
    assert not queue.next_is_ready  # order first
    submitted[0].set_result("first")
    assert [queue.take(), queue.take()] == ["first", "second"]
    assert (len(submitted), len(queue)) == (4, 4)
    queue.cancel()
    assert all(future.cancelled() for future in submitted[2:])
