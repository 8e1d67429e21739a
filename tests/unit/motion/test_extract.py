"""From clips to overlays on disk: what is kept and found again, and clips that are not as one would like."""

import json
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from motion.cache import MotionCache
from motion.contact_sheet import show_video
from motion.extract import Extracted, MotionExtractor, MotionFailure
from motion.pose.types import COCO17, FramePeople, box_around, nobody
from owlcap.config_io import load_motion
from owlcap.config_motion import ExtractSection, KeyFrameSection, MeshSection, MotionSection, PoseSection
from owlcap.data.rows import read_rows
from owlcap.data.toy import make_toy_world
from owlcap.data.toy.encode import write_mp4
from owlcap.errors import ConfigError, DataError
from owlcap.registry import register
from owlcap.types import Sample

STANDING = {  # shares of the frame
    "nose": (0.5, 0.2),
    "eye": (0.02, 0.18),
    "ear": (0.04, 0.19),
    "shoulder": (0.1, 0.3),
    "elbow": (0.14, 0.42),
    "wrist": (0.15, 0.53),
    "hip": (0.06, 0.55),
    "knee": (0.07, 0.72),
    "ankle": (0.07, 0.9),
}


@register("pose_source", "scripted")
class Scripted:
    """A person who stands and raises an arm; the clip's id says what else happens."""

    layout = "coco17"

    def __init__(self, motion):
        self.frames_at_once = []

    def find(self, clip, sample):
        self.frames_at_once.append(len(clip.frames))
        height, width = clip.frames.shape[1:3]
        return [self._people(index, sample.id, height, width) for index in clip.frame_indices]

    def _people(self, index, script, height, width):
        if "nobody" in script or ("leaves" in script and index >= 6):
            return nobody("coco17")
        points = np.ones((17, 3), np.float32)
        for row, name in enumerate(COCO17):
            side, _, part = name.rpartition("_")
            x, y = STANDING[part]
            points[row, :2] = (x if part == "nose" else 0.5 + x * (1 if side == "left" else -1), y)
        points[COCO17.index("left_wrist"), 1] -= 0.4 * abs(np.sin(index * 0.7))
        people = [points]
        if "two" in script:
            people.append(points * np.float32([0.3, 0.3, 1]))
        keypoints = np.stack(people)
        keypoints[..., 0] = (keypoints[..., 0] - 0.5) * height + width / 2  # people do not get wide with the frame
        keypoints[..., 1] *= height
        return FramePeople(keypoints, box_around(keypoints, 0.1), np.ones(len(people), np.float32))


def settings(cache: Path, source="scripted", **extract) -> MotionSection:
    return MotionSection(
        pose=PoseSection(source=source),
        key_frames=KeyFrameSection(num_frames=2),
        mesh=MeshSection(num_steps=8),
        extract=ExtractSection(cache=str(cache), min_pixels=28 * 28, max_pixels=112 * 112, **extract),
    )


