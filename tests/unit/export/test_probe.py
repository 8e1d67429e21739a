"""The clip of the check: the run's own where one is on this machine, else a synthetic one that always is the same."""

from __future__ import annotations

import json
from pathlib import Path

from owlcap.config import MotionSection, SftRun, VideoSection
from owlcap.data.overlays import load_overlays
from owlcap.data.video import decode
from owlcap.export.probe import NUM_FRAMES, SIDE, probe_sample, write_probe_clip
from owlcap.inference.settings import PolicySettings


def write_row(path: Path, id_: str, video: Path) -> None:
    messages = [{"role": "user", "content": "What happens?<video>"}, {"role": "assistant", "content": "A man waves."}]
    with path.open("a") as file:
        file.write(json.dumps({"id": id_, "messages": messages, "videos": [str(video)]}) + "\n")


def run_on(folder: Path) -> SftRun:
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl")}
    return SftRun.model_validate({"name": "a", "model": {"path": "b"}, "data": data, "optimizer": {"lr": 1e-5}})


def test_the_first_validation_clip_that_is_there(tmp_path: Path, toy_clips: tuple[Path, ...]) -> None:
    write_row(tmp_path / "train.jsonl", "train", toy_clips[0])
    write_row(tmp_path / "validation.jsonl", "gone", tmp_path / "gone.mp4")
    write_row(tmp_path / "validation.jsonl", "there", toy_clips[1])
    sample = probe_sample(run_on(tmp_path), PolicySettings(), tmp_path)
    assert (sample.id, sample.video, sample.prompt) == ("there", str(toy_clips[1]), "What happens?")


def test_a_training_clip_where_validation_has_none(tmp_path: Path, toy_clips: tuple[Path, ...]) -> None:
    write_row(tmp_path / "train.jsonl", "train", toy_clips[0])
    assert probe_sample(run_on(tmp_path), PolicySettings(), tmp_path).id == "train"


def test_a_synthetic_clip_with_the_policys_question_where_the_data_is_gone(tmp_path: Path) -> None:
    sample = probe_sample(run_on(tmp_path), PolicySettings(prompt="Tell me all."), tmp_path)
    assert (sample.id, sample.prompt) == ("probe", "Tell me all.")
    clip = decode(sample.video, VideoSection(fps=12, min_pixels=784))
    assert clip.frames.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert len({frame.tobytes() for frame in clip.frames}) == NUM_FRAMES  # every frame moves


def test_the_motion_pathway_wants_a_clip_with_overlays(tmp_path: Path, toy_clips: tuple[Path, ...]) -> None:
    write_row(tmp_path / "train.jsonl", "train", toy_clips[0])
    settings = PolicySettings(motion=MotionSection(enabled=True))
    sample = probe_sample(run_on(tmp_path), settings, tmp_path)
    assert sample.id == "probe"
    (overlay,) = load_overlays(sample, settings.motion)
    assert overlay.shape == (SIDE, SIDE, 3)


def test_the_synthetic_clip_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = (write_probe_clip(tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert first == second
