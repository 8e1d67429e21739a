"""Motion Synergetic Decoding in both engines: transformers with one cache and vLLM in lock-step say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motion.decoding import pair_scores
from owlcap.config import MotionSection, RolloutSection, VideoSection
from owlcap.config_motion import DecodingSection
from owlcap.errors import ModelError
from owlcap.inference.engine import DecodedClips
from owlcap.inference.lockstep import LockstepEngine
from owlcap.inference.pair_processor import PairLogitsProcessor, PairSettings, row_arguments
from owlcap.inference.synergy import SynergyCaptioner
from owlcap.models.tiny import make_tiny_model
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings, VideoClip
from rollout.settings import GenerationRequest, RolloutEngineSettings
from tests.conftest import TEXTS, moving_square

pytestmark = pytest.mark.slow

TOKENS = 12
SAMPLES = [Sample(f"clip-{i}", f"{i}.mp4", "Describe the video.", "", "") for i in range(5)]
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=TOKENS)


def make_clip(number: int) -> VideoClip:
    """4 to 8 frames and 1 to 3 overlays, so that no two prompts are as long as each other."""
    num_frames = 4 + number
    overlays = tuple(moving_square(50 + 3 * number + i, 1, 28, 56)[0] for i in range(1 + number % 3))
    frames = moving_square(number, num_frames - num_frames % 2, 56, 56)
    return VideoClip(frames, 6.0, len(frames) / 6, len(frames), tuple(range(len(frames))), overlays)


CLIPS = DecodedClips({sample.id: make_clip(i) for i, sample in enumerate(SAMPLES)})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RolloutEngineSettings:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", TEXTS, seed=3, motion=True)
    return RolloutEngineSettings(
        str(folder),
        VideoSection(),
        MotionSection(enabled=True),
        RolloutSection(max_model_len=512, max_num_seqs=8, kv_cache_gib=0.25, max_new_tokens=TOKENS),
        dtype="fp32",
        max_prompt_tokens=400,
    )


@pytest.fixture(scope="module")
def engine(settings: RolloutEngineSettings) -> Iterator[LockstepEngine]:
    engine = LockstepEngine(settings, CLIPS)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def captioner(settings: RolloutEngineSettings) -> SynergyCaptioner:
    return SynergyCaptioner(settings, CLIPS)


def requests(sampling: SamplingSettings = GREEDY) -> list[GenerationRequest]:
    return [GenerationRequest(sample, sampling) for sample in SAMPLES]


def tokens(results) -> list[tuple[int, ...]]:
    groups = list(results)
    assert all(isinstance(group, RolloutGroup) for group in groups), groups
    return [group.completions[0].token_ids for group in groups]


def test_both_engines_give_the_same_tokens(engine: LockstepEngine, captioner: SynergyCaptioner) -> None:
    ours, vllms = tokens(captioner.generate(requests())), tokens(engine.generate(requests()))
    assert vllms == ours  # five pairs: a wave of four and one of one
    assert len(set(ours)) == len(ours)


def test_both_engines_draw_the_same_tokens(engine: LockstepEngine, captioner: SynergyCaptioner) -> None:
    drawn = [
        GenerationRequest(sample, SamplingSettings(temperature=1.0, max_new_tokens=TOKENS, seed=9 + i))
        for i, sample in enumerate(SAMPLES)
    ]
    ours = tokens(captioner.generate(drawn))
    assert tokens(engine.generate(drawn)) == ours
    assert ours != tokens(captioner.generate(requests()))


def test_a_clip_that_cannot_be_read_is_a_failure_among_captions(engine: LockstepEngine) -> None:
    long = replace(SAMPLES[1], prompt="word " * 500)
    results = list(engine.generate([requests()[0], GenerationRequest(long, GREEDY), requests()[2]]))
    assert [type(result) for result in results] == [RolloutGroup, RolloutFailure, RolloutGroup]
    assert results[1].error == "PromptError"


def finish(engine: LockstepEngine) -> dict:
    rows = {}
    while engine._vllm.has_unfinished_requests():
        rows |= {output.request_id: output for output in engine._vllm.step()}
    return rows


def test_a_row_without_its_partner_fails_and_the_pair_beside_it_does_not(engine: LockstepEngine) -> None:
    whole, lone = (engine.prepare(request) for request in requests()[:2])
    engine.submit({"whole": whole})
    engine._vllm.add_request("lone.visual", lone.visual.engine_input, engine.row_params(lone, 1, "visual"))
    rows = finish(engine)
    rows["lone.motion"] = rows["lone.visual"]
    failed = engine._result(lone, rows, "lone")
    assert isinstance(failed, RolloutFailure)
    assert "its other branch left the batch" in failed.reason
    alone = tokens(engine.generate(requests()[:1]))
    assert tokens([engine._result(whole, rows, "whole")]) == alone


def test_rows_of_different_lengths_fail_and_the_pair_beside_them_does_not() -> None:
    """What chunked prefill does to a pair that did not fit one step: one row is ahead of the other."""
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate

    shared = PairSettings(DecodingSection(), temperature=0.0, absent_id=8, out_of_step_id=9)
    outputs: list[list[int]] = [[1], [1], [1], []]  # of the four rows; the last one is a step behind its partner
    rows = [
        SamplingParams(extra_args=row_arguments(pair, branch, 0, shared))
        for pair in (0, 1)
        for branch in ("visual", "motion")
    ]
    added = [(place, params, [], outputs[place]) for place, params in enumerate(rows)]
    processor = PairLogitsProcessor(None, torch.device("cpu"), False)  # type: ignore[arg-type]
    processor.update_state(BatchUpdate(batch_size=4, removed=[], added=added, moved=[]))
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    _, expected = pair_scores(logits[:1].clone(), logits[1:2].clone(), shared.decoding)
    chosen = processor.apply(logits)
    torch.testing.assert_close(chosen[:2], expected.expand(2, -1))
    assert chosen[2:].argmax(-1).tolist() == [9, 9]


def test_prompts_that_do_not_fit_one_step_are_never_submitted_together(
    captioner: SynergyCaptioner, engine: LockstepEngine
) -> None:
    sizes = [engine.prepare(request).size for request in requests()]
    largest = max(size.visual + size.motion for size in sizes)
    room, engine.room = engine.room, replace(engine.room, max_num_batched_tokens=largest)
    try:
        assert tokens(engine.generate(requests())) == tokens(captioner.generate(requests()))
    finally:
        engine.room = room


def test_overlays_are_seen(captioner: SynergyCaptioner, settings: RolloutEngineSettings) -> None:
    bare = DecodedClips({sample.id: replace(make_clip(i), overlays=()) for i, sample in enumerate(SAMPLES)})
    assert tokens(SynergyCaptioner(settings, bare).generate(requests())) != tokens(captioner.generate(requests()))


def test_the_model_folder_must_have_a_motion_merger(tiny_policy: Path, settings: RolloutEngineSettings) -> None:
    for made in (SynergyCaptioner, LockstepEngine):
        with pytest.raises(ModelError, match="no motion merger"):
            made(replace(settings, model=str(tiny_policy)), CLIPS)
