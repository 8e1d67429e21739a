"""Decoding, sampling and sizing of clips, and loaders that survive every kind of bad file."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from owlcap.config import VideoSection
from owlcap.data.video import VideoLoader, decode, frame_size, sample_indices
from owlcap.errors import ConfigError, VideoError, VideoTimeout
from owlcap.types import Sample
from tests.conftest import moving_square, write_clip

TOY = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=28**2, max_pixels=56**2, total_pixels=12 * 56**2)
BACKENDS = ["decord", "pyav"]


def sample(path: Path, start_s: float | None = None, end_s: float | None = None) -> Sample:
    return Sample("id", str(path), "Describe.", "A caption.", "A caption.", start_s=start_s, end_s=end_s)


# Sampling and sizing, worked out by hand from Qwen2.5-VL's rule.


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (300, 30.0, 20),  # 10 s at 2 fps
        (31, 30.0, 16),  # 2 frames by rate, raised to min_frames
        (11, 30.0, 10),  # never more than the source has, and even
        (1, 30.0, 2),  # one frame, twice
        (100_000, 25.0, 768),  # 4000 s, lowered to max_frames
        (315, 30.0, 20),  # 21 by rate, floored to an even count
    ],
)
def test_frame_counts_are_even_and_within_bounds(num_frames, fps, expected):
    indices = sample_indices(num_frames, fps, VideoSection())
    assert len(indices) == expected
    assert indices[0] == 0
    assert indices[-1] < num_frames
    assert list(indices) == sorted(indices)


def test_sampled_positions_start_equal_parts_of_the_source():
    assert sample_indices(10, 10.0, VideoSection(fps=4, min_frames=4)) == (0, 2, 5, 7)


@pytest.mark.parametrize("num_frames", [2, 12, 31, 300, 451, 1000, 5000])
@pytest.mark.parametrize("rate", [0.5, 2.0, 6.0])
def test_vllms_server_takes_the_same_frames(num_frames, rate):
    from vllm.multimodal.video import Qwen2VLVideoBackend, VideoSourceMetadata, VideoTargetMetadata

    video = VideoSection(fps=rate, min_frames=4, max_frames=64)
    served = Qwen2VLVideoBackend.compute_frames_index_to_sample(
        VideoSourceMetadata(num_frames, 25.0, num_frames / 25.0),
        VideoTargetMetadata(-1, rate, 0),
        min_frames=video.min_frames,
        max_frames=video.max_frames,
    )
    ours = sample_indices(num_frames, 25.0, video)
    assert ours == tuple(served[: len(ours)])
    # Its step in single precision can run into one more frame than asked for: the last one, taken twice.
    assert set(served[len(ours) :]) <= {num_frames - 1}


@pytest.mark.parametrize(
    ("height", "width", "num_frames", "expected"),
    [
        (56, 56, 16, (112, 112)),  # below min_pixels 16 cells: grows
        (1080, 1920, 16, (420, 784)),  # budget 3584*2/16 = 448 cells: 15.9 x 28.2 floored
        (1080, 1920, 2, (560, 1008)),  # max_pixels 768 cells: 20 x 36 = 720
        (300, 300, 16, (308, 308)),  # within budget: nearest multiples of 28
        (1080, 1920, 768, (84, 140)),  # budget of a long clip is min_pixels * 1.05: 3 x 5
    ],
)
def test_frame_sizes_are_multiples_of_28_within_the_budget(height, width, num_frames, expected):
    assert frame_size(height, width, num_frames, VideoSection()) == expected


# Decoding.


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_decodes_to_the_frames_that_were_written(tmp_path, backend):
    frames = moving_square(3)
    path = write_clip(tmp_path / "clip.mp4", frames)
    clip = decode(path, TOY.model_copy(update={"backend": backend}))
    assert clip.frames.shape == (12, 56, 56, 3)
    assert clip.frames.dtype == np.uint8
    assert (clip.fps, clip.total_num_frames, clip.duration_s) == (6.0, 12, 2.0)
    assert clip.frame_indices == tuple(range(12))
    assert np.abs(clip.frames.astype(int) - frames).mean() < 6  # H.264 with halved colour resolution


def test_backends_give_the_same_frames(toy_clips):
    decord, pyav = (decode(toy_clips[0], TOY.model_copy(update={"backend": b, "fps": 3})) for b in BACKENDS)
    assert decord.frame_indices == pyav.frame_indices == (0, 2, 4, 6, 8, 10)
    assert np.abs(decord.frames.astype(int) - pyav.frames).max() <= 3  # rounding of the colour conversion


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_segment_counts_as_the_whole_source(toy_clips, backend):
    video = TOY.model_copy(update={"backend": backend})
    whole, part = decode(toy_clips[1], video), decode(toy_clips[1], video, start_s=0.5, end_s=1.4)
    assert part.frame_indices == (3, 4, 5, 6, 7, 8)
    assert (part.total_num_frames, part.duration_s) == (6, 1.0)
    assert np.array_equal(part.frames, whole.frames[3:9])


def test_a_source_without_a_stated_frame_count_is_counted(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", moving_square(0))
    clip = decode(path, TOY.model_copy(update={"backend": "pyav"}))
    assert clip.total_num_frames == 12


def test_large_frames_are_resized(tmp_path):
    path = write_clip(tmp_path / "large.mp4", moving_square(0, 4, 240, 320))
    assert decode(path, TOY).frames.shape == (4, 28, 56, 3)


# Files that cannot be used.


def bad_files(folder: Path) -> dict[str, Path]:
    clip = write_clip(folder / "whole.mp4", np.random.default_rng(0).integers(0, 256, (48, 56, 56, 3), np.uint8))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video " * 500)
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:-3000])  # without its index
    (folder / "folder.mp4").mkdir()
    names = ("missing", "empty", "text", "cut", "folder")
    return {name: folder / f"{name}.mp4" for name in names}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["missing", "empty", "text", "cut", "folder"])
def test_a_bad_file_is_a_video_error_that_names_it_and_a_cure(tmp_path, name, backend):
    path = bad_files(tmp_path)[name]
    with pytest.raises(VideoError) as caught:
        decode(path, TOY.model_copy(update={"backend": backend}))
    assert caught.value.where == str(path)
    assert caught.value.cure


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_ends_early_is_an_error_even_when_its_header_is_whole(tmp_path, backend):
    noise = np.random.default_rng(0).integers(0, 256, (48, 56, 56, 3), np.uint8)
    path = write_clip(tmp_path / "fast.mp4", noise, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError):
        decode(path, TOY.model_copy(update={"backend": backend}))


def test_a_sound_file_has_no_video_stream(tmp_path):
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(VideoError, match="no video stream"):
        decode(tmp_path / "sound.wav", TOY.model_copy(update={"backend": "pyav"}))


def test_frames_too_narrow_for_decord_name_the_backend_that_reads_them(tmp_path):
    path = write_clip(tmp_path / "tiny.mp4", moving_square(0, 4, 16, 16))
    with pytest.raises(VideoError, match="narrow") as error:
        decode(path, TOY)
    assert error.value.where == str(path)
    assert "video.backend=pyav" in str(error.value)
    assert decode(path, TOY.model_copy(update={"backend": "pyav"})).frames.shape[0] == 4


def test_a_segment_outside_of_the_clip_is_an_error_with_the_allowed_times(toy_clips):
    with pytest.raises(VideoError, match="holds no frame") as caught:
        decode(toy_clips[0], TOY, start_s=5.0, end_s=6.0)
    assert "0 to 2.00 s" in (caught.value.allowed or "")


def test_a_backend_that_is_not_installed_is_a_setting_error(toy_clips):
    try:
        import torchcodec  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        with pytest.raises(ConfigError, match=r"video\.backend is torchcodec"):
            decode(toy_clips[0], TOY.model_copy(update={"backend": "torchcodec"}))
    else:
        pytest.skip("torchcodec is installed here")


# The loader.


def test_the_loader_gives_what_decode_gives(toy_clips):
    with VideoLoader(TOY) as loader:
        for path in toy_clips:
            ours, theirs = loader.load(sample(path)), decode(path, TOY)
            assert np.array_equal(ours.frames, theirs.frames)
            assert ours.frame_indices == theirs.frame_indices


def test_the_loader_raises_the_decoders_error_and_goes_on(tmp_path, toy_clips):
    with VideoLoader(TOY) as loader:
        with pytest.raises(VideoError) as caught:
            loader.load(sample(tmp_path / "missing.mp4"))
        assert caught.value.where == str(tmp_path / "missing.mp4")
        assert loader.load(sample(toy_clips[0])).frames.shape[0] == 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_that_hangs_is_killed_and_replaced(tmp_path, toy_clips, backend):
    hanging = tmp_path / "hangs.mp4"
    os.mkfifo(hanging)  # opening it blocks until somebody writes
    with VideoLoader(TOY.model_copy(update={"backend": backend, "deadline_s": 1.0})) as loader:
        with pytest.raises(VideoTimeout) as caught:
            loader.load(sample(hanging))
        assert caught.value.where == str(hanging)
        assert loader.load(sample(toy_clips[0])).frames.shape[0] == 12


def test_a_decoder_that_dies_is_an_error_and_is_replaced(tmp_path, toy_clips):
    hanging = tmp_path / "hangs.mp4"
    os.mkfifo(hanging)
    with VideoLoader(TOY) as loader:
        loader.load(sample(toy_clips[0]))
        child = loader._idle.get()
        assert child is not None
        os.kill(child._process.pid, signal.SIGSEGV)
        child._process.wait()
        loader._idle.put(child)
        with pytest.raises(VideoError, match="died on this file"):
            loader.load(sample(toy_clips[0]))
        assert loader.load(sample(toy_clips[0])).frames.shape[0] == 12


def test_threads_share_a_loader(toy_clips):
    results: dict[int, tuple[int, ...]] = {}
    with VideoLoader(TOY.model_copy(update={"num_workers": 2})) as loader:

        def work(i: int) -> None:
            results[i] = loader.load(sample(toy_clips[i % 4])).frames[0, 0, 0].tolist()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {i: decode(toy_clips[i % 4], TOY).frames[0, 0, 0].tolist() for i in range(8)}


def test_a_closed_loader_leaves_no_process_and_refuses_work(toy_clips):
    loader = VideoLoader(TOY)
    loader.load(sample(toy_clips[0]))
    child = loader._idle.get()
    assert child is not None
    loader._idle.put(child)
    loader.close()
    loader.close()
    assert child._process.poll() is not None
    with pytest.raises(RuntimeError, match="closed"):
        loader.load(sample(toy_clips[0]))
