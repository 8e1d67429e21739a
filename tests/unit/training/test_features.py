"""The feature cache: what is written is read, by anyone, within its bound; what is damaged or of others is not."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from owlcap.config import FeaturesSection, ModelSection, VideoSection
from owlcap.models.load import load_policy, load_processor
from owlcap.training.features import (
    ClipFeatures,
    FeatureCache,
    clip_key,
    file_digest,
    frames_fingerprint,
    open_cache,
    patches_key,
    tower_fingerprint,
)
from owlcap.types import OverlayInputs, Sample, VisionInputs

PLENTY = 2**30


def clip(rows: int, dtype: torch.dtype = torch.float32) -> ClipFeatures:
    return ClipFeatures(torch.arange(rows * 4.0, dtype=dtype).view(rows, 4), (rows, 2, 2), 1 / 3)


def one_size(folder: Path) -> int:
    """Bytes of a file with clip(2)."""
    return FeatureCache(folder / "measured", "tower", PLENTY).write({"a": clip(2)})


def used(cache: FeatureCache, key: str, second: int) -> None:
    os.utime(cache._path(key), (second, second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_process_reads_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    FeatureCache(tmp_path, "tower", PLENTY).write({"a": clip(2, dtype), "b": clip(3, dtype)})
    read = FeatureCache(tmp_path, "tower", PLENTY).read("b")
    assert read is not None
    assert read.features.dtype == dtype
    assert read.features.equal(clip(3, dtype).features)
    assert (read.grid_thw, read.second_per_grid_ts) == ((3, 2, 2), 1 / 3)


def test_another_tower_and_another_clip_are_misses(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "tower", PLENTY).write({"a": clip(2)})
    assert FeatureCache(tmp_path, "tower", PLENTY).read("b") is None
    assert FeatureCache(tmp_path, "another tower", PLENTY).read("a") is None


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty"])
def test_a_damaged_file_is_a_miss_and_is_written_anew(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path, "tower", PLENTY)
    cache.write({"a": clip(2)})
    path = cache._path("a")
    content = bytearray(path.read_bytes())
    where = content.index(clip(2).features.numpy().tobytes()) + 7
    content[where] ^= 1
    path.write_bytes({"cut short": content[:-3], "a flipped bit": content, "empty": b""}[damage])
    assert cache.read("a") is None
    assert "a" not in cache
    cache.write({"a": clip(2)})
    assert cache.read("a") is not None


@pytest.mark.parametrize("part", ["grid", "seconds", "overlays"])
def test_a_flipped_bit_beside_the_features_is_seen(tmp_path: Path, part: str) -> None:
    cache = FeatureCache(tmp_path, "tower", PLENTY)
    cache.write({"a": replace(clip(2), overlay_grids=((1, 4, 2),))})
    path = cache._path("a")
    tensors = load(path.read_bytes())
    tensors[part].flatten().view(torch.uint8)[0] ^= 1
    path.write_bytes(save(tensors))
    assert cache.read("a") is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "tower", 2 * one_size(tmp_path.parent))
    cache.write({"a": clip(2), "b": clip(2)})
    used(cache, "a", 1)
    used(cache, "b", 2)
    cache.read("a")  # now b is the older one
    cache.write({"c": clip(2)})
    assert [key for key in "abc" if key in cache] == ["a", "c"]
    assert cache.num_bytes == cache.max_bytes


def test_the_bound_is_of_all_towers_together(tmp_path: Path) -> None:
    bound = 2 * one_size(tmp_path.parent)
    old = FeatureCache(tmp_path, "old tower", bound)
    old.write({"a": clip(2), "b": clip(2)})
    for key in "ab":
        used(old, key, 1)
    FeatureCache(tmp_path, "tower", bound).write({"a": clip(2), "b": clip(2)})
    assert not [key for key in "ab" if key in old]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= bound


def test_what_the_cache_did_not_write_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in ("notes.txt", "model.safetensors", "upload.tmp", "sub/a.txt")]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 10_000)
        os.utime(path, (1, 1))
    bound = one_size(tmp_path.parent)
    cache = FeatureCache(tmp_path, "tower", bound)
    assert cache.num_bytes == 0
    cache.write({"a": clip(2)})
    used(cache, "a", 1)
    cache.write({"b": clip(2)})
    assert [key for key in "ab" if key in cache] == ["b"]
    assert cache.num_bytes == bound
    assert [path.stat().st_size for path in foreign] == [10_000] * 4


def test_a_half_written_file_of_a_process_that_died_is_counted_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "tower", one_size(tmp_path.parent))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _dies)
        patched.setattr(Path, "unlink", _dies)
        assert cache.write({"a": clip(2)}) == 0
    (left,) = tmp_path.iterdir()
    os.utime(left, (1, 1))
    after = FeatureCache(tmp_path, "tower", one_size(tmp_path.parent))
    assert after.num_bytes == left.stat().st_size
    after.write({"b": clip(2)})
    assert not left.exists()
    assert "b" in after


def _dies(*_: object, **__: object) -> None:
    raise PermissionError("not allowed")


def fill(folder: str, bound: int, keys: list[str]) -> None:
    cache = FeatureCache(Path(folder), "tower", bound)
    for key in keys:
        cache.write({key: clip(2)})
        cache.read(key)


def test_two_processes_on_one_folder_keep_the_bound_and_leave_whole_files(tmp_path: Path) -> None:
    bound = 5 * one_size(tmp_path.parent)
    keys = [str(i) for i in range(60)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(str(tmp_path), bound, part)) for part in (keys, keys[::-1])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    held = [key for key in keys if key in (cache := FeatureCache(tmp_path, "tower", bound))]
    assert 0 < len(held) <= 5
    assert len(list(tmp_path.iterdir())) == len(held)  # nothing half-written is left
    assert all(cache.read(key) is not None for key in held)


def test_a_folder_that_cannot_be_written_is_a_cache_that_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "features", "tower", PLENTY)
    assert cache.write({"a": clip(2)}) == 0
    assert cache.read("a") is None


def test_a_clip_is_named_by_all_that_the_tower_takes() -> None:
    vision = VisionInputs(np.zeros((8, 4), np.float32), (2, 2, 2), 0.5)
    other = np.zeros((8, 4), np.float32)
    other[3, 1] = 1e-30
    assert patches_key(vision) == patches_key(replace(vision, pixel_values_videos=vision.pixel_values_videos.copy()))
    assert patches_key(vision) != patches_key(replace(vision, pixel_values_videos=other))
    assert patches_key(vision) != patches_key(replace(vision, video_grid_thw=(1, 4, 2)))


def test_overlays_are_part_of_a_clips_name(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4), np.float32)
    vision = VisionInputs(np.zeros((8, 4), np.float32), (2, 2, 2), 0.5)
    seen = replace(vision, overlays=OverlayInputs(pixels, ((1, 2, 2),)))
    other = pixels.copy()
    other[2, 2] = 1e-30
    names = [patches_key(one) for one in (vision, seen, replace(vision, overlays=OverlayInputs(other, ((1, 2, 2),))))]
    assert len(set(names)) == 3
    video = sample(tmp_path / "a")
    assert len({clip_key(video, "file", "frames", overlays) for overlays in ((), ("a",), ("b",), ("a", "b"))}) == 4


def test_grids_of_overlays_are_kept(tmp_path: Path) -> None:
    one = replace(clip(2), overlay_grids=((1, 4, 2), (1, 2, 6)))
    FeatureCache(tmp_path, "tower", PLENTY).write({"a": one})
    read = FeatureCache(tmp_path, "tower", PLENTY).read("a")
    assert read is not None
    assert read.overlay_grids == one.overlay_grids


def test_a_good_entry_of_a_folder_that_cannot_be_changed_is_a_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "tower", PLENTY)
    cache.write({"a": clip(2)})
    monkeypatch.setattr(os, "utime", _dies)
    read = cache.read("a")
    assert read is not None
    assert read.features.equal(clip(2).features)


def test_a_damaged_entry_of_a_folder_that_cannot_be_changed_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "tower", PLENTY)
    cache.write({"a": clip(2)})
    cache._path("a").write_bytes(b"")
    monkeypatch.setattr(Path, "unlink", _dies)
    assert cache.read("a") is None


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        FeatureCache(tmp_path, "tower", PLENTY).write({"a": clip(2)})
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == mode


def sample(path: Path, start_s: float | None = None) -> Sample:
    return Sample(id="1", video=str(path), prompt="p", caption="c", reference="c", start_s=start_s)


def test_a_file_is_named_by_its_bytes_and_segment_wherever_it_lies(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (clip_key(sample(tmp_path / name), file_digest(str(tmp_path / name)), "frames") for name in "abc")
    assert a == b != c
    assert clip_key(sample(tmp_path / "a", start_s=1.0), file_digest(str(tmp_path / "a")), "frames") != a
    assert file_digest(str(tmp_path / "none")) == file_digest(str(tmp_path / "none"))


def test_frames_are_named_by_how_they_are_taken(tiny_policy: Path) -> None:
    def name(**changes: object) -> str:
        video = VideoSection().model_copy(update=changes)
        return frames_fingerprint(video, load_processor(tiny_policy, video))

    assert name(num_workers=7, deadline_s=1.0) == name()
    assert name(fps=3.0) != name()


def test_a_tower_is_named_by_weights_and_dtype(tiny_policy: Path) -> None:
    def policy(dtype: str = "fp32"):
        return load_policy(ModelSection(path=str(tiny_policy), dtype=dtype))  # type: ignore[arg-type]

    first = tower_fingerprint(policy())
    assert tower_fingerprint(policy()) == first
    assert tower_fingerprint(policy("bf16")) != first
    changed = policy()
    with torch.no_grad():
        changed.model.visual.blocks[0].norm1.weight[0] += 1e-6
        changed.lm_head.weight += 1
    assert tower_fingerprint(changed) != first


@pytest.mark.parametrize(
    ("freeze_projector", "max_gib", "is_cached"), [(True, 1.0, True), (True, 0.0, False), (False, 1.0, False)]
)
def test_there_is_a_cache_where_the_tower_is_frozen_and_the_bound_is_not_0(
    tiny_policy: Path, tmp_path: Path, freeze_projector: bool, max_gib: float, is_cached: bool
) -> None:
    model = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", freeze_projector=freeze_projector))
    cache = open_cache(FeaturesSection(folder=str(tmp_path), max_gib=max_gib), model)
    assert (cache is not None) == is_cached
