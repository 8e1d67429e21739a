"""Pictures of captions: which captions are told, what is drawn, and that a missing clip costs only its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from owlcap.config import RlRun, TrackingSection, VideoSection
from owlcap.data.video import decode
from owlcap.metrics import MetricsWriter
from owlcap.runs import RunDir
from owlcap.types import Completion, RewardBreakdown, RolloutGroup, Sample, ScoredGroup, ScoredRollout, Unscored
from rl.pictures import FRAME_SIDE, NUM_FRAMES, few_frames, picture, show_captions, told


def group(clip: Path | str, scores: tuple[ScoredRollout, ...]) -> ScoredGroup:
    completions = tuple(Completion((1,), (-0.5,), f"caption {i}", "stop", 0) for i in range(len(scores)))
    return ScoredGroup(RolloutGroup(Sample("a", str(clip), "-", "-", "A dog barks."), completions), scores)


SCORES = (RewardBreakdown(0.5, {}), Unscored("cser", "the judge is away"), RewardBreakdown(1.5, {}))


def pictures(folder: Path) -> dict[str, list[int]]:
    """Steps of each picture that TensorBoard finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(every(1, RunDir(tmp_path / "toy")))


def every(steps: int, run: RunDir) -> RlRun:
    settings = {
        "name": run.path.name,
        "run_dir": str(run.path.parent),
        "model": {"path": "model"},
        "data": {"train": "train.jsonl"},
        "optimizer": {"lr": 1e-3},
        "algorithm": {},
        "tracking": {"images_every_steps": steps},
    }
    return RlRun.model_validate(settings)


def test_the_best_and_the_worst_scored_caption_are_told() -> None:
    assert list(told(group("a.mp4", SCORES))) == [
        "a  reference: A dog barks.",
        "best  1.500: caption 2",
        "worst  0.500: caption 0",
    ]


def test_a_group_without_rewards_says_so() -> None:
    assert list(told(group("a.mp4", SCORES[1:2])))[1:] == ["no caption of this clip has a reward"]


def test_a_picture_has_the_clips_frames_side_by_side(toy_clips: tuple[Path, ...]) -> None:
    frames = decode(toy_clips[0], few_frames(VideoSection())).frames
    assert len(frames) == NUM_FRAMES
    drawn = picture(frames, ["best 1.0: A square moves."])
    assert drawn.dtype == np.uint8
    for number in range(NUM_FRAMES):
        left = 8 + number * FRAME_SIDE
        np.testing.assert_array_equal(drawn[8 : 8 + FRAME_SIDE, left : left + FRAME_SIDE], frames[number])
    below = drawn[8 + FRAME_SIDE + 8 :]
    assert below.min() < 50  # text
    assert (below == 255).mean() > 0.8


def test_pictures_are_of_every_so_many_steps(run: RunDir, toy_clips: tuple[Path, ...]) -> None:
    metrics = MetricsWriter(run, TrackingSection())
    for step in (1, 2, 3, 4):
        show_captions(metrics, step, [group(toy_clips[0], SCORES), group(toy_clips[1], SCORES)], every(2, run))
    metrics.close()
    assert pictures(run.tensorboard) == {"captions/0": [2, 4], "captions/1": [2, 4]}


def test_zero_turns_pictures_off(run: RunDir, toy_clips: tuple[Path, ...]) -> None:
    metrics = MetricsWriter(run, TrackingSection())
    show_captions(metrics, 2, [group(toy_clips[0], SCORES)], every(0, run))
    metrics.close()
    assert pictures(run.tensorboard) == {}


def test_a_clip_that_is_gone_costs_its_picture_only(
    run: RunDir, toy_clips: tuple[Path, ...], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = MetricsWriter(run, TrackingSection())
    with caplog.at_level("WARNING", logger="rl.pictures"):
        show_captions(metrics, 1, [group("gone.mp4", SCORES), group(toy_clips[0], SCORES)], every(1, run))
    metrics.close()
    assert list(pictures(run.tensorboard)) == ["captions/1"]
    assert "step 1: no picture of a" in caplog.text