def video(path: Path, num_frames=12, height=112, width=112, fps=6.0) -> Path:
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))  # no two tests have the same clip
    still = rng.integers(60, 200, (height // 4, width // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    write_mp4(path, np.stack([np.roll(still, 4 * i, 1) for i in range(num_frames)]), fps)
    return path


def sample_of(path: Path, script="walks", **more) -> Sample:
    return Sample(script, str(path), "", "", "", **more)


def extract_one(motion: MotionSection, sample: Sample) -> Extracted:
    with MotionExtractor(motion) as extractor:
        result = extractor.extract([sample])[0]
    assert isinstance(result, Extracted), result
    return result


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """Extracts one clip with the scripted source; its decoder process is started once."""
    with MotionExtractor(settings(tmp_path_factory.mktemp("scripted"))) as extractor:
        yield lambda sample: extractor.extract([sample])[0]


def pictures(paths) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def frames_of(result: Extracted) -> np.ndarray:
    return pictures([path.with_name(path.name.replace("overlay", "frame")) for path in result.overlays])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    world = make_toy_world(root / "world", num_train=4, num_validation=0, num_test=0, seed=0)
    return read_rows(world.train), settings(root / "cache", "toy")


@pytest.fixture(scope="module")
def toy_results(toy):
    samples, motion = toy
    with MotionExtractor(motion) as extractor:
        return extractor.extract(samples)


def test_a_clip_gets_one_overlay_a_segment_in_the_order_of_time(toy_results):
    for result in toy_results:
        assert [path.name for path in result.overlays] == ["overlay-0.png", "overlay-1.png"]
        first, second = result.record.frame_indices
        assert 0 <= first < 6 <= second < 12
        assert (pictures(result.overlays) != frames_of(result)).any((1, 2, 3)).all()


def test_the_body_lies_on_the_key_points(toy_results):
    errors = [error for result in toy_results for error in result.record.error_px]
    assert max(errors) < 0.03 * 112


def test_poses_of_all_frames_and_bodies_of_key_frames_are_kept(toy_results):
    with np.load(toy_results[0].folder / "poses.npz") as poses:
        assert poses["keypoints"].shape == (12, 17, 3)
        assert poses["body_pose"].shape == (2, 24, 3)
        np.testing.assert_array_equal(poses["source_indices"][poses["chosen"]], toy_results[0].record.frame_indices)


def test_what_was_made_before_is_found_again(toy, toy_results):
    samples, motion = toy
    with MotionExtractor(motion) as extractor:
        again = extractor.extract(samples)
    assert [result.found for result in toy_results] == [False] * 4
    assert [result.found for result in again] == [True] * 4
    assert [result.record for result in again] == [result.record for result in toy_results]


def test_training_asks_for_a_clips_overlays_by_the_same_settings(toy, toy_results):
    samples, motion = toy
    assert MotionCache(motion).overlays(samples[2]) == toy_results[2].overlays
    other = motion.model_copy(update={"overlay": motion.overlay.model_copy(update={"style": "parts"})})
    with pytest.raises(DataError, match="has no whole overlays made with these settings") as caught:
        MotionCache(other).overlays(samples[2])
    assert "owlcap motion extract" in str(caught.value)


def test_settings_of_how_to_work_do_not_change_what_is_found(toy, toy_results):
    samples, motion = toy
    busier = motion.model_copy(
        update={"extract": motion.extract.model_copy(update={"num_actors": 2, "clips_at_once": 1})}
    )
    assert MotionCache(busier).find(samples[0]) == toy_results[0].record


def test_the_same_bytes_elsewhere_are_the_same_clip(tmp_path):
    motion = settings(tmp_path / "cache")
    path = video(tmp_path / "a.mp4")
    folder = extract_one(motion, sample_of(path)).folder
    (tmp_path / "b.mp4").write_bytes(path.read_bytes())
    assert MotionCache(motion).folder(sample_of(tmp_path / "b.mp4")) == folder
    video(tmp_path / "b.mp4", num_frames=13)
    assert MotionCache(motion).folder(sample_of(tmp_path / "b.mp4")) != folder


def test_a_run_that_is_stopped_while_writing_leaves_no_entry(tmp_path):
    cache = MotionCache(settings(tmp_path / "cache"))
    sample = sample_of(video(tmp_path / "a.mp4"))

    def stopped(folder: Path) -> None:
        (folder / "overlay-0.png").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.keep(sample, stopped)
    assert cache.find(sample) is None
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_full_disk_is_said(tmp_path):
    cache = MotionCache(settings(tmp_path / "cache"))

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        cache.keep(sample_of(video(tmp_path / "a.mp4")), full)


@pytest.mark.parametrize("name", ["record.json", "poses.npz", "overlay-1.png", "frame-0.png"])
@pytest.mark.parametrize("damage", ["absent", "empty", "half", "garbage"])
def test_a_damaged_entry_is_absent_and_made_again(tmp_path, scripted, name, damage):
    sample = sample_of(video(tmp_path / "a.mp4"))
    made = scripted(sample)
    path = made.folder / name
    whole = path.read_bytes()
    kept = {"empty": b"", "half": whole[: len(whole) // 2], "garbage": b"0" * len(whole)}
    path.unlink() if damage == "absent" else path.write_bytes(kept[damage])
    again = scripted(sample)
    assert not again.found
    assert again.record == made.record
    assert scripted(sample).found
    assert not list(made.folder.parent.glob("*-damaged"))
    np.testing.assert_array_equal(pictures(again.overlays), pictures(made.overlays))


def test_training_is_told_of_damaged_overlays(tmp_path):
    motion = settings(tmp_path / "cache")
    sample = sample_of(video(tmp_path / "a.mp4"))
    extract_one(motion, sample).overlays[0].write_bytes(b"")
    with pytest.raises(DataError, match="no whole overlays"):
        MotionCache(motion).overlays(sample)


def test_bad_clips_fail_alone(tmp_path):
    good, broken = video(tmp_path / "good.mp4"), tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes()[:500])
    samples = [sample_of(good), sample_of(broken, "broken"), sample_of(tmp_path / "absent.mp4", "absent")]
    with MotionExtractor(settings(tmp_path / "cache")) as extractor:
        results = extractor.extract([*samples, sample_of(video(tmp_path / "n.mp4", 11), "nobody")])
    assert isinstance(results[0], Extracted)
    assert [result.error for result in results[1:]] == ["VideoError", "VideoError", "DataError"]


def test_a_clip_without_a_person_says_so(tmp_path, scripted):
    failure = scripted(sample_of(video(tmp_path / "a.mp4"), "nobody"))
    assert isinstance(failure, MotionFailure)
    assert "nobody was found in any of the clip's 12 frames" in failure.reason
    assert "motion.missing=visual" in failure.reason


def test_several_people_are_counted_and_the_main_one_is_drawn(tmp_path):
    alone = extract_one(settings(tmp_path / "c"), sample_of(video(tmp_path / "a.mp4")))
    two = extract_one(settings(tmp_path / "d"), sample_of(tmp_path / "a.mp4", "two"))
    assert (two.record.most_people, two.record.num_people) == (2, (2, 2))
    assert alone.record.most_people == 1
    np.testing.assert_array_equal(pictures(two.overlays), pictures(alone.overlays))


def test_frames_after_a_person_left_have_no_body(tmp_path, scripted):
    result = scripted(sample_of(video(tmp_path / "a.mp4"), "leaves"))
    assert result.record.drawn == (True, False)
    assert result.record.present_share == 0.5
    assert result.record.error_px[1] is None
    np.testing.assert_array_equal(pictures(result.overlays)[1], frames_of(result)[1])


def test_a_clip_of_one_frame_gives_one_overlay(tmp_path, scripted):
    result = scripted(sample_of(video(tmp_path / "a.mp4", num_frames=1)))
    assert (result.record.num_frames, result.record.frame_indices, result.record.drawn) == (1, (0,), (True,))


@pytest.mark.parametrize(("height", "width"), [(192, 108), (2160, 3840)])
def test_portrait_and_4k_videos_keep_their_shape_within_the_pixel_budget(tmp_path, height, width, scripted):
    record = scripted(sample_of(video(tmp_path / "a.mp4", 2, height, width))).record
    assert record.height * record.width <= 112 * 112
    assert record.height / record.width == pytest.approx(height / width, rel=0.35)
    assert record.drawn == (True, True)


def test_a_video_of_variable_frame_rate_is_looked_at_by_its_frames(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "vfr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width = stream.height = 112
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for place in (0, 33, 66, 400, 433, 900, 1500, 1533):
            picture = rng.integers(0, 256, (112, 112, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    record = extract_one(settings(tmp_path / "c", fps=30.0), sample_of(path)).record
    assert record.num_frames == 8
    assert record.frame_indices[0] < 4 <= record.frame_indices[1]


def test_a_part_of_a_video_gives_key_frames_of_that_part(tmp_path, scripted):
    result = scripted(sample_of(video(tmp_path / "a.mp4", 24), start_s=1.0, end_s=2.0))
    assert all(6 <= index <= 12 for index in result.record.frame_indices)


@pytest.mark.parametrize("method", ["pose_aware", "uniform", "motion_energy"])
def test_a_long_clip_seen_in_portions_gives_what_it_gives_at_once(tmp_path, method):
    path = video(tmp_path / "a.mp4", 60)
    found = []
    for frames_at_once in (8, 64):
        motion = settings(tmp_path / str(frames_at_once), frames_at_once=frames_at_once)
        motion = motion.model_copy(update={"key_frames": KeyFrameSection(num_frames=3, method=method)})
        with MotionExtractor(motion) as extractor:
            result = extractor.extract([sample_of(path)])[0]
            assert max(extractor._source.frames_at_once) <= frames_at_once
        found.append(result)
    assert found[0].record == found[1].record
    np.testing.assert_array_equal(pictures(found[0].overlays), pictures(found[1].overlays))


def test_clips_fitted_together_come_out_as_they_do_alone(toy, toy_results):
    samples, motion = toy
    cache = replace_cache(motion, Path(motion.extract.cache).with_name("alone"))
    alone = extract_one(cache, samples[1])
    np.testing.assert_array_equal(pictures(alone.overlays), pictures(toy_results[1].overlays))


def replace_cache(motion: MotionSection, cache: Path) -> MotionSection:
    return motion.model_copy(update={"extract": motion.extract.model_copy(update={"cache": str(cache)})})


def test_the_contact_sheet_shows_frames_key_points_and_overlays(tmp_path):
    path = video(tmp_path / "a.mp4")
    said = show_video(path, settings(tmp_path / "c"), tmp_path / "sheet.png")
    assert "12 frames looked at, poses from scripted, 1 person at most" in said
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width >= 2 * 112
    assert sheet.height >= 3 * 112
    with pytest.raises(ConfigError, match="cannot be written"):
        show_video(path, settings(tmp_path / "c"), tmp_path / "sheet.nonsense")


def test_the_record_is_json_that_people_can_read(toy_results):
    record = json.loads((toy_results[0].folder / "record.json").read_text())
    assert record["frame_indices"] == list(toy_results[0].record.frame_indices)
    assert record["source"] == "toy"


def test_motion_settings_come_from_a_runs_file_from_their_own_file_or_from_overrides(tmp_path):
    own = tmp_path / "motion.yaml"
    own.write_text("pose: {source: nlf}\nkey_frames: {num_frames: 3}\n")
    run = tmp_path / "run.yaml"
    run.write_text("kind: sft\nname: x\nmotion: {pose: {source: rtmlib}}\n")
    assert load_motion(own, ["pose.source=toy"]).key_frames.num_frames == 3
    assert load_motion(own, ["motion.pose.source=toy"]).pose.source == "toy"
    assert load_motion(run, ["overlay.style=parts"]).overlay.style == "parts"
    assert load_motion(run).pose.source == "rtmlib"
    assert load_motion(None, ["key_frames.num_frames=5"]).key_frames.num_frames == 5
    with pytest.raises(ConfigError, match="sourc"):
        load_motion(None, ["pose.sourc=toy"])
