"""The feature cache: what is written is read, and any change of clip, weights or settings gives another name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from owlcap.config import ModelSection, VideoSection
from owlcap.models.load import load_policy
from owlcap.types import Sample
from sft.features import ClipFeatures, FeatureCache, clip_key, vision_fingerprint


def clip(rows: int) -> ClipFeatures:
    return ClipFeatures(torch.arange(rows * 4.0).view(rows, 4), (rows, 2, 2), 1 / 3)


def test_features_are_read_back_by_another_rank(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "weights").write(["a", "b"], [clip(2), clip(3)])
    FeatureCache(tmp_path, "weights").write(["c"], [clip(1)])
    cache = FeatureCache(tmp_path, "weights")
    assert "a" not in cache
    cache.refresh()
    assert cache["b"].features.equal(clip(3).features)
    assert (cache["b"].grid_thw, cache["b"].second_per_grid_ts) == ((3, 2, 2), 1 / 3)
    assert cache["c"].features.equal(clip(1).features)


def test_other_weights_see_nothing(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "weights").write(["a"], [clip(2)])
    other = FeatureCache(tmp_path, "other weights")
    other.refresh()
    assert "a" not in other


def test_half_written_shards_are_not_read(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "weights")
    cache.write(["a"], [clip(2)])
    (cache.folder / "x.123.tmp").write_bytes(b"half")
    cache.refresh()
    assert "a" in cache


def sample(path: Path, start_s: float | None = None) -> Sample:
    return Sample(id="1", video=str(path), prompt="p", caption="c", reference="c", start_s=start_s)


def test_a_clips_key_changes_with_its_file_and_segment(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = clip_key(sample(path))
    assert clip_key(sample(path)) == first
    assert clip_key(sample(path, start_s=1.0)) != first
    os.utime(path, ns=(1, 1))
    assert clip_key(sample(path)) != first


def test_a_missing_file_has_a_key(tmp_path: Path) -> None:
    assert clip_key(sample(tmp_path / "none.mp4")) == clip_key(sample(tmp_path / "none.mp4"))


@pytest.fixture(scope="module")
def policy(tiny_policy: Path):
    return load_policy(ModelSection(path=str(tiny_policy), dtype="fp32"))


def test_the_fingerprint_names_weights_and_settings(policy) -> None:
    video = VideoSection()
    first = vision_fingerprint(policy, video)
    assert vision_fingerprint(policy, video.model_copy(update={"num_workers": 7, "deadline_s": 1.0})) == first
    assert vision_fingerprint(policy, video.model_copy(update={"fps": 3.0})) != first
    weight = policy.model.visual.merger.mlp[0].weight
    with torch.no_grad():
        weight[0, 0] += 1
    assert vision_fingerprint(policy, video) != first
